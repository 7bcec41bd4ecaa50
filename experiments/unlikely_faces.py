"""What the face detector finds, and what `Detector.is_face` takes for no face: on photographs in which one face is labelled.

    python experiments/unlikely_faces.py --data ../shared/data/mtfl5 --out docs/measured/unlikely_faces.json

Every fifth image of MTFL, whose labelled face has five landmarks by hand. A find is the labelled face where it is the one whose box overlaps the
labelled landmarks' most, and covers at least half of that. Its landmarks are usable where none of the five (eyes' centres, nose, corners
of the mouth) is further from the label than a fifth of the labelled landmarks' longer side. Other finds are people beside it, and no faces; nobody counted which.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmark.core.files import write_text
from fewmark.core.geometry import box_of_points, box_size
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.inference.detector import Detector
from fewmark.inference.face import Face

EVERY, USABLE = 5, 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the mtfl5 folder")
    parser.add_argument("--models", nargs="+", default=["ibug-68-nano", "ibug-68", "ibug-68-large-int8"])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    samples = [s for s in read_faces(arguments.data) if s.landmarks is not None][::EVERY]
    result = {}
    for name in arguments.models:
        detector = Detector.load(name, keep_unlikely=True)
        judge = Detector(detector.checkpoint, predictor=detector.predictor)
        counts = {"images": len(samples), "usable": [0, 0], "not usable": [0, 0], "others": [0, 0]}
        for s in samples:
            assert s.landmarks is not None
            faces = detector.detect(read_image(s.image))
            own = labelled_face(faces, s.landmarks)
            for i, face in enumerate(faces):
                kind = "others" if i != own else "usable" if is_usable(face, s.landmarks) else "not usable"
                counts[kind][int(not judge.is_face(face.scores))] += 1
        result[name] = {k: v if isinstance(v, int) else {"kept": v[0], "left out": v[1]} for k, v in counts.items()}
        print(name, result[name], flush=True)
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")


def labelled_face(faces: list[Face], five: NDArray[np.float32]) -> int | None:
    """The place of the labelled face among the found ones."""
    x0, y0, x1, y1 = box_of_points(five)
    covered = []
    for face in faces:
        a0, b0, a1, b1 = face.box
        inside = max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
        covered.append(inside / max((x1 - x0) * (y1 - y0), 1e-6))
    if not covered or max(covered) < 0.5:
        return None
    return int(np.argmax(covered))


def is_usable(face: Face, five: NDArray[np.float32]) -> bool:
    """Whether all five landmarks are near their labels."""
    p = face.landmarks
    mine = np.stack([p[36:42].mean(0), p[42:48].mean(0), p[30], p[48], p[54]])
    return bool(np.linalg.norm(mine - five, axis=1).max() <= USABLE * box_size(box_of_points(five)).max())


if __name__ == "__main__":
    main()
