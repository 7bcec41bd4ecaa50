"""Other landmark detectors on the test lists: landmarks, errors and time per face, as in Table 2 of the coarse-to-fine paper.

    cp -r ../shared/peers runs/peers && runs/peers/setup.sh && runs/peers/.venv/bin/pip install -q pillow safetensors
    PYTHONPATH=src runs/peers/.venv/bin/python experiments/peers_landmarks.py --peers-folder runs/peers \
        --data ../shared/data/ibug68 --out runs/peers-measured

`--models NAME...` also measures models of fewmark in the same run, by ONNX Runtime on one thread.

Needs the folder's compare.py and the packages of its setup.sh, pillow and safetensors; no torch. A peer is a class of
compare.py with `predict(bgr, box)`; the box is the tight one of the true landmarks, which the peer widens as its authors do.
dlib68-own-hog-box detects the face itself: if its HOG detector finds none that overlaps the true box, the face has no landmarks. compare.py
falls back to the true box there; its results are a row of their own, "... or GT box".

Writes two files:

- peers_landmarks.json: {"faces": [name], "peers": {peer: {"points", "model_mb", "licence", "ms", "landmarks"}}}; `landmarks` has one
  entry per face: 68 of [x, y] (image px, 0-based, (0, 0) the centre of the first pixel), or null where the peer found nothing;
  `ms` is the mean over the faces of the least processor time of `--repeats` predictions, on one thread, image in memory.
- peers.json: the same without landmarks, with NME, AUC and failure rate of each list. A face without landmarks is a failure and
  counts 0 in AUC; it is left out of the mean NME and counted as `n_undetected`.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measurement import TESTS, cpu_ms, make_parser, markdown_table, percent, read_tests, write_json
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_of_points
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.inference.detector import Detector
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import load_scheme

PEERS = ("dlib68", "dlib68-own-hog-box", "pfld68-cunjian", "mediapipe-mesh", "face-api-68", "face-api-68-tiny")
TRAINED_ON_TEST_DATA = ("dlib68", "dlib68-own-hog-box", "pfld68-cunjian")
"""Peers whose training sets contain AFW, the source of the challenging faces, and perhaps HELEN's test faces; marked † in tables."""
OR_TRUE_BOX = " or GT box"
"""Suffix of a peer that detects the face itself: its landmarks, or those in the true box where it finds none."""
NORMALIZER = "outer-eye-corners"

Numbers = dict[str, Any]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--peers-folder", type=Path, required=True, help="folder of compare.py in which setup.sh has run"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", nargs="+", default=list(PEERS))
    parser.add_argument("--models", nargs="*", default=[], help="models of fewmark to measure too")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs for each face")
    arguments = parser.parse_args()
    compare = load_compare(arguments.peers_folder)
    lists = read_tests(arguments.data)
    samples = [s for part in lists.values() for s in part]
    images = [np.ascontiguousarray(read_image(s.image)[..., ::-1]) for s in samples]
    found: dict[str, Numbers] = {}
    for name in arguments.peers:
        found[name], in_true_box = run_peer(compare, name, images, samples, arguments.repeats)
        if in_true_box:
            filled = [a if b is None else b for a, b in zip(in_true_box, found[name]["landmarks"], strict=True)]
            found[name + OR_TRUE_BOX] = {**found[name], "landmarks": filled}
        print(f"{name}: {found[name]['ms']:.2f} ms a face", flush=True)
    for name in arguments.models:
        found[f"fewmark {name}"] = run_model(name, samples, arguments.repeats)
        print(f"fewmark {name}: {found[f'fewmark {name}']['ms']:.2f} ms a face", flush=True)
    faces = {"faces": [s.name for s in samples], "peers": found}
    write_json(arguments.out / "peers_landmarks.json", faces, indent=None)
    loaded = read_landmarks(arguments.out / "peers_landmarks.json", samples)
    rows = [
        {"name": n, **{k: v for k, v in found[n].items() if k != "landmarks"}, **score_lists(loaded[n], lists)}
        for n in found
    ]
    write_json(arguments.out / "peers.json", rows)
    print(as_table(rows))


def load_compare(folder: Path) -> Any:
    """The folder's compare.py as a module, with one thread per peer."""
    path = folder / "compare.py"
    if not path.is_file():
        raise InputError(f"{path}: not found; expected the peers' folder in which setup.sh has run")
    os.environ["PEER_THREADS"] = "1"
    spec = importlib.util.spec_from_file_location("compare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_peer(
    compare: Any, name: str, images: Sequence[NDArray[np.uint8]], samples: Sequence[FaceSample], repeats: int
) -> tuple[Numbers, list[Any]]:
    """Measure a peer.

    Args:
        compare: The module of `load_compare`.
        name: One of its landmark peers.
        images: (H, W, 3) BGR, one per face.
        samples: Labelled faces.
        repeats: Timed runs for each face.

    Returns:
        its landmarks, time, size and licence; and its landmarks in the true boxes of the faces that it did not find, None for
        all others, or [] if it found all.
    """
    known = {c.name: c for c in compare.LM}
    if name not in known:
        raise InputError(f"--peers: expected some of {', '.join(known)}, given {name!r}")
    missing = [f for f in known[name].files if not Path(compare.W, f).is_file()]
    if missing:
        raise InputError(f"{Path(compare.W, missing[0])}: not found; run setup.sh in the peers' folder")
    cv2.setNumThreads(1)
    peer = known[name]()
    boxes = [box_of_points(s.landmarks).astype(float) for s in samples if s.landmarks is not None]
    landmarks: list[Any] = []
    in_true_box: list[Any] = []
    for image, box in zip(images, boxes, strict=True):
        n_found = getattr(peer, "hit", None)  # a peer that detects the face itself counts the faces it found
        points = peer.predict(image, tuple(box))
        unseen = n_found is not None and peer.hit == n_found
        rounded = np.round(points, 2).tolist()
        landmarks.append(None if unseen else rounded)
        in_true_box.append(rounded if unseen else None)
    numbers = {
        "points": peer.n,
        "model_mb": sum(Path(compare.W, f).stat().st_size for f in peer.files) / 1e6,
        "licence": peer.licence,
        "ms": cpu_ms(lambda i: peer.predict(images[i], tuple(boxes[i])), range(len(images)), repeats),
        "landmarks": landmarks,
    }
    return numbers, in_true_box if any(in_true_box) else []


def run_model(name: str, samples: Sequence[FaceSample], repeats: int) -> Numbers:
    """Measure a model of fewmark in the true boxes, on one thread; see `run_peer`."""
    cv2.setNumThreads(1)
    detector = Detector.load(name, threads=1, runtime="onnx")
    images = [read_image(s.image) for s in samples]
    boxes = [box_of_points(s.landmarks) for s in samples if s.landmarks is not None]
    landmarks = [detector.detect(i, b)[0].landmarks for i, b in zip(images, boxes, strict=True)]
    return {
        "points": detector.scheme.n_landmarks,
        "model_mb": resolve_model(name).stat().st_size / 1e6,
        "licence": detector.checkpoint.licence,
        "ms": cpu_ms(lambda i: detector.detect(images[i], boxes[i]), range(len(images)), repeats),
        "landmarks": [np.round(p.astype(float), 2).tolist() for p in landmarks],
    }


def read_landmarks(path: Path, samples: Sequence[FaceSample]) -> dict[str, NDArray[np.float64]]:
    """Landmarks of a peers_landmarks.json: peer -> (N, 68, 2) image px, NaN where it found nothing.

    Raises:
        InputError: The file cannot be read, is of another kind, or lacks one of the faces.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = {name: i for i, name in enumerate(data["faces"])}
        lacking = [s.name for s in samples if s.name not in rows]
        if lacking:
            raise InputError(f"{path}: has no face {lacking[0]!r}; run peers_landmarks.py on the same data")
        order = [rows[s.name] for s in samples]
        nothing = np.full((68, 2), np.nan).tolist()
        return {
            peer: np.array([entry["landmarks"][i] or nothing for i in order], np.float64).reshape(-1, 68, 2)
            for peer, entry in data["peers"].items()
        }
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); peers_landmarks.py writes it") from error
    except (KeyError, TypeError, IndexError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: expected a file that peers_landmarks.py wrote, given another ({error!r})") from error


def score_lists(points: NDArray[np.floating[Any]], lists: Mapping[str, Sequence[FaceSample]]) -> dict[str, Numbers]:
    """NME, AUC and failure rate (fractions) of each list and of all together, "full".

    Args:
        points: (N, 68, 2) image px of the lists' faces in order, NaN where nothing was found.
        lists: Name -> labelled faces.
    """
    scheme = load_scheme("ibug-68")
    true = np.stack([s.landmarks for part in lists.values() for s in part if s.landmarks is not None])
    ends = np.cumsum([0, *map(len, lists.values())])
    rows = {name: slice(a, b) for name, a, b in zip(lists, ends[:-1], ends[1:], strict=True)}
    result = {}
    for name, part in {**rows, "full": slice(None)}.items():
        data = score(points[part], true[part], scheme, normalizer=NORMALIZER).to_dict()
        result[name] = {k: data[k] for k in ("nme", "auc", "failure_rate", "n_faces", "n_undetected")}
    return result


def name_in_tables(name: str) -> str:
    """The peer's name, marked if it was trained on test data."""
    return f"{name} †" if name.removesuffix(OR_TRUE_BOX) in TRAINED_ON_TEST_DATA else name


def as_table(rows: Sequence[Numbers]) -> str:
    """A Markdown table of rows with `name`, `ms` (None: not measured) and the lists' scores."""
    table = []
    for row in rows:
        full = row["full"]
        nmes = [percent(row[n]["nme"]) for n in (*TESTS, "full")]
        lost = f" ({full['n_undetected']} not found)" if full["n_undetected"] else ""
        rates = [percent(full["auc"], 1), percent(full["failure_rate"], 1) + lost]
        ms = "-" if row["ms"] is None else f"{row['ms']:.1f}"
        table.append([name_in_tables(row["name"]), *nmes, *rates, ms])
    return markdown_table(["detector", *TESTS, "full", "AUC, full", "failures, full", "ms a face"], table)


if __name__ == "__main__":
    main()
