"""Settings read and written: defaults < recipe < file < --set."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from fewmark.core.errors import InputError
from fewmark.training.old_settings import (
    FORMER_DISTILLATION,
    FORMER_SECTIONS,
    move_distillation,
    rename_sections,
    upgrade,
)
from fewmark.training.settings import Config, StudentSettings


@dataclass(frozen=True)
class SettingDescription:
    """One setting.

    Attributes:
        name: Its path, such as "semi.ratio"; a student's begins with "students.NAME.".
        type: "number", "whole number", "yes or no", "text", "list", "table", or the choices.
        default: Its default.
        description: Its meaning.
    """

    name: str
    type: str
    default: Any
    description: str


def describe_settings() -> list[SettingDescription]:
    """All settings, in the order of their sections.

    >>> [s.default for s in describe_settings() if s.name == "semi.ratio"]
    [0.1]
    """
    return list(_describe(Config, ""))


def _describe(model: type[BaseModel], path: str) -> Iterator[SettingDescription]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if model is Config and name == "students":
            yield from _describe(StudentSettings, "students.NAME.")
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _describe(inner, f"{path}{name}.")
        else:
            factory: Any = field.default_factory
            default = factory() if field.default is PydanticUndefined else field.default
            yield SettingDescription(f"{path}{name}", _type_name(inner), default, field.description or "")


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, get_args(annotation)))
    names = {bool: "yes or no", int: "whole number", float: "number", str: "text", list: "list", dict: "table"}
    return names[get_origin(annotation) or annotation]


def recipe_names() -> list[str]:
    """The packaged recipes."""
    folder = resources.files("fewmark") / "training/recipes"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_config(recipe: str | Path = "laptop", overrides: Sequence[str] = (), *, distillation: bool = False) -> Config:
    """Read a config from a recipe's name or a TOML file, and overrides.

    Args:
        recipe: A packaged name, or a file of settings; a file may begin with `base = "laptop"` to change only some. Files written
            for earlier versions are read too, see `fewmark.training.old_settings`.
        overrides: "semi.ratio=0.2", the value as in TOML; a bare word is a string.
        distillation: Read settings for a distillation: settings of the rounds that earlier versions read for it
            (semi.selection, semi.ratio, semi.views, semi.labelled_share, teacher.steps) are taken for `distillation`'s.

    Raises:
        InputError: There is no such recipe, or a setting does not exist, is out of its range or cannot be read any more.

    >>> load_config("laptop", ["semi.ratio=0.2"]).semi.ratio
    0.2
    """
    data = _read_recipe(recipe, distillation)
    for override in overrides:
        _override(data, override, distillation)
    try:
        return Config.model_validate(upgrade(data, distillation=distillation))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        given = first.get("input")
        message = first["msg"].removeprefix("Value error, ")
        unknown = first["type"] == "extra_forbidden"
        what = f"no such setting{_nearest(place)}" if unknown else f"{message}, given {given!r}"
        raise InputError(f"{recipe}: {place}: {what}") from None
    except InputError as error:
        raise InputError(f"{recipe}: {error}") from None


def _nearest(place: str) -> str:
    """Name the settings that may have been meant, or what lists all."""
    student = re.match(r"students\.[^.]+\.", place)
    names = [s.name.replace("students.NAME.", student[0] if student else "students.NAME.") for s in describe_settings()]
    section, _, leaf = place.rpartition(".")
    leaves = {n: n.rpartition(".")[2] for n in names}
    here = get_close_matches(leaf, [v for n, v in leaves.items() if n.rpartition(".")[0] == section], n=1)
    near = [f"{section}.{v}" for v in here] or [n for n, v in leaves.items() if v == leaf]
    near = near or get_close_matches(place, sorted({n.partition(".")[0] for n in names}), n=1)
    return f"; did you mean {' or '.join(near)}?" if near else "; fewmark train --list-settings lists all"


def _read_recipe(recipe: str | Path, distillation: bool) -> dict[str, Any]:
    name = str(recipe)
    if name in recipe_names():
        text = (resources.files("fewmark") / "training/recipes" / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(recipe).is_file():
        try:
            text = Path(recipe).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: not a TOML file (an invalid byte of UTF-8 at {error.start})") from error
    else:
        near = get_close_matches(name, recipe_names(), n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"recipe {name!r}: no such file, and packaged are {', '.join(recipe_names())}{meant}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: not a TOML file ({error})") from error
    base = data.pop("base", None)
    data = rename_sections(data)
    if distillation:
        data = move_distillation(data, has_base=base is not None)
    return data if base is None else _merged(_read_recipe(str(base), distillation), data)


def _merged(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _override(data: dict[str, Any], override: str, distillation: bool) -> None:
    key, sign, value = override.partition("=")
    key = key.strip()
    if distillation and key in FORMER_DISTILLATION:
        key = f"distillation.{FORMER_DISTILLATION[key]}"
    path = key.split(".")
    path[0] = FORMER_SECTIONS.get(path[0], path[0])
    if not sign or not all(path):
        raise InputError(f"--set {override!r}: expected section.key=value, for example semi.ratio=0.2")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    place = data
    for part in path[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {override!r}: {part!r} is a value, not a section")
    place[path[-1]] = parsed


def to_toml(config: Config) -> str:
    """The resolved config as TOML; `load_config` reads it back."""
    lines: list[str] = []

    def write(table: Mapping[str, Any], path: str) -> None:
        plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
        if path and (plain or not table):
            lines.append(f"\n[{path}]")
        # strings, numbers, truth values and lists of them are the same in JSON and TOML
        lines.extend(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in plain.items())
        for k, v in table.items():
            if isinstance(v, dict):
                write(v, f"{path}.{k}" if path else k)

    write(config.model_dump(), "")
    return "\n".join(lines).lstrip("\n") + "\n"
