"""Expected errors: curves that do not rise, factors of landmarks, calibrated on faces that the fit has not seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import face_sizes
from fewmark.inference.checkpoint.edit import put_calibration
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.landmarks.calibration import ErrorCalibration, relative_errors, reliability

FACTORS = np.array([0.5, 1.0, 1.5, 1.0])


def made_up(n_faces: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores, and errors whose mean falls from 0.05 to 0.01 as the score rises, times the landmark's factor."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, (n_faces, 4))
    return scores, rng.exponential((0.05 - 0.04 * scores) * FACTORS)


def test_expected_errors_hold_on_other_faces() -> None:
    calibration = ErrorCalibration.fit(*made_up(400, 0))
    assert calibration is not None
    assert calibration.n_faces == 400
    np.testing.assert_allclose(calibration.factors, FACTORS, rtol=0.15)
    scores, errors = made_up(2000, 1)
    expected = calibration.expected_errors(scores, np.ones(2000))
    found = reliability(expected, errors)
    assert found.ratio == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(found.expected, found.true, rtol=0.2)
    assert found.true[-1] > 3 * found.true[0]


@given(st.integers(0, 1000), st.integers(20, 60))
def test_the_curve_never_rises(seed: int, n_faces: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.uniform(0, 1, (n_faces, 3)), 1)  # many ties
    calibration = ErrorCalibration.fit(scores, rng.exponential(0.1, scores.shape))
    assert calibration is not None
    assert (np.diff(calibration.errors) <= 0).all()
    one = calibration.expected_errors(np.array([0.1, 0.5, 0.9])[:, None].repeat(3, 1), np.full(3, 200.0))
    assert (np.diff(one, axis=0) <= 1e-5).all()


def test_two_levels_by_hand() -> None:
    scores = np.repeat([[0.2], [0.8]], 60, 0)
    errors = np.repeat([[0.06], [0.02]], 60, 0)
    calibration = ErrorCalibration.fit(scores, errors)
    assert calibration is not None
    found = calibration.expected_errors(np.array([[0.2], [0.8], [0.5], [0.0], [np.nan]]), np.full(5, 100.0))
    np.testing.assert_allclose(found[:, 0], [6, 2, 4, 6, np.nan], rtol=1e-6)


def test_missing_numbers_are_left_out() -> None:
    scores, errors = made_up(100, 0)
    errors[::2, 1] = np.nan
    scores[:, 3] = np.nan
    calibration = ErrorCalibration.fit(scores, errors)
    assert calibration is not None
    assert np.isfinite(calibration.factors).all()
    assert np.isnan(calibration.expected_errors(scores, np.ones(100))[:, 3]).all()


def test_nothing_is_said_from_few_faces_or_without_scores() -> None:
    scores, errors = made_up(19, 0)
    assert ErrorCalibration.fit(scores, errors) is None
    assert ErrorCalibration.fit(np.full((50, 4), np.nan), np.ones((50, 4))) is None
    assert ErrorCalibration.fit(np.full((50, 4), 0.5), np.ones((50, 4))) is None


def test_sizes_of_faces() -> None:
    points = np.array([[[0, 0], [30, 10]], [[np.nan, np.nan], [np.nan, np.nan]]], np.float32)
    np.testing.assert_array_equal(face_sizes(points), [30, np.nan])
    truth = points + np.array([3, 4], np.float32)
    np.testing.assert_allclose(relative_errors(points, truth)[0], [5 / 30, 5 / 30])


def test_there_and_back() -> None:
    calibration = ErrorCalibration.fit(*made_up(50, 0))
    assert calibration is not None
    again = ErrorCalibration.from_dict(json.loads(json.dumps(calibration.to_dict())), 4)
    np.testing.assert_array_equal(again.errors, calibration.errors)
    assert again.n_faces == 50


def test_bad_input_is_named() -> None:
    calibration = ErrorCalibration.fit(*made_up(50, 0))
    assert calibration is not None
    data = calibration.to_dict()
    with pytest.raises(InputError, match="factors: expected 5, given 4"):
        ErrorCalibration.from_dict(data, 5)
    with pytest.raises(InputError, match="a field is missing"):
        ErrorCalibration.from_dict({"scores": []}, 4)
    with pytest.raises(InputError, match="increasing scores"):
        ErrorCalibration.from_dict(data | {"scores": data["scores"][::-1]}, 4)
    with pytest.raises(InputError, match=r"one shape \(N, K\)"):
        ErrorCalibration.fit(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(InputError, match=r"scores \(..., 4\)"):
        calibration.expected_errors(np.zeros((2, 3)), np.ones(2))
    with pytest.raises(InputError, match="with elements present in both"):
        reliability(np.full(3, np.nan), np.ones(3))


def test_the_command_puts_it_into_the_model(
    cli: Any, tiny_model: Path, synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.safetensors"
    shutil.copy(tiny_model, model)
    before = load_checkpoint(model)
    assert before.calibration is None
    words = ["calibrate", model, synthetic, "--box", "gt"]
    assert "expected at least 20 labelled faces" in cli.error(*words)
    assert load_checkpoint(model).calibration is None
    monkeypatch.setattr("fewmark.landmarks.calibration.MIN_FACES", 10)
    fitted = cli.json(*words)
    assert fitted["n_faces"] == 14
    assert len(fitted["bins"]) == 10
    assert fitted["ratio"] == pytest.approx(1, abs=0.3)
    after = load_checkpoint(model)
    assert after.calibration is not None
    assert after.to_metadata() | {"calibration": None} == before.to_metadata()
    image = next((synthetic / "images").iterdir())
    (face,) = Detector(after).detect(image, np.array([8.0, 8, 56, 56]))
    assert face.expected_errors is not None
    assert (face.expected_errors > 0).all()
    assert "sum of expected over sum of true errors" in cli(*words).output
    assert "copy a packaged model" in cli.error("calibrate", "ibug-68", synthetic)
    other = ErrorCalibration.fit(*made_up(50, 0))
    assert other is not None
    with pytest.raises(InputError, match="factors: expected 68, given 4"):
        put_calibration(model, other)
