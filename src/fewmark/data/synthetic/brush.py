"""Paint: noise textures, smooth curves and soft strokes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import FloatArray, Floats, Image


@lru_cache(maxsize=1)
def strands() -> Image:
    """(512, 512) streaks that run down: hair, brows, fabric."""
    noise = np.random.default_rng(7).standard_normal((512, 512)).astype(np.float32)
    fine = cv2.blur(noise, (1, 31), borderType=cv2.BORDER_REFLECT) * 5
    broad = cv2.GaussianBlur(noise, (0, 0), sigmaX=3, sigmaY=40) * 28
    return np.asarray(np.clip(128 + 45 * (fine * 0.7 + broad * 0.8), 0, 255), np.uint8)


@lru_cache(maxsize=1)
def clouds() -> Image:
    """(512, 512) smooth noise of many scales: skin blotches, backgrounds."""
    rng = np.random.default_rng(11)
    total = np.zeros((512, 512), np.float32)
    for cells, amount in ((4, 1.0), (8, 0.7), (16, 0.5), (32, 0.35), (64, 0.25), (128, 0.18), (256, 0.12)):
        total += amount * cv2.resize(
            rng.standard_normal((cells, cells)).astype(np.float32), (512, 512), interpolation=cv2.INTER_CUBIC
        )
    return np.asarray(np.clip(128 + 50 * total, 0, 255), np.uint8)


def random_part(bank: Image, size: tuple[int, int], rng: np.random.Generator, zoom: float = 1.0) -> Image:
    """A random piece of a noise image, resized to (height, width)."""
    side = max(8, min(511, int(512 / zoom)))
    y, x = rng.integers(0, 512 - side, 2)
    part = bank[y : y + side, x : x + side]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    return np.asarray(cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)


def fixed(points: FloatArray) -> NDArray[np.int32]:
    """Floats for cv2's drawing functions with shift=4."""
    return np.asarray(np.rint(np.asarray(points) * 16), np.int32)


def lid(points: FloatArray, n: int = 13) -> Floats:
    """The cubic curve through 4 points in order, (n, 2)."""
    return np.asarray(_cubic(n) @ points)


@lru_cache(maxsize=8)
def _cubic(n: int) -> Floats:
    knots, t = np.array([0, 0.33, 0.67, 1.0]), np.linspace(0, 1, n)
    return np.stack(
        [np.prod([(t - k) / (knots[j] - k) for i, k in enumerate(knots) if i != j], axis=0) for j in range(4)],
        axis=1,
    )


def smooth(points: FloatArray, closed: bool = True, n: int = 6) -> Floats:
    """A Catmull-Rom curve through the points."""
    p = np.asarray(points, np.float64)
    q = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    a, b, c, d = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = (np.arange(n) / n)[:, None, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    out = curve.transpose(1, 0, 2).reshape(-1, p.shape[1])
    return out if closed else np.concatenate([out, p[-1:]])


class Brush:
    """Draws soft shapes on an image.

    Attributes:
        image: (H, W, 3) uint8, painted in place.
        unit: px for one face unit.
    """

    def __init__(self, image: Image, unit: float) -> None:
        self.image, self.unit = image, unit

    def off(self, point: FloatArray, dx: float, dy: float) -> Floats:
        """(..., 2) px, moved by face units."""
        return np.asarray(point + np.array([dx * self.unit, dy * self.unit]))

    def soft(
        self,
        curves: Sequence[FloatArray] | FloatArray,
        colour: FloatArray | Image,
        alpha: float,
        blur: float = 0.0,
        *,
        width: float = 0.0,
        within: Sequence[FloatArray] = (),
    ) -> tuple[slice, slice, Image]:
        """Outlines filled or, with a width, curves drawn, their edges blurred.

        Args:
            curves: each (N, 2) px; an array (M, N, 2) is quicker.
            colour: (3,) 0..255; or (H, W, 3) uint8 of the image's size.
            alpha: 0 to 1.
            blur: sigma, face units.
            width: of the curves, face units.
            within: outlines, each (M, 2) px, that the paint does not leave.

        Returns:
            The rows and columns that were touched, and the shapes' cover of them, 0..255.
        """
        sigma, thick = blur * self.unit, width * self.unit
        pad = int(2.5 * sigma + thick) + 2
        every = curves.reshape(-1, 2) if isinstance(curves, np.ndarray) else np.concatenate(curves)
        h, w = self.image.shape[:2]
        left, top = every.min(0)
        right, bottom = every.max(0)
        x0, y0 = max(0, int(left) - pad), max(0, int(top) - pad)
        x1, y1 = min(w, int(right) + pad + 1), min(h, int(bottom) + pad + 1)
        if x1 <= x0 or y1 <= y0:
            return slice(0, 0), slice(0, 0), np.zeros((0, 0), np.uint8)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        shift = np.array([x0, y0])
        shapes = list(fixed(curves - shift)) if isinstance(curves, np.ndarray) else [fixed(c - shift) for c in curves]
        if width:
            level = 255 * min(1.0, thick)  # a line thinner than a pixel is fainter instead
            cv2.polylines(mask, shapes, False, level, max(1, round(thick)), cv2.LINE_AA, 4)
        else:
            for shape in shapes:
                cv2.fillPoly(mask, [shape], 255, cv2.LINE_AA, 4)
        if sigma > 0.3:
            k = 2 * max(1, round(1.8 * sigma)) + 1
            mask = np.asarray(cv2.stackBlur(mask, (k, k)), np.uint8)
        if len(within):
            clip = np.zeros_like(mask)
            for outline in within:
                cv2.fillPoly(clip, [fixed(outline - shift)], 255, cv2.LINE_AA, 4)
            mask = np.asarray(cv2.multiply(mask, clip, scale=1 / 255), np.uint8)
        self.lay(x0, y0, mask, colour[y0:y1, x0:x1] if colour.ndim == 3 else colour, alpha)
        return slice(y0, y1), slice(x0, x1), mask

    def lay(self, x0: int, y0: int, mask: Image, colour: FloatArray | Image, alpha: float) -> None:
        """Blend a colour, or an image of the mask's size, at (x0, y0)."""
        part = self.image[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]]
        if colour.ndim == 1:
            paint = np.empty(part.shape, np.uint8)
            paint[:] = np.clip(colour, 0, 255)
        else:
            paint = np.ascontiguousarray(colour, np.uint8)
        weight = mask * np.float32(alpha / 255)
        part[:] = cv2.blendLinear(paint, np.ascontiguousarray(part), weight, 1 - weight)
