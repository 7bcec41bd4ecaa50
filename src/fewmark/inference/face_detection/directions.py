"""Find faces that are not upright: search the image rotated by quarter turns."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import Box, box_centre, box_size, wrap_angle
from fewmark.inference.face_detection.base import DetectedFace, FaceDetector

OTHER_DIRECTIONS = (90.0, 180.0, -90.0)
"""In-plane rotations of faces besides the upright ones, degrees counter-clockwise."""


def detect_in_direction(
    face_detector: FaceDetector, image: NDArray[np.uint8], direction: float = 0.0
) -> list[DetectedFace]:
    """Find the faces that are rotated by about `direction`.

    Args:
        face_detector: Finds upright faces.
        image: (H, W, 3) RGB.
        direction: A multiple of 90, degrees counter-clockwise; the face detector sees the image rotated back by it.

    Returns:
        Boxes in the image, and angles to it; the largest first.
    """
    turns = round(-direction / 90) % 4
    if turns == 0:
        return face_detector(image)
    found = face_detector(np.ascontiguousarray(np.rot90(image, turns)))
    return [
        DetectedFace(
            box_before_turns(f.box_xyxy, turns, (image.shape[0], image.shape[1])),
            f.score,
            None if f.angle is None else wrap_angle(f.angle + direction),
        )
        for f in found
    ]


def box_before_turns(box_xyxy: Box, turns: int, size: tuple[int, int]) -> Box:
    """Map a box in `np.rot90(image, turns)` to the image.

    Args:
        box_xyxy: (4,) px of the rotated image.
        turns: 0 to 3.
        size: (H, W) of the image, px.

    >>> box_before_turns(np.array([-0.5, 1.5, 2.5, 3.5], np.float32), 1, (3, 10)).tolist()
    [5.5, -0.5, 7.5, 2.5]
    """
    height, width = size
    x0, y0, x1, y1 = box_xyxy.tolist()
    before = {
        0: (x0, y0, x1, y1),
        1: (width - 1 - y1, x0, width - 1 - y0, x1),  # column x of the image is row width - 1 - x
        2: (width - 1 - x1, height - 1 - y1, width - 1 - x0, height - 1 - y0),
        3: (y0, height - 1 - x1, y1, height - 1 - x0),
    }
    return np.array(before[turns], np.float32)


def upright_box(box_xyxy: Box, angle: float) -> Box:
    """The box (4,) of a face rotated upright about its centre, from its box in the image: a box on its side is turned."""
    if abs(math.sin(math.radians(angle))) < abs(math.cos(math.radians(angle))):
        return box_xyxy
    centre, half = box_centre(box_xyxy), box_size(box_xyxy)[::-1] / 2
    return np.concatenate([centre - half, centre + half]).astype(np.float32)
