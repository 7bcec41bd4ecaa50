"""Run a cascade on faces: from windows of the images, averaged with the flipped windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image, Similarity, wrap_angle
from fewmark.data.crops import read_window
from fewmark.inference.cascade.frames import REACH, RESOLUTION
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.state import FaceState
from fewmark.landmarks.scheme import LandmarkScheme

MAX_ANGLE_DIFFERENCE = 90.0
"""Degrees between the angles predicted from a window and from its flip; if they differ by more, the window's own prediction is
kept."""


def run_cascade(
    cascade: Cascade, images: Sequence[Image], faces: Sequence[FaceState], *, flip: bool
) -> list[FaceState]:
    """The faces' states after the last stage; see `run_stages`."""
    return run_stages(cascade, images, faces, flip=flip)[cascade.stages[-1].name]


def run_stages(
    cascade: Cascade, images: Sequence[Image], faces: Sequence[FaceState], *, flip: bool
) -> dict[str, list[FaceState]]:
    """Run all stages; returns stage name -> the states after it.

    Every stage sees a window around the face's box at the resolution it was trained on, so that a large image costs no more than a
    small one.

    Args:
        cascade: The stages.
        images: One image per face.
        faces: Their states, image px.
        flip: Run every stage on the flipped window too, and continue from the mean of both; a scheme without a mirror is not
            flipped.
    """
    scheme = cascade.scheme
    windows: list[Image] = []
    maps: list[Similarity] = []
    for image, face in zip(images, faces, strict=True):
        try:
            crop_from_image = RESOLUTION.crop_from_image(np.asarray(face.box_xyxy, np.float32))
        except ValueError as error:
            raise InputError(f"cascade: {error}") from None
        window = read_window(image, crop_from_image, RESOLUTION.size, reach=REACH)
        windows.append(window.image)
        maps.append(window.window_from_image)
    states = [_moved(face, m) for face, m in zip(faces, maps, strict=True)]
    flip = flip and scheme.mirror is not None
    flipped = [np.ascontiguousarray(w[:, ::-1]) for w in windows] if flip else []
    flip_maps = [Similarity.flip(w.shape[1]) for w in windows]
    found: dict[str, list[FaceState]] = {}
    for stage in cascade.stages:
        other = [_flipped(s, f, scheme) for s, f in zip(states, flip_maps, strict=True)] if flip else []
        both = stage([*windows, *flipped], [*states, *other])
        states = both[: len(states)]
        if flip:
            back = [_flipped(s, f, scheme) for s, f in zip(both[len(states) :], flip_maps, strict=True)]
            states = [_mean(a, b) for a, b in zip(states, back, strict=True)]
        found[stage.name] = [
            replace(_moved(s, m.inverse()), box_xyxy=face.box_xyxy)
            for s, m, face in zip(states, maps, faces, strict=True)
        ]
    return found


def _moved(face: FaceState, moved_from_image: Similarity) -> FaceState:
    """The face in a window: scaled and shifted, not rotated."""
    box = moved_from_image(np.asarray(face.box_xyxy).reshape(2, 2)).reshape(4).astype(np.float32)
    points = None if face.landmarks is None else moved_from_image(face.landmarks).astype(np.float32)
    return replace(face, box_xyxy=box, landmarks=points)


def _flipped(face: FaceState, flip: Similarity, scheme: LandmarkScheme) -> FaceState:
    """The face in the flipped window, and back again."""
    (x1, y0), (x0, y1) = flip(np.asarray(face.box_xyxy).reshape(2, 2))
    points, scores = face.landmarks, face.scores
    if scheme.mirror is not None:
        points = None if points is None else flip(points)[list(scheme.mirror)].astype(np.float32)
        scores = None if scores is None else scores[list(scheme.mirror)]
    return FaceState(np.array([x0, y0, x1, y1], np.float32), wrap_angle(-face.angle), points, scores)


def _mean(a: FaceState, b: FaceState) -> FaceState:
    """The mean of the predictions from a window and from its flip.

    Differs from `fewmark.models.ensemble.average_with_flipped`: stages pass on landmarks and angles, not heatmaps.
    """
    difference = wrap_angle(b.angle - a.angle)
    if abs(difference) > MAX_ANGLE_DIFFERENCE:
        return a
    points, scores = a.landmarks, a.scores
    if a.landmarks is not None and b.landmarks is not None:
        points = ((a.landmarks + b.landmarks) / 2).astype(np.float32)
    if a.scores is not None and b.scores is not None:
        scores = ((a.scores + b.scores) / 2).astype(np.float32)
    return replace(a, angle=wrap_angle(a.angle + difference / 2), landmarks=points, scores=scores)
