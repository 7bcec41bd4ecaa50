"""Checkpoint: one .safetensors file = one detector, with everything that is needed to run it. Nothing is
unpickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewmark import __version__
from fewmark.atomic import atomic_path
from fewmark.calibration import ErrorCalibration
from fewmark.cascade.pipeline import Cascade
from fewmark.cascade.state import same_scheme
from fewmark.cascade.stored import cascade_from_data, cascade_modules, cascade_to_data
from fewmark.checkpoint_metadata import (
    FORMAT_VERSION,
    METADATA_KEY,
    packaged_names,
    read_metadata,
    require,
    resolve_model,
    unknown_scheme,
)
from fewmark.codec import HeatmapCodec
from fewmark.data.crops import MEAN, STD, CropRule
from fewmark.errors import InputError
from fewmark.models.build import build_model, load_weights
from fewmark.scheme import LandmarkScheme, scheme_from_dict
from fewmark.transfer import SchemeTransfer
from fewmark.transfer_file import check_source, load_transfers, matrix_name, transfer_metadata

__all__ = [
    "Checkpoint",
    "StudentPart",
    "TeacherPart",
    "load_checkpoint",
    "packaged_names",
    "read_metadata",
    "save_checkpoint",
]


@dataclass
class StudentPart:
    """One network that finds landmarks.

    Attributes:
        name: what metrics call it.
        architecture: a name that `build_model` knows.
        arguments: its constructor's.
        codec: how its maps become landmarks.
        module: the network.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    codec: HeatmapCodec
    module: nn.Module


@dataclass
class TeacherPart:
    """The network that judges pseudo labels; see `StudentPart`."""

    architecture: str
    arguments: dict[str, Any]
    module: nn.Module


@dataclass
class Checkpoint:
    """A detector and where it is from.

    Attributes:
        scheme: which landmarks it finds.
        students: the networks, one or more; none where there is a cascade.
        crop: which part of a picture they see; of a cascade, its coarse stage.
        teacher: what judges their labels, or None.
        cascade: what finds the landmarks in place of students, or None.
        box_from_detector: how the packaged face detector's box relates to the boxes it was trained on, see
            `fewmark.faces.fit_box_adapter`, or None: boxes are then taken as they are.
        accuracy: one entry a measured list: `data`, `nme`, `auc`, `failure_rate` (fractions), `normalizer`,
            `n_faces`, `box`.
        counts: faces that it was trained on: `labelled`, `pseudo`, `unlabelled`.
        seed: of the run.
        config: the resolved settings of the run.
        data_hash: of the training data.
        licence: under which the model may be used.
        provenance: what it was trained on.
        transfers: what turns its landmarks into other schemes'; one a target scheme.
        calibration: what error each score lets expect, or None.
        package_version: of the fewmark that wrote it.
    """

    scheme: LandmarkScheme
    students: list[StudentPart]
    crop: CropRule
    teacher: TeacherPart | None = None
    cascade: Cascade | None = None
    box_from_detector: tuple[float, float, float] | None = None
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    data_hash: str = ""
    licence: str = ""
    provenance: str = ""
    transfers: tuple[SchemeTransfer, ...] = ()
    calibration: ErrorCalibration | None = None
    package_version: str = __version__

    def transfer_to(self, scheme: str | None) -> SchemeTransfer | None:
        """The transfer to the scheme of that name; None for the model's own scheme, or where none is named.

        Raises:
            InputError: the model carries no such transfer; lists those it carries.
        """
        if scheme is None or scheme == self.scheme.name:
            return None
        targets = {t.target.name: t for t in self.transfers}
        if scheme not in targets:
            raise unknown_scheme(scheme, self.scheme.name, list(targets), "this model")
        return targets[scheme]

    def scheme_of(self, name: str | None) -> LandmarkScheme:
        """The scheme of that name that the model can answer in; its own for None.

        Raises:
            InputError: see `transfer_to`.
        """
        transfer = self.transfer_to(name)
        return self.scheme if transfer is None else transfer.target

    def to_metadata(self) -> dict[str, Any]:
        """Plain data for JSON, all but the tensors; what `read_metadata` gives back."""
        data: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "package_version": self.package_version,
            "scheme": self.scheme.to_dict(),
            "students": [
                {
                    "name": s.name,
                    "architecture": s.architecture,
                    "arguments": s.arguments,
                    "codec": asdict(s.codec),
                    "n_parameters": sum(p.numel() for p in s.module.parameters()),
                }
                for s in self.students
            ],
            "teacher": None
            if self.teacher is None
            else {"architecture": self.teacher.architecture, "arguments": self.teacher.arguments},
            "cascade": None if self.cascade is None else cascade_to_data(self.cascade),
            "crop": asdict(self.crop),
            "mean": list(MEAN),
            "std": list(STD),
            "box_from_detector": self.box_from_detector,
            "accuracy": self.accuracy,
            "counts": self.counts,
            "seed": self.seed,
            "config": self.config,
            "data_hash": self.data_hash,
            "licence": self.licence,
            "provenance": self.provenance,
            "transfers": [transfer_metadata(t) for t in self.transfers],
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }
        plain = _plain(data)
        assert isinstance(plain, dict)
        return plain


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Write a model file; a file that stood there is replaced whole, or stays as it is.

    Args:
        path: ends in .safetensors.
        checkpoint: what to write.
        half: store matrices and kernels as float16, half the size; they are float32 again when loaded.
            Vectors (biases, norms' running statistics), and tensors that float16 cannot hold, stay float32.

    Raises:
        InputError: the name has another ending, there is neither student nor cascade or both, the cascade or a transfer is of
            another scheme, the folder cannot be written to, or the disk is full.
    """
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: expected a file name that ends in .safetensors")
    _check_parts(checkpoint.students, checkpoint.cascade, str(path))
    cascade = checkpoint.cascade
    if cascade is not None and not same_scheme(cascade.scheme, checkpoint.scheme):
        raise InputError(
            f"{path}: the cascade was trained for scheme {cascade.scheme.name}, not for {checkpoint.scheme.name}"
        )
    for transfer in checkpoint.transfers:
        check_source(checkpoint.scheme, transfer.source, transfer.target, str(path))
    parts = {f"student{i}": s.module for i, s in enumerate(checkpoint.students)}
    if checkpoint.teacher is not None:
        parts["teacher"] = checkpoint.teacher.module
    if cascade is not None:
        parts |= {f"cascade.{name}": module for name, module in cascade_modules(cascade).items()}
    tensors = {
        f"{part}.{name}": _packed(t, half) for part, module in parts.items() for name, t in module.state_dict().items()
    }
    tensors |= {matrix_name(i): torch.from_numpy(t.matrix) for i, t in enumerate(checkpoint.transfers)}
    text = json.dumps(checkpoint.to_metadata(), ensure_ascii=False, allow_nan=False)
    raw = safetensors.torch.save(tensors, {METADATA_KEY: text})
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)


def load_checkpoint(path_or_name: str | Path) -> Checkpoint:
    """Read a model file; its networks are on the CPU, float32 and in evaluation mode.

    Args:
        path_or_name: a .safetensors file, or the name of a packaged model.

    Raises:
        InputError: see `read_metadata`; or a field or a tensor is missing or does not fit.
    """
    path = resolve_model(path_or_name)
    data = read_metadata(path)
    where = str(path)
    if list(require(data, "mean", where)) != list(MEAN) or list(require(data, "std", where)) != list(STD):
        raise InputError(f"{path}: mean, std: expected {MEAN} and {STD}, given {data['mean']} and {data['std']}")
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: its tensors cannot be read ({error}); copy the file again") from error
    scheme = scheme_from_dict(require(data, "scheme", where), f"{path}: scheme")
    students: list[StudentPart] = []
    teacher: TeacherPart | None = None
    cascade: Cascade | None = None
    calibration: ErrorCalibration | None = None
    box_from_detector = require(data, "box_from_detector", where)
    try:
        crop = CropRule(**require(data, "crop", where))
        for i, s in enumerate(require(data, "students", where)):
            codec = HeatmapCodec(**s["codec"])
            module = _built(s["architecture"], s["arguments"], tensors, f"student{i}")
            students.append(StudentPart(s["name"], s["architecture"], s["arguments"], codec, module))
        if (t := require(data, "teacher", where)) is not None:
            module = _built(t["architecture"], t["arguments"], tensors, "teacher")
            teacher = TeacherPart(t["architecture"], t["arguments"], module)
        if (c := data.get("cascade")) is not None:  # older files have no such field
            cascade = cascade_from_data(c, scheme, tensors, "cascade")
        if (e := data.get("calibration")) is not None:  # nor this one
            calibration = ErrorCalibration.from_dict(e, scheme.n_landmarks)
        if box_from_detector is not None:
            dx, dy, scale = (float(v) for v in box_from_detector)
            box_from_detector = (dx, dy, scale)
    except InputError as error:
        raise InputError(str(error) if where in str(error) else f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: a field of the metadata is missing or wrong ({error!r})") from error
    _check_parts(students, cascade, where)
    matrices = {n: t.numpy() for n, t in tensors.items() if n.startswith("transfer")}
    transfers = load_transfers(data, matrices, where)
    for transfer in transfers:
        check_source(scheme, transfer.source, transfer.target, where)
    return Checkpoint(
        scheme=scheme,
        students=students,
        crop=crop,
        teacher=teacher,
        cascade=cascade,
        box_from_detector=box_from_detector,
        transfers=tuple(transfers),
        calibration=calibration,
        **{
            name: require(data, name, where)
            for name in (
                "accuracy",
                "counts",
                "seed",
                "config",
                "data_hash",
                "licence",
                "provenance",
                "package_version",
            )
        },
    )


def _check_parts(students: list[StudentPart], cascade: Cascade | None, where: str) -> None:
    if bool(students) == (cascade is not None):
        given = f"{len(students)} students and {'no' if cascade is None else 'a'} cascade"
        raise InputError(f"{where}: students: expected at least one student, or a cascade, given {given}")


def _packed(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous().clone()
    if half and tensor.ndim >= 2 and tensor.dtype == torch.float32:
        small = tensor.half()
        if bool(torch.isfinite(small).all()):
            return small
    return tensor


def _built(architecture: str, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor], part: str) -> nn.Module:
    """A network with the tensors of its part; the caller's random numbers are left as they are."""
    with torch.random.fork_rng(devices=[]):
        module = build_model(architecture, **arguments)
    return load_weights(module, tensors, part)


def _plain(value: Any) -> Any:
    """JSON's types; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
