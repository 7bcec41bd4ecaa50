"""Time per face with torch and with ONNX Runtime on one thread, and the time to a process's first landmarks.

Both process the same crops of synthetic faces in turns, so that a busy machine slows both; the least time of all turns counts.

    python benchmarks/runtime.py --json docs/measured/runtime.json
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch

from fewmark.data.synthetic.faces import render_face
from fewmark.inference.detector import Detector
from fewmark.inference.export.graph import synthetic_crops
from fewmark.inference.export.onnx import export_onnx
from fewmark.landmarks.scheme import load_scheme

BATCHES = (1, 32)
COLD = """
from fewmark import Detector
detector = Detector.load({model!r}, threads=1, runtime={runtime!r})
detector.detect({image!r}, [[30, 30, 130, 130]])
"""
STARTS = {"python alone": "pass", "import fewmark": "import fewmark"}


def time_faces(model: str, n_repeats: int) -> list[dict[str, float | int | bool]]:
    """Milliseconds per face of the networks, from the crop's bytes to the landmarks."""
    predictors = {name: Detector.load(model, threads=1, runtime=name).predictor for name in ("torch", "onnx")}  # type: ignore[arg-type]
    rows = []
    for batch in BATCHES:
        crops = synthetic_crops(batch, predictors["onnx"].checkpoint.crop)
        for flip in (True, False):
            best = dict.fromkeys(predictors, float("inf"))
            for _ in range(n_repeats):
                for name, predictor in predictors.items():
                    began = time.perf_counter()
                    predictor.predict_crops(crops, flip=flip)
                    best[name] = min(best[name], 1000 * (time.perf_counter() - began) / batch)
            points = [predictor.predict_crops(crops, flip=flip).landmarks for predictor in predictors.values()]
            row: dict[str, float | int | bool] = {"batch": batch, "flip": flip}
            row |= {f"{name}_ms": ms for name, ms in best.items()}
            row |= {"ratio": best["torch"] / best["onnx"], "difference_px": float(np.abs(points[0] - points[1]).max())}
            rows.append(row)
    return rows


def time_starts(model: str, n_repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of whole processes: wall-clock and processor time."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        image = str(Path(folder) / "face.png")
        face = render_face(np.random.default_rng(0), scheme=load_scheme("ibug-68"))
        cv2.imwrite(image, face.image[..., ::-1])
        codes = STARTS | {
            f"first landmarks by {runtime}": COLD.format(model=model, runtime=runtime, image=image)
            for runtime in ("onnx", "torch")
        }
        for _ in range(n_repeats):
            for name, code in codes.items():
                before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True)
                wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                best = found.setdefault(name, {"wall_s": wall, "cpu_s": cpu})
                found[name] = {"wall_s": min(wall, best["wall_s"]), "cpu_s": min(cpu, best["cpu_s"])}
    return found


def export_sizes(model: str) -> dict[str, float | int]:
    """Size of an exported model in bytes, and its largest difference from torch on synthetic faces."""
    with tempfile.TemporaryDirectory() as folder:
        made = export_onnx(model, Path(folder) / "model.onnx")
    return {"n_bytes": made.n_bytes, "parity_px": made.parity_px}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ibug-68", help="a model with an .onnx file next to it")
    parser.add_argument("--repeats", type=int, default=30, help="repeats of every batch")
    parser.add_argument("--starts", type=int, default=5, help="repeats of every process")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "model": given.model,
        "threads": 1,
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "numpy")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "export": export_sizes(given.model),
        "faces": time_faces(given.model, given.repeats),
        "starts": time_starts(given.model, given.starts),
    }
    for row in result["faces"]:
        print(
            "batch {batch:2} flip {flip!s:5} torch {torch_ms:7.2f} ms, onnx {onnx_ms:7.2f} ms, ratio {ratio:.2f}".format(
                **row
            )
        )
    for name, seconds in result["starts"].items():
        print(f"{name:24} {seconds['wall_s']:.2f} s, processor {seconds['cpu_s']:.2f} s")
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
