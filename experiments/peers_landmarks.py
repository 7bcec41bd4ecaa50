"""Other people's detectors on the test lists: landmarks, errors and time of each face, as Table 2 of the coarse-to-fine paper asks.

    cp -r ../shared/peers runs/peers && runs/peers/setup.sh && runs/peers/.venv/bin/pip install -q pillow safetensors
    PYTHONPATH=src runs/peers/.venv/bin/python experiments/peers_landmarks.py --peers-folder runs/peers \
        --data ../shared/data/ibug68 --out runs/peers-measured

`--models NAME...` measures models of fewmark beside them, by ONNX Runtime on one thread, in the same run.

Needs the folder's compare.py and the packages of its setup.sh, pillow and safetensors; of fewmark only what needs no torch. A peer is a class of
compare.py with `predict(bgr, box)`; the box is the tight one of the true points, which the peer widens as its authors crop.
dlib68-own-hog-box looks for the face itself: where its HOG detector finds none that overlaps the true box, the face has no landmarks. compare.py
gives it the true box there and counts those landmarks; that is a row of its own, "... or GT box".

Writes two files:

- peers_landmarks.json: {"faces": [name], "peers": {peer: {"points", "model_mb", "licence", "ms", "landmarks"}}}; `landmarks` has one
  entry a face: 68 of [x, y] (image px, 0-based, (0, 0) the centre of the first pixel), or null where the peer found nothing;
  `ms` is the mean over the faces of the least process CPU time of `--repeats` looks at one, on one thread, image in memory.
- peers.json: the same without landmarks, with NME, AUC and failure rate of each list. A face without landmarks is a failure and
  counts 0 in AUC; it is left out of the mean NME and counted as `n_undetected`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.geometry import box_of_points
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.inference.detector import Detector
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import load_scheme

PEERS = ("dlib68", "dlib68-own-hog-box", "pfld68-cunjian", "mediapipe-mesh", "face-api-68", "face-api-68-tiny")
TRAINED_ON_TEST_DATA = ("dlib68", "dlib68-own-hog-box", "pfld68-cunjian")
"""Their training sets contain AFW, where the challenging faces are from, and perhaps HELEN's test faces; tables mark them with †."""
OR_TRUE_BOX = " or GT box"
"""After the name of a peer that looks for the face itself: its landmarks, or those in the true box where it finds none."""
LISTS = ("common", "challenging")
NORMALIZER = "outer-eye-corners"

Numbers = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers-folder", type=Path, required=True, help="with compare.py, and setup.sh run there")
    parser.add_argument("--data", type=Path, required=True, help="the ibug68 folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", nargs="+", default=list(PEERS))
    parser.add_argument("--models", nargs="*", default=[], help="of fewmark, measured too")
    parser.add_argument("--repeats", type=int, default=5, help="looks at each face, for the time")
    arguments = parser.parse_args()
    compare = load_compare(arguments.peers_folder)
    lists = read_lists(arguments.data)
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
    write_text(arguments.out / "peers_landmarks.json", json.dumps(faces) + "\n")
    loaded = read_landmarks(arguments.out / "peers_landmarks.json", samples)
    rows = [
        {"name": n, **{k: v for k, v in found[n].items() if k != "landmarks"}, **scores(loaded[n], lists)}
        for n in found
    ]
    write_text(arguments.out / "peers.json", json.dumps(rows, indent=1) + "\n")
    print(as_table(rows))


def load_compare(folder: Path) -> Any:
    """The folder's compare.py as a module, one thread a peer."""
    path = folder / "compare.py"
    if not path.is_file():
        raise InputError(f"{path}: not found; expected the peers' folder, in which setup.sh has been run")
    os.environ["PEER_THREADS"] = "1"
    spec = importlib.util.spec_from_file_location("compare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_lists(data: Path) -> dict[str, list[FaceSample]]:
    """The test lists of the ibug68 folder."""
    samples = read_faces(data, scheme=load_scheme("ibug-68"))
    return {name: select(samples, data / f"test_{name}.txt") for name in LISTS}


def run_peer(
    compare: Any, name: str, images: Sequence[NDArray[np.uint8]], samples: Sequence[FaceSample], repeats: int
) -> tuple[Numbers, list[Any]]:
    """What a peer says of every face, and its time; and what it says in the true boxes of the faces that it did not find, None for
    all others; [] if it found all.

    Args:
        compare: of `load_compare`.
        name: of one of its landmark peers.
        images: (H, W, 3) BGR, one a face.
        samples: labelled faces.
        repeats: looks at each face.
    """
    import cv2

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
        n_found = getattr(peer, "hit", None)  # a peer that looks for the face itself counts those it found
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
    """What a model of fewmark says of every face in its true box, and its time on one thread; see `run_peer`."""
    import cv2

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


def cpu_ms(look: Callable[[int], object], faces: Sequence[int], repeats: int) -> float:
    """Mean over the faces of the least process CPU time of several looks at each; all faces come in turn, so that other
    work on the machine does not fall on all looks at one."""
    times = np.zeros((repeats, len(faces)))
    for row in times:
        for j, i in enumerate(faces):
            began = time.process_time()
            look(i)
            row[j] = time.process_time() - began
    return float(1000 * times.min(0).mean())


def read_landmarks(path: Path, samples: Sequence[FaceSample]) -> dict[str, NDArray[np.float64]]:
    """Peer -> (N, 68, 2) image px of these faces, NaN where it found nothing; of a peers_landmarks.json.

    Raises:
        InputError: the file cannot be read, is another one, or lacks one of the faces.
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


def scores(points: NDArray[np.floating[Any]], lists: Mapping[str, Sequence[FaceSample]]) -> dict[str, Numbers]:
    """NME, AUC and failure rate (fractions) of each list and of all of them, "full".

    Args:
        points: (N, 68, 2) image px of the lists' faces in order, NaN where nothing was found.
        lists: name -> labelled faces.
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
    return f"{name} †" if name.removesuffix(OR_TRUE_BOX) in TRAINED_ON_TEST_DATA else name


def as_table(rows: Sequence[Numbers]) -> str:
    """A Markdown table of rows with `name`, `ms` (None: not measured) and the lists' `scores`."""
    lines = [
        "| detector | common | challenging | full | AUC, full | failures, full | ms a face |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        full = row["full"]
        nmes = [f"{100 * row[n]['nme']:.2f} %" for n in (*LISTS, "full")]
        lost = f" ({full['n_undetected']} not found)" if full["n_undetected"] else ""
        rates = [f"{100 * full['auc']:.1f} %", f"{100 * full['failure_rate']:.1f} %{lost}"]
        time_cell = "-" if row["ms"] is None else f"{row['ms']:.1f}"
        lines.append(f"| {' | '.join([name_in_tables(row['name']), *nmes, *rates, time_cell])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
