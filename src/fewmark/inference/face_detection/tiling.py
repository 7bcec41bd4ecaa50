"""Find small faces in large images: search overlapping tiles too."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_size
from fewmark.inference.face_detection.base import DetectedFace, FaceDetector, without_repeats


class TiledFaceDetector:
    """Searches the whole image, and tiles of it at their own resolution.

    Tiles are squares of `side` px, and of 2, 4, ... times as many until one would hold the image; tiles of one size overlap by a
    quarter. A box that touches a tile's edge inside the image is dropped: a neighbouring or larger tile holds the whole face. Of
    repeated finds the most confident is kept.

    Args:
        face_detector: Searches each tile; it may reduce what it is given.
        side: Side of the smallest tiles, px, best the size that `face_detector` does not reduce. The time grows with the number of
            tiles, about 2.4 times the image's area over a tile's.

    Raises:
        InputError: The side is below 64.
    """

    def __init__(self, face_detector: FaceDetector, side: int = 640) -> None:
        if side < 64:
            raise InputError(f"tiles: expected a side of 64 px or more, given {side}")
        self.face_detector, self.side = face_detector, side

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        faces = list(self.face_detector(image))
        height, width = image.shape[:2]
        side = self.side
        while side < max(height, width):
            for x0 in tile_starts(width, side):
                for y0 in tile_starts(height, side):
                    tile = np.ascontiguousarray(image[y0 : y0 + side, x0 : x0 + side])
                    for face in self.face_detector(tile):
                        box = face.box_xyxy + np.array([x0, y0, x0, y0], np.float32)
                        if not _is_cut(box, (x0, y0, x0 + tile.shape[1], y0 + tile.shape[0]), (width, height)):
                            faces.append(replace(face, box_xyxy=box))
            side *= 2
        return sorted(without_repeats(faces), key=lambda f: -float(box_size(f.box_xyxy).prod()))


def tile_starts(length: int, side: int) -> list[int]:
    """Start positions of tiles that cover a length, evenly spaced, overlapping by at least a quarter.

    >>> tile_starts(1000, 640)
    [0, 360]
    >>> tile_starts(600, 640)
    [0]
    """
    if length <= side:
        return [0]
    n = 1 + math.ceil((length - side) / (side * 0.75))
    return [round(i * (length - side) / (n - 1)) for i in range(n)]


def _is_cut(box: NDArray[np.float32], tile: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    """Whether a box reaches an edge of its tile that is not an edge of the image."""
    near = 0.02 * (tile[2] - tile[0])
    x0, y0, x1, y1 = tile
    return bool(
        (x0 > 0 and box[0] < x0 + near)
        or (y0 > 0 and box[1] < y0 + near)
        or (x1 < size[0] and box[2] > x1 - near)
        or (y1 < size[1] and box[3] > y1 - near)
    )
