"""Faces of images through a cascade: from windows of the images, and averaged with the mirrored windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewmark.core.geometry import Image, Similarity, wrap_angle
from fewmark.data.crops import cache_face
from fewmark.data.samples import FaceSample
from fewmark.inference.cascade.frames import REACH, RESOLUTION
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.state import FaceState
from fewmark.landmarks.scheme import LandmarkScheme

MAX_ANGLE_DIFFERENCE = 90.0
"""Degrees between the angles that a face and its mirrored image are found at; further apart, the first one holds."""


def look(cascade: Cascade, images: Sequence[Image], faces: Sequence[FaceState], *, flip: bool) -> list[FaceState]:
    """What the cascade's last stage leaves of the faces; see `look_after_each`."""
    return look_after_each(cascade, images, faces, flip=flip)[cascade.stages[-1].name]


def look_after_each(
    cascade: Cascade, images: Sequence[Image], faces: Sequence[FaceState], *, flip: bool
) -> dict[str, list[FaceState]]:
    """Stage name -> the states after it.

    Every stage sees a window round the face's box, as fine as those it was trained on, so that a large image costs no more
    than a small one.

    Args:
        images: one image a face.
        faces: their states, image px.
        flip: every stage is asked of the mirrored window too, and the next one goes on from the mean of both; a scheme without
            a mirror is not flipped.
    """
    scheme = cascade.scheme
    windows: list[Image] = []
    maps: list[Similarity] = []
    for image, face in zip(images, faces, strict=True):
        sample = FaceSample(Path("image"), np.asarray(face.box_xyxy, np.float32))
        cached = cache_face(sample, RESOLUTION, scheme.n_landmarks, image, reach=REACH)
        windows.append(cached.window)
        maps.append(cached.crop_from_window.inverse() @ cached.crop_from_image)
    states = [_moved(face, m) for face, m in zip(faces, maps, strict=True)]
    flip = flip and scheme.mirror is not None
    mirrored = [np.ascontiguousarray(w[:, ::-1]) for w in windows] if flip else []
    flips = [Similarity.flip(w.shape[1]) for w in windows]
    found: dict[str, list[FaceState]] = {}
    for stage in cascade.stages:
        other = [_mirrored(s, f, scheme) for s, f in zip(states, flips, strict=True)] if flip else []
        both = stage([*windows, *mirrored], [*states, *other])
        states = both[: len(states)]
        if flip:
            back = [_mirrored(s, f, scheme) for s, f in zip(both[len(states) :], flips, strict=True)]
            states = [_mean(a, b) for a, b in zip(states, back, strict=True)]
        found[stage.name] = [
            replace(_moved(s, m.inverse()), box_xyxy=face.box_xyxy)
            for s, m, face in zip(states, maps, faces, strict=True)
        ]
    return found


def _moved(face: FaceState, moved_from_image: Similarity) -> FaceState:
    """The face in a window: scaled and shifted, not turned."""
    box = moved_from_image(np.asarray(face.box_xyxy).reshape(2, 2)).reshape(4).astype(np.float32)
    points = None if face.landmarks is None else moved_from_image(face.landmarks).astype(np.float32)
    return replace(face, box_xyxy=box, landmarks=points)


def _mirrored(face: FaceState, flip: Similarity, scheme: LandmarkScheme) -> FaceState:
    """The face in the mirrored window, and back again."""
    (x1, y0), (x0, y1) = flip(np.asarray(face.box_xyxy).reshape(2, 2))
    points, scores = face.landmarks, face.scores
    if scheme.mirror is not None:
        points = None if points is None else flip(points)[list(scheme.mirror)].astype(np.float32)
        scores = None if scores is None else scores[list(scheme.mirror)]
    return FaceState(np.array([x0, y0, x1, y1], np.float32), wrap_angle(-face.angle), points, scores)


def _mean(a: FaceState, b: FaceState) -> FaceState:
    """The mean of what two views say of a face."""
    apart = wrap_angle(b.angle - a.angle)
    if abs(apart) > MAX_ANGLE_DIFFERENCE:
        return a
    points, scores = a.landmarks, a.scores
    if a.landmarks is not None and b.landmarks is not None:
        points = ((a.landmarks + b.landmarks) / 2).astype(np.float32)
    if a.scores is not None and b.scores is not None:
        scores = ((a.scores + b.scores) / 2).astype(np.float32)
    return replace(a, angle=wrap_angle(a.angle + apart / 2), landmarks=points, scores=scores)
