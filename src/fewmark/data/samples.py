"""FaceSample: one face in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, box_of_points


@dataclass(frozen=True, eq=False)
class FaceSample:
    """One face in one image: labelled, unlabelled or pseudo-labelled.

    Attributes:
        image: Image file.
        box: (4,) x0 y0 x1 y1, image px, or None.
        landmarks: (K, 2) image px, NaN rows where not annotated; None if unlabelled.
        occluded: (K,) bool, or None if occlusion is not annotated.
        group: Person, scene or video; splits keep a group together.
        name: Name of the face in lists (its file relative to the data), unique within a data set.
    """

    image: Path
    box: Box | None = None
    landmarks: NDArray[np.float32] | None = None
    occluded: NDArray[np.bool_] | None = None
    group: str = ""
    name: str = ""

    @property
    def is_labelled(self) -> bool:
        """Whether at least one landmark has two finite coordinates."""
        return self.landmarks is not None and bool(np.isfinite(self.landmarks).all(1).any())

    def face_box(self) -> Box:
        """Return the given box, or else the tight box of the landmarks.

        Raises:
            InputError: The face has neither.
        """
        if self.box is not None:
            return self.box
        if self.landmarks is None or not self.is_labelled:
            raise InputError(
                f"{self.image}: the face has neither a box nor landmarks; give box_x0,box_y0,box_x1,box_y1"
            )
        return box_of_points(self.landmarks)


def stack_landmarks(samples: Sequence[FaceSample]) -> NDArray[np.float32]:
    """Stack the landmarks of the labelled faces, all of one scheme: (N, K, 2) image px."""
    return np.stack([s.landmarks for s in samples if s.landmarks is not None])


def __getattr__(name: str) -> Any:
    if name == "read_image":  # where version 0.1 had it
        from fewmark.data.images import read_image

        return read_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
