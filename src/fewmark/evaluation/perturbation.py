"""One labelled face, perturbed: its box moved or scaled, or its image turned or reduced."""

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
"""Where a box is moved; unit vectors in the image (y down)."""
NEUTRAL = {"shift": 0.0, "scale": 1.0, "rotation": 0.0}
"""What changes nothing."""

_LARGEST = 400  # px; a larger face is reduced to it as it is turned, so that no large image is turned
_ROOM = 1.5  # side of a window over the detector's crop: the crop's corners if it is turned, and room for interpolation


@dataclass(frozen=True)
class Perturbation:
    """What is done to a face.

    Attributes:
        kind: "shift" and "scale" change the box alone, "rotation" and "size" the image and its labels.
        value: by how much: "shift" a part of the box's longer side, "scale" a factor of both sides, "rotation" degrees
            counter-clockwise, "size" px that the box's longer side has at most.
        direction: of a shift, one of `DIRECTIONS`.

    Raises:
        InputError: an unknown kind or direction, or a value that is not finite, or not above 0 where it is a scale or a size.
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
        """Whether it changes anything."""
        return NEUTRAL.get(self.kind) != self.value


def perturb(
    perturbation: Perturbation, image: NDArray[np.uint8], landmarks: FloatArray, rule: CropRule
) -> tuple[NDArray[np.uint8], Box, Similarity]:
    """A perturbed face, as a detector is to see it.

    Args:
        perturbation: what is done.
        image: (H, W, 3) RGB.
        landmarks: (K, 2) image px, of which one at least is present; the face's box is their tight one.
        rule: what a detector sees of an image round a box; of a turned or reduced image only a window with room round that
            is made, grey where the image ends.

    Returns:
        an image (H', W', 3), the face's box in it (4,), and image px -> px of the new image: what the landmarks move by.
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
        changed = Similarity.about(centre, np.zeros(2), scale=min(1.0, _LARGEST / side), angle=value)
    else:
        changed = _reduced(min(1.0, value / side))
    new_box = box_of_points(changed(landmarks))
    n = math.ceil(float(box_size(new_box).max()) * (1 + 2 * max(rule.margin, 0)) * _ROOM) + 4
    corner = np.floor(box_centre(new_box) - n / 2)
    new_from_image = Similarity.translation(-corner[0], -corner[1]) @ changed
    window = warp_image(image, new_from_image, (n, n), fill=FILL)
    return window, box_of_points(new_from_image(landmarks)), new_from_image


def _reduced(factor: float) -> Similarity:
    """The reduction of an image whose px meet at its corner: x -> (x + 0.5) factor - 0.5."""
    shift = 0.5 * factor - 0.5
    return Similarity(np.array([[factor, 0.0, shift], [0.0, factor, shift]]))
