"""Augmentation: drawn once as a small record, then applied by one warp and one lookup table, so it can be repeated."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import Similarity
from fewmark.data.crops import FILL, CachedFace, FaceCrop, cut
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True)
class AugmentRule:
    """Ranges of the augmentation.

    Attributes:
        scale: Largest change of the crop's scale, 1 - scale to 1 + scale.
        rotation: Largest in-plane rotation to either side, degrees.
        shift: Largest shift to either side on each axis, fraction of the crop's side.
        flip: Probability of a horizontal flip; needs a scheme with a mirror.
        colour: Strength of the changes of brightness, contrast, gamma and channel gains; 0 disables them.
        erase: Probability of a box of plain colour or noise over a part of the face.
        blur: Probability of a loss of resolution.

    Source: TS3, section 4.2 (scale 0.9-1.1, rotation to 30 degrees, random crop). Differs: colour, erasing,
    blur and flips.
    """

    scale: float = 0.1
    rotation: float = 30.0
    shift: float = 0.05
    flip: float = 0.5
    colour: float = 0.3
    erase: float = 0.3
    blur: float = 0.1


@dataclass(frozen=True)
class Augmentation:
    """One draw from an `AugmentRule`, for one face."""

    scale: float
    angle: float
    shift: tuple[float, float]
    flip: bool
    gain: tuple[float, float, float]
    offset: float
    gamma: float
    grey: bool
    erase: tuple[float, float, float, float, int] | None
    blur: float


def draw_augmentation(rule: AugmentRule, rng: np.random.Generator, *, can_flip: bool) -> Augmentation:
    """Draw one augmentation from the rule's ranges."""
    u = rng.uniform
    c = rule.colour
    brightness = u(1 - c, 1 + c)
    erase = None
    if rng.random() < rule.erase:
        w, h = u(0.1, 0.45, 2)
        erase = (float(u(0, 1)), float(u(0, 1)), float(w), float(h), int(rng.integers(2**31)))
    return Augmentation(
        scale=float(u(1 - rule.scale, 1 + rule.scale)),
        angle=float(u(-rule.rotation, rule.rotation)),
        shift=(float(u(-rule.shift, rule.shift)), float(u(-rule.shift, rule.shift))),
        flip=bool(can_flip and rng.random() < rule.flip),
        gain=tuple(float(g) for g in brightness * u(1 - c / 3, 1 + c / 3, 3)),  # type: ignore[arg-type]
        offset=float(u(-c, c) * 60),
        gamma=float(np.exp(u(-c, c))),
        grey=bool(rng.random() < c / 3),
        erase=erase,
        blur=float(u(0.35, 0.9)) if rng.random() < rule.blur else 1.0,
    )


def apply_augmentation(
    face: CachedFace,
    augmentation: Augmentation,
    size: int,
    scheme: LandmarkScheme,
    landmarks: NDArray[np.float32] | None = None,
) -> FaceCrop:
    """Cut the augmented crop of a face, with its landmarks moved by the same map.

    Args:
        face: The cached face.
        augmentation: One draw.
        size: Side of the crop, px.
        scheme: Gives the mirror for flips; nothing is flipped without one.
        landmarks: (K, 2) px of the upright crop in place of the face's own (a pseudo label).
    """
    moved = augmented_from_crop(augmentation, size, scheme)
    points = move_landmarks(augmentation, moved, face.landmarks if landmarks is None else landmarks, scheme)
    image = augment_appearance(cut(face.window, moved @ face.crop_from_window, size), augmentation)
    return FaceCrop(image, points, moved @ face.crop_from_image)


def augmented_from_crop(a: Augmentation, size: int, scheme: LandmarkScheme) -> Similarity:
    """The map of an augmentation, upright crop px -> augmented crop px; nothing is flipped where the scheme has no mirror."""
    moved = jittered_from_crop(a, size)
    return Similarity.flip(size) @ moved if a.flip and scheme.mirror is not None else moved


def move_landmarks(
    a: Augmentation, moved: Similarity, landmarks: NDArray[np.float32], scheme: LandmarkScheme
) -> NDArray[np.float32]:
    """Landmarks (K, 2) of the upright crop in the augmented one, by the map of `augmented_from_crop`."""
    points = moved(landmarks)
    if a.flip and scheme.mirror is not None:
        points = points[list(scheme.mirror)]
    return points.astype(np.float32)


def jittered_from_crop(augmentation: Augmentation, size: int) -> Similarity:
    """The scale, rotation and shift of an augmentation about the middle of a crop of `size` px."""
    middle = np.full(2, (size - 1) / 2)
    a = augmentation
    return Similarity.about(middle, middle + np.array(a.shift) * size, scale=a.scale, angle=a.angle)


def rotated_from_image(angle: float, *, flip: bool) -> Similarity:
    """A rotation about the image's corner, followed by the flip x -> -x if asked for; degrees counter-clockwise."""
    rotated = Similarity.about(np.zeros(2), np.zeros(2), angle=angle)
    return Similarity.flip(1.0) @ rotated if flip else rotated


def augment_appearance(image: NDArray[np.uint8], a: Augmentation) -> NDArray[np.uint8]:
    """Apply the part of an augmentation that moves nothing to a square crop: colour, loss of resolution, an erased box."""
    size = image.shape[0]
    image = recolour(image, a)
    small = blurred_side(a, size)
    if small < size:
        image = np.asarray(
            cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size)),
            np.uint8,
        )
    part = None if a.erase is None else erased_part(a.erase, size)
    if part is not None:
        rows, columns, paint = part
        image = image.copy()
        image[rows, columns] = paint
    return image


def blurred_side(a: Augmentation, size: int) -> int:
    """The side to which an augmentation's loss of resolution averages a crop down, px; the crop's own where there is none."""
    return max(8, round(size * a.blur)) if a.blur < 1 else size


def recolour(image: NDArray[np.uint8], a: Augmentation) -> NDArray[np.uint8]:
    """Apply the brightness, contrast, channel gains and greyness of an augmentation to an image (H, W, 3) of any size."""
    if a.grey:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return np.asarray(cv2.LUT(image, colour_table(a)[None]), np.uint8)


def colour_table(a: Augmentation) -> NDArray[np.uint8]:
    """(256, 3) what an augmentation's brightness, contrast and channel gains make of each level."""
    levels = (np.arange(256, dtype=np.float32) / 255) ** a.gamma * 255
    table = (levels[:, None] - 128) * np.asarray(a.gain, np.float32) + 128 + a.offset
    return np.asarray(np.rint(np.clip(table, 0, 255)), np.uint8)


def erased_part(
    erase: tuple[float, float, float, float, int], size: int
) -> tuple[slice, slice, NDArray[np.uint8]] | None:
    """The rows and columns of a square crop that an augmentation erases, and what it puts there: (3,) or (h, w, 3); None: nothing."""
    x, y, w, h, seed = erase
    x0, y0 = int((x - w / 2) * size), int((y - h / 2) * size)
    x1, y1 = min(size, x0 + int(w * size)), min(size, y0 + int(h * size))
    x0, y0 = max(0, x0), max(0, y0)
    if x1 <= x0 or y1 <= y0:
        return None
    rng = np.random.default_rng(seed)
    kind = rng.integers(3)
    shape = (3,) if kind == 0 else (y1 - y0, x1 - x0, 3)
    paint = np.array(FILL) if kind == 2 else rng.integers(0, 256, shape)
    return slice(y0, y1), slice(x0, x1), paint.astype(np.uint8)
