"""Distillation: multi-view prediction, selection, and the run from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

from fewmark import TrainingData, distill, train
from fewmark.core.errors import InputError
from fewmark.data.formats.csv import read_csv
from fewmark.data.lists import read_training_lists
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.predictor import Prediction
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.distillation import complete_labels, landmark_weights
from fewmark.training.multi_view import predict_multi_view
from fewmark.training.settings import Config
from fewmark.training.work_plan import plan_distillation

DOTS = np.array([[60.0, 52.0], [88.0, 70.0], [71.0, 97.0]])
"""Of the drawn image, px: one in each colour."""


class DotFinder:
    """A detector whose three landmarks are the middles of a red, a green and a blue dot, so it moves with the image."""

    def __init__(self, tmp_path: Path, error: float = 0.0) -> None:
        self.scheme = replace_landmarks(load_scheme("mtfl-5"), 3)
        self.error = error
        self.checkpoint = self

    @property
    def predictor(self) -> DotFinder:
        return self

    def predict(
        self, images: list[NDArray[np.uint8]], boxes: Any, n_passes: int, *, flip: bool | None = None
    ) -> Prediction:
        found = []
        for image in images:
            away = np.abs(image.astype(int) - image.min(axis=2, keepdims=True)) > 60
            ys, xs = np.mgrid[: image.shape[0], : image.shape[1]]
            weights = image * away
            total = weights.reshape(-1, 3).sum(0)
            x = (weights * xs[..., None]).reshape(-1, 3).sum(0) / total
            y = (weights * ys[..., None]).reshape(-1, 3).sum(0) / total
            found.append(np.stack([x + self.error, y], 1))
        n = len(images)
        return Prediction(
            np.asarray(found, np.float32), np.ones((n, 3), np.float32), np.zeros(n), np.full(n, np.nan, np.float32)
        )


def replace_landmarks(scheme: Any, k: int) -> Any:
    class Few:
        landmarks = scheme.landmarks[:k]
        n_landmarks = k
        name = "few"

    return Few()


@pytest.fixture
def dots(tmp_path: Path) -> FaceSample:
    image = np.zeros((150, 160, 3), np.uint8)
    for channel, (x, y) in enumerate(DOTS):
        colour = [0, 0, 0]
        colour[channel] = 255
        cv2.circle(image, (int(x), int(y)), 5, colour, -1, cv2.LINE_AA)
    path = tmp_path / "dots.png"
    cv2.imwrite(str(path), image[..., ::-1])
    return FaceSample(path, box=np.array([50, 45, 95, 100], np.float32))


def test_views_agree_where_the_detector_moves_with_the_image(dots: FaceSample, tmp_path: Path) -> None:
    found = predict_multi_view([DotFinder(tmp_path)], [dots], n_views=6, seed=1)  # type: ignore[list-item]
    np.testing.assert_allclose(found.landmarks[0], DOTS, atol=0.2)
    assert found.disagreement.max() < 0.01
    assert found.scores.tolist() == [[1.0, 1.0, 1.0]]


def test_disagreement_is_the_distance_of_detectors_from_their_mean(dots: FaceSample, tmp_path: Path) -> None:
    pair = [DotFinder(tmp_path, -2.0), DotFinder(tmp_path, 2.0)]
    found = predict_multi_view(pair, [dots], n_views=1, seed=1)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.landmarks[0], DOTS, atol=0.2)
    size = np.ptp(DOTS, axis=0).max()
    np.testing.assert_allclose(found.disagreement[0], 2 / size, rtol=0.05)


def test_views_are_a_function_of_the_seed(tiny_model: Path, synthetic: Path) -> None:
    detector = Detector.load(tiny_model)
    faces = read_training_lists(synthetic, synthetic / "few.txt", scheme=detector.scheme).labelled[:2]
    first, again, other = (predict_multi_view([detector], faces, n_views=2, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.landmarks, again.landmarks)
    assert not np.array_equal(first.landmarks, other.landmarks)


def test_models_of_several_schemes_are_refused(dots: FaceSample, tmp_path: Path) -> None:
    other = DotFinder(tmp_path)
    other.scheme = replace_landmarks(load_scheme("mtfl-5"), 2)
    with pytest.raises(InputError, match="one scheme"):
        predict_multi_view([DotFinder(tmp_path), other], [dots], n_views=1, seed=0)  # type: ignore[list-item]


def test_a_landmark_weighs_the_less_the_more_views_disagree() -> None:
    weights = landmark_weights(np.array([0.0, 0.01, 0.02, 0.1], np.float32), usual=0.01)
    assert weights[0] == 1
    assert weights[2] == pytest.approx(0.5)
    assert (np.diff(weights) < 0).all()


def test_labels_stay_and_missing_ones_are_filled() -> None:
    own = np.array([[1, 2], [np.nan, np.nan], [5, 8]], np.float32)
    sample = FaceSample(Path("a.jpg"), landmarks=own)
    full = complete_labels(sample, np.full((3, 2), 7, np.float32))
    assert full.landmarks is not None
    np.testing.assert_array_equal(full.landmarks, [[1, 2], [7, 7], [5, 8]])
    np.testing.assert_array_equal(full.face_box(), [1, 2, 5, 8])  # the box stays that of its own labels


SETTINGS = [
    "crop.size=32",
    "run.threads=1",
    "students.compact.arguments={widths=[8,8,8,8,8],decoder=8,n_blocks=[1,1,1,1]}",
    "students.compact.n_epochs=2",
    "students.compact.n_batches=2",
    "students.compact.batch_size=4",
    "distillation.views=2",
    "distillation.quality_steps=25",
]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config("compact", SETTINGS)


def faces_of(synthetic: Path, *, labelled: bool = True) -> TrainingData:
    scheme = load_scheme("ibug-68")
    few = synthetic / "few.txt" if labelled else None
    lists = read_training_lists(synthetic, few, [synthetic / "many.txt"], synthetic / "val.txt", scheme=scheme)
    return TrainingData(scheme, lists.labelled, lists.unlabelled, lists.validation)


def test_a_distilled_model(tiny_model: Path, synthetic: Path, config: Config, tmp_path: Path) -> None:
    teacher = Detector.load(tiny_model)
    events: list[dict[str, Any]] = []
    result = distill(config, faces_of(synthetic), tmp_path / "run", teachers=[teacher], on_event=events.append)
    model = Detector.load(result.path)
    checkpoint = model.checkpoint
    assert [s.architecture for s in checkpoint.students] == ["compact"]
    assert checkpoint.teacher is not None
    assert checkpoint.counts == {"labelled": 4, "pseudo": 5, "unlabelled": 6}  # floor(0.9 * 6)
    assert checkpoint.licence == teacher.checkpoint.licence
    assert checkpoint.provenance == f"distilled from models {teacher.checkpoint.provenance}"
    assert not checkpoint.flip
    assert checkpoint.box_from_detector is not None
    assert result.scores is not None
    assert result.scores.n_faces == 4
    assert [e["name"] for e in events if e["kind"] == "training"] == plan_distillation(config, 4, 6).order
    named = [e for e in events if e["kind"] == "epoch"]
    assert [e["epoch"] for e in named] == [1, 2]
    assert (tmp_path / "run/report.html").is_file()


def test_a_student_learns_its_teachers_predictions(tiny_model: Path, synthetic: Path, tmp_path: Path) -> None:
    """Without labels, the student comes closer to the teacher's predictions than to the truth."""
    settings = [
        *SETTINGS,
        "students.compact.n_epochs=40",
        "students.compact.n_batches=3",
        "distillation.selection=none",
    ]
    data = faces_of(synthetic, labelled=False)
    teacher = Detector.load(tiny_model)
    result = distill(load_config("compact", settings), data, tmp_path / "run", teachers=[teacher])
    student, names = Detector.load(result.path), [f.name for f in data.unlabelled]
    assert result.checkpoint.counts == {"labelled": 0, "pseudo": 6, "unlabelled": 6}
    assert result.checkpoint.teacher is None  # no labels to learn it from
    target = predict_multi_view([teacher], data.unlabelled, n_views=2, seed=0).landmarks
    own = predict_multi_view([student], data.unlabelled, n_views=1, seed=0).landmarks
    truth = np.stack([np.asarray(f.landmarks) for f in read_csv(synthetic / "annotations.csv") if f.name in names])
    assert np.linalg.norm(own - target, axis=-1).mean() < 0.5 * np.linalg.norm(own - truth, axis=-1).mean()


def test_a_stopped_distillation_ends_as_if_it_had_not_been(
    tiny_model: Path, synthetic: Path, config: Config, tmp_path: Path
) -> None:
    data, teacher = faces_of(synthetic), Detector.load(tiny_model)
    whole = distill(config, data, tmp_path / "whole", teachers=[teacher])

    class StopError(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "training":
            raise StopError

    with pytest.raises(StopError):
        distill(config, data, tmp_path / "cut", teachers=[teacher], on_event=stop)
    views = tmp_path / "cut/state/views.npz"
    written = views.stat().st_mtime_ns
    views.rename(views.with_name("looks.npz"))  # its name by earlier versions
    again = distill(config, data, tmp_path / "cut", teachers=[teacher], resume=True)
    assert (tmp_path / "cut/state/views.npz").stat().st_mtime_ns == written  # not predicted twice
    a, b = (safetensors.torch.load_file(r.path) for r in (whole, again))
    assert all(torch.equal(a[n], b[n]) for n in a)
    other = Detector.load("ibug-68")
    with pytest.raises(InputError, match="other data"):
        distill(config, data, tmp_path / "cut", teachers=[other], resume=True)
    licensed = load_config("compact", [*SETTINGS, "model.licence=CC0"])
    assert distill(licensed, data, tmp_path / "cut", teachers=[teacher], resume=True).checkpoint.licence == "CC0"
    fewer = load_config("compact", [*SETTINGS, "distillation.ratio=0.55", "model.licence=CC0"])
    with pytest.raises(InputError, match=r"other settings.*: distillation\.ratio was [\d.]+, now 0\.55; give"):
        distill(fewer, data, tmp_path / "cut", teachers=[teacher], resume=True)


def test_a_student_goes_on_from_a_model_of_its_network(
    tiny_model: Path, synthetic: Path, config: Config, tmp_path: Path
) -> None:
    data, teacher = faces_of(synthetic), Detector.load(tiny_model)
    first = distill(config, data, tmp_path / "first", teachers=[teacher]).checkpoint
    still = load_config("compact", [*SETTINGS, "students.compact.learning_rate=1e-9", "run.seed=5"])
    fresh = distill(still, data, tmp_path / "fresh", teachers=[teacher]).checkpoint
    again = distill(still, data, tmp_path / "again", teachers=[teacher], start=first).checkpoint
    a, b, c = (m.students[0].module.state_dict()["levels.0.0.first.weight"] for m in (first, fresh, again))
    torch.testing.assert_close(c, a, rtol=0, atol=1e-6)
    assert not torch.allclose(b, a, atol=1e-2)
    with pytest.raises(InputError, match="other data"):
        distill(still, data, tmp_path / "again", teachers=[teacher], resume=True)
    assert again.provenance.endswith(f"; started from a model {first.provenance}")


def test_labels_alone_tune_a_model_and_its_teacher_stays(
    synthetic: Path, config: Config, tiny_model: Path, tmp_path: Path
) -> None:
    data = faces_of(synthetic)
    first = distill(config, data, tmp_path / "first", teachers=[Detector.load(tiny_model)]).checkpoint
    alone = load_config("compact", [*SETTINGS, "semi.selection=none", "semi.rounds=0"])
    tuned = train(alone, replace(data, unlabelled=[]), tmp_path / "tuned", start=first)
    assert Detector.load(tuned.path).checkpoint.teacher is not None
    assert tuned.checkpoint.provenance == f"started from a model {first.provenance}"
    assert tuned.checkpoint.counts == first.counts == {"labelled": 4, "pseudo": 5, "unlabelled": 6}
    other = load_config("compact", [*SETTINGS, "semi.selection=none", "semi.rounds=0", "crop.size=64"])
    without = train(other, replace(data, unlabelled=[]), tmp_path / "other", start=first)
    assert without.checkpoint.teacher is None  # one of other crops would estimate what it has not learned


def test_a_model_of_another_network_is_no_start(
    tiny_model: Path, synthetic: Path, config: Config, tmp_path: Path
) -> None:
    data, teacher = faces_of(synthetic), Detector.load(tiny_model)
    with pytest.raises(
        InputError, match=r"--start: .*holds one of the networks compact .*widths.*, given compact .*widths"
    ):
        distill(config, data, tmp_path / "run", teachers=[teacher], start=load_checkpoint("ibug-68-nano"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (['cascade.stages=["coarse"]'], "a cascade"),
        (["crop.size=50"], "multiple of 32"),
    ],
)
def test_settings_of_something_else_are_refused(
    settings: list[str], words: str, tiny_model: Path, synthetic: Path, tmp_path: Path
) -> None:
    config = load_config("compact", [*SETTINGS, *settings])
    with pytest.raises(InputError, match=words):
        distill(config, faces_of(synthetic), tmp_path / "run", teachers=[Detector.load(tiny_model)])


def test_the_quality_network_of_the_model_selects(tiny_model: Path, synthetic: Path, tmp_path: Path) -> None:
    config = load_config("compact", [*SETTINGS, "distillation.selection=teacher", "distillation.ratio=0.5"])
    result = distill(config, faces_of(synthetic), tmp_path / "run", teachers=[Detector.load(tiny_model)])
    assert result.checkpoint.counts["pseudo"] == 3
    with np.load(tmp_path / "run/state/views.npz") as views:
        assert views["quality"].shape == (6,)
        assert np.ptp(views["quality"]) > 0
    with pytest.raises(InputError, match="none of the models has a quality network"):
        distill(config, faces_of(synthetic), tmp_path / "other", teachers=[Detector.load("ibug-68-nano")])


def test_some_faces_may_be_undetected_but_not_all(
    tiny_model: Path, config: Config, synthetic: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((64, 64, 3), 120, np.uint8))
    data = replace(faces_of(synthetic), unlabelled=[FaceSample(empty, name="empty.png")])
    with pytest.raises(InputError, match="in none of 1 unlabelled images"):
        distill(config, data, tmp_path / "run", teachers=[Detector.load(tiny_model)])


def test_lists_need_their_data(synthetic: Path) -> None:
    scheme = load_scheme("ibug-68")
    with pytest.raises(InputError, match="faces of DATA"):
        read_training_lists(None, synthetic / "few.txt", [synthetic], scheme=scheme)
    with pytest.raises(InputError, match="faces of DATA"):
        read_training_lists(None, None, [synthetic / "many.txt"], scheme=scheme)
    lists = read_training_lists(None, None, [synthetic], scheme=scheme)
    assert (len(lists.labelled), len(lists.unlabelled), len(lists.validation)) == (0, 14, 0)


def test_the_command(cli: Any, tiny_model: Path, synthetic: Path, tmp_path: Path) -> None:
    settings = [word for s in SETTINGS for word in ("--set", s)]
    arguments = ["distill", str(tiny_model), "--unlabelled", str(synthetic / "many.txt"), "--data", str(synthetic)]
    arguments += [
        "--labelled",
        str(synthetic / "few.txt"),
        "--val",
        str(synthetic / "val.txt"),
        "--out",
        str(tmp_path / "run"),
    ]
    data = cli.json(*arguments, *settings)
    assert data["n_pseudo"] == 5
    assert Path(data["model"]).is_file()
    assert data["validation"]["normalizer"] == "outer-eye-corners"
