"""FaceSample: one face in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, FloatArray, box_of_points
from fewmark.core.procrustes import mean_shape
from fewmark.landmarks.missing import cannot_complete, complete_landmarks, full_box
from fewmark.landmarks.scheme import LandmarkScheme


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

    @property
    def is_partly_labelled(self) -> bool:
        """Whether some landmarks are there and some missing."""
        return self.landmarks is not None and self.is_labelled and not bool(np.isfinite(self.landmarks).all())

    def face_box(self, mean_face: FloatArray | None = None) -> Box:
        """Return the given box, or else the tight box of the landmarks.

        Args:
            mean_face: (K, 2) the scheme's, from which missing landmarks are estimated; None: they do not count.

        Raises:
            InputError: The face has neither.
        """
        if self.box is not None:
            return self.box
        if self.landmarks is None or not self.is_labelled:
            raise InputError(
                f"{self.image}: the face has neither a box nor landmarks; give box_x0,box_y0,box_x1,box_y1"
            )
        return full_box(self.landmarks, mean_face)


def face_name(sample: FaceSample) -> str:
    """The name of a face in lists, or else that of its image file."""
    return sample.name or sample.image.name


def with_full_box(sample: FaceSample, mean_face: FloatArray | None) -> FaceSample:
    """Give a partly labelled face without a box that of its full labels; any other face stays the same.

    Args:
        sample: The face.
        mean_face: (K, 2), see `usual_face`.

    Raises:
        InputError: The missing landmarks cannot be estimated, see `complete_landmarks`.
    """
    points = sample.landmarks
    if sample.box is not None or points is None or not sample.is_partly_labelled:
        return sample
    if mean_face is not None and points.shape != np.shape(mean_face):
        return sample  # of another scheme, which is reported where its images are read
    complete = complete_landmarks(points, mean_face)
    if complete is None:
        raise InputError(f"{sample.name or sample.image}: {cannot_complete(points, mean_face)}")
    return replace(sample, box=box_of_points(complete))


def usual_face(samples: Sequence[FaceSample], scheme: LandmarkScheme) -> FloatArray | None:
    """The scheme's mean face (K, 2), or else the mean of the fully labelled faces; None if there is neither."""
    if scheme.mean_face is not None:
        return scheme.mean_face
    shapes = [s.landmarks for s in samples if s.landmarks is not None and s.landmarks.shape == (scheme.n_landmarks, 2)]
    full = [p for p in shapes if np.isfinite(p).all() and np.ptp(p, axis=0).max() > 0]
    return mean_shape(np.stack(full)) if full else None


def stack_landmarks(samples: Sequence[FaceSample]) -> NDArray[np.float32]:
    """Stack the landmarks of the labelled faces, all of one scheme: (N, K, 2) image px."""
    return np.stack([s.landmarks for s in samples if s.landmarks is not None])


def __getattr__(name: str) -> Any:
    if name == "read_image":  # where version 0.1 had it
        from fewmark.data.images import read_image

        return read_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
