"""How steady landmarks are on a face that is still, and by how much they come late on one that moves.

Trajectories are (T, K, 2) image px, a frame a row, one face; NaN where it was not found.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats, face_sizes

WINDOW = 12
"""Frames; half a second at 25 a second."""
STILL = 0.008
"""Of the face's size: a window is still where the landmarks' means over its two halves are less apart, on average."""
MOVING = 0.004
"""Of the face's size: a frame moves where its landmarks' shift from the last one is longer, on average over `WINDOW` frames."""


def window_variance(window: FloatArray, still: float | None = STILL) -> Floats | None:
    """How much each landmark's step from frame to frame varies in one window, relative to the face's size.

    Args:
        window: (T, K, 2) px, T at least 4.
        still: None for any window; else only one of a still face counts, see `STILL`.

    Returns:
        (K,) mean squared distance of the steps from their mean, in face sizes squared; None where the window does not
        count: a landmark is missing, or the face is not still.
    """
    points = np.asarray(window, np.float64)
    if len(points) < 4:
        raise InputError(f"window: expected at least 4 frames, given {len(points)}")
    if not np.isfinite(points).all():
        return None
    points = points / face_sizes(points).mean()
    half = len(points) // 2
    if still is not None and np.linalg.norm(points[-half:].mean(0) - points[:half].mean(0), axis=-1).mean() > still:
        return None
    steps = np.diff(points, axis=0)
    return np.asarray(((steps - steps.mean(0)) ** 2).sum(-1).mean(0), np.float64)


def jitter(landmarks: FloatArray, *, still: float | None = STILL, windows: FloatArray | None = None) -> float:
    """The standard deviation of the step from frame to frame, a fraction of the face's size, mean over the landmarks.

    Where each coordinate has noise of standard deviation s, independent from frame to frame, it is 2 s: a step is the
    difference of two, and has two coordinates.

    Args:
        landmarks: (T, K, 2) px, cut into windows of `WINDOW` frames; a shorter rest is left out.
        still: see `window_variance`.
        windows: (N,) bool, which windows count, instead of `still`: the same ones for trajectories that are compared.

    Returns:
        NaN where no window counts.

    >>> to_and_fro = np.tile([[[0.0, 0.0], [100.0, 0.0]], [[0.5, 0.0], [100.5, 0.0]]], (6, 1, 1))
    >>> round(jitter(to_and_fro), 4)  # steps of +0.5 and -0.5 px by turns, of a face of 100 px
    0.005
    """
    parts = _windows(landmarks)
    if windows is not None:
        parts = [p for p, wanted in zip(parts, windows, strict=True) if wanted]
    found = [v for p in parts if (v := window_variance(p, None if windows is not None else still)) is not None]
    return math.nan if not found else float(np.sqrt(np.mean(found, axis=0)).mean())


def still_windows(landmarks: FloatArray, still: float = STILL) -> NDArray[np.bool_]:
    """Which windows of `WINDOW` frames show a still face: (T, K, 2) px -> (T // WINDOW,)."""
    return np.array([window_variance(p, still) is not None for p in _windows(landmarks)], np.bool_)


def moving_frames(landmarks: FloatArray, moving: float = MOVING) -> NDArray[np.bool_]:
    """In which frames the face as a whole moves: (T, K, 2) px -> (T,).

    The mean landmark's steps are averaged over `WINDOW` frames, so that noise moves nothing; see `MOVING`.
    """
    points = np.asarray(landmarks, np.float64)
    middle = points.mean(1) / face_sizes(points)[:, None].clip(1e-9)
    steps = np.diff(middle, axis=0, prepend=middle[:1])
    missing = ~np.isfinite(steps).all(1)
    kernel = np.ones(WINDOW // 2) / (WINDOW // 2)
    mean = np.stack([np.convolve(np.where(missing, 0, steps[:, i]), kernel, mode="same") for i in range(2)], 1)
    return np.asarray((np.linalg.norm(mean, axis=1) > moving) & ~missing, np.bool_)


def lag(
    smoothed: FloatArray, reference: FloatArray, *, frames: NDArray[np.bool_] | None = None, most: int = 8
) -> float:
    """By how many frames one trajectory comes after another: the shift at which they differ least.

    The mean squared distance between smoothed(t) and reference(t - shift) is taken at whole shifts; the parabola through
    the least one and its neighbours gives the rest. It is exact for a steady motion, and the peak of the
    cross-correlation for a stationary one.

    Args:
        smoothed: (T, K, 2) px.
        reference: (T, K, 2) px.
        frames: (T,) which of `smoothed` count, e.g. `moving_frames(reference)`; None: all.
        most: the largest shift that is tried, frames, both ways.

    Returns:
        Frames, positive where `smoothed` is late; NaN where no frame counts.

    Raises:
        InputError: the shapes differ, or the least lies at the end of the range.

    >>> ramp = np.arange(40.0)[:, None, None] * np.ones((1, 1, 2))
    >>> round(lag(ramp - 0.75, ramp), 6)
    0.75
    """
    a, b = np.asarray(smoothed, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 2:
        raise InputError(f"lag: expected two trajectories of one shape (T, K, 2), given {a.shape} and {b.shape}")
    whole = np.asarray(np.isfinite(b).all((1, 2)), np.bool_)
    rows = np.arange(most, len(a) - most)
    wanted = np.asarray(np.isfinite(a).all((1, 2)), np.bool_)
    if frames is not None:
        wanted = wanted & frames
    shifts = np.arange(-most, most + 1)
    rows = np.array([r for r in rows if wanted[r] and whole[r - shifts].all()], np.int64)
    if len(rows) == 0:
        return math.nan
    cost = np.array([((a[rows] - b[rows - d]) ** 2).sum(-1).mean() for d in shifts])
    least = int(cost.argmin())
    if least in (0, len(shifts) - 1):
        raise InputError(f"lag: expected less than {most} frames, given {shifts[least]} or more; raise `most`")
    left, middle, right = cost[least - 1 : least + 2]
    bend = left - 2 * middle + right
    return float(shifts[least] + (0.0 if bend <= 0 else (left - right) / (2 * bend)))


def _windows(landmarks: FloatArray) -> list[Floats]:
    points = np.asarray(landmarks, np.float64)
    if points.ndim != 3 or points.shape[2] != 2:
        raise InputError(f"landmarks: expected a trajectory (T, K, 2), given {points.shape}")
    return [points[i : i + WINDOW] for i in range(0, len(points) - WINDOW + 1, WINDOW)]
