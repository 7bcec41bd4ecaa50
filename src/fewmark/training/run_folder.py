"""The plain files of a run folder: the settings at the start, and the logs with one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError, OutputError
from fewmark.core.files import write_text
from fewmark.core.version import __version__
from fewmark.training.config import load_config, to_toml
from fewmark.training.settings import Config

SETTINGS = "config.toml"
FREE = ("run.threads", "run.accelerator", "model.licence", "model.provenance")
"""Settings that a resumed run may change: they do not change what is learned."""
_NAMED = 6  # settings that a message lists
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
        InputError: There is a run already, none to go on with, or another one: of other data, or other settings than `FREE` ones.
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
        changed = [line for name, line in _changes(started_with, config) if name not in FREE]
        if changed:
            more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
            raise InputError(
                f"{settings}: the run was started with other settings, by {version}: {', '.join(changed[:_NAMED])}{more}; "
                "give the same ones, or another --out"
            )
        if data_hash not in header:
            raise InputError(
                f"{settings}: the run was started on other data, by {version}; give the same lists and models, or another --out"
            )
        _adopt_old_names(folder / "state")
        return
    if resume:
        raise InputError(f"{folder}: there is no run to go on with; leave --resume away to start one")


def write_settings(folder: Path, config: Config, data_hash: str) -> None:
    """Write what `check_folder` compares: from now on the folder holds a run."""
    write_text(folder / SETTINGS, f"# fewmark {__version__}, data {data_hash}\n{to_toml(config)}")


def update_settings(folder: Path, config: Config, *, distillation: bool = False) -> None:
    """Write the settings of a resumed run over its former ones where `FREE` ones differ; its version and data stay."""
    path = folder / SETTINGS
    if load_config(path, distillation=distillation) != config:
        header = path.read_text(encoding="utf-8").partition("\n")[0]
        write_text(path, f"{header}\n{to_toml(config)}")


def _changes(before: Config, after: Config) -> list[tuple[str, str]]:
    """The settings that differ: name, and "name was A, now B"."""
    old, new = (dict(_flat(c.model_dump(), "")) for c in (before, after))
    names = [n for n in {**old, **new} if old.get(n, _ABSENT) != new.get(n, _ABSENT)]
    return [(n, f"{n} was {_shown(old.get(n, _ABSENT))}, now {_shown(new.get(n, _ABSENT))}") for n in names]


_ABSENT = object()


def _flat(data: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _shown(value: Any) -> str:
    return "not there" if value is _ABSENT else json.dumps(value, ensure_ascii=False, default=str)


def _adopt_old_names(state: Path) -> None:
    """Rename the files of a run that an earlier version began."""
    for path in sorted(state.iterdir()) if state.is_dir() else []:
        name = OLD_NAMES.get(path.name, path.name.replace("drawn_", "synthetic_", 1))
        if name != path.name and path.name.startswith(("drawn", "looks.npz", "judge.safetensors")):
            path.rename(state / name)


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line to a log; NaN is refused, see `json_value`."""
    line = json.dumps(record, allow_nan=False, default=float) + "\n"
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free space, and go on with the run by --resume"
        ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, but for what a fault has left of one; [] if there is no such file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_bytes().decode("utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found += [record] if isinstance(record, dict) else []
    return found


def keep_whole_lines(path: Path) -> None:
    """Drop what a fault has left of a line of a log, so that the next one begins on a line of its own."""
    if path.is_file():
        lines = [json.dumps(record, default=float) for record in read_lines(path)]
        if len(lines) != path.read_bytes().count(b"\n") or not path.read_bytes().endswith(b"\n"):
            write_text(path, "".join(f"{line}\n" for line in lines))
