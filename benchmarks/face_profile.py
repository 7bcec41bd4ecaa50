"""Time of each part of a face's prediction on one thread, and the share of the machine's peak in multiply-adds.

    python benchmarks/face_profile.py --json docs/measured/face_profile.json

For every packaged model that ONNX Runtime can run: a 180 px face in an image in memory, with its box, one pass, one view. Parts:
the crop, the network (by kinds of operators, as in ONNX Runtime's profile), and the rest, which is Python. The peak is that
of ONNX Runtime in float32: a product of matrices of 1024 x 1024, or a 3 x 3 convolution of 128 to 128 channels on 56 x 56
px, whichever is faster; peak and networks take turns, so that a busy machine slows both. Then whole images, 640 x 480 with one face:
the time of the face detector and the rest of the same call. All times are the least of many calls.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from fewmark.data.crops import cut_from_image
from fewmark.data.synthetic.faces import render_face
from fewmark.inference.checkpoint.exported import read_exported
from fewmark.inference.checkpoint.metadata import packaged_names, read_metadata, resolve_model
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import DetectedFace, SlimeFaceDetector
from fewmark.inference.predictor_onnx import OnnxPredictor, find_onnx_export
from fewmark.landmarks.scheme import load_scheme
from fewmark.models.build import build_model, count_multiply_adds

SIDE = 180
"""Longer side of the face's box, px."""
MATRIX, CHANNELS, IMAGE = 1024, 128, 56
WORK = ("Conv", "FusedConv", "ConvTranspose", "QLinearConv")
"""Operators that count as multiply-adds."""


def least_ms(run: Callable[[], object], n: int) -> float:
    """The least time of n calls in milliseconds."""
    best = float("inf")
    for _ in range(n):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return 1000 * best


def image_with_face(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """An image with a synthetic face of `SIDE` px in its centre, and the face's box."""
    face = render_face(np.random.default_rng(0), scheme=load_scheme("ibug-68"))
    scale = SIDE / float((face.box[2:] - face.box[:2]).max())
    small = cv2.resize(face.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    image = np.full((height, width, 3), 127, np.uint8)
    y, x = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    image[y : y + small.shape[0], x : x + small.shape[1]] = small
    return image, (face.box * scale + [x, y, x, y]).astype(np.float32)


def peak_sessions() -> list[tuple[float, Callable[[], object]]]:
    """Millions of multiply-adds of a matrix product and of a convolution, and a function that runs each on one thread."""
    rng = np.random.default_rng(0)
    n, c, size = MATRIX, CHANNELS, IMAGE
    cases: list[tuple[float, str, tuple[int, ...], tuple[int, ...], dict[str, list[int]]]] = [
        (n**3 / 1e6, "MatMul", (n, n), (n, n), {}),
        (c * c * 9 * size * size / 1e6, "Conv", (1, c, size, size), (c, c, 3, 3), {"pads": [1, 1, 1, 1]}),
    ]
    found = []
    for work, kind, given, weights, attributes in cases:
        values = rng.standard_normal(weights, np.float32)
        w = helper.make_tensor("w", TensorProto.FLOAT, weights, values.tobytes(), raw=True)
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, given) for name in "xy")
        graph = helper.make_graph([helper.make_node(kind, ["x", "w"], ["y"], **attributes)], "peak", [x], [y], [w])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feed = {"x": rng.standard_normal(given, np.float32)}
        found.append((work, partial(session.run, None, feed)))
    return found


def peak_gmacs(sessions: Sequence[tuple[float, Callable[[], object]]]) -> float:
    """Billions of multiply-adds per second of the faster session."""
    return max(work / least_ms(run, 5) for work, run in sessions)


def time_operators(model: str, crop: NDArray[np.uint8], n: int) -> dict[str, float]:
    """Milliseconds per call by kind of operator, including the cost of profiling."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.enable_profiling = 1, True
        options.log_severity_level = 3
        options.profile_file_prefix = str(Path(folder) / "profile")
        path = resolve_model(model)
        exported = read_exported(path) if path.suffix == ".onnx" else find_onnx_export(path)
        assert exported is not None
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(exported.path.absolute().parent)
        )
        session = onnxruntime.InferenceSession(exported.graph, options, providers=["CPUExecutionProvider"])
        feed = {"crops": crop[None], "flip": np.array(False)}
        for _ in range(n):
            session.run(["landmarks", "scores"], feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    times: dict[tuple[str, str], list[float]] = {}
    for e in events:
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            times.setdefault((e["args"]["op_name"], e["name"]), []).append(e["dur"] / 1000)
    kinds: dict[str, float] = {}
    for (kind, _), values in times.items():
        kinds[kind] = kinds.get(kind, 0.0) + float(np.median(values))
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


class TimedFaceDetector:
    """The packaged face detector, with the time of its last call."""

    def __init__(self) -> None:
        self.face_detector, self.ms = SlimeFaceDetector(), 0.0

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        began = time.perf_counter()
        found = self.face_detector(image)
        self.ms = 1000 * (time.perf_counter() - began)
        return found


def profile_model(model: str, repeats: int, peak: Callable[[], float]) -> dict[str, Any]:
    """Times of a model: a face's parts, and a whole image."""
    face_detector = TimedFaceDetector()
    detector = Detector.load(model, threads=1, runtime="onnx", face_detector=face_detector)
    assert isinstance(detector.predictor, OnnxPredictor)
    image, box = image_with_face(480, 640)
    rule = detector.checkpoint.crop
    crop = cut_from_image(image, rule.crop_from_image(box), rule.size)
    parts = {
        "whole_ms": lambda: detector.detect(image, box[None], flip=False),
        "crop_ms": lambda: cut_from_image(image, rule.crop_from_image(box), rule.size),
        "network_ms": lambda: detector.predictor.predict_crops(crop[None], flip=False),
    }
    best = dict.fromkeys((*parts, "detect_ms", "face_detector_ms", "added_ms"), float("inf"))
    best_peak = 0.0
    for _ in range(6):
        best_peak = max(best_peak, peak())
        for name, run in parts.items():
            best[name] = min(best[name], least_ms(run, max(3, repeats // 6)))
        for _ in range(max(3, repeats // 30)):
            whole = least_ms(lambda: detector.detect(image, flip=False), 1)
            for name, ms in (
                ("detect_ms", whole),
                ("face_detector_ms", face_detector.ms),
                ("added_ms", whole - face_detector.ms),
            ):
                best[name] = min(best[name], ms)
    networks = [build_model(s["architecture"], **s["arguments"]) for s in read_metadata(model)["students"]]
    work = sum(count_multiply_adds(network, rule.size) for network in networks)
    operators = time_operators(model, crop, repeats)
    convolutions = sum(v for k, v in operators.items() if k in WORK)
    return {
        "model": model,
        "multiply_adds": work,
        **best,
        "python_ms": best["whole_ms"] - best["crop_ms"] - best["network_ms"],
        "operators_ms": operators,
        "convolutions_share": convolutions / max(sum(operators.values()), 1e-9),
        "gmacs": work / 1e6 / best["network_ms"],
        "gmacs_peak": best_peak,
        "of_peak": work / 1e6 / best["network_ms"] / best_peak,
    }


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two Markdown tables of the JSON file."""
    lines = [
        "| model | multiply-adds | a face, ms | crop | network | of it convolutions | Python | G multiply-adds a second | of the peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = sorted(rows, key=lambda r: (float(r["multiply_adds"]), str(r["model"])))
    for r in rows:
        times = " | ".join(f"{r[k]:.2f}" for k in ("whole_ms", "crop_ms", "network_ms"))
        speed = f"{r['gmacs']:.0f} | {100 * r['of_peak']:.0f} % of {r['gmacs_peak']:.0f}"
        lines.append(
            f"| `{r['model']}` | {r['multiply_adds'] / 1e6:.0f} M | {times} | {100 * r['convolutions_share']:.0f} % | "
            f"{r['python_ms']:.2f} | {speed} |"
        )
    lines += ["", "| model | 640 x 480, one face: ms | face detector | added |", "|---|---|---|---|"]
    lines += [
        f"| `{r['model']}` | {r['detect_ms']:.1f} | {r['face_detector_ms']:.1f} | {r['added_ms']:.1f} |" for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models",
        nargs="+",
        default=packaged_names(),
        help="names or files, exported or with an .onnx file next to them",
    )
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    sessions = peak_sessions()
    rows = [profile_model(m, given.repeats, lambda: peak_gmacs(sessions)) for m in given.models]
    for r in rows:
        kinds = ", ".join(f"{k} {v:.2f}" for k, v in list(r["operators_ms"].items())[:6])
        print(
            f"{r['model']}: {r['multiply_adds'] / 1e6:.0f} M multiply-adds; a face {r['whole_ms']:.2f} ms = crop {r['crop_ms']:.2f} + "
            f"network {r['network_ms']:.2f} + Python {r['python_ms']:.2f}; {r['gmacs']:.0f} G a second, {100 * r['of_peak']:.0f} % of "
            f"the peak of {r['gmacs_peak']:.0f}; operators: {kinds}; 640 x 480: {r['detect_ms']:.1f} ms = face detector "
            f"{r['face_detector_ms']:.1f} + {r['added_ms']:.1f}"
        )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
