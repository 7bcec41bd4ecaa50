"""Points, boxes and similarity maps between frames.

Points are xy, and (0, 0) is the centre of the top-left pixel; an image of width W covers x from -0.5 to W - 0.5.
Boxes are x0 y0 x1 y1 in the same frame. Angles are degrees, counter-clockwise as displayed (y points down).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Floats = NDArray[np.float64]
Image = NDArray[np.uint8]
"""(H, W, 3) RGB, or (H, W) grey where a docstring says so."""
Box = NDArray[np.float32]
"""(4,) x0 y0 x1 y1 image px."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """A map between two image frames: rotation, uniform scale, translation and, for flips, a reflection.

    Instances are named `target_from_source`: ``target_points = target_from_source(source_points)``. Maps compose as
    ``c_from_a = c_from_b @ b_from_a``.

    Attributes:
        matrix: (2, 3) float64, source px -> target px.

    >>> half = Similarity.scaling(0.5)
    >>> half(np.array([[4.0, 2.0]])).tolist()
    [[2.0, 1.0]]
    >>> (half @ half.inverse()).matrix.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    matrix: NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, dtype=np.float64)
        if matrix.shape != (2, 3) or not all(map(math.isfinite, matrix.ravel().tolist())):
            raise ValueError(f"Similarity.matrix: expected a finite (2, 3) array, given {matrix!r}")
        object.__setattr__(self, "matrix", matrix)

    def __call__(self, points: FloatArray) -> NDArray[np.float64]:
        """Map points.

        Args:
            points: (..., 2) source px; NaN rows stay NaN.

        Returns:
            (..., 2) target px.
        """
        return np.asarray(points, dtype=np.float64) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def __matmul__(self, other: Similarity) -> Similarity:
        """Compose: `other` first, then `self`."""
        matrix = self.matrix[:, :2] @ other.matrix
        matrix[:, 2] += self.matrix[:, 2]
        return Similarity(matrix)

    def inverse(self) -> Similarity:
        """The inverse map, source_from_target."""
        (a, b, x), (c, d, y) = self.matrix.tolist()
        e = a * d - b * c
        return Similarity(np.array([[d / e, -b / e, (b * y - d * x) / e], [-c / e, a / e, (c * x - a * y) / e]]))

    @property
    def scale(self) -> float:
        """Target px per source px."""
        (a, b, _), (c, d, _) = self.matrix.tolist()
        return math.sqrt(abs(a * d - b * c))

    @property
    def angle(self) -> float:
        """Counter-clockwise rotation of the image content, degrees in (-180, 180]."""
        return math.degrees(math.atan2(self.matrix[0, 1], self.matrix[0, 0]))

    @classmethod
    def identity(cls) -> Similarity:
        return cls(np.eye(2, 3))

    @classmethod
    def scaling(cls, factor: float) -> Similarity:
        return cls(np.array([[factor, 0.0, 0.0], [0.0, factor, 0.0]]))

    @classmethod
    def translation(cls, dx: float, dy: float) -> Similarity:
        return cls(np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]]))

    @classmethod
    def flip(cls, width: float) -> Similarity:
        """Left-right flip of an image `width` px wide: x -> width - 1 - x."""
        return cls(np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0]]))

    @classmethod
    def about(
        cls,
        source_centre: FloatArray | tuple[float, float],
        target_centre: FloatArray | tuple[float, float],
        *,
        scale: float = 1.0,
        angle: float = 0.0,
    ) -> Similarity:
        """Rotate by `angle` degrees counter-clockwise and scale about `source_centre`, and move it to `target_centre`."""
        c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
        (x, y), (u, v) = map(float, source_centre), map(float, target_centre)
        return cls(np.array([[c, s, u - c * x - s * y], [-s, c, v + s * x - c * y]]))


def fit_similarity(source: FloatArray, target: FloatArray, weights: FloatArray | None = None) -> Similarity:
    """Fit the similarity (without reflection) from `source` to `target` by weighted least squares.

    Args:
        source: (K, 2) source px; rows with NaN in either set are left out.
        target: (K, 2) target px.
        weights: (K,) non-negative; None for equal weights.

    Raises:
        ValueError: fewer than two usable points, or all usable points coincide.

    Source: Umeyama, PAMI 1991, Eq. 40-42.
    """
    source = np.asarray(source, np.float64)
    target = np.asarray(target, np.float64)
    w = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    present = np.isfinite(source).all(1) & np.isfinite(target).all(1) & (w > 0)
    if present.sum() < 2:
        raise ValueError(f"fit_similarity: expected at least 2 points present in both sets, given {int(present.sum())}")
    source, target, w = source[present], target[present], w[present] / w[present].sum()
    source_mean, target_mean = w @ source, w @ target
    a, b = source - source_mean, target - target_mean
    variance = float(w @ (a**2).sum(1))
    if variance <= 1e-12:
        raise ValueError("fit_similarity: all source points coincide")
    u, d, vt = np.linalg.svd((b * w[:, None]).T @ a)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = u @ np.diag(sign) @ vt
    linear = float((d * sign).sum() / variance) * rotation
    return Similarity(np.column_stack([linear, target_mean - linear @ source_mean]))


def box_of_points(points: FloatArray) -> Box:
    """Tight box around the points that are present.

    Args:
        points: (K, 2) px; NaN rows are ignored.

    Raises:
        ValueError: no point is present.
    """
    present = np.asarray(points)[np.isfinite(points).all(-1)]
    if len(present) == 0:
        raise ValueError("box_of_points: no landmark is present")
    return np.concatenate([present.min(0), present.max(0)]).astype(np.float32)


def box_centre(box_xyxy: FloatArray) -> NDArray[np.float64]:
    """Centres of boxes: (..., 4) -> (..., 2) px."""
    box = np.asarray(box_xyxy, np.float64)
    return (box[..., :2] + box[..., 2:]) / 2


def box_size(box_xyxy: FloatArray) -> NDArray[np.float64]:
    """Width and height of boxes: (..., 4) -> (..., 2) px."""
    box = np.asarray(box_xyxy, np.float64)
    return box[..., 2:] - box[..., :2]


def face_sizes(landmarks: FloatArray) -> Floats:
    """Longer side of each face's tight box; NaN with fewer than two distinct landmarks.

    Args:
        landmarks: (..., K, 2) px, NaN where missing.

    Returns:
        (...) px.

    >>> face_sizes(np.array([[0.0, 0.0], [3.0, 4.0]])).item()
    4.0
    """
    points = np.asarray(landmarks, np.float64)
    if points.size and np.isfinite(extent := points.max(-2) - points.min(-2)).all():  # the common case: none is missing
        sizes = extent.max(-1)
    else:
        present = np.isfinite(points).all(-1, keepdims=True)
        high = np.where(present, points, -np.inf).max(-2, initial=-np.inf)
        low = np.where(present, points, np.inf).min(-2, initial=np.inf)
        sizes = (high - low).max(-1)
    return np.asarray(np.where(sizes > 0, sizes, np.nan), np.float64)


def crop_from_box(box_xyxy: FloatArray, size: int, *, margin: float = 0.0, angle: float = 0.0) -> Similarity:
    """Map the image to a square crop of `size` px around a box.

    The crop covers the longer side of the box plus `margin` times that side at each end. The centre of the box maps to
    the centre of the crop, (size - 1) / 2, and the content is rotated by `angle` counter-clockwise.

    Raises:
        ValueError: the box has no extent.
    """
    x0, y0, x1, y1 = map(float, box_xyxy)
    side = max(x1 - x0, y1 - y0) * (1 + 2 * margin)
    if not math.isfinite(side) or side <= 0:
        raise ValueError(f"crop_from_box: expected a box x0 y0 x1 y1 with an extent, given {[x0, y0, x1, y1]}")
    middle = (size - 1) / 2
    return Similarity.about(((x0 + x1) / 2, (y0 + y1) / 2), (middle, middle), scale=size / side, angle=angle)


def wrap_angle(angle: float) -> float:
    """Wrap an angle to (-180, 180].

    >>> wrap_angle(190.0), wrap_angle(-180.0), wrap_angle(360.0)
    (-170.0, 180.0, 0.0)
    """
    return 180.0 - (180.0 - angle) % 360.0


def warp_image(
    image: NDArray[np.uint8],
    target_from_image: Similarity,
    size: tuple[int, int],
    *,
    fill: tuple[int, int, int] = (0, 0, 0),
) -> NDArray[np.uint8]:
    """Resample an image by bilinear interpolation, once.

    If the map reduces the image by a factor of 2 or more, the image is first averaged down by a whole number (cv2's area filter), to
    avoid aliasing.

    Args:
        image: (H, W, 3) or (H, W) uint8.
        target_from_image: Image px -> target px.
        size: (height, width) of the result.
        fill: Colour outside the image.
    """
    image, factor = _average_down(image, target_from_image.scale)
    matrix = target_from_image.matrix
    if factor > 1:
        (a, b, x), (c, d, y) = matrix.tolist()
        first = _first_centre(factor)
        matrix = np.array(
            [[a * factor, b * factor, x + (a + b) * first], [c * factor, d * factor, y + (c + d) * first]]
        )
    warped = cv2.warpAffine(
        image,
        matrix,
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return np.asarray(warped, np.uint8)


def warp_patches(
    image: NDArray[np.uint8],
    patch_from_image: NDArray[np.float64],
    size: int,
    *,
    fill: tuple[int, int, int] = (0, 0, 0),
) -> NDArray[np.uint8]:
    """Resample many small squares of one image at once; each equals `warp_image`'s, to the rounding.

    Args:
        image: (H, W, 3) uint8.
        patch_from_image: (P, 2, 3) matrices of similarities, image px -> patch px; of about one scale, since the image is averaged
            down for the one that reduces it least.
        size: Side of a patch, px.
        fill: Colour outside the image.

    Returns:
        (P, size, size, 3) uint8.
    """
    linear, shift = patch_from_image[:, :, :2], patch_from_image[:, :, 2]
    scale = math.sqrt(float(np.abs(np.linalg.det(linear)).max()))
    image, factor = _average_down(image, scale)
    steps = np.arange(size, dtype=np.float64)
    grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    sources = (grid - shift[:, None]) @ np.linalg.inv(linear).transpose(0, 2, 1)
    if factor > 1:
        sources = (sources - _first_centre(factor)) / factor
    grid_in_image = sources.astype(np.float32).reshape(-1, size, 2)
    warped = cv2.remap(image, grid_in_image, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    return np.asarray(warped, np.uint8).reshape(-1, size, size, 3)


def _average_down(image: NDArray[np.uint8], scale: float) -> tuple[NDArray[np.uint8], int]:
    """Average an image down by the largest whole number that keeps it at least as fine as the target.

    Args:
        image: (H, W, 3) or (H, W) uint8.
        scale: Target px per image px.

    Returns:
        The smaller image and the number; the image itself and 1 if `scale` is above 1/2.
    """
    factor = int(1 / max(scale, 1e-6) + 1e-6)
    h, w = image.shape[0] // max(factor, 1), image.shape[1] // max(factor, 1)
    if factor < 2 or h < 1 or w < 1:
        return image, 1
    small = cv2.resize(image[: h * factor, : w * factor], (w, h), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), factor


def _first_centre(factor: int) -> float:
    """Centre of the first px of an image averaged down, in px of the image: that px covers `factor` of them."""
    return (factor - 1) / 2
