"""The start from a model of another scheme: its landmarks converted, its weights taken, by `train` and by the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fewmark import TrainingData, train
from fewmark.core.errors import InputError
from fewmark.data.crops import CropRule
from fewmark.data.formats.csv import read_csv, write_csv
from fewmark.data.samples import FaceSample
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.checkpoint.model import StudentPart
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_from_dict, scheme_to_toml
from fewmark.training.config import load_config
from fewmark.training.events import Event
from fewmark.training.faces import prepare_faces
from fewmark.training.runner import RunContext
from fewmark.training.semi.plans import student_plans
from fewmark.training.start import convert_start, initial_weights, usual_recipe

OWN = {"left_eye": [36, 39], "right_eye": [42, 45], "nose": [30], "mouth": [48, 54], "chin": [8]}
"""Landmark -> those of ibug-68 whose middle it is."""
SHORT = ["students.compact.n_epochs=1", "students.compact.n_batches=2", "students.compact.batch_size=4"]


@pytest.fixture(scope="module")
def scheme() -> LandmarkScheme:
    return scheme_from_dict(
        {
            "name": "own-5",
            "landmarks": list(OWN),
            "mirror": [1, 0, 2, 3, 4],
            "normalizers": {"pupils": {"points": [0, 1]}},
            "default_normalizer": "pupils",
            "components": {"all": [0, 1, 2, 3, 4]},
        }
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[FaceSample]:
    """16 synthetic faces with the landmarks of `OWN`."""
    folder = tmp_path_factory.mktemp("faces")
    render_dataset(folder, 16, scheme=load_scheme("ibug-68"), seed=5, size=160)
    found = []
    for s in read_csv(folder / "annotations.csv"):
        assert s.landmarks is not None
        points = np.stack([s.landmarks[rows].mean(0) for rows in OWN.values()])
        found.append(replace(s, landmarks=points.astype(np.float32), box=None, occluded=None))
    return found


@pytest.fixture(scope="module")
def data(faces: list[FaceSample], scheme: LandmarkScheme) -> TrainingData:
    return TrainingData(scheme, faces[:6], [replace(s, landmarks=None) for s in faces[6:12]], faces[12:])


def test_landmarks_and_weights_are_converted(data: TrainingData, faces: list[FaceSample], tmp_path: Path) -> None:
    start, config = load_checkpoint("ibug-68"), load_config("adapt")
    notes: list[Event] = []
    prepared = prepare_faces(data, CropRule(128, 0.1))
    context = RunContext(folder=tmp_path, emit=notes.append)
    begun = convert_start(start, data, prepared, student_plans(config), context)
    assert len(begun.converted) == 6
    for cached, own in zip(begun.converted, faces[6:12], strict=True):
        true = cached.crop_from_image(own.landmarks)  # type: ignore[arg-type]
        between_eyes = np.linalg.norm(true[1] - true[0])
        assert np.linalg.norm(cached.landmarks - true, axis=1).mean() < 0.12 * between_eyes
    assert 0 < begun.nme < 0.15
    assert [e["text"] for e in notes][-1].startswith("start: landmarks of ibug-68, converted by 6 labelled faces")

    held, weights = start.students[0].module.state_dict(), begun.weights[0]
    nearest = [int(np.flatnonzero((held["head.weight"] == row).flatten(1).all(1))[0]) for row in weights["head.weight"]]
    assert nearest[2:] == [30, 66, 8] or nearest[2:] == [30, 62, 8]  # nose tip, a middle of the lips, chin
    assert nearest[0] in range(36, 42)
    assert nearest[1] in range(42, 48)
    assert torch.equal(weights["bottom.weight"], held["bottom.weight"])

    again: list[Event] = []  # the landmarks are kept for a run that goes on
    convert_start(start, data, prepared, student_plans(config), RunContext(folder=tmp_path, emit=again.append))
    assert len(again) == len(notes) - 1


def test_a_run_starts_from_a_model_of_another_scheme(data: TrainingData, tmp_path: Path) -> None:
    start, events = load_checkpoint("ibug-68"), list[Event]()
    result = train(load_config("adapt", SHORT), data, tmp_path / "run", start=start, on_event=events.append)
    assert [e["name"] for e in events if e["kind"] == "training"] == ["converted_compact", "round0_compact"]
    assert result.checkpoint.scheme.name == "own-5"
    assert result.checkpoint.counts == {"labelled": 6, "pseudo": 6, "unlabelled": 6}
    assert result.checkpoint.licence == start.licence
    assert result.checkpoint.provenance.startswith("started from a model of ibug-68 (1982 labelled, ")
    assert result.scores is not None
    assert result.scores.nme < 0.2  # two steps from the trunk of ibug-68; random weights have 0.5 and more
    assert 0 < result.start_nme < 0.15
    text = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "converted landmarks" in text
    assert "The landmarks of the model that it started from, converted: " in text
    assert "of these labelled by the start" in text
    assert "pseudo-labelled in the end" not in text
    resumed = train(load_config("adapt", SHORT), data, tmp_path / "run", start=start, resume=True)
    for name, value in result.checkpoint.students[0].module.state_dict().items():
        assert torch.equal(value, resumed.checkpoint.students[0].module.state_dict()[name]), name


def test_other_networks_learn_the_converted_landmarks_alone(data: TrainingData) -> None:
    config = load_config("laptop")
    begun = convert_start(
        load_checkpoint("ibug-68"), data, prepare_faces(data, CropRule(64, 0.1)), student_plans(config), RunContext()
    )
    assert list(begun.weights) == [{}, {}]
    assert len(begun.converted) == 6


def test_layers_of_other_shapes_stay_random(data: TrainingData) -> None:
    """An hourglass of two stacks: the layer that reads the first stack's maps has another number of inputs."""
    plan = student_plans(load_config("laptop"))[1]
    plan = replace(plan, arguments={**plan.arguments, "n_stacks": 2, "n_features": 16})
    part = StudentPart(plan.name, plan.architecture, {**plan.arguments, "n_maps": 68}, plan.codec, plan.build(68, 3))
    start = replace(load_checkpoint("ibug-68"), students=[part], calibration=None)
    prepared = prepare_faces(data, CropRule(64, 0.1))
    (weights,) = convert_start(start, data, prepared, [plan], RunContext()).weights
    held, fresh = part.module.state_dict(), plan.build(5, 0).state_dict()
    taken = {name for name in fresh if weights[name].shape == held[name].shape}
    assert all(torch.equal(weights[name], held[name]) for name in taken)
    assert {n for n in fresh if n not in taken} == {
        "outputs.0.weight",
        "outputs.0.bias",
        "outputs.1.weight",
        "outputs.1.bias",
        "maps_back.0.weight",
    }
    assert torch.equal(weights["maps_back.0.weight"], fresh["maps_back.0.weight"])
    assert not torch.equal(weights["outputs.0.weight"], fresh["outputs.0.weight"])


def test_a_start_that_finds_no_labelled_face_is_refused(scheme: LandmarkScheme, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((200, 200, 3), 128, np.uint8))
    points = np.array([[60, 60], [140, 60], [100, 100], [100, 140], [100, 180]], np.float32)
    data = TrainingData(scheme, [FaceSample(tmp_path / "grey.png", landmarks=points)], [], [])
    with pytest.raises(InputError, match=r"--start ibug-68: expected faces .* given none of 1"):
        train(load_config("adapt", SHORT), data, tmp_path / "run", start=load_checkpoint("ibug-68"))


def test_a_distillation_starts_from_its_own_scheme(data: TrainingData) -> None:
    plans = student_plans(load_config("adapt"))
    with pytest.raises(InputError, match="expected a model of scheme own-5, given one of ibug-68"):
        initial_weights(load_checkpoint("ibug-68"), data.scheme, plans)


def test_the_recipe_fits_the_start(tiny_model: Path) -> None:
    assert usual_recipe(load_checkpoint("ibug-68")) == "adapt"
    assert usual_recipe(load_checkpoint("ibug-68-nano")) is None
    assert usual_recipe(load_checkpoint(tiny_model)) is None
    assert usual_recipe(load_checkpoint("ibug-68-imagenet")) == "adapt-imagenet"


def test_a_label_file_and_a_folder_are_enough(
    cli: Any, faces: list[FaceSample], scheme: LandmarkScheme, tmp_path: Path
) -> None:
    """All labelled faces of the file are learned from; those images are left out of the folder's."""
    write_csv(tmp_path / "few.csv", faces[:6])
    (tmp_path / "own.toml").write_text(scheme_to_toml(scheme), encoding="utf-8")
    words = ["train", tmp_path / "few.csv", "--unlabelled", faces[0].image.parent, "--scheme", tmp_path / "own.toml"]
    words += ["--start", "ibug-68", "--out", tmp_path / "run", *(w for s in SHORT for w in ("--set", s))]
    result = cli(*words, "--json")
    assert "6 faces left out, which are labelled or validation faces" in result.stderr
    assert "recipe: adapt" in result.stderr
