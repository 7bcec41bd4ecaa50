"""Perturb a labelled face: move or scale its box, or rotate or reduce its image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, FloatArray, Similarity, box_centre, box_of_points, box_size, warp_image
from fewmark.data.crops import FILL, CropRule

Kind = Literal["shift", "scale", "rotation", "size"]

_DIAGONAL = math.sqrt(0.5)
DIRECTIONS = {
    "right": (1.0, 0.0),
    "down right": (_DIAGONAL, _DIAGONAL),
    "down": (0.0, 1.0),
    "down left": (-_DIAGONAL, _DIAGONAL),
    "left": (-1.0, 0.0),
    "up left": (-_DIAGONAL, -_DIAGONAL),
    "up": (0.0, -1.0),
    "up right": (_DIAGONAL, -_DIAGONAL),
}
"""Directions of a shift: unit vectors in the image (y down)."""
NEUTRAL = {"shift": 0.0, "scale": 1.0, "rotation": 0.0}
"""Values that change nothing."""

_MAX_SIDE = 400  # px; a larger face is reduced to it when it is rotated, so that no large image is rotated
_WINDOW = 1.5  # side of a window over the detector's crop: room for the corners of a rotated crop and for interpolation


@dataclass(frozen=True)
class Perturbation:
    """A change to a face.

    Attributes:
        kind: "shift" and "scale" change the box alone, "rotation" and "size" the image and its labels.
        value: Amount: "shift" a fraction of the box's longer side, "scale" a factor of both sides, "rotation" degrees
            counter-clockwise, "size" the most px of the box's longer side.
        direction: Direction of a shift, one of `DIRECTIONS`.

    Raises:
        InputError: The kind or direction is unknown, or the value is not finite, or not above 0 for a scale or a size.
    """

    kind: Kind
    value: float
    direction: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"perturbation: expected {', '.join(get_args(Kind))}, given {self.kind!r}")
        if not math.isfinite(self.value) or (self.kind in ("scale", "size") and self.value <= 0):
            raise InputError(
                f"perturbation: {self.kind}: expected a finite value, above 0 if a factor, given {self.value}"
            )
        if (self.kind == "shift") != (self.direction in DIRECTIONS):
            raise InputError(
                f"perturbation: {self.kind}: expected a direction with a shift, one of {', '.join(DIRECTIONS)}, and with nothing "
                f"else, given {self.direction!r}"
            )

    @property
    def changes(self) -> bool:
        """Whether it changes the face at all."""
        return NEUTRAL.get(self.kind) != self.value


def perturb(
    perturbation: Perturbation, image: NDArray[np.uint8], landmarks: FloatArray, rule: CropRule
) -> tuple[NDArray[np.uint8], Box, Similarity]:
    """Perturb a face for a detector.

    Args:
        perturbation: The change.
        image: (H, W, 3) RGB.
        landmarks: (K, 2) image px, at least one of them present, missing ones estimated; their tight box is the face's.
        rule: The detector's crop rule. Of a rotated or reduced image only a window with room around the crop is made, grey outside
            the image.

    Returns:
        The new image (H', W', 3), the face's box in it (4,), and the map of the landmarks, image px -> new image px.
    """
    kind, value = perturbation.kind, perturbation.value
    box = box_of_points(landmarks)
    centre, size = box_centre(box), box_size(box)
    side = float(size.max())
    if kind in ("shift", "scale"):
        if kind == "shift":
            centre = centre + value * side * np.array(DIRECTIONS[perturbation.direction])
        else:
            size = size * value
        return image, np.concatenate([centre - size / 2, centre + size / 2]).astype(np.float32), Similarity.identity()
    if kind == "rotation":
        moved_from_image = Similarity.about(centre, np.zeros(2), scale=min(1.0, _MAX_SIDE / side), angle=value)
    else:
        moved_from_image = _reduction(min(1.0, value / side))
    new_box = box_of_points(moved_from_image(landmarks))
    n = math.ceil(float(box_size(new_box).max()) * (1 + 2 * max(rule.margin, 0)) * _WINDOW) + 4
    corner = np.floor(box_centre(new_box) - n / 2)
    new_from_image = Similarity.translation(-corner[0], -corner[1]) @ moved_from_image
    window = warp_image(image, new_from_image, (n, n), fill=FILL)
    return window, box_of_points(new_from_image(landmarks)), new_from_image


def _reduction(factor: float) -> Similarity:
    """Scale an image about its top-left corner: x -> (x + 0.5) factor - 0.5."""
    shift = 0.5 * factor - 0.5
    return Similarity(np.array([[factor, 0.0, shift], [0.0, factor, shift]]))
