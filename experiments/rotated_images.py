"""Rotated images: the share of faces found, and the error of their landmarks.

    python experiments/rotated_images.py --data ../shared/data/ibug68 --out docs/measured/rotated_images.json

Every test image is rotated about its centre on a grey canvas, and given to `Detector.detect`. A face counts as found if some
detected face has an NME below 8 %; the NME is the mean over these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from measurement import make_parser, markdown_table, percent, read_tests, write_json

from fewmark.core.geometry import Image, Similarity, warp_image
from fewmark.data.crops import FILL
from fewmark.data.images import read_image
from fewmark.inference.detector import Detector
from fewmark.landmarks.metrics import landmark_errors, normalising_lengths
from fewmark.landmarks.scheme import load_scheme

ANGLES = (0, 30, 45, 60, 90, 135, 180)
FOUND = 0.08


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", default="ibug-68")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    scheme = load_scheme("ibug-68")
    samples = [s for part in read_tests(arguments.data).values() for s in part]
    detector, rows = Detector.load(arguments.model), []
    for angle in ANGLES:
        nmes = []
        for s in samples:
            assert s.landmarks is not None
            image, canvas_from_image = rotated(read_image(s.image), angle)
            true = canvas_from_image(s.landmarks)[None]
            length = normalising_lengths(true, None, scheme.get_normalizer(scheme.default_normalizer))
            found = [f.landmarks for f in detector.detect(image)]
            nmes.append(min((float(np.mean(landmark_errors(p[None], true) / length)) for p in found), default=math.inf))
        right = [v for v in nmes if v < FOUND]
        rows.append({"angle": angle, "n_faces": len(nmes), "n_found": len(right), "nme": float(np.mean(right))})
        print(rows[-1], flush=True)
    write_json(arguments.out, {"model": arguments.model, "rows": rows})


def rotated(image: Image, angle: float) -> tuple[Image, Similarity]:
    """The image rotated counter-clockwise on a square canvas that holds it, and the map from the image to the canvas."""
    height, width = image.shape[:2]
    side = math.ceil(math.hypot(height, width)) + 2
    middle = ((side - 1) / 2, (side - 1) / 2)
    canvas_from_image = Similarity.about(((width - 1) / 2, (height - 1) / 2), middle, angle=angle)
    return warp_image(image, canvas_from_image, (side, side), fill=FILL), canvas_from_image


def as_table(rows: Sequence[Mapping[str, float]]) -> str:
    """A Markdown table of the JSON file's rows."""
    table = [[f"{r['angle']}°", f"{r['n_found']} of {r['n_faces']}", percent(r["nme"])] for r in rows]
    return markdown_table(["rotated by", "found with NME below 8 %", "their NME"], table)


if __name__ == "__main__":
    main()
