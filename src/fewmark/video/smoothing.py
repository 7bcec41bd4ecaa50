"""The one-euro filter: smooths a face's landmarks strongly when it is still and with little lag when it moves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats


@dataclass(frozen=True)
class Smoothing:
    """Settings of the filter. Lengths are in face sizes, so that they hold for faces of any size in px.

    Attributes:
        min_cutoff: Cutoff frequency for a still landmark, Hz; a lower one reduces jitter.
        beta: Increase of the cutoff, Hz, per face size per second of speed; a higher one reduces lag.
        speed_cutoff: Cutoff frequency for the speed, Hz.

    Raises:
        InputError: A cutoff is not above 0, or beta is negative.
    """

    min_cutoff: float = 1.0
    beta: float = 25.0
    speed_cutoff: float = 4.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "speed_cutoff"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"smoothing: {name}: expected Hz above 0, given {getattr(self, name)}")
        if not 0 <= self.beta < math.inf:
            raise InputError(f"smoothing: beta: expected 0 or more, given {self.beta}")


class OneEuroFilter:
    """Smooths the landmarks of one face by a low-pass filter whose cutoff rises with each landmark's speed.

    Args:
        settings: See `Smoothing`; None: its defaults.

    Source: Casiez, Roussel, Vogel: 1 Euro Filter, CHI 2012, Algorithm 1 and Eq. 1-6.
    Differs: one speed per landmark, the length of (x, y), not one per coordinate, so that the filter commutes with rotations.

    >>> smooth = OneEuroFilter(Smoothing(min_cutoff=1.0, beta=0.0))
    >>> smooth(np.array([[0.0, 0.0]]), 0.0, size=100.0).tolist()
    [[0.0, 0.0]]
    >>> tau = 1 / (2 * np.pi * 1.0)  # s; the frames are as far apart: half of the way
    >>> smooth(np.array([[8.0, 4.0]]), tau, size=100.0).round(6).tolist()
    [[4.0, 2.0]]
    """

    def __init__(self, settings: Smoothing | None = None) -> None:
        self.settings = settings or Smoothing()
        self.reset()

    def reset(self) -> None:
        """Start anew."""
        self._raw: Floats | None = None
        self._smooth: Floats | None = None
        self._speed: Floats | None = None  # (K, 2) face sizes per second
        self._time_s = -math.inf

    def __call__(self, landmarks: FloatArray, time_s: float, size: float) -> Floats:
        """Smooth the landmarks of the next frame.

        Args:
            landmarks: (K, 2) px; a missing one (NaN) stays missing and starts anew afterwards.
            time_s: Time of the frame, later than the last one's.
            size: Size of the face, px.

        Returns:
            (K, 2) px.

        Raises:
            InputError: The time is not later, or the size is not above 0.
        """
        points = np.asarray(landmarks, np.float64)
        if not math.isfinite(time_s) or time_s <= self._time_s:
            raise InputError(f"time_s: expected a time after the last frame's, {self._time_s} s, given {time_s} s")
        if not 0 < size < math.inf:
            raise InputError(f"size: expected the face's size in px, above 0, given {size}")
        if self._raw is None or self._smooth is None or self._speed is None or self._raw.shape != points.shape:
            self._raw, self._smooth, self._speed, self._time_s = points, points, np.zeros_like(points), time_s
            return points
        dt = time_s - self._time_s
        s = self.settings
        known = np.isfinite(self._raw).all(1, keepdims=True)
        speed = np.where(known, (points - self._raw) / (dt * size), 0.0)
        before = np.where(np.isfinite(self._speed), self._speed, 0.0)
        self._speed = before + _weight(s.speed_cutoff, dt) * (speed - before)
        cutoff = s.min_cutoff + s.beta * np.linalg.norm(self._speed, axis=1, keepdims=True)
        before = np.where(known, self._smooth, points)
        self._smooth = before + _weight(cutoff, dt) * (points - before)
        self._raw, self._time_s = points, time_s
        return self._smooth


def _weight(cutoff_hz: float | Floats, dt: float) -> float | Floats:
    """Weight of the new value in the low-pass filter, Eq. 4 and 5."""
    tau = 1 / (2 * math.pi * cutoff_hz)
    return 1 / (1 + tau / dt)
