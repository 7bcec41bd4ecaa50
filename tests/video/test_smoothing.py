"""The one-euro filter: hand-computed steps, steadiness, lag, frame rates, missing landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.video.metrics import jitter, lag
from fewmark.video.smoothing import OneEuroFilter, Smoothing

Floats = NDArray[np.float64]


def smoothed(points: Floats, fps: float = 25.0, size: float = 100.0, settings: Smoothing | None = None) -> Floats:
    smooth = OneEuroFilter(settings)
    return np.stack([smooth(p, i / fps, size) for i, p in enumerate(points)])


def test_two_steps_by_hand() -> None:
    # dt = tau of 1 Hz, so a cutoff of c Hz weighs the new value by c / (1 + c)
    dt = 1 / (2 * np.pi)
    smooth = OneEuroFilter(Smoothing(min_cutoff=1.0, beta=2.0, speed_cutoff=1.0))
    smooth(np.zeros((1, 2)), 0.0, 10.0)
    x = np.array([[3.0, 4.0]])
    speed = 5 / (10 * dt) / 2  # face sizes a second; half of it is believed
    cutoff = 1 + 2 * speed
    np.testing.assert_allclose(smooth(x, dt, 10.0), x * cutoff / (1 + cutoff))


def test_noise_on_a_still_face_is_at_most_half() -> None:
    rng = np.random.default_rng(0)
    still = rng.uniform(0, 100, (68, 2)) + rng.normal(0, 0.1, (240, 68, 2))
    assert jitter(smoothed(still)) < 0.45 * jitter(still)


@pytest.mark.parametrize(("fraction_a_second", "most"), [(0.1, 1.5), (0.25, 0.8), (0.5, 0.5), (1.0, 0.3), (3.0, 0.2)])
def test_the_faster_a_face_moves_the_less_it_is_late(fraction_a_second: float, most: float) -> None:
    rng = np.random.default_rng(1)
    way = np.arange(120)[:, None, None] / 25 * 100 * fraction_a_second * np.array([0.8, 0.6])
    true = rng.uniform(0, 100, (68, 2)) + way
    found = smoothed(true + rng.normal(0, 0.1, true.shape))
    assert 0 < lag(found, true) < most


@given(st.floats(0.05, 40), st.floats(-180, 180))
def test_size_and_rotation_of_the_image_do_not_matter(scale: float, angle: float) -> None:
    points = np.cumsum(np.random.default_rng(2).normal(0, 1, (20, 5, 2)), axis=0)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[c, s], [-s, c]])
    np.testing.assert_allclose(
        smoothed(points @ turn * scale, size=100 * scale), smoothed(points) @ turn * scale, atol=1e-7 * scale
    )


def test_a_missing_landmark_begins_anew_and_harms_no_other() -> None:
    points = np.cumsum(np.random.default_rng(3).normal(0, 1, (9, 2, 2)), axis=0)
    gap = points.copy()
    gap[4, 1] = np.nan
    whole, found = smoothed(points), smoothed(gap)
    np.testing.assert_array_equal(found[:, 0], whole[:, 0])
    assert np.isnan(found[4, 1]).all()
    np.testing.assert_array_equal(found[5, 1], gap[5, 1])
    assert np.isfinite(found[6:]).all()


def test_after_a_reset_the_past_is_forgotten() -> None:
    smooth = OneEuroFilter()
    smooth(np.zeros((1, 2)), 5.0, 10.0)
    smooth.reset()
    assert smooth(np.ones((1, 2)), 0.0, 10.0).tolist() == [[1.0, 1.0]]


def test_bad_input() -> None:
    for bad in ({"min_cutoff": 0}, {"speed_cutoff": -1}, {"beta": -1}, {"min_cutoff": float("nan")}):
        with pytest.raises(InputError, match=next(iter(bad))):
            Smoothing(**bad)
    smooth = OneEuroFilter()
    smooth(np.zeros((1, 2)), 1.0, 10.0)
    for time_s in (1.0, 0.5, float("nan")):
        with pytest.raises(InputError, match="time_s"):
            smooth(np.zeros((1, 2)), time_s, 10.0)
    with pytest.raises(InputError, match="size"):
        smooth(np.zeros((1, 2)), 2.0, 0.0)
