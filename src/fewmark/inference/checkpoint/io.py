"""Read and write model files: one .safetensors file holds a whole detector. Nothing is unpickled."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.serialization import cascade_from_data, cascade_modules
from fewmark.inference.cascade.state import same_scheme
from fewmark.inference.checkpoint.metadata import (
    METADATA_KEY,
    header_texts,
    packaged_names,
    parse_metadata,
    read_metadata,
    require,
    resolve_model,
)
from fewmark.inference.checkpoint.model import Checkpoint, StudentPart, TeacherPart, checkpoint_from_metadata
from fewmark.inference.checkpoint.onnx_metadata import read_bytes
from fewmark.inference.checkpoint.seal import BLANK, KEY, check_seal, seal
from fewmark.inference.checkpoint.transfers import check_source, matrix_name
from fewmark.models.build import build_model, load_weights
from fewmark.models.codec import HeatmapCodec

__all__ = [
    "Checkpoint",
    "StudentPart",
    "TeacherPart",
    "load_checkpoint",
    "packaged_names",
    "read_metadata",
    "save_checkpoint",
]


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Write a model file. An existing file is replaced as a whole, or stays as it is if writing fails.

    Args:
        path: Ends in .safetensors.
        checkpoint: The model.
        half: Store matrices and kernels as float16, half the size; loading converts them back to float32. Vectors (biases, running
            statistics) and tensors that overflow float16 stay float32.

    Raises:
        InputError: The name has another ending, there is neither a student nor a cascade or there are both, the cascade or a transfer
            is of another scheme, the folder cannot be written to, or the disk is full.
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
        f"{part}.{name}": _stored(t, half) for part, module in parts.items() for name, t in module.state_dict().items()
    }
    tensors |= {matrix_name(i): torch.from_numpy(t.matrix) for i, t in enumerate(checkpoint.transfers)}
    text = json.dumps({**checkpoint.to_metadata(), KEY: BLANK}, ensure_ascii=False, allow_nan=False)
    raw = safetensors.torch.save(tensors, {METADATA_KEY: text})
    with atomic_path(path) as temporary:
        temporary.write_bytes(seal(raw))


def load_checkpoint(path_or_name: str | Path) -> Checkpoint:
    """Read a model file; the networks are on the CPU, in float32 and in evaluation mode.

    Args:
        path_or_name: A .safetensors file, or the name of a packaged model.

    Raises:
        InputError: See `read_metadata` and `check_seal`; or a field or tensor is missing or does not fit.
    """
    path = resolve_model(path_or_name)
    where = str(path)
    if path.suffix == ".onnx":
        raise InputError(
            f"{path}: expected a .safetensors file, given an exported one, whose networks torch cannot run"
        )
    raw = read_bytes(path)
    texts = header_texts(io.BytesIO(raw), len(raw), path)
    check_seal(raw, path)
    data = parse_metadata(texts, path)
    try:
        tensors = safetensors.torch.load(raw)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: its tensors cannot be read ({error}); copy the file again") from error
    matrices = {n: t.numpy() for n, t in tensors.items() if n.startswith("transfer")}
    checkpoint = checkpoint_from_metadata(data, matrices, where)
    students, teacher, cascade = [], None, None
    try:
        for i, s in enumerate(require(data, "students", where)):
            codec = HeatmapCodec(**s["codec"])
            module = _build(s["architecture"], s["arguments"], tensors, f"student{i}")
            students.append(StudentPart(s["name"], s["architecture"], s["arguments"], codec, module))
        if (t := require(data, "teacher", where)) is not None:
            module = _build(t["architecture"], t["arguments"], tensors, "teacher")
            teacher = TeacherPart(t["architecture"], t["arguments"], module)
        if (c := data.get("cascade")) is not None:  # older files have no such field
            cascade = cascade_from_data(c, checkpoint.scheme, tensors, "cascade")
    except InputError as error:
        raise InputError(str(error) if where in str(error) else f"{path}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: a field of the metadata is missing or wrong ({error!r})") from error
    _check_parts(students, cascade, where)
    return replace(checkpoint, students=students, teacher=teacher, cascade=cascade)


def _check_parts(students: list[StudentPart], cascade: Cascade | None, where: str) -> None:
    if bool(students) == (cascade is not None):
        given = f"{len(students)} students and {'no' if cascade is None else 'a'} cascade"
        raise InputError(f"{where}: students: expected at least one student, or a cascade, given {given}")


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous().clone()
    if half and tensor.ndim >= 2 and tensor.dtype == torch.float32:
        small = tensor.half()
        if bool(torch.isfinite(small).all()):
            return small
    return tensor


def _build(architecture: str, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor], part: str) -> nn.Module:
    """Build a network with the tensors of its part, without touching the caller's random numbers."""
    with torch.random.fork_rng(devices=[]):
        module = build_model(architecture, **arguments)
    return load_weights(module, tensors, part)
