"""Every setting that a user can change, validated. Order: defaults < recipe < file < --set."""

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

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticUndefined

from fewmark.core.errors import InputError
from fewmark.inference.cascade.state import check_order
from fewmark.training.old_settings import (
    FORMER_DISTILLATION,
    FORMER_SECTIONS,
    move_distillation,
    rename_sections,
    upgrade,
)

NOT_STATED = "not stated"
"""Licence or provenance of a model where nobody gave one."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSettings(_Settings):
    """Seed and hardware of a run."""

    seed: int = Field(0, description="Seed of everything random.", ge=0)
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Hardware; auto takes a CUDA GPU if there is one."
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="Numerical precision; auto is bf16-mixed on a GPU that has it and 32-true elsewhere."
    )
    threads: int = Field(0, description="CPU threads of torch; 0 leaves torch's default.", ge=0)


class CropSettings(_Settings):
    """The part of an image that the networks see."""

    size: int = Field(64, description="Side of the square crop, px.", ge=16, le=1024)
    margin: float = Field(
        0.15, description="Margin added to the face box on each side, fraction of its longer side.", ge=0, le=2
    )


class AugmentSettings(_Settings):
    """Ranges of the augmentation, see `fewmark.data.augment.AugmentRule`."""

    scale: float = Field(0.1, description="Largest change of scale: 1 - scale to 1 + scale.", ge=0, lt=1)
    rotation: float = Field(30.0, description="Largest in-plane rotation to either side, degrees.", ge=0, le=180)
    shift: float = Field(0.05, description="Largest shift on each axis, fraction of the crop's side.", ge=0, le=0.5)
    flip: float = Field(0.5, description="Probability of a horizontal flip.", ge=0, le=1)
    colour: float = Field(
        0.3, description="Strength of changes of brightness, contrast, gamma and channels; 0 disables them.", ge=0, le=1
    )
    erase: float = Field(0.3, description="Probability of covering a part of the face by a box.", ge=0, le=1)
    blur: float = Field(0.1, description="Probability of a loss of resolution.", ge=0, le=1)


class CodecSettings(_Settings):
    """A student's heatmaps, see `fewmark.models.codec.HeatmapCodec`; stride and kind follow from network and loss."""

    sigma: float = Field(3.0, description="Standard deviation of a heatmap's Gaussian, crop px.", gt=0)
    decoding: Literal["argmax", "quarter", "centroid", "parabola", "soft-argmax"] = Field(
        "soft-argmax", description="How a heatmap becomes a landmark."
    )


class StudentSettings(_Settings):
    """One student, see `fewmark.training.semi.students.StudentPlan`."""

    architecture: Literal["compact", "stacked_hourglass", "convolutional_pose_machine"] = Field(
        "compact", description="Network, see `fewmark.models`."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the network's constructor except n_maps."
    )
    codec: CodecSettings = CodecSettings()
    loss: Literal["sum", "mean", "integral"] = Field(
        "integral",
        description="integral: L1 of each heatmap's mean, for heatmaps that are distributions; sum, mean: squared error of "
        "the heatmaps (TS3, Eq. 2) with a background map.",
    )
    map_weight: float = Field(1.0, description="Weight of the heatmaps' term in the integral loss.", ge=0)
    optimizer: Literal["sgd", "rmsprop", "adamw"] = Field(
        "adamw",
        description="sgd: momentum 0.9 and the CPM's parameter groups; rmsprop: alpha 0.99; adamw: gradients clipped at "
        "norm 5.",
    )
    learning_rate: float = Field(2e-3, description="Highest learning rate.", gt=0)
    weight_decay: float = Field(0.01, description="Weight decay; sgd and adamw leave out biases and norms.", ge=0)
    n_epochs: int = Field(10, description="Epochs per training.", ge=1)
    n_batches: int = Field(0, description="Batches per epoch; 0 is one pass over the training set.", ge=0)
    batch_size: int = Field(16, description="Batch size over all processes.", ge=1)
    milestones: list[int] = Field(
        default_factory=list, description="Epochs at which the learning rate is halved; none for a cosine."
    )


class SyntheticSettings(_Settings):
    """Synthetic faces, see `fewmark.data.synthetic.faces`: every network can be trained on them before it sees a label."""

    faces: int = Field(0, description="Number of synthetic faces; 0 (both papers): random initial weights.", ge=0)
    length: float = Field(
        1.0,
        description="Length of the training on synthetic faces, and of that on the converted landmarks of a model of another scheme "
        "(--start), relative to a round's.",
        gt=0,
    )


class SemiSettings(_Settings):
    """The rounds of Algorithm 1, see `fewmark.training.semi.rounds.Loop`."""

    selection: Literal["teacher", "spl", "spaco", "peak", "spread", "random", "oracle", "none"] = Field(
        "teacher",
        description="Rule that selects the pseudo labels of a round; none trains on labels alone, as long as the rounds would.",
    )
    rounds: int = Field(6, description="Number of rounds, S of Algorithm 1.", ge=0, le=100)
    ratio: float = Field(
        0.1,
        description="Selection ratio, r of Algorithm 1: round i selects r times i of the unlabelled faces.",
        gt=0,
        le=1,
    )
    restart: bool = Field(True, description="Retrain students from scratch in every round.")
    views: int = Field(1, description="Views over which a pseudo label is averaged.", ge=1, le=32)
    labelled_share: float = Field(
        0.0, description="Least share of human labels among the training faces; 0 leaves it as it is.", ge=0, le=1
    )
    fold_length: float = Field(
        0.5, description="Length of an out-of-fold training relative to a round's training.", gt=0
    )
    first_length: float = Field(1.0, description="Length of the initial training relative to a round's training.", gt=0)
    last_length: float = Field(
        0.0,
        description="Length of a last training on labels alone, after the rounds, relative to a round's; 0: none.",
        ge=0,
    )
    pseudo_weight: float = Field(1.0, description="Weight of a pseudo label in the loss; a human label's is 1.", gt=0)
    weigh_by_spread: bool = Field(
        False, description="A landmark's pseudo label weighs the less the more students and views disagree about it."
    )


class TeacherSettings(_Settings):
    """The teacher of the rounds, see `fewmark.training.semi.teacher.TeacherPlan`."""

    kind: Literal["peaks", "patchgan"] = Field(
        "peaks", description="peaks: a small network that starts from the heatmaps' peaks; patchgan: the paper's."
    )
    source: Literal["labelled", "out-of-fold", "validation"] = Field(
        "out-of-fold",
        description="Faces on whose predictions it learns: labelled (the paper's), labelled by students that were trained "
        "without the face, or validation.",
    )
    steps: int = Field(100, description="Optimizer steps per training.", ge=1)
    layers: int = Field(
        3, description="Convolutions of stride 2: 3 see 70 px at once, 4 142, 5 286; 4 for crops of 128 px.", ge=1, le=6
    )
    shrink: int = Field(1, description="Factor by which the images that it sees are averaged down.", ge=1, le=8)
    standardise: bool = Field(
        True,
        description="The target is the z-score of the loss's logarithm; no: the negative loss itself (TS3, Eq. 4).",
    )


class DistillationSettings(_Settings):
    """Training on the predictions of other models, see `fewmark.training.distillation`."""

    selection: Literal["teacher", "peak", "spread", "random", "none"] = Field(
        "spread", description="Rule that selects the unlabelled faces; none takes all."
    )
    ratio: float = Field(0.9, description="Fraction of the unlabelled faces that is selected.", gt=0, le=1)
    views: int = Field(4, description="Views of a face by each model.", ge=1, le=32)
    labelled_share: float = Field(
        0.5, description="Least share of human labels among the training faces; 0 leaves it as it is.", ge=0, le=1
    )
    quality_steps: int = Field(
        0, description="Optimizer steps of the new model's quality network; 0: the model has none.", ge=0
    )


class CascadeSettings(_Settings):
    """The coarse-to-fine cascade, see `fewmark.training.cascade.run`; crop and augmentation are the coarse stage's."""

    stages: list[Literal["angle", "coarse", "component", "point"]] = Field(
        default_factory=list, description="Stages in this order, coarse among them; none trains students instead."
    )
    length: float = Field(1.0, description="Factor on the number of epochs of every stage.", gt=0)

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[str]) -> list[str]:
        if stages:
            check_order(stages)
        return stages


class ModelSettings(_Settings):
    """The model file."""

    flip: bool = Field(True, description="Average the detector's landmarks with those of the flipped crop.")
    half: bool = Field(False, description="Store weights in 16 bit.")
    licence: str = Field(NOT_STATED, description="Licence of the model, as its training data allows.")
    provenance: str = Field(NOT_STATED, description="Training data of the model.")


class Config(_Settings):
    """All settings of a training run."""

    run: RunSettings = RunSettings()
    crop: CropSettings = CropSettings()
    augment: AugmentSettings = AugmentSettings()
    students: dict[str, StudentSettings] = Field(default_factory=lambda: {"student": StudentSettings()}, min_length=1)
    synthetic: SyntheticSettings = SyntheticSettings()
    semi: SemiSettings = SemiSettings()
    teacher: TeacherSettings = TeacherSettings()
    distillation: DistillationSettings = DistillationSettings()
    cascade: CascadeSettings = CascadeSettings()
    model: ModelSettings = ModelSettings()


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
        text = Path(recipe).read_text(encoding="utf-8")
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
