"""Settings of earlier versions: what is read as a setting of today, and what replaced the rest. No torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from fewmark.core.errors import InputError

TEACHER_KINDS: Mapping[str, Mapping[str, Any]] = {
    "peaks": {
        "target": "landmark",
        "copies": 16,
        "width": 16,
        "norm": "batch",
        "peaks": True,
        "batch_size": 32,
        "learning_rate": 1e-3,
    },
    "patchgan": {
        "target": "heatmap",
        "copies": 8,
        "width": 64,
        "norm": "instance",
        "peaks": False,
        "batch_size": 128,
        "learning_rate": 0.01,
    },
}
"""teacher.kind -> the settings that it stands for; the first one holds their former defaults."""
QUALITY_NETWORK: Mapping[str, Any] = {**TEACHER_KINDS["peaks"], "copies": 4, "width": 8}
"""The settings of the quality network of a distilled model."""
CASCADE_OPTIONS: Mapping[str, tuple[Any, str]] = {
    "size": ("laptop", "size"),
    "twin": (True, "twin"),
    "apart": (False, "separate_contour"),
    "coarse_share": (0.0, "coarse_share"),
    "augment_coarse": (True, "augment_coarse"),
}
"""Former cascade setting -> the value that it still may have, and the argument of `train_cascade` that replaced it."""
DISTILLATION_DEFAULTS: Mapping[str, Any] = {
    "selection": "teacher",
    "ratio": 0.1,
    "views": 1,
    "labelled_share": 0.0,
    "quality_steps": 100,
}
"""Defaults of a distillation when it read its settings from `semi` and `teacher`."""
NETWORK_STRIDES: Mapping[str, int] = {"compact": 4, "stacked_hourglass": 4, "convolutional_pose_machine": 8}


FORMER_SECTIONS: Mapping[str, str] = {"drawn": "synthetic"}
FORMER_DISTILLATION: Mapping[str, str] = {
    "semi.selection": "selection",
    "semi.ratio": "ratio",
    "semi.views": "views",
    "semi.labelled_share": "labelled_share",
    "teacher.steps": "quality_steps",
}
"""Setting that a distillation used to read -> its name in `distillation`."""


def rename_sections(data: Mapping[str, Any]) -> dict[str, Any]:
    """One file's settings with today's names of sections.

    Raises:
        InputError: A section is there by both names.
    """
    for former, name in FORMER_SECTIONS.items():
        if former in data and name in data:
            raise InputError(f"{former}: renamed to {name}; expected one of the two, given both")
    return {FORMER_SECTIONS.get(key, key): value for key, value in data.items()}


def move_distillation(data: Mapping[str, Any], *, has_base: bool) -> dict[str, Any]:
    """Move what a distillation used to read to the settings that it reads today.

    Args:
        data: One file's settings; those of a file with a section `distillation` stay.
        has_base: Whether the file changes another one; otherwise former defaults hold for what it leaves out.
    """
    settings: dict[str, Any] = deepcopy(dict(data))
    if "distillation" in settings:
        return settings
    moved = {}
    for former, name in FORMER_DISTILLATION.items():
        section, _, key = former.partition(".")
        if key in _section(settings, section):
            moved[name] = settings[section].pop(key)
    if moved:
        settings["distillation"] = moved if has_base else {**DISTILLATION_DEFAULTS, **moved}
    return settings


def upgrade(data: Mapping[str, Any], *, distillation: bool = False) -> dict[str, Any]:
    """Settings as today's `Config` takes them, from those of this or an earlier version.

    Args:
        data: Settings as in a TOML file, not yet validated.
        distillation: The settings are those of a distillation, see `move_distillation`.

    Raises:
        InputError: A former setting has a value that no setting of today means.
    """
    settings: dict[str, Any] = deepcopy(dict(data))
    for name, student in _section(settings, "students").items():
        if isinstance(student, dict):
            _upgrade_student(f"students.{name}", student)
    cascade = _section(settings, "cascade")
    for key, (value, argument) in CASCADE_OPTIONS.items():
        if cascade.pop(key, value) != value:
            raise InputError(
                f"cascade.{key}: no longer a setting; give {argument} to fewmark.training.cascade.run.train_cascade, "
                f"or leave it at {value!r}"
            )
    _upgrade_teacher(settings, distillation)
    return settings


def _upgrade_student(path: str, student: dict[str, Any]) -> None:
    """Drop what follows from other settings, if it has the value that follows."""
    codec = _section(student, "codec")
    architecture, arguments = student.get("architecture", "compact"), _section(student, "arguments")
    stride = arguments.get("stride", NETWORK_STRIDES.get(str(architecture), 4))
    integral = student.get("loss", "integral") == "integral"
    clip_norm = 5.0 if student.get("optimizer", "adamw") == "adamw" else 0.0
    for place, table, key, value, reason in (
        (f"{path}.codec.stride", codec, "stride", stride, "follows from the network"),
        (f"{path}.codec.logits", codec, "logits", integral, "follows from the loss"),
        (f"{path}.codec.background", codec, "background", not integral, "follows from the loss"),
        (f"{path}.clip_norm", student, "clip_norm", clip_norm, "follows from the optimizer"),
    ):
        given = table.pop(key, value)
        if given != value:
            raise InputError(f"{place}: {reason}; expected {value!r} or nothing, given {given!r}")


def _upgrade_teacher(data: dict[str, Any], distillation: bool) -> None:
    """Name the kind of teacher that the former settings describe."""
    teacher = _section(data, "teacher")
    former = {key: teacher.pop(key) for key in TEACHER_KINDS["peaks"] if key in teacher}
    if distillation:
        if teacher.pop("source", "labelled") == "validation":
            raise InputError(
                "teacher.source: the quality network of a distilled model learns on the labelled faces alone"
            )
        if any(former[key] not in (QUALITY_NETWORK[key], TEACHER_KINDS["peaks"][key]) for key in former):
            raise InputError(
                f"teacher: {_listed(former)}: the quality network of a distilled model has no settings but its steps"
            )
        return
    trained = _section(data, "semi").get("selection", "teacher") == "teacher"
    if not trained and teacher.get("steps") == 0:
        teacher.pop("steps")
    if not former:
        return
    meant = {**TEACHER_KINDS.get(teacher.get("kind", "peaks"), TEACHER_KINDS["peaks"]), **former}
    for kind, values in TEACHER_KINDS.items():
        if meant == values:
            teacher["kind"] = kind
            return
    if trained:
        raise InputError(
            f"teacher: {_listed(former)}: no longer settings; expected teacher.kind, one of {', '.join(TEACHER_KINDS)}"
        )


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value!r}" for key, value in values.items())


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    """A table inside another one; an empty one, which changes nothing, where it is missing or no table."""
    found = data.get(name)
    return found if isinstance(found, dict) else {}
