"""Synthetic faces, settings and a model that are small enough for a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from fewmark.data.synthetic.faces import render_dataset
from fewmark.landmarks.scheme import load_scheme

settings.register_profile("any-machine", deadline=None)  # a slow moment of the machine is no fault of the code
settings.load_profile("any-machine")

TINY = """
[run]
threads = 1
[crop]
size = 32
[students.unet]
arguments = { widths = [8, 8, 8, 8, 8], decoder = 8, n_blocks = [1, 1, 1, 1] }
n_epochs = 2
batch_size = 4
[students.hourglass]
architecture = "stacked_hourglass"
arguments = { n_stacks = 1, n_modules = 1, n_features = 16, depth = 2 }
n_epochs = 1
batch_size = 4
[semi]
rounds = 1
ratio = 0.5
[teacher]
steps = 25
"""


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 14 synthetic faces with the lists few (4), many (6), val (4) and more (2 of val, 2 of many)."""
    folder = tmp_path_factory.mktemp("drawn")
    render_dataset(folder, 14, scheme=load_scheme("ibug-68"), seed=3, size=64)
    names = [f"images/{i:06d}.jpg" for i in range(14)]
    parts = {"few": names[:4], "many": names[4:10], "val": names[10:], "more": names[8:12]}
    for part, part_names in parts.items():
        (folder / f"{part}.txt").write_text("\n".join(part_names) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_run(synthetic: Path, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended, by the library."""
    from fewmark import TrainingData, train
    from fewmark.data.lists import read_training_lists
    from fewmark.training.config import load_config

    scheme = load_scheme("ibug-68")
    lists = read_training_lists(
        synthetic, synthetic / "few.txt", [synthetic / "many.txt"], synthetic / "val.txt", scheme=scheme
    )
    folder = tmp_path_factory.mktemp("runs") / "run"
    data = TrainingData(scheme, lists.labelled, lists.unlabelled, lists.validation)
    train(load_config(tiny_recipe), data, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Path) -> Path:
    return tiny_run / "detector.safetensors"
