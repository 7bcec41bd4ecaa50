"""The cascade: a fold of face states over stages, any of which can be left out or replaced by the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image
from fewmark.inference.cascade.frames import MeanFace, face_angle
from fewmark.inference.cascade.state import FaceState, Stage, same_scheme
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True, eq=False)
class Cascade:
    """Stages one after the other.

    Attributes:
        stages: Stages of one scheme with different names.

    Raises:
        InputError: There is no stage, two have one name, or their schemes differ.

    Source: coarse-to-fine, Fig. 1.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise InputError(f"cascade: expected stages of different names, given {names}")
        first = self.stages[0]
        for stage in self.stages[1:]:
            if not same_scheme(stage.scheme, first.scheme):
                raise InputError(
                    f"cascade: stage {stage.name} was trained for scheme {stage.scheme.name}, stage {first.name} for "
                    f"{first.scheme.name}; train one of them again, or transfer the landmarks after the last stage"
                )

    @property
    def scheme(self) -> LandmarkScheme:
        return self.stages[0].scheme

    def __call__(self, images: Sequence[Image], faces: Sequence[FaceState]) -> list[FaceState]:
        """The states after the last stage; see `Stage`."""
        found = list(faces)
        for stage in self.stages:
            found = stage(images, found)
        return found

    def without(self, *names: str) -> Cascade:
        """The cascade without some stages.

        Raises:
            InputError: It has no such stage, or none is left.
        """
        for name in names:
            self.stage(name)
        return Cascade(tuple(s for s in self.stages if s.name not in names))

    def stage(self, name: str) -> Stage:
        """The stage of a name.

        Raises:
            InputError: There is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise InputError(f"cascade: no stage {name!r}; expected one of {', '.join(s.name for s in self.stages)}")


@dataclass(frozen=True, eq=False)
class Truth:
    """A stage that returns the truth, so that the next stage is measured alone (the paper's v_gt).

    Attributes:
        scheme: Scheme of the landmarks.
        landmarks: (N, K, 2) image px, in the order of the faces.
        mean_face: (K, 2) defines the angle.
        name: Name of the stage that it replaces; "angle" returns the angle alone.
    """

    scheme: LandmarkScheme
    landmarks: NDArray[np.float32]
    mean_face: MeanFace
    name: str = "truth"

    def __call__(self, images: Sequence[Image], faces: Sequence[FaceState]) -> list[FaceState]:
        """See `Stage`."""
        if len(faces) != len(self.landmarks):
            raise InputError(f"truth: expected the {len(self.landmarks)} faces it knows, given {len(faces)}")
        known = [replace(f, angle=face_angle(t, self.mean_face)) for f, t in zip(faces, self.landmarks, strict=True)]
        if self.name == "angle":
            return known
        return [replace(f, landmarks=t) for f, t in zip(known, self.landmarks, strict=True)]
