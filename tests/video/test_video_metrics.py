"""Jitter and lag of trajectories whose noise and motion are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.core.geometry import face_sizes
from fewmark.video.metrics import WINDOW, jitter, lag, moving_frames, still_windows, window_variance

SQUARE = np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 100.0], [0.0, 100.0]])


def test_jitter_of_known_noise() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, (WINDOW * 200, 4, 2))
    # steps of two independent values in two coordinates: 2 s, and the mean of each window's 11 steps is taken off, whose
    # variance is that of one difference over 11 steps: sqrt(4 s^2 - 4 s^2 / 121)
    expected = 2 * 0.5 * np.sqrt(1 - 1 / 121) / 100
    assert jitter(SQUARE + noise, still=None) == pytest.approx(expected, rel=0.02)


def test_steady_motion_is_no_jitter() -> None:
    ramp = SQUARE + np.arange(48)[:, None, None] * 0.02
    assert jitter(ramp) == pytest.approx(0, abs=1e-9)
    assert np.isnan(jitter(SQUARE + np.arange(48)[:, None, None] * 3.0))


def test_still_windows_and_moving_frames() -> None:
    way = np.concatenate([np.zeros(2 * WINDOW), np.arange(2 * WINDOW) * 2.0])
    points = SQUARE + way[:, None, None]
    assert still_windows(points).tolist() == [True, True, False, False]
    moving = moving_frames(points)
    assert not moving[: 2 * WINDOW - WINDOW // 2].any()
    assert moving[2 * WINDOW + WINDOW // 2 : -WINDOW].all()
    points[5] = np.nan
    assert still_windows(points).tolist() == [False, True, False, False]
    assert window_variance(points[:WINDOW]) is None


@given(st.floats(-3, 3))
def test_lag_of_a_shifted_wave(shift: float) -> None:
    t = np.arange(200.0)[:, None, None]
    assert lag(np.sin((t - shift) / 9) * SQUARE, np.sin(t / 9) * SQUARE) == pytest.approx(shift, abs=0.03)


def test_lag_counts_only_the_frames_it_is_asked_for() -> None:
    ramp = np.arange(60.0)[:, None, None] * np.ones((1, 1, 2))
    late = ramp - np.where(np.arange(60) < 30, 1.0, 2.0)[:, None, None]
    assert lag(late, ramp, frames=np.arange(60) < 30) == pytest.approx(1)
    assert lag(late, ramp, frames=np.arange(60) >= 30) == pytest.approx(2)
    assert np.isnan(lag(late, ramp, frames=np.zeros(60, bool)))
    with pytest.raises(InputError, match="raise `most`"):
        lag(ramp - 12, ramp)
    with pytest.raises(InputError, match="one shape"):
        lag(ramp, ramp[:-1])


def test_face_size() -> None:
    points = SQUARE.copy()
    points[0] = np.nan
    assert face_sizes(points) == 100
    assert np.isnan(face_sizes(points * np.nan))
    with pytest.raises(InputError, match=r"\(T, K, 2\)"):
        jitter(SQUARE)
    with pytest.raises(InputError, match="at least 4 frames"):
        window_variance(SQUARE[None])
