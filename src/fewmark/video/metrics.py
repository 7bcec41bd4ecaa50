"""Jitter of landmarks on a still face, and their lag on a moving one.

A trajectory is (T, K, 2) image px, one row per frame, of one face; NaN where it was not found.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats, face_sizes

WINDOW = 12
"""Frames; half a second at 25 frames per second."""
STILL = 0.008
"""Fraction of the face's size. A window is still if the landmarks' means over its two halves differ by less, on average."""
MOVING = 0.004
"""Fraction of the face's size. A frame is moving if the landmarks' mean step, averaged over `WINDOW` frames, is longer."""


def window_variance(window: FloatArray, still: float | None = STILL) -> Floats | None:
    """Variance of each landmark's step from frame to frame in one window, relative to the face's size.

    Args:
        window: (T, K, 2) px, T at least 4.
        still: Limit of a still window, see `STILL`; None: use any window.

    Returns:
        (K,) mean squared distance of the steps from their mean, in squared face sizes; None for a window that is not used: a
        landmark is missing, or the face is not still.

    Raises:
        InputError: There are fewer than 4 frames.
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
    """Standard deviation of the step from frame to frame, as a fraction of the face's size, averaged over the landmarks.

    For independent noise of standard deviation s in each coordinate it is 2 s: a step is the difference of two positions and has two
    coordinates.

    Args:
        landmarks: (T, K, 2) px, cut into windows of `WINDOW` frames; a shorter rest is left out.
        still: See `window_variance`.
        windows: (N,) bool, windows to use instead of the still ones: the same for trajectories that are compared.

    Returns:
        NaN if no window is used.

    >>> to_and_fro = np.tile([[[0.0, 0.0], [100.0, 0.0]], [[0.5, 0.0], [100.5, 0.0]]], (6, 1, 1))
    >>> round(jitter(to_and_fro), 4)  # alternating steps of +0.5 and -0.5 px, on a face of 100 px
    0.005
    """
    parts = _windows(landmarks)
    if windows is not None:
        parts = [p for p, wanted in zip(parts, windows, strict=True) if wanted]
    found = [v for p in parts if (v := window_variance(p, None if windows is not None else still)) is not None]
    return math.nan if not found else float(np.sqrt(np.mean(found, axis=0)).mean())


def still_windows(landmarks: FloatArray, still: float = STILL) -> NDArray[np.bool_]:
    """Whether the face is still in each window of `WINDOW` frames: (T, K, 2) px -> (T // WINDOW,)."""
    return np.array([window_variance(p, still) is not None for p in _windows(landmarks)], np.bool_)


def moving_frames(landmarks: FloatArray, moving: float = MOVING) -> NDArray[np.bool_]:
    """Whether the face as a whole moves in each frame: (T, K, 2) px -> (T,).

    The steps of the landmarks' mean are averaged over `WINDOW` frames, so that noise does not count; see `MOVING`.
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
    """Lag of one trajectory behind another, in frames: the shift at which they differ least.

    The mean squared distance between smoothed(t) and reference(t - shift) is computed at whole shifts; a parabola through the least
    one and its neighbours gives the fraction. It is exact for uniform motion, and the peak of the cross-correlation for stationary
    motion.

    Args:
        smoothed: (T, K, 2) px.
        reference: (T, K, 2) px.
        frames: (T,) bool, frames of `smoothed` to use, e.g. `moving_frames(reference)`; None: all.
        most: Largest shift to try in both directions, frames.

    Returns:
        Frames, positive if `smoothed` is late; NaN if no frame is used.

    Raises:
        InputError: The shapes differ, or the minimum is at the end of the range.

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
