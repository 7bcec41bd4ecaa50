"""Rough head pose (yaw, pitch, roll) from landmarks alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats
from fewmark.data.synthetic.pose import Pose, Relief
from fewmark.data.synthetic.shape import mean_controls, scheme_weights
from fewmark.landmarks.scheme import LandmarkScheme

_EDGE = (
    0.8  # fraction of the way from the face's centre to its outline: beyond it, landmarks slide along a turning head
)
_MIN_LANDMARKS = 4  # to fit a pose
_INITIAL_YAWS = (-40.0, 0.0, 40.0)  # degrees: a flat shape projects nearly alike when turned to either side
_N_STEPS = 30
"""More steps change yaw by 0.2 degrees and make pitch, along which the error is flat, less accurate."""


class HeadPose(NamedTuple):
    """Degrees. Yaw > 0: the nose to the image's right; pitch > 0: the nose up; roll > 0: counter-clockwise in the image."""

    yaw: float
    pitch: float
    roll: float


def head_pose(landmarks: FloatArray, scheme: LandmarkScheme) -> HeadPose | None:
    """Estimate the pose of one head, see `head_poses`.

    Args:
        landmarks: (K, 2) image px, NaN where missing.
        scheme: Scheme of the landmarks.

    Returns:
        None for a scheme without a mirror or a mean face (of the packaged ones: menpo-39, which are profiles), and for fewer than 4
        usable landmarks.
    """
    if scheme.mirror is None or scheme.mean_face is None:
        return None
    pose = head_poses(np.asarray(landmarks)[None], scheme)[0]
    return HeadPose(*(float(angle) for angle in pose)) if np.isfinite(pose).all() else None


def head_poses(landmarks: FloatArray, scheme: LandmarkScheme) -> Floats:
    """Estimate yaw, pitch and roll of heads.

    The landmarks of the mean synthetic face, which has depth, are rotated, scaled and shifted (without perspective) to fit the
    face's own; those near the face's outline are left out if 4 others remain. One head's shape stands for all, so the angles are
    good enough to sort faces, not to measure heads; pitch, which an expression or a long face mimics, is the least accurate. On
    synthetic faces seen by a near camera the standard deviation of the error is 8 degrees for yaw (20 is estimated as 27, 45 as 52),
    5 for pitch and 1 for roll.

    Args:
        landmarks: (N, K, 2) image px, NaN where missing.
        scheme: Scheme of the landmarks.

    Returns:
        (N, 3) degrees, with the signs of `fewmark.data.synthetic.pose.Pose`: yaw > 0: the nose to the image's right, pitch > 0: the
        nose up, roll > 0: counter-clockwise. NaN where fewer than 4 usable landmarks are present, or all are in one place.

    Raises:
        InputError: The number of landmarks is not the scheme's, or the scheme has no mirror or no mean face.
    """
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[1:] != (scheme.n_landmarks, 2):
        raise InputError(
            f"head poses: expected (N, {scheme.n_landmarks}, 2) as the scheme {scheme.name} has, given {points.shape}"
        )
    model = _model(scheme)
    kept = np.flatnonzero(np.isfinite(model[:, 0]))
    model, points = model[kept], points[:, kept]
    seen = np.asarray(np.isfinite(points).all(2))
    points = np.where(seen[..., None], points, 0.0)
    usable = seen.sum(1) >= _MIN_LANDMARKS
    points[usable] = _centred(points[usable], seen[usable])
    usable &= np.abs(points).max((1, 2)) > 1e-9
    poses = np.full((len(points), 3), np.nan)
    if usable.any():
        poses[usable] = _angles(_fit(model, points[usable], seen[usable]))
    return poses


@lru_cache(maxsize=32)
def _model(scheme: LandmarkScheme) -> Floats:
    """(K, 3) face frame: the scheme's landmarks on the mean synthetic face; NaN for those not used."""
    if scheme.mirror is None:
        raise InputError(f"scheme {scheme.name}: head poses need a mirror, given none: add `mirror` to its file")
    if scheme.mean_face is None:
        raise InputError(f"scheme {scheme.name}: head poses need a mean face, given none: add `mean_face` to its file")
    controls = mean_controls()
    relief = Relief(controls)
    positions = scheme_weights(scheme) @ controls
    model = relief.lift(positions)
    edge = relief.outline.fraction(positions) > _EDGE
    if (~edge).sum() >= _MIN_LANDMARKS:
        model[edge] = np.nan
    return model


def _fit(model: Floats, points: Floats, seen: NDArray[np.bool_]) -> Floats:
    """Rotations (N, 3, 3), camera frame from face frame, of least squared error under scaled orthographic projection.

    Each step computes the depths from the current rotation, then the rotation from points and depths (Procrustes). Two small matrices
    hold all that the steps need of the landmarks.

    Args:
        model: (K, 3) face frame.
        points: (N, K, 2) image px, centred, 0 where not seen.
        seen: (N, K).
    """
    w = seen / seen.sum(1, keepdims=True)
    shape = (model - (w @ model)[:, None]) * w[..., None] ** 0.5
    flat = points * w[..., None] ** 0.5
    in_plane = ((shape[..., 0] - 1j * shape[..., 1]) * (flat[..., 0] + 1j * flat[..., 1])).sum(1)
    roll = -np.degrees(np.angle(in_plane))  # y is down
    spread, cross = shape.transpose(0, 2, 1) @ shape, flat.transpose(0, 2, 1) @ shape
    rotation = np.stack([[Pose(yaw, 0.0, float(r)).rotation() for r in roll] for yaw in _INITIAL_YAWS])
    target = np.empty_like(rotation)
    target[..., :2, :] = cross
    for _ in range(_N_STEPS):
        rotated = rotation @ spread
        fit, size = _fit_and_size(rotation, rotated, cross)
        target[..., 2, :] = (fit / size)[..., None] * rotated[..., 2, :]
        u, _, vt = np.linalg.svd(target)
        u[..., 2] *= np.sign(np.linalg.det(target))[..., None]
        rotation = u @ vt
    fit, size = _fit_and_size(rotation, rotation @ spread, cross)
    best = (fit**2 / size).argmax(0)  # the least squared error
    return np.asarray(rotation[best, np.arange(len(points))])


def _fit_and_size(rotation: Floats, rotated: Floats, cross: Floats) -> tuple[Floats, Floats]:
    """Numerator and denominator of the scale, px per face unit: (starts, N) each."""
    seen = rotation[..., :2, :]
    return (cross * seen).sum((2, 3)), np.maximum((rotated[..., :2, :] * seen).sum((2, 3)), 1e-12)


def _centred(points: Floats, seen: NDArray[np.bool_]) -> Floats:
    """(N, K, 2) relative to the mean of the present ones; the others 0."""
    mean = (points * seen[..., None]).sum(1, keepdims=True) / seen.sum(1)[:, None, None]
    return np.where(seen[..., None], points - mean, 0.0)


def _angles(rotation: Floats) -> Floats:
    """The inverse of `Pose.rotation`: (N, 3, 3) -> (N, 3) degrees."""
    yaw = np.arctan2(-rotation[:, 2, 0], rotation[:, 2, 2])
    pitch = np.arcsin(np.clip(rotation[:, 2, 1], -1, 1))
    roll = np.arctan2(rotation[:, 0, 1], rotation[:, 1, 1])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], 1)))
