"""A whole run: what its folder holds, and that a run that was stopped ends as if it had not been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from fewmark import TrainingData, train
from fewmark.core.errors import InputError
from fewmark.core.geometry import Image
from fewmark.data.images import write_image
from fewmark.data.lists import read_training_lists
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.metadata import read_metadata
from fewmark.inference.detector import Detector
from fewmark.landmarks.scheme import load_scheme
from fewmark.training import fit as fitting
from fewmark.training.config import load_config
from fewmark.training.events import Event
from fewmark.training.faces import with_boxes
from fewmark.training.settings import Config
from fewmark.training.work_plan import plan_training


@pytest.fixture(scope="module")
def config(tiny_recipe: Path) -> Config:
    return load_config(tiny_recipe)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_run_folder(tiny_run: Path, config: Config, tiny_data: TrainingData) -> None:
    assert load_config(tiny_run / "config.toml") == config
    records = lines(tiny_run / "rounds.jsonl")
    assert [(r["round"], r["student"]) for r in records] == [
        (i, student) for i in (0, 1) for student in ("unet", "hourglass")
    ]
    for record in records:
        assert 0 < record["val_nme"] < 5
        assert 0 < record["ensemble_val_nme"] < 5
    for record in records[2:]:
        assert len(record["selected"]) == record["n_selected"] == 3  # floor(0.5 * 1 * 6)
        assert len(record["quality"]) == 6
        best = sorted(range(6), key=lambda u: -record["quality"][u])[:3]
        assert set(record["selected"]) == set(best)
    epochs = [e for e in lines(tiny_run / "metrics.jsonl") if e["kind"] == "epoch"]
    assert {e["name"] for e in epochs} >= {"round0_unet", "fold0_unet", "fold1_hourglass", "round1_hourglass"}
    assert all(np.isfinite(e["loss"]) for e in epochs)
    report = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert "<svg" in report
    assert "outer-eye-corners" in report


def test_the_model_file_describes_itself(tiny_run: Path, tiny_data: TrainingData) -> None:
    metadata = read_metadata(tiny_run / "detector.safetensors")
    assert metadata["counts"]["labelled"] == 4
    assert metadata["counts"]["unlabelled"] == 6
    assert metadata["counts"]["pseudo"] in (3, 4, 5, 6)
    assert metadata["data_hash"] == tiny_data.hash()
    assert metadata["accuracy"][0]["n_faces"] == 4
    assert metadata["accuracy"][0]["normalizer"] == "outer-eye-corners"
    detector = Detector.load(tiny_run / "detector.safetensors")
    sample = tiny_data.validation[0]
    faces = detector.detect(sample.image, np.asarray([sample.face_box()]))
    assert faces[0].landmarks.shape == (68, 2)


@pytest.mark.parametrize(("mirror", "flip", "noted"), [(False, 0.5, True), (False, 0.0, False), (True, 0.5, False)])
def test_a_scheme_without_a_mirror_is_noted(
    mirror: bool, flip: float, noted: bool, tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path
) -> None:
    scheme = tiny_data.scheme if mirror else replace(tiny_data.scheme, name="lopsided", mirror=None)
    events: list[dict[str, Any]] = []

    def emit(event: dict[str, Any]) -> None:
        events.append(event)
        if event["kind"] == "training":
            raise KeyboardInterrupt

    changed = load_config(tiny_recipe, [f"augment.flip={flip}", "semi.rounds=0"])
    with pytest.raises(KeyboardInterrupt):
        train(changed, TrainingData(scheme, tiny_data.labelled, [], []), tmp_path / "run", on_event=emit)
    notes = [e["text"] for e in events if e["kind"] == "note"]
    assert (
        notes
        == ["scheme lopsided has no mirror: no flips are learned; give `mirror` in the scheme file for them"] * noted
    )


def stop_at(wanted: Callable[[dict[str, Any]], bool]) -> Callable[[dict[str, Any]], None]:
    def emit(event: dict[str, Any]) -> None:
        if wanted(event):
            raise KeyboardInterrupt

    return emit


STOPS = {
    "in the first training": lambda e: e["kind"] == "epoch" and e["name"] == "round0_unet" and e["epoch"] == 1,
    "in a fold": lambda e: e["kind"] == "training" and e["name"] == "fold1_hourglass",
    "after a teacher": lambda e: e["kind"] == "teacher" and e["student"] == "hourglass",
    "in a round": lambda e: e["kind"] == "epoch" and e["name"] == "round1_unet" and e["epoch"] == 1,
}


@pytest.mark.parametrize("where", STOPS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    where: str,
    tiny_run: Path,
    tiny_data: TrainingData,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", 0.0)
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(config, tiny_data, folder, on_event=stop_at(STOPS[where]))
    assert not (folder / "detector.safetensors").exists()
    train(config, tiny_data, folder, resume=True)
    whole = safetensors.torch.load_file(tiny_run / "detector.safetensors")
    resumed = safetensors.torch.load_file(folder / "detector.safetensors")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    selected = [(r["round"], r["student"], r.get("selected")) for r in lines(folder / "rounds.jsonl")]
    assert selected == [(r["round"], r["student"], r.get("selected")) for r in lines(tiny_run / "rounds.jsonl")]


def test_only_the_same_run_goes_on(
    tiny_run: Path, tiny_data: TrainingData, config: Config, tiny_recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is a run already; add --resume"):
        train(config, tiny_data, tiny_run)
    for overrides, says in (
        (["semi.ratio=0.4"], "semi.ratio was 0.5, now 0.4; give the same"),
        (["semi.ratio=0.4", "run.threads=2", "run.seed=3"], "run.seed was 0, now 3, semi.ratio was 0.5, now 0.4; give"),
        (["students.unet.arguments.decoder=16"], "students.unet.arguments.decoder was 8, now 16; give"),
        (["students.third.loss=sum"], 'students.third.architecture was not there, now "compact", .* and 8 more; give'),
    ):
        with pytest.raises(InputError, match=f"other settings.*: {says}"):
            train(load_config(tiny_recipe, overrides), tiny_data, tiny_run, resume=True)
    fewer = TrainingData(tiny_data.scheme, tiny_data.labelled[:-1], tiny_data.unlabelled, tiny_data.validation)
    with pytest.raises(InputError, match="other data"):
        train(config, fewer, tiny_run, resume=True)
    with pytest.raises(InputError, match="no run to go on with"):
        train(config, tiny_data, tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


def test_settings_that_change_no_weights_may_change(
    tiny_run: Path, tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    changes = ["run.threads=2", "run.accelerator=cpu", "model.licence=CC0", "model.provenance=drawn"]
    changed = load_config(tiny_recipe, changes)
    threads = torch.get_num_threads()
    checkpoint = train(changed, tiny_data, folder, resume=True).checkpoint
    torch.set_num_threads(threads)
    assert (checkpoint.licence, checkpoint.provenance) == ("CC0", "drawn")
    assert load_config(folder / "config.toml") == changed
    headers = [(f / "config.toml").read_text(encoding="utf-8").partition("\n")[0] for f in (tiny_run, folder)]
    assert headers[0] == headers[1]
    whole, resumed = (safetensors.torch.load_file(f / "detector.safetensors") for f in (tiny_run, folder))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_labelled_faces_alone_and_nothing_held_out(tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path) -> None:
    config = load_config(tiny_recipe, ["semi.selection=none"])
    result = train(config, TrainingData(tiny_data.scheme, tiny_data.labelled, [], []), tmp_path / "run")
    assert result.scores is None
    assert result.checkpoint.teacher is None
    assert result.checkpoint.counts == {"labelled": 4, "pseudo": 0, "unlabelled": 0}


def test_a_scheme_of_one_landmark_without_a_mirror(synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    """K = 1: no mirror, so no flips; and boxes, because one point has none."""
    toml = 'name = "tip"\nlandmarks = ["nose_tip"]\ndefault_normalizer = "box-size"\n'
    (tmp_path / "tip.toml").write_text(toml, encoding="utf-8")
    scheme = load_scheme(tmp_path / "tip.toml")
    lists = read_training_lists(
        synthetic, synthetic / "few.txt", [synthetic / "many.txt"], scheme=load_scheme("ibug-68")
    )

    def tips(samples: list[FaceSample]) -> list[FaceSample]:
        return [FaceSample(s.image, s.box, s.landmarks[30:31], name=s.name) for s in samples]

    data = TrainingData(scheme, tips(lists.labelled), tips(lists.unlabelled), tips(lists.labelled[:2]))
    result = train(load_config(tiny_recipe), data, tmp_path / "run")
    assert result.scores is not None
    assert result.scores.normalizer == "box-size"
    assert result.scores.n_landmarks == 1


def test_without_labels_synthetic_faces_take_their_place(
    tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path
) -> None:
    config = load_config(tiny_recipe, ["synthetic.faces=12", "semi.last_length=1"])
    data = replace(tiny_data, labelled=[])
    events: list[Event] = []
    result = train(config, data, tmp_path / "run", on_event=events.append)
    assert result.checkpoint.counts["labelled"] == 0
    assert result.scores is not None
    assert result.scores.n_faces == len(data.validation)
    names = [e["name"] for e in events if e["kind"] == "training"]
    assert not [n for n in names if n.startswith(("synthetic", "last"))], "nothing is learned twice, and no labels last"
    assert list(plan_training(config, data.scheme, 0, len(data.unlabelled)).trainings) == names
    with pytest.raises(InputError, match="no face is labelled"):
        train(load_config(tiny_recipe, ["synthetic.faces=0"]), data, tmp_path / "none")
    bare = replace(data.scheme, name="bare", mean_face=None)
    with pytest.raises(InputError, match="none can be drawn in scheme"):
        train(config, TrainingData(bare, [], data.unlabelled, data.validation), tmp_path / "bare")


def test_faces_without_a_box_are_detected(synthetic: Path, tmp_path: Path) -> None:
    """An image without any face cannot be cropped and is left out."""
    write_image(tmp_path / "empty.png", np.full((64, 64, 3), 90, np.uint8))
    boxed = FaceSample(tmp_path / "empty.png", np.array([1, 1, 9, 9], np.float32))
    kept = with_boxes([FaceSample(tmp_path / "empty.png"), boxed], (0.0, 0.0, 1.0))
    assert kept == [boxed]


def test_hidden_labels_say_nothing_of_an_unlabelled_faces_box(grace_hopper: Image, tmp_path: Path) -> None:
    """They tell only which detected face it is: labels of the eyes alone give the same crop as those of the whole face."""
    write_image(tmp_path / "photo.png", grace_hopper)
    (found,) = Detector.load("ibug-68").detect(grace_hopper)
    whole = FaceSample(tmp_path / "photo.png", landmarks=found.landmarks)
    inner = FaceSample(tmp_path / "photo.png", landmarks=found.landmarks[17:])
    elsewhere = FaceSample(tmp_path / "photo.png", landmarks=found.landmarks * 0.1)
    blank = FaceSample(tmp_path / "photo.png")
    kept = with_boxes([whole, inner, elsewhere, blank], (0.0, 0.0, 1.0))
    assert len(kept) == 3
    boxes = [s.box.tolist() for s in kept if s.box is not None]
    assert boxes[0] == boxes[1] == boxes[2]
    assert boxes[0] != whole.face_box().tolist()


def test_a_run_of_an_earlier_version_goes_on(
    tiny_data: TrainingData, config: Config, tiny_run: Path, tmp_path: Path
) -> None:
    """Its settings have other names, and so have the files of its state."""
    folder = tmp_path / "run"
    (folder / "state").mkdir(parents=True)
    text = (tiny_run / "config.toml").read_text(encoding="utf-8")
    header, _, rest = text.partition("\n")
    rest = rest.replace("[synthetic]", "[drawn]").replace('kind = "peaks"\n', "width = 16\ncopies = 16\n")
    rest = rest[: rest.index("[distillation]")] + rest[rest.index("[cascade]") :]
    (folder / "config.toml").write_text(f"{header}\n{rest}", encoding="utf-8")
    for path in (tiny_run / "state").glob("round0_*.safetensors"):
        shutil.copy(path, folder / "state" / path.name)
    (folder / "state/drawn").mkdir()
    names: list[str] = []
    train(
        config,
        tiny_data,
        folder,
        resume=True,
        on_event=lambda e: names.append(e["name"]) if e["kind"] == "training" else None,
    )
    assert (folder / "state/synthetic").is_dir()
    assert names[0] == "fold0_unet"
    whole = safetensors.torch.load_file(tiny_run / "detector.safetensors")
    resumed = safetensors.torch.load_file(folder / "detector.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    (folder / "config.toml").write_text(f"{header}\n{rest.replace('width = 16', 'width = 8')}", encoding="utf-8")
    with pytest.raises(
        InputError, match=r"config\.toml: teacher: copies = 16, width = 8: .*; the run was started by fewmark 0\.1\.0"
    ) as raised:
        train(config, tiny_data, folder, resume=True)
    assert "\n" not in str(raised.value)
