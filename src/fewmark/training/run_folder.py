"""The plain files of a run folder: the settings at the start, and the logs with one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.version import __version__
from fewmark.training.config import Config, load_config, to_toml

SETTINGS = "config.toml"
OLD_NAMES = {"drawn": "synthetic", "looks.npz": "views.npz", "judge.safetensors": "quality.safetensors"}
"""File of a run's state by an earlier version -> its name today."""


def check_folder(folder: Path, config: Config, data_hash: str, *, resume: bool, distillation: bool = False) -> None:
    """Check that a run folder is free, or holds the run that is to go on.

    Args:
        folder: The run folder.
        config: Settings of the run.
        data_hash: Hash of its data.
        resume: Whether a run goes on.
        distillation: Whether it is a distillation, see `load_config`.

    Raises:
        InputError: There is a run already, none to go on with, or another one.
    """
    settings = folder / SETTINGS
    if settings.is_file():
        if not resume:
            raise InputError(f"{folder}: there is a run already; add --resume to go on with it, or give another --out")
        header = settings.read_text(encoding="utf-8").partition("\n")[0]
        version = header.removeprefix("# ").partition(",")[0]
        try:
            started_with = load_config(settings, distillation=distillation)
        except InputError as error:
            raise InputError(
                f"{error}; the run was started by {version}: go on with that version, or give another --out"
            ) from None
        if started_with != config:
            raise InputError(
                f"{settings}: the run was started with other settings, by {version}; give the same ones, or another --out"
            )
        if data_hash not in header:
            raise InputError(
                f"{settings}: the run was started on other data, by {version}; give the same lists, or another --out"
            )
        _adopt_old_names(folder / "state")
        return
    if resume:
        raise InputError(f"{folder}: there is no run to go on with; leave --resume away to start one")


def write_settings(folder: Path, config: Config, data_hash: str) -> None:
    """Write what `check_folder` compares: from now on the folder holds a run."""
    write_text(folder / SETTINGS, f"# fewmark {__version__}, data {data_hash}\n{to_toml(config)}")


def _adopt_old_names(state: Path) -> None:
    """Rename the files of a run that an earlier version began."""
    for path in sorted(state.iterdir()) if state.is_dir() else []:
        name = OLD_NAMES.get(path.name, path.name.replace("drawn_", "synthetic_", 1))
        if name != path.name and path.name.startswith(("drawn", "looks.npz", "judge.safetensors")):
            path.rename(state / name)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to a log; NaN is refused, see `json_value`."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, allow_nan=False, default=float) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; [] if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
