"""Shared fixtures: the command line, tiny synthetic faces, settings, a run and its model, and data that may be absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from typer.testing import CliRunner, Result

from fewmark.cli.app import app
from fewmark.core.geometry import Image
from fewmark.data.images import read_image
from fewmark.data.synthetic.faces import render_dataset
from fewmark.landmarks.scheme import load_scheme

SHARED_DATA = Path(__file__).parents[2] / "shared/data"

settings.register_profile("any-machine", deadline=None)  # a busy machine is no fault of the code
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


class CommandLine:
    """The command `fewmark`, run in this process."""

    def __call__(self, *words: object, code: int = 0) -> Result:
        """The result of a command that exits with `code`."""
        result = CliRunner().invoke(app, [str(w) for w in words])
        assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
        return result

    def json(self, *words: object) -> Any:
        """The data that a command prints with --json."""
        return json.loads(self(*words, "--json").stdout)

    def error(self, *words: object, code: int = 1, progress: bool = False) -> str:
        """The one line that a failing command prints.

        Args:
            words: The command and its options.
            code: Exit code.
            progress: Leave out lines of a training's progress.
        """
        lines = self(*words, code=code).stderr.strip().splitlines()
        (line,) = [line for line in lines if not (progress and line.startswith("[ "))]
        return line


@pytest.fixture(scope="session")
def cli() -> CommandLine:
    return CommandLine()


@pytest.fixture(scope="session")
def shared_data() -> Callable[..., Path]:
    """A path in the folder of real data; the test is skipped if it is absent."""

    def find(*parts: str) -> Path:
        path = SHARED_DATA.joinpath(*parts)
        if not path.exists():
            pytest.skip(
                f"needs real faces, for research only and not in this repository, as ../shared/data/{'/'.join(parts)}"
            )
        return path

    return find


@pytest.fixture(scope="session")
def grace_hopper() -> Image:
    """A photograph with one face, (600, 512, 3) RGB; the test is skipped without matplotlib, whose sample it is."""
    cbook = pytest.importorskip("matplotlib.cbook", reason='needs matplotlib: pip install "fewmark[plot]"')
    return read_image(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 14 synthetic faces with the lists few (4), many (6), val (4) and more (2 of val, 2 of many)."""
    folder = tmp_path_factory.mktemp("synthetic")
    render_dataset(folder, 14, scheme=load_scheme("ibug-68"), seed=3, size=64)
    names = [f"images/{i:06d}.jpg" for i in range(14)]
    parts = {"few": names[:4], "many": names[4:10], "val": names[10:], "more": names[8:12]}
    for part, part_names in parts.items():
        (folder / f"{part}.txt").write_text("\n".join(part_names) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recipe of two tiny students and one round."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_data(synthetic: Path) -> Any:
    """The `TrainingData` of 4 labelled, 6 unlabelled and 4 validation faces."""
    from fewmark import TrainingData
    from fewmark.data.lists import read_training_lists

    scheme = load_scheme("ibug-68")
    unlabelled = [synthetic / "many.txt"]
    lists = read_training_lists(synthetic, synthetic / "few.txt", unlabelled, synthetic / "val.txt", scheme=scheme)
    return TrainingData(scheme, lists.labelled, lists.unlabelled, lists.validation)


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Any, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    from fewmark import train
    from fewmark.training.config import load_config

    folder = tmp_path_factory.mktemp("runs") / "run"
    train(load_config(tiny_recipe), tiny_data, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_run: Path) -> Path:
    """Model file of the tiny run."""
    return tiny_run / "detector.safetensors"
