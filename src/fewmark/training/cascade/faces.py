"""Labelled faces in memory, as all stages train on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image
from fewmark.core.procrustes import mirrored_mean_shape
from fewmark.data.crops import CachedFace, cache_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.cascade.frames import REACH, RESOLUTION, MeanFace, face_angle, scheme_mean_face
from fewmark.inference.cascade.state import FaceState, Stage
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.faces import cache_labelled


@dataclass(frozen=True, eq=False)
class TrainingFaces:
    """Windows of images with the true states of their faces.

    Attributes:
        scheme: Scheme of the landmarks.
        mean_face: (K, 2) mean of these faces, see `mirrored_mean_shape`.
        images: N windows, each the image of one face.
        faces: N states with the true landmarks (window px), the angle that they give, and the box.
    """

    scheme: LandmarkScheme
    mean_face: MeanFace
    images: tuple[Image, ...]
    faces: tuple[FaceState, ...]

    def __len__(self) -> int:
        return len(self.faces)

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """(N, K, 2) window px, NaN where missing."""
        return np.stack([f.landmarks for f in self.faces if f.landmarks is not None])

    def starts(self) -> list[FaceState]:
        """The states before the first stage: a box and nothing else."""
        return [replace(f, angle=0.0, landmarks=None) for f in self.faces]


def cache_training_faces(
    samples: Sequence[FaceSample], scheme: LandmarkScheme, mean_face: MeanFace | None = None
) -> TrainingFaces:
    """Read the images once and keep a window of each face.

    Args:
        samples: Labelled faces.
        scheme: Scheme of the landmarks.
        mean_face: (K, 2) mean face by which angles are measured; None for the mean of these faces.

    Raises:
        InputError: An image cannot be read, the scheme has no mean face, or a face has other landmarks than the scheme's or
            fewer than two of them.
    """
    _check_samples(samples, scheme)
    return _training_faces(
        samples, cache_faces(samples, RESOLUTION, scheme.n_landmarks, reach=REACH), scheme, mean_face
    )


def read_training_faces(
    samples: Sequence[FaceSample], scheme: LandmarkScheme
) -> tuple[TrainingFaces, tuple[float, float, float]]:
    """The same, with the box adapter of `fewmark.training.faces.cache_labelled`; every image is read once."""
    _check_samples(samples, scheme)
    cached, adapter = cache_labelled(samples, RESOLUTION, scheme.n_landmarks, reach=REACH)
    return _training_faces(samples, cached, scheme, None), adapter


def predict_landmarks(
    stages: Sequence[Stage], images: Sequence[Image], faces: Sequence[FaceState]
) -> NDArray[np.float32]:
    """Landmarks of faces after some stages, (N, K, 2) px, on which the next stage may train.

    Raises:
        InputError: There is no coarse stage among them.
    """
    found = list(faces)
    for stage in stages:
        found = stage(images, found)
    if any(f.landmarks is None for f in found):
        raise InputError("predict_landmarks: the last stage leaves no landmarks; expected a coarse stage among them")
    return np.stack([f.landmarks for f in found if f.landmarks is not None])


def _check_samples(samples: Sequence[FaceSample], scheme: LandmarkScheme) -> None:
    scheme_mean_face(scheme)
    if not samples:
        raise InputError("cascade training: the labelled list is empty; at least one labelled face is needed")
    for s in samples:
        if s.landmarks is None or np.isfinite(s.landmarks).all(1).sum() < 2:  # one gives no angle
            raise InputError(f"{s.name or s.image}: the face has no landmarks; label it or take it out of the list")


def _training_faces(
    samples: Sequence[FaceSample], cached: Sequence[CachedFace], scheme: LandmarkScheme, mean_face: MeanFace | None
) -> TrainingFaces:
    shapes = np.stack([np.asarray(s.landmarks, np.float64) for s in samples])
    if mean_face is None:
        mean_face = mirrored_mean_shape(shapes, scheme_mean_face(scheme), scheme.mirror)
    faces = []
    for s, c in zip(samples, cached, strict=True):
        window_from_image = c.crop_from_window.inverse() @ c.crop_from_image
        assert s.landmarks is not None
        box = window_from_image(np.asarray(s.face_box()).reshape(2, 2)).reshape(4).astype(np.float32)
        points = window_from_image(s.landmarks).astype(np.float32)
        faces.append(FaceState(box, face_angle(points, mean_face), points))
    return TrainingFaces(scheme, mean_face, tuple(c.window for c in cached), tuple(faces))
