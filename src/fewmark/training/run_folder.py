"""The run folder's plain files: the settings that a run began with, and its logs, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.version import __version__
from fewmark.training.config import Config, to_toml

SETTINGS = "config.toml"


def check_folder(folder: Path, config: Config, data_hash: str, resume: bool) -> None:
    """See that the run folder is free, or holds the run that is to go on.

    Raises:
        InputError: neither is so.
    """
    settings = folder / SETTINGS
    if settings.is_file():
        if not resume:
            raise InputError(f"{folder}: there is a run already; add --resume to go on with it, or give another --out")
        first, _, rest = settings.read_text(encoding="utf-8").partition("\n")
        if rest != to_toml(config):
            raise InputError(
                f"{settings}: the run was started with other settings; give the same ones, or another --out"
            )
        if data_hash not in first:
            raise InputError(f"{settings}: the run was started on other data; give the same lists, or another --out")
        return
    if resume:
        raise InputError(f"{folder}: there is no run to go on with; leave --resume away to start one")


def write_settings(folder: Path, config: Config, data_hash: str) -> None:
    """Write what `check_folder` compares: from now on the folder holds a run."""
    write_text(folder / SETTINGS, f"# fewmark {__version__}, data {data_hash}\n{to_toml(config)}")


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to a log; NaN is refused, see `json_value`."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, allow_nan=False, default=float) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none where there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
