"""Crops, the part of an image that a network sees, and the windows that they are cut from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Similarity, crop_from_box, warp_image
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample

FILL = (124, 116, 104)
"""Colour outside the image: ImageNet's mean, which normalisation maps to 0."""

REACH = 1.5
"""Side of a cached window over the crop's side: all that an augmentation can bring into view, except far corners."""


MAX_CROP = 4096
"""Largest side of a crop, px."""


@dataclass(frozen=True)
class CropRule:
    """The part of an image that a network sees: a square around the face box.

    Attributes:
        size: Side of the crop, px.
        margin: Added to the box on each side, as a fraction of its longer side.

    Raises:
        InputError: A value is out of its range.
    """

    size: int
    margin: float

    def __post_init__(self) -> None:
        size, margin = self.size, self.margin
        whole = isinstance(size, int) and not isinstance(size, bool) and 8 <= size <= MAX_CROP
        if not whole or not isinstance(margin, int | float) or not -0.4 < margin < 4:
            raise InputError(
                f"crop: expected a whole size of 8 to {MAX_CROP} px and -0.4 < margin < 4, given {size!r} and {margin!r}"
            )

    @property
    def box_side(self) -> float:
        """The longer side of the face box in the crop, px."""
        return self.size / (1 + 2 * self.margin)

    def crop_from_image(self, box_xyxy: FloatArray, angle: float = 0.0) -> Similarity:
        """Map to the crop, image px -> crop px.

        Args:
            box_xyxy: (4,) face box, image px.
            angle: Rotation of the content, degrees counter-clockwise.
        """
        return crop_from_box(box_xyxy, self.size, margin=self.margin, angle=angle)


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """A face as a network sees it.

    Attributes:
        image: (size, size, 3) uint8.
        landmarks: (K, 2) crop px, NaN where missing.
        crop_from_image: image px -> crop px.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    crop_from_image: Similarity


def cut(image: NDArray[np.uint8], crop_from_image: Similarity, size: int) -> NDArray[np.uint8]:
    """Cut a crop (size, size, 3) from an image by one warp."""
    return warp_image(image, crop_from_image, (size, size), fill=FILL)


def cut_from_image(image: NDArray[np.uint8], crop_from_image: Similarity, size: int) -> NDArray[np.uint8]:
    """Like `cut`, from the face's window of the image only, so that a large image costs no more than a small one.

    Args:
        image: (H, W, 3) RGB.
        crop_from_image: Map to the crop, image px -> crop px.
        size: Side of the crop, px.
    """
    (a, b, x), (c, d, y) = crop_from_image.matrix.tolist()
    area = abs(a * d - b * c)  # plain numbers: arrays of four cost more than the warp
    margin = 2 / math.sqrt(area) + 1  # px that the warp's averaging and interpolation reach out
    middle, half = (size - 1) / 2, (size + 1) / 2
    centre_x = (d * (middle - x) - b * (middle - y)) / (a * d - b * c)
    centre_y = (a * (middle - y) - c * (middle - x)) / (a * d - b * c)
    reach_x, reach_y = half * (abs(d) + abs(b)) / area + margin, half * (abs(a) + abs(c)) / area + margin
    height, width = image.shape[:2]
    x0, y0 = _clamped(centre_x - reach_x, width - 1), _clamped(centre_y - reach_y, height - 1)
    x1 = max(x0 + 1, _clamped(centre_x + reach_x + 1, width))
    y1 = max(y0 + 1, _clamped(centre_y + reach_y + 1, height))
    crop_from_window = Similarity(np.array([[a, b, a * x0 + b * y0 + x], [c, d, c * x0 + d * y0 + y]]))
    return cut(image[y0:y1, x0:x1], crop_from_window, size)


def _clamped(value: float, largest: int) -> int:
    """A value rounded down, from 0 to `largest`."""
    return int(min(max(value, 0), largest))


@dataclass(frozen=True, eq=False)
class Window:
    """The part of an image around a face, as it is or averaged down by a whole number.

    Attributes:
        image: (H, W, 3) uint8.
        crop_from_window: The face's crop, window px -> crop px.
        crop_from_image: The same crop, image px -> crop px.
    """

    image: NDArray[np.uint8]
    crop_from_window: Similarity
    crop_from_image: Similarity

    @property
    def window_from_image(self) -> Similarity:
        """Image px -> window px."""
        return self.crop_from_window.inverse() @ self.crop_from_image


def read_window(image: NDArray[np.uint8], crop_from_image: Similarity, size: int, *, reach: float = REACH) -> Window:
    """Cut out the window around a face, averaged down to at most twice the crop's resolution.

    Args:
        image: (H, W, 3) RGB.
        crop_from_image: The face's upright crop, image px -> crop px.
        size: Side of the crop, px.
        reach: Side of the window over the crop's side.

    The average is numpy's, which rounds halves to even, where `warp_image` takes cv2's, which rounds them up: caches and cascades have
    the bits of earlier versions, and both are as sharp.
    """
    half, middle = size / 2 * reach, (size - 1) / 2
    image_from_crop = crop_from_image.inverse()
    low = np.floor(image_from_crop(np.array([middle - half, middle - half])))
    high = np.ceil(image_from_crop(np.array([middle + half, middle + half])))
    height, width = image.shape[:2]
    x0, y0 = (int(v) for v in np.clip(low, 0, [width - 1, height - 1]))
    x1, y1 = (int(v) for v in np.clip(high, [x0 + 1, y0 + 1], [width, height]))
    window = image[y0:y1, x0:x1]
    crop_from_window = crop_from_image @ Similarity.translation(x0, y0)
    # as warp_image averages the whole image: training sees crops as sharp as the detector will
    factor = int(1 / crop_from_window.scale + 1e-6)
    if factor >= 2 and min(window.shape[:2]) >= factor:
        h, w = window.shape[0] // factor, window.shape[1] // factor
        blocks = window[: h * factor, : w * factor].reshape(h, factor, w, factor, 3)
        window = blocks.mean((1, 3)).round().astype(np.uint8)
        small_from_large = Similarity(
            np.array([[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5]])
        )
        crop_from_window = crop_from_window @ small_from_large.inverse()
    return Window(np.array(window), crop_from_window, crop_from_image)


@dataclass(frozen=True, eq=False)
class CachedFace:
    """A decoded face in memory, see `Window`.

    Attributes:
        window: (H, W, 3) uint8, as it is in the image or averaged down by a whole number.
        crop_from_window: Upright crop of the face, window px -> crop px.
        crop_from_image: The same crop, image px -> crop px.
        landmarks: (K, 2) px of the upright crop, NaN where missing; all NaN for an unlabelled face.
    """

    window: NDArray[np.uint8]
    crop_from_window: Similarity
    crop_from_image: Similarity
    landmarks: NDArray[np.float32]


def cache_face(
    sample: FaceSample,
    rule: CropRule,
    n_landmarks: int,
    image: NDArray[np.uint8] | None = None,
    *,
    reach: float = REACH,
) -> CachedFace:
    """Decode one face.

    Args:
        sample: The face.
        rule: Crop around its box.
        n_landmarks: Expected number of landmarks.
        image: The image, if it is decoded already.
        reach: Side of the window over the crop's side.

    Raises:
        InputError: The image cannot be read, or the face has neither box nor landmarks, or not `n_landmarks` of them.
    """
    if sample.landmarks is not None and sample.landmarks.shape != (n_landmarks, 2):
        raise InputError(
            f"{sample.image}: expected {n_landmarks} landmarks, given {len(sample.landmarks)}; "
            "check the scheme of the labels"
        )
    if image is None:
        image = read_image(sample.image)
    try:
        crop_from_image = rule.crop_from_image(sample.face_box())
    except ValueError as error:
        raise InputError(f"{sample.image}: {error}") from None
    window = read_window(image, crop_from_image, rule.size, reach=reach)
    if sample.landmarks is None:
        landmarks = np.full((n_landmarks, 2), np.nan, np.float32)
    else:
        landmarks = crop_from_image(sample.landmarks).astype(np.float32)
    return CachedFace(window.image, window.crop_from_window, crop_from_image, landmarks)


def cache_faces(
    samples: Sequence[FaceSample], rule: CropRule, n_landmarks: int, *, reach: float = REACH
) -> list[CachedFace]:
    """Decode faces, see `cache_face`; consecutive faces of one image read it once."""
    cached, last_path, last_image = [], None, None
    for sample in samples:
        if sample.image != last_path:
            last_image, last_path = read_image(sample.image), sample.image
        cached.append(cache_face(sample, rule, n_landmarks, last_image, reach=reach))
    return cached


def upright_crop(face: CachedFace, size: int) -> NDArray[np.uint8]:
    """Cut the face's crop without augmentation: (size, size, 3)."""
    return cut(face.window, face.crop_from_window, size)
