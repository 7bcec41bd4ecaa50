"""FaceState, a cascade's current knowledge of one face, and Stage, which refines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, FloatArray, Image, Similarity, box_centre, box_of_points, box_size, wrap_angle
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True, eq=False)
class FaceState:
    """One face of one image.

    Attributes:
        box_xyxy: (4,) x0 y0 x1 y1 image px.
        angle: In-plane rotation of the face in the image, degrees counter-clockwise; 0 if it was not estimated.
        landmarks: (K, 2) image px, or None before the coarse stage; NaN only for a landmark that the truth lacks.
        scores: (K,) confidence of the coarse stage; None before it, NaN where it gives none.
    """

    box_xyxy: Box
    angle: float = 0.0
    landmarks: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None


STAGE_ORDER = ("angle", "coarse", "component", "point")


def check_order(kinds: Sequence[str]) -> None:
    """Check the order of stages.

    Raises:
        InputError: A kind is unknown, comes twice or too early, or there is no coarse stage, which the others need.
    """
    if "coarse" not in kinds or [k for k in STAGE_ORDER if k in kinds] != list(kinds):
        raise InputError(
            f"expected coarse and any others of {', '.join(STAGE_ORDER)} in this order, given {list(kinds)}"
        )


class Stage(Protocol):
    """A stage of the cascade: a callable of this form with a name and a scheme."""

    @property
    def name(self) -> str: ...

    @property
    def scheme(self) -> LandmarkScheme: ...

    def __call__(self, images: Sequence[Image], faces: Sequence[FaceState]) -> list[FaceState]:
        """Refine faces.

        Args:
            images: One image per face; several faces may share an array.
            faces: Their states, which are not modified.
        """
        ...


def check_faces(
    stage: str,
    images: Sequence[Image],
    faces: Sequence[FaceState],
    scheme: LandmarkScheme,
    *,
    needs_landmarks: bool = False,
) -> None:
    """Check the input of a stage.

    Args:
        stage: Name of the stage, for messages.
        images: One per face.
        faces: Their states.
        scheme: Scheme of the stage.
        needs_landmarks: Whether every face needs landmarks.

    Raises:
        InputError: There is not one image per face, a box has no extent, or landmarks are missing or not the scheme's.
    """
    if len(images) != len(faces):
        raise InputError(f"{stage} stage: expected one image per face, given {len(images)} and {len(faces)}")
    for i, face in enumerate(faces):
        box = np.asarray(face.box_xyxy)
        if box.shape != (4,) or not np.isfinite(box).all() or not (box_size(box) > 0).all():
            raise InputError(
                f"{stage} stage: face {i}: expected a box x0 y0 x1 y1 with an extent, given {box.tolist()}"
            )
        if face.landmarks is None:
            if needs_landmarks:
                raise InputError(
                    f"{stage} stage: face {i} has no landmarks; put the coarse stage before it, or feed in the truth"
                )
        elif face.landmarks.shape != (scheme.n_landmarks, 2):
            raise InputError(
                f"{stage} stage: face {i}: expected the {scheme.n_landmarks} landmarks of {scheme.name}, "
                f"given an array of shape {face.landmarks.shape}; was a stage trained for another scheme?"
            )


def same_scheme(a: LandmarkScheme, b: LandmarkScheme) -> bool:
    """Whether two schemes have the same landmarks in the same order."""
    return a.landmarks == b.landmarks and (a.name == b.name or dict(a.components) == dict(b.components))


def move_face(face: FaceState, moved_from_image: Similarity, scheme: LandmarkScheme) -> FaceState:
    """The state of the same face in a moved image: rotated, scaled or flipped.

    The new box is related to the tight box of the moved landmarks as the old box was to theirs: a rotated face is found in another
    upright box, not in a rotated one.

    Args:
        face: With landmarks.
        moved_from_image: Map to the moved image; a reflection exchanges mirrored landmarks, for which the scheme needs a mirror.
        scheme: Scheme of the landmarks.

    Raises:
        InputError: The map is a reflection and the scheme has no mirror.
    """
    assert face.landmarks is not None
    flips = np.linalg.det(moved_from_image.matrix[:, :2]) < 0
    points = moved_from_image(face.landmarks)
    if flips:
        if scheme.mirror is None:
            raise InputError(f"scheme {scheme.name} has no mirror: add `mirror` to its file, or train without flips")
        points = points[list(scheme.mirror)]
        # the flip of x comes after the rotation: read the rotation off the unflipped map
        rotation = (Similarity.flip(1.0) @ moved_from_image).angle
        angle = -(face.angle + rotation)
    else:
        angle = face.angle + moved_from_image.angle
    box = _moved_box(face.box_xyxy, face.landmarks, points)
    return FaceState(box, wrap_angle(angle), points.astype(np.float32))


def _moved_box(box_xyxy: FloatArray, before: FloatArray, after: FloatArray) -> Box:
    tight, moved = box_of_points(before), box_of_points(after)
    side = max(float(box_size(tight).max()), 1e-6)
    ratio = box_size(box_xyxy).max() / side
    shift = (box_centre(box_xyxy) - box_centre(tight)) / side
    half = box_size(moved) * ratio / 2
    centre = box_centre(moved) + shift * float(box_size(moved).max())
    return np.concatenate([centre - half, centre + half]).astype(np.float32)
