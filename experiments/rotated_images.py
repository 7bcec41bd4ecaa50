"""Whole images, turned: how many of their faces are found, and how well their landmarks lie.

    python experiments/rotated_images.py --data ../shared/data/ibug68 --out docs/measured/rotated_images.json

Every test image is turned about its middle, grey where it ends; faces are looked for as `Detector.detect` does. A face is found where some
answer has an NME below 8 %; the NME is the mean over these.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmark.core.files import write_text
from fewmark.core.geometry import Similarity, warp_image
from fewmark.data.crops import FILL
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.inference.detector import Detector
from fewmark.landmarks.metrics import landmark_errors, normalising_lengths
from fewmark.landmarks.scheme import load_scheme

ANGLES = (0, 30, 45, 60, 90, 135, 180)
LISTS = ("common", "challenging")
FOUND = 0.08


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the ibug68 folder")
    parser.add_argument("--model", default="ibug-68")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    scheme = load_scheme("ibug-68")
    faces = read_faces(arguments.data, scheme=scheme)
    samples = [s for name in LISTS for s in select(faces, arguments.data / f"test_{name}.txt")]
    detector, rows = Detector.load(arguments.model), []
    for angle in ANGLES:
        nmes = []
        for s in samples:
            assert s.landmarks is not None
            image, turned_from_image = turned(read_image(s.image), angle)
            true = turned_from_image(s.landmarks)[None]
            length = normalising_lengths(true, None, scheme.get_normalizer(scheme.default_normalizer))
            found = [f.landmarks for f in detector.detect(image)]
            nmes.append(min((float(np.mean(landmark_errors(p[None], true) / length)) for p in found), default=math.inf))
        right = [v for v in nmes if v < FOUND]
        rows.append({"angle": angle, "n_faces": len(nmes), "n_found": len(right), "nme": float(np.mean(right))})
        print(rows[-1], flush=True)
    write_text(arguments.out, json.dumps({"model": arguments.model, "rows": rows}, indent=1) + "\n")


def turned(image: NDArray[np.uint8], angle: float) -> tuple[NDArray[np.uint8], Similarity]:
    """The image turned counter-clockwise in a square that holds it, and the map to it."""
    height, width = image.shape[:2]
    side = math.ceil(math.hypot(height, width)) + 2
    middle = ((side - 1) / 2, (side - 1) / 2)
    turned_from_image = Similarity.about(((width - 1) / 2, (height - 1) / 2), middle, angle=angle)
    return warp_image(image, turned_from_image, (side, side), fill=FILL), turned_from_image


def as_table(rows: Sequence[Mapping[str, float]]) -> str:
    """What the JSON holds, for docs/results.md."""
    lines = ["| turned by | found with NME below 8 % | their NME |", "|---|---|---|"]
    lines += [f"| {r['angle']}° | {r['n_found']} of {r['n_faces']} | {100 * r['nme']:.2f} % |" for r in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
