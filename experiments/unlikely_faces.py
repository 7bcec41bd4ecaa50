"""Detected faces that `Detector.is_face` keeps and leaves out, on photographs in which some faces are labelled.

    python experiments/unlikely_faces.py --mtfl ../shared/data/mtfl5 --afw ../shared/data/scenes_afw --out docs/measured/unlikely_faces.json

Photographs: every fifth image of MTFL, in each of which one face is labelled with five landmarks by hand, and those of AFW, whose listed faces
have 68. A detected face is a labelled one if its box holds the centre of the labels and no other box's centre is nearer. Its landmarks are
usable if none of the five (centres of the eyes, nose, corners of the mouth) is farther from its label than a fifth of the longer side of the labels'
box. The other detected faces are people next to the labelled ones, and no faces; they were not counted apart. The threshold of `is_face` was chosen on images of
MTFL; nothing was chosen on those of AFW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, markdown_table, write_json
from numpy.typing import NDArray

from fewmark.core.geometry import box_centre, box_of_points, box_size
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.inference.detector import Detector
from fewmark.inference.face import Face

EVERY = 5
USABLE = 0.2
"""Largest error of usable landmarks, as a fraction of the longer side of the labels' box."""
KINDS = ("usable", "not usable", "others")

Points = NDArray[np.float32]


def main() -> None:
    parser = make_parser(__doc__, data="")
    parser.add_argument("--mtfl", type=Path, required=True, help="the mtfl5 folder")
    parser.add_argument("--afw", type=Path, required=True, help="the scenes_afw folder")
    parser.add_argument("--models", nargs="+", default=["ibug-68-nano", "ibug-68", "ibug-68-large-int8"])
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    arguments = parser.parse_args()
    photographs = {
        "MTFL": dict(list(labels_by_image(arguments.mtfl).items())[::EVERY]),
        "AFW": labels_by_image(arguments.afw),
    }
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        detector = Detector.load(model, keep_unlikely=True)
        for name, labels in photographs.items():
            rows.append({"model": model, "photographs": name, "n_images": len(labels), **measure(detector, labels)})
            print(rows[-1], flush=True)
    write_json(arguments.out, rows)


def labels_by_image(data: Path) -> dict[Path, list[Points]]:
    """Image -> the five landmarks (5, 2) of each of its labelled faces."""
    found: dict[Path, list[Points]] = {}
    for s in read_faces(data):
        if s.landmarks is not None:
            found.setdefault(s.image, []).append(five_of(s.landmarks) if len(s.landmarks) == 68 else s.landmarks)
    return found


def measure(detector: Detector, labels: Mapping[Path, Sequence[Points]]) -> dict[str, dict[str, int]]:
    """Kind of detected face -> how many are kept and left out.

    Args:
        detector: One that keeps unlikely faces.
        labels: Image -> the five landmarks of each labelled face.
    """
    strict = Detector(detector.checkpoint, predictor=detector.predictor)
    counts = {kind: {"kept": 0, "left out": 0} for kind in KINDS}
    for path, labelled in labels.items():
        faces = detector.detect(read_image(path))
        label_of = {find_labelled(faces, five): five for five in labelled}
        for i, face in enumerate(faces):
            kind = "others" if i not in label_of else "usable" if is_usable(face, label_of[i]) else "not usable"
            counts[kind]["kept" if strict.is_face(face.scores) else "left out"] += 1
    return counts


def five_of(points: Points) -> Points:
    """Centres of the eyes, nose and corners of the mouth of ibug-68, (68, 2) -> (5, 2)."""
    return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def find_labelled(faces: Sequence[Face], five: Points) -> int | None:
    """Index of the detected face that is the labelled one; None if there is none."""
    middle = box_centre(box_of_points(five))
    distances = [float((np.abs(middle - box_centre(f.box)) / box_size(f.box)).max()) for f in faces]
    return int(np.argmin(distances)) if distances and min(distances) <= 0.5 else None


def is_usable(face: Face, five: Points) -> bool:
    """Whether all five landmarks are near their labels."""
    worst = np.linalg.norm(five_of(face.landmarks) - five, axis=1).max()
    return bool(worst <= USABLE * box_size(box_of_points(five)).max())


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of the JSON file: kept and left out of every kind."""
    head = ["photographs", "model", "labelled faces, landmarks usable: kept, left out"]
    head += ["labelled faces, not usable: kept, left out", "other detected faces: kept, left out"]
    table = []
    for r in rows:
        counts = [f"{r[kind]['kept']}, {r[kind]['left out']}" for kind in KINDS]
        table.append([f"{r['photographs']} ({r['n_images']})", f"`{r['model']}`", *counts])
    return markdown_table(head, table)


if __name__ == "__main__":
    main()
