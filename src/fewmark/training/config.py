"""Every user-facing setting, validated. Order: defaults < recipe < file < --set."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fewmark.core.errors import InputError
from fewmark.inference.cascade.state import check_order

NOT_STATED = "not stated"
"""A licence or provenance that nobody gave."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSettings(_Settings):
    """Where and how a run computes."""

    seed: int = Field(0, description="of everything that is drawn", ge=0)
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="of lightning-fabric")
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="auto: bf16-mixed on a GPU, 32-true on a CPU"
    )
    threads: int = Field(0, description="of torch on a CPU; 0 = as many as it finds", ge=0)


class CropSettings(_Settings):
    """Which part of an image the networks see."""

    size: int = Field(64, description="side of the crop, px", ge=16, le=1024)
    margin: float = Field(
        0.15, description="added to the face box on each side, as a part of its longer side", ge=0, le=2
    )


class AugmentSettings(_Settings):
    """Ranges of the augmentation, see `fewmark.data.augment.AugmentRule`."""

    scale: float = Field(0.1, ge=0, lt=1)
    rotation: float = Field(30.0, description="degrees", ge=0, le=180)
    shift: float = Field(0.05, description="as a part of the crop", ge=0, le=0.5)
    flip: float = Field(0.5, description="probability", ge=0, le=1)
    colour: float = Field(0.3, ge=0, le=1)
    erase: float = Field(0.3, description="probability", ge=0, le=1)
    blur: float = Field(0.1, description="probability", ge=0, le=1)


class CodecSettings(_Settings):
    """A student's heatmaps, see `fewmark.models.codec.HeatmapCodec`."""

    stride: int = Field(4, ge=1, le=32)
    sigma: float = Field(3.0, description="crop px", gt=0)
    background: bool = False
    decoding: Literal["argmax", "quarter", "centroid", "parabola", "soft-argmax"] = "soft-argmax"
    logits: bool = True


class StudentSettings(_Settings):
    """One student, see `fewmark.training.semi.students.StudentPlan`."""

    architecture: str = "compact"
    arguments: dict[str, Any] = Field(default_factory=dict)
    codec: CodecSettings = CodecSettings()
    loss: Literal["sum", "mean", "integral"] = "integral"
    map_weight: float = Field(1.0, ge=0)
    optimizer: Literal["sgd", "rmsprop", "adamw"] = "adamw"
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    n_epochs: int = Field(10, ge=1)
    n_batches: int = Field(0, description="an epoch; 0 = one pass over the training set", ge=0)
    batch_size: int = Field(16, ge=1)
    milestones: list[int] = Field(default_factory=list, description="epochs at which the rate decays; none = a cosine")
    clip_norm: float = Field(5.0, ge=0)


class SemiSettings(_Settings):
    """The rounds of Algorithm 1, see `fewmark.training.semi.rounds.Loop`."""

    selection: Literal["teacher", "spl", "spaco", "peak", "spread", "random", "oracle", "none"] = Field(
        "teacher", description="none = supervised only, as long as the rounds would train"
    )
    rounds: int = Field(6, description="S", ge=0, le=100)
    ratio: float = Field(0.1, description="r", gt=0, le=1)
    restart: bool = Field(True, description="retrain from scratch in every round")
    views: int = Field(1, description="that a pseudo label is averaged over", ge=1, le=32)
    labelled_share: float = Field(0.0, description="least share of human labels among the faces drawn", ge=0, le=1)
    fold_length: float = Field(0.5, description="of a fold's training relative to a round's", gt=0)
    first_length: float = Field(1.0, description="of the initial training relative to a round's", gt=0)


class TeacherSettings(_Settings):
    """The teacher, see `fewmark.training.semi.teacher.TeacherPlan`."""

    source: Literal["labelled", "out-of-fold", "validation"] = "out-of-fold"
    target: Literal["heatmap", "landmark"] = "landmark"
    copies: int = Field(16, ge=1, le=1000)
    width: int = Field(16, ge=8)
    norm: Literal["instance", "group", "batch", "none"] = "batch"
    peaks: bool = Field(
        True, description="it sees the maps by component, and their peaks' height is added to what it says"
    )
    steps: int = Field(100, ge=0, description="of its training; 0: a distilled model has none")
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0)


class SyntheticSettings(_Settings):
    """Synthetic faces, see `fewmark.data.synthetic.faces`: what every network is trained on before it sees a label."""

    faces: int = Field(0, description="how many; 0 = none (both papers), networks start from random weights", ge=0)
    length: float = Field(1.0, description="faces seen, relative to a round's training or that of the stage", gt=0)


class CascadeSettings(_Settings):
    """The coarse-to-fine cascade, see `fewmark.training.cascade.run`; the coarse stage's crop and augmentation are those above."""

    stages: list[Literal["angle", "coarse", "component", "point"]] = Field(
        default_factory=list, description="in this order, with coarse among them; none = TS3's students"
    )
    size: Literal["laptop", "paper"] = Field("laptop", description="of the networks")
    length: float = Field(1.0, description="factor on the epochs of all stages", gt=0)
    twin: bool = Field(True, description="two coarse networks side by side, of which one is kept (Fig. 4)")
    apart: bool = Field(False, description="one coarse network for the contour and one for the other points")
    coarse_share: float = Field(
        0.0, description="of stage 2's training crops, those aligned by the coarse stage's real output", ge=0, le=1
    )
    augment_coarse: bool = Field(True, description="these crops are augmented too")

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[str]) -> list[str]:
        if stages:
            check_order(stages)
        return stages


class ModelSettings(_Settings):
    """What the model file says of itself."""

    flip: bool = Field(True, description="the detector averages with the flipped image")
    half: bool = Field(False, description="weights stored in 16 bit")
    licence: str = Field(NOT_STATED, description="of the model, as its training data allows")
    provenance: str = Field(NOT_STATED, description="what it was trained on")


class Config(_Settings):
    """All settings of a training run."""

    run: RunSettings = RunSettings()
    crop: CropSettings = CropSettings()
    augment: AugmentSettings = AugmentSettings()
    students: dict[str, StudentSettings] = Field(default_factory=lambda: {"student": StudentSettings()}, min_length=1)
    synthetic: SyntheticSettings = SyntheticSettings()
    semi: SemiSettings = SemiSettings()
    teacher: TeacherSettings = TeacherSettings()
    cascade: CascadeSettings = CascadeSettings()
    model: ModelSettings = ModelSettings()


def recipe_names() -> list[str]:
    """The packaged recipes."""
    folder = resources.files("fewmark") / "training/recipes"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_config(recipe: str | Path = "laptop", overrides: Sequence[str] = ()) -> Config:
    """A config from a recipe's name or a TOML file, and overrides.

    Args:
        recipe: a packaged name, or a file of settings; a file may begin with `base = "laptop"` to change only some.
        overrides: "semi.ratio=0.2", the value as in TOML; a bare word is a string.

    Raises:
        InputError: no such recipe; a setting that does not exist or is out of its range.

    >>> load_config("laptop", ["semi.ratio=0.2"]).semi.ratio
    0.2
    """
    data = _read_recipe(recipe)
    for override in overrides:
        _override(data, override)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        given = first.get("input")
        message = first["msg"].removeprefix("Value error, ")
        what = "no such setting" if first["type"] == "extra_forbidden" else f"{message}, given {given!r}"
        raise InputError(f"{recipe}: {place}: {what}") from None


def _read_recipe(recipe: str | Path) -> dict[str, Any]:
    name = str(recipe)
    if name in recipe_names():
        text = (resources.files("fewmark") / "training/recipes" / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(recipe).is_file():
        text = Path(recipe).read_text(encoding="utf-8")
    else:
        raise InputError(f"recipe {name!r}: no such file, and packaged are {', '.join(recipe_names())}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{name}: not a TOML file ({error})") from error
    base = data.pop("base", None)
    return data if base is None else _merged(_read_recipe(str(base)), data)


def _merged(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _override(data: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    path = key.strip().split(".")
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
