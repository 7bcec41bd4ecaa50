"""Description of a run folder of `train` or `distill`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fewmark.cli.describe import Facts, describe_model
from fewmark.core.errors import InputError
from fewmark.core.text import count, percent

_ABSENT = object()
_SHOWN = 6  # changed settings that are named


def is_run(path: Path) -> bool:
    """Whether a folder is that of a training run."""
    settings = path / "config.toml"
    if not settings.is_file():
        return False
    with settings.open(encoding="utf-8", errors="replace") as file:
        return file.readline().startswith("# fewmark ")


def describe_run(folder: Path) -> tuple[dict[str, Any], Facts]:
    """Describe a run, finished or not: its recipe, its trainings, and its model if there is one.

    Raises:
        InputError: Its model cannot be read.
    """
    from fewmark.inference.checkpoint.metadata import RUN_MODEL, read_metadata
    from fewmark.training.run_folder import read_lines

    model, report = folder / RUN_MODEL, folder / "report.html"
    recipe, changed = _recipe(folder / "config.toml")
    epochs = [e for e in read_lines(folder / "metrics.jsonl") if e.get("kind") == "epoch"]
    n_trainings = len({e.get("name") for e in epochs if e.get("epoch") == e.get("n_epochs")})
    nme = next((e["val_nme"] for e in reversed(epochs) if e.get("val_nme") is not None), None)
    metadata = read_metadata(model) if model.is_file() else None
    data: dict[str, Any] = {
        "run": str(folder),
        "finished": metadata is not None,
        "recipe": recipe,
        "changed_settings": changed,
        "n_trainings": n_trainings,
        "model": str(model) if metadata is not None else None,
        "report": str(report) if report.is_file() else None,
        "scheme": None if metadata is None else metadata["scheme"]["name"],
        "accuracy": [] if metadata is None else metadata["accuracy"],
    }
    more = ", ..." if len(changed) > _SHOWN else ""
    settings = f", {count(len(changed), 'setting')} changed: {', '.join(changed[:_SHOWN])}{more}" if changed else ""
    facts: Facts = [("recipe", "of another version" if recipe is None else f"{recipe}{settings}")]
    if metadata is None:
        last = "" if nme is None else f", last validation NME {percent(nme)}"
        state = f"not finished, {count(n_trainings, 'training')} done{last}; --resume goes on"
        return data, [("run", state), *facts]
    files = [("model", str(model)), *([("report", str(report))] if report.is_file() else [])]
    return data, [("run", f"finished, {count(n_trainings, 'training')}"), *facts, *files, *describe_model(metadata)]


def _recipe(settings: Path) -> tuple[str | None, list[str]]:
    """The packaged recipe that a run's settings are nearest to, and those that differ; (None, []) if they cannot be read."""
    from fewmark.training.config import load_config, recipe_names

    for distillation in (False, True):
        try:
            given = dict(_flat(load_config(settings, distillation=distillation).model_dump()))
        except InputError:
            continue
        changes: dict[str, list[str]] = {}
        for name in recipe_names():
            own = dict(_flat(load_config(name).model_dump()))
            changes[name] = [key for key in {**own, **given} if own.get(key, _ABSENT) != given.get(key, _ABSENT)]
        nearest = min(changes, key=lambda name: (len(changes[name]), name != "laptop"))
        return nearest, changes[nearest]
    return None, []


def _flat(data: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings that decide what is learned, by their whole names."""
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        elif not path.startswith(("run.", "model.")):
            yield f"{path}{name}", value
