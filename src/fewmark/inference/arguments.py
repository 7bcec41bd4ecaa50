"""Check what callers give a detector: one image or several, and boxes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Image
from fewmark.data.images import ImageLike, to_rgb


def read_request(
    image: ImageLike, boxes_xyxy: FloatArray | None, *, bgr: bool = False
) -> tuple[Image, NDArray[np.float32] | None]:
    """Read an image and check its boxes, if they are given.

    Args:
        image: See `to_rgb`.
        boxes_xyxy: (N, 4) image px.
        bgr: See `to_rgb`.

    Raises:
        InputError: The image cannot be read, or a box is bad.
    """
    rgb = to_rgb(image, bgr=bgr)
    name = str(image) if isinstance(image, str | os.PathLike) else ""
    return rgb, None if boxes_xyxy is None else check_boxes(boxes_xyxy, (rgb.shape[0], rgb.shape[1]), name)


def check_list(images: Any) -> None:
    """Check that several images are given.

    Raises:
        InputError: It is one image, a folder or an iterator.
    """
    shape = getattr(images, "shape", None)
    is_one = shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3, 4)))
    if (
        is_one
        or not isinstance(images, Sequence | np.ndarray)
        or isinstance(images, str | bytes | bytearray | memoryview)
    ):
        given = f"one of shape {tuple(shape)}" if is_one and shape is not None else type(images).__name__
        given = repr(images) if isinstance(images, str | os.PathLike) else given
        advice = "give list(...)" if isinstance(images, Iterator) else "detect takes one image"
        raise InputError(f"images: expected a list of images, given {given}; {advice}")


def check_boxes(boxes_xyxy: FloatArray, size: tuple[int, int], context: str = "") -> NDArray[np.float32]:
    """Check boxes that a user gave; returns them as (N, 4) float32.

    Args:
        boxes_xyxy: (N, 4), or (4,) for one; image px.
        size: (H, W) of the image, px.
        context: The image, for messages.

    Raises:
        InputError: The shape is another, or a box is not finite, has no extent or lies outside the image.
    """
    where = f"{context}: " if context else ""
    boxes = np.asarray(boxes_xyxy, np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    boxes = boxes[None] if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{where}boxes: expected (N, 4) x0 y0 x1 y1, given shape {np.shape(boxes_xyxy)}")
    height, width = size
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        given = [round(v, 1) for v in (x0, y0, x1, y1)]
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
            raise InputError(
                f"{where}box {i}: expected x0 < x1 and y0 < y1 (px), given {given}; is it x y width height?"
            )
        if x1 <= -0.5 or y1 <= -0.5 or x0 >= width - 0.5 or y0 >= height - 0.5:
            raise InputError(f"{where}box {i}: expected a box in the image of {width} x {height} px, given {given}")
    return boxes
