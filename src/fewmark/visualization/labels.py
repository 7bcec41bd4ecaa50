"""Index or name labels of landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from fewmark.core.geometry import FloatArray, Floats, box_of_points, box_size
from fewmark.landmarks.scheme import LandmarkScheme

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Label = Literal["none", "numbers", "names"]

_SIDE = {"none": 0.0, "numbers": 500.0, "names": 1100.0}  # face size in px at which its labels are legible
_LARGEST = 4096  # largest side of a magnified image, px


def magnify_for(
    label: Label, image: NDArray[np.uint8], landmarks: Sequence[FloatArray]
) -> tuple[NDArray[np.uint8], list[FloatArray]]:
    """Magnify an image and its landmarks until labels on the smallest face are legible.

    Args:
        label: Kind of label; "none" disables magnification.
        image: (H, W, 3) RGB.
        landmarks: (K, 2) image px per face; NaN where missing.

    Returns:
        Image and landmarks, magnified at most 6 times and to at most 4096 px per side; larger images are unchanged.
    """
    sides = [float(box_size(box_of_points(p)).max()) for p in landmarks if np.isfinite(p).all(1).any()]
    longer = max(image.shape[:2])
    factor = min(_SIDE[label] / max(min(sides, default=1e9), 1), 6.0, _LARGEST / longer)
    if factor <= 1:
        return image, list(landmarks)
    width, height = round(image.shape[1] * factor), round(image.shape[0] * factor)
    larger = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    by = np.array([width / image.shape[1], height / image.shape[0]])
    return larger, [(np.asarray(p, np.float64) + 0.5) * by - 0.5 for p in landmarks]


def write_labels(
    canvas: NDArray[np.uint8], points: NDArray[np.float64], scheme: LandmarkScheme, *, names: bool = False
) -> NDArray[np.uint8]:
    """Label each landmark on a copy of the image, on the side facing away from the middle of its component.

    Args:
        canvas: (H, W, 3) RGB.
        points: (K, 2) image px; missing landmarks (NaN) get no label.
        scheme: Scheme with the names and components.
        names: Write names instead of indices, each rotated to the direction with the least overlap.
    """
    seen = np.asarray(np.isfinite(points).all(-1), np.bool_)
    if not seen.any():
        return canvas
    side = max(float(box_size(box_of_points(points)).max()), 24.0)
    size = max(7, round(side / (80 if names else 38)))
    directions = outward_directions(points, scheme)
    page = PilImage.fromarray(canvas)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    taken = points[seen]  # occupied positions: points, then also names
    for i in np.flatnonzero(seen).tolist():
        away = directions[i]
        if names:
            reach = np.linspace(size, font.getlength(scheme.landmarks[i]) + size * 0.6, 9)
            away = _freest(points[i], away, reach, taken, size)
            taken = np.concatenate([taken, points[i] + away * reach[:, None]])
            _write_along(page, scheme.landmarks[i], points[i] + away * size * 0.6, away, font)
            continue
        x, y = points[i] + away * size * 0.95
        pen.text((x, y), str(i), fill=(255, 255, 255), font=font, anchor="mm", stroke_width=1, stroke_fill=(20, 24, 30))
    return np.asarray(page, np.uint8).copy()


def outward_directions(points: FloatArray, scheme: LandmarkScheme) -> Floats:
    """Compute unit vectors from the middle of each component (of the face for contour and brows) to its landmarks.

    Args:
        points: (K, 2) px, NaN where missing.
        scheme: Scheme with the components.

    Returns:
        (K, 2); NaN where missing, straight down for a landmark exactly on the middle.
    """
    points = np.asarray(points, np.float64)
    present = np.asarray(np.isfinite(points).all(1))
    middles = np.tile(points[present].mean(0), (len(points), 1))
    for name, indices in scheme.components.items():
        own = [i for i in indices if present[i]]
        if own and not any(word in name for word in ("contour", "jaw", "brow")):
            middles[own] = points[own].mean(0)
    away = points - middles
    length = np.linalg.norm(away, axis=1, keepdims=True)
    return np.where(length > 1e-6, away / np.maximum(length, 1e-6), np.where(np.isnan(length), np.nan, (0.0, 1.0)))


def _freest(
    point: FloatArray, away: FloatArray, reach: NDArray[np.float64], taken: NDArray[np.float64], size: float
) -> NDArray[np.float64]:
    """Find the direction near `away` in which text of height `size`, with letters at distances `reach`, overlaps least."""
    best, least = np.asarray(away, np.float64), np.inf
    for turn in sorted(np.radians(np.arange(-180, 180, 10)).tolist(), key=abs):
        cos, sin = np.cos(turn), np.sin(turn)
        direction = np.array([cos * away[0] - sin * away[1], sin * away[0] + cos * away[1]])
        letters = point + direction * reach[:, None]
        gaps = np.linalg.norm(letters[:, None] - taken[None], axis=-1).min(1)
        cost = float(np.maximum(1.2 * size - gaps, 0).sum()) / size + 0.2 * abs(turn)
        if cost < least - 1e-9:
            best, least = direction, cost
    return best


def _write_along(page: PilImage.Image, text: str, start: FloatArray, away: FloatArray, font: Font) -> None:
    """Write text along a direction, never upside down; it starts at the point, or ends there if it runs to the left."""
    x0, y0, x1, y1 = font.getbbox(text, stroke_width=1)
    label = PilImage.new("RGBA", (int(x1 - x0) + 4, int(y1 - y0) + 4))
    ImageDraw.Draw(label).text(
        (2 - x0, 2 - y0), text, fill=(255, 255, 255, 255), font=font, stroke_width=1, stroke_fill=(20, 24, 30, 255)
    )
    degrees = -float(np.degrees(np.arctan2(away[1], away[0])))
    if not -90 <= degrees <= 90:
        degrees -= 180
    turned = label.rotate(degrees, expand=True, resample=PilImage.Resampling.BICUBIC)
    centre = start + away * label.width / 2
    if not (np.abs(centre) < 1e5).all():
        return
    page.paste(turned, (round(centre[0] - turned.width / 2), round(centre[1] - turned.height / 2)), turned)
