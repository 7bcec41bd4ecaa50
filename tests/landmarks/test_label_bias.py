"""The horizontal label bias of labels: found where it is, left where it is noise, added to what students find, and kept in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import fewmark.training.run
from fewmark import TrainingData, train
from fewmark.cli.describe import describe_model
from fewmark.core.errors import InputError
from fewmark.data.crops import CropRule
from fewmark.data.lists import read_training_lists
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import Checkpoint, load_checkpoint, save_checkpoint
from fewmark.inference.checkpoint.metadata import read_metadata
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.label_bias import apply_label_bias, cross_fit_label_bias, fit_label_bias
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.validation import find_bias, measure

MIRROR = (1, 0, 2)  # left, right, middle
SHAPE = np.array([[0.0, 0.0], [100.0, 0.0], [50.0, 80.0]], np.float32)
ODD = np.array([[0.02, 0.01], [0.02, -0.01], [0.03, 0.0]])
"""Changes sign under the mirror, as labels' bias to one side does."""
EVEN = np.array([[0.01, 0.02], [-0.01, 0.02], [0.0, -0.03]])


def made_up(
    n: int, bias: NDArray[np.float64], noise: float, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """n faces of several sizes, as they are found and as they are labelled."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 4, (n, 1, 1))
    found = SHAPE * scales
    truth = found + (bias + rng.normal(0, noise, (n, 3, 2))) * 100 * scales
    return found.astype(np.float32), truth.astype(np.float32)


def test_what_the_mirror_turns_round_is_found_and_the_rest_is_left() -> None:
    found = fit_label_bias(*made_up(400, ODD + EVEN, 0.01), MIRROR)
    assert found is not None
    np.testing.assert_allclose(found, ODD, atol=0.0025)


def test_noise_is_no_bias() -> None:
    """Even where all landmarks of a face err together, as those of a turned head do."""
    rng = np.random.default_rng(0)
    believed = 0
    for seed in range(100):
        found, truth = made_up(40, 0 * ODD, 0.005, seed)
        truth += (
            rng.normal(0, 5, (40, 1, 1)).astype(np.float32)
            * [[[1, 0]]]
            * np.ptp(found, axis=1).max(1)[:, None, None]
            / 100
        )
        believed += fit_label_bias(found, truth.astype(np.float32), MIRROR) is not None
    assert believed <= 5  # one in a hundred is foretold


def test_missing_landmarks_and_too_few_faces() -> None:
    found, truth = made_up(50, ODD, 0.003)
    truth[:, 1] = np.nan  # never annotated: its partner has nothing to be compared with
    truth[:20, 2] = np.nan
    bias = fit_label_bias(found, truth, MIRROR)
    assert bias is not None
    np.testing.assert_array_equal(bias[:2], 0)
    np.testing.assert_allclose(bias[2], ODD[2] * 100 / 80, atol=0.003)  # the box of what is left is 80 high
    assert fit_label_bias(found[:9], truth[:9], MIRROR) is None
    assert fit_label_bias(np.full_like(found, np.nan), truth, MIRROR) is None


@pytest.fixture
def checkpoint(tiny_model: Path) -> Checkpoint:
    return replace(load_checkpoint(tiny_model), label_bias=None)


@pytest.fixture
def faces(synthetic: Path) -> list[FaceSample]:
    scheme = load_scheme("ibug-68")
    lists = read_training_lists(
        synthetic, synthetic / "few.txt", [synthetic / "many.txt"], synthetic / "val.txt", scheme=scheme
    )
    return [*lists.labelled, *lists.validation] * 3


def labelled_by(detector: Detector, faces: list[FaceSample], bias: NDArray[np.float64]) -> list[FaceSample]:
    """The faces, labelled with what the detector says of their boxes, and a bias of the face's size."""
    boxed = [replace(s, box=s.face_box()) for s in faces]
    found = predict_samples(detector, boxed, "column", flip=True).landmarks
    sizes = np.ptp(found, axis=1).max(1)[:, None, None]
    return [
        replace(s, landmarks=(p + bias * z).astype(np.float32)) for s, p, z in zip(boxed, found, sizes, strict=True)
    ]


def test_a_model_says_what_its_labels_say(checkpoint: Checkpoint, faces: list[FaceSample], tmp_path: Path) -> None:
    bias = np.zeros((68, 2))
    bias[:, 0] = 0.02
    before = Detector(replace(checkpoint))
    faces = labelled_by(before, faces, bias)
    found, nothing = find_bias(checkpoint, faces, None, [])
    assert found is not None
    assert nothing is None
    np.testing.assert_allclose(found, bias, atol=1e-4)
    save_checkpoint(tmp_path / "model.safetensors", replace(checkpoint, label_bias=found))
    after = Detector.load(tmp_path / "model.safetensors")
    image, box = faces[0].image, np.asarray([faces[0].face_box()])
    moved = after.detect(image, box, flip=True)[0].landmarks - before.detect(image, box, flip=True)[0].landmarks
    side = float((box[0, 2:] - box[0, :2]).max())
    np.testing.assert_allclose(moved, found * side, atol=1e-2)


def test_the_box_in_the_crop() -> None:
    assert CropRule(120, 0.1).box_side == pytest.approx(100)
    rule = CropRule(96, 0.25)
    corners = rule.crop_from_image(np.array([10, 20, 60, 80], np.float32))(np.array([[10.0, 20.0], [60.0, 80.0]]))
    assert rule.box_side == pytest.approx(np.ptp(corners[:, 1]))


def test_without_labels_it_is_the_teachers(checkpoint: Checkpoint) -> None:
    one, two = (replace(checkpoint, label_bias=np.full((68, 2), v)) for v in (0.01, 0.03))
    found, _ = find_bias(checkpoint, [], None, [one, two, checkpoint])
    assert found is not None
    np.testing.assert_allclose(found, 0.02)
    assert find_bias(checkpoint, [], None, [checkpoint]) == (None, None)
    one_sided = replace(checkpoint, scheme=replace(checkpoint.scheme, mirror=None))
    assert find_bias(one_sided, [], None, [one]) == (None, None)


def test_faces_without_extent_tell_nothing(checkpoint: Checkpoint, faces: list[FaceSample]) -> None:
    point = np.full((68, 2), np.nan, np.float32)
    point[3] = 40.0
    assert find_bias(checkpoint, [replace(s, landmarks=point) for s in faces], None, []) == (None, None)


def test_held_out_faces_are_measured_with_what_the_others_tell() -> None:
    found, truth = made_up(400, ODD, 0.01)
    for faces in (slice(0, 30), slice(30, 400)):
        crossed = cross_fit_label_bias(found[faces], truth[faces], MIRROR)
        whole = fit_label_bias(found[faces], truth[faces], MIRROR)
        assert whole is not None
        before, crossed_error, fitted = (
            float(
                np.linalg.norm((p - truth[faces]) / np.ptp(found[faces], axis=1).max(1)[:, None, None], axis=2).mean()
            )
            for p in (found[faces], crossed, apply_label_bias(found[faces], whole))
        )
        assert fitted < crossed_error < before  # a bias fits the faces that told it better than others
    np.testing.assert_array_equal(
        cross_fit_label_bias(found[:11], truth[:11], MIRROR), found[:11]
    )  # eight or nine tell nothing


@pytest.mark.parametrize("least", [16, 17])
def test_validation_faces_tell_it_where_there_are_enough(
    checkpoint: Checkpoint, faces: list[FaceSample], monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr("fewmark.training.validation.HELD_OUT_FACES", least)
    bias, other = np.zeros((68, 2)), np.zeros((68, 2))
    bias[:, 0], other[:, 0] = 0.02, -0.01
    held_out = labelled_by(Detector(replace(checkpoint)), faces, bias)[:16]
    labelled = labelled_by(Detector(replace(checkpoint)), faces, other)
    before = measure(checkpoint, held_out)
    found, after = find_bias(checkpoint, labelled, before, [])
    assert found is not None
    assert after is not None
    np.testing.assert_allclose(found, bias if least == 16 else other, atol=1e-4)
    size = np.ptp(before.landmarks, axis=1).max(1)[:, None, None]
    np.testing.assert_allclose(after.landmarks, before.landmarks + found * size, atol=0.02)
    assert after.score.nme < before.score.nme if least == 16 else after.score.nme > before.score.nme


def test_a_run_puts_it_into_the_model(
    faces: list[FaceSample], tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def find(checkpoint: Checkpoint, labelled: list[FaceSample], measured: object, *rest: object) -> object:
        told.append(len(labelled))
        return np.full((68, 2), 0.5), measured

    monkeypatch.setattr(fewmark.training.run, "find_bias", find)
    config = load_config(tiny_recipe, ["semi.rounds=0"])
    data = TrainingData(load_scheme("ibug-68"), faces[:4], [], faces[4:])
    result = train(config, data, tmp_path / "run")
    assert told == [4]
    written = load_checkpoint(result.path).label_bias
    assert written is not None
    np.testing.assert_array_equal(written, np.full((68, 2), 0.5))


@pytest.mark.parametrize("bias", [np.zeros((5, 2)), np.full((68, 2), np.nan)])
def test_a_bias_that_does_not_fit(checkpoint: Checkpoint, tmp_path: Path, bias: NDArray[np.float64]) -> None:
    save_checkpoint(tmp_path / "model.safetensors", replace(checkpoint, label_bias=bias))
    with pytest.raises(InputError, match="lateral_bias: expected 68 pairs"):
        load_checkpoint(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("x", "said"), [(0.004, "0.40 % of the face box to the right"), (-0.001, "0.10 % of the face box to the left")]
)
def test_a_model_tells_of_it(tiny_model: Path, x: float, said: str) -> None:
    metadata = read_metadata(tiny_model)
    facts = dict(describe_model({**metadata, "lateral_bias": [[x, 0.0]] * 68}))
    assert facts["horizontal label bias"].startswith(said)
    assert "horizontal label bias" not in dict(describe_model({**metadata, "lateral_bias": None}))
