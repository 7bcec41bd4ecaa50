"""Which runtime runs a model file: ONNX Runtime where it can, otherwise torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from fewmark.core.errors import InputError
from fewmark.core.install import install_hint
from fewmark.core.threads import spin_briefly
from fewmark.inference.checkpoint.exported import ExportedModel
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.inference.predictor import LandmarkPredictor
from fewmark.inference.predictor_onnx import OnnxPredictor, find_onnx_export

if TYPE_CHECKING:
    import torch

Runtime = Literal["auto", "onnx", "torch"]


def load_predictor(
    path_or_name: str | os.PathLike[str],
    *,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    runtime: Runtime = "auto",
) -> LandmarkPredictor:
    """Load a model, with its checkpoint; see `Detector` for the arguments.

    Raises:
        InputError: See `resolve_model`, `load_checkpoint` and `OnnxPredictor`; or the runtime or the device cannot run
            the file.
    """
    if runtime not in get_args(Runtime):
        raise InputError(f"runtime: expected {', '.join(get_args(Runtime))}, given {runtime!r}")
    path = resolve_model(path_or_name)
    on_cpu = str(device) == "cpu"
    is_export = path.suffix == ".onnx"
    if is_export and (runtime == "torch" or not on_cpu):
        given = "runtime torch" if runtime == "torch" else f"device {device}"
        raise InputError(f"{path}: ONNX Runtime runs it on the CPU, given {given}; load its .safetensors file")
    exported: Path | ExportedModel | None = path if is_export else None
    if exported is None and runtime != "torch" and on_cpu:
        exported = find_onnx_export(path)
    if runtime == "onnx" and exported is None:
        raise InputError(
            f"{path}: runtime onnx: expected onnxruntime, device cpu and {path.with_suffix('.onnx').name} made from this "
            f"file; {install_hint('onnx', 'onnxruntime')} and fewmark export {path_or_name} --to onnx"
        )
    if exported is not None:
        return OnnxPredictor(exported, threads=threads)
    spin_briefly()
    try:
        from fewmark.inference.checkpoint.io import load_checkpoint
        from fewmark.inference.predictor_torch import TorchPredictor
    except ModuleNotFoundError as error:
        if not on_cpu:
            raise InputError(
                f"device {device} needs torch, which is not installed: {install_hint('train')}, or leave the device away"
            ) from error
        raise InputError(
            f"{path}: ONNX Runtime cannot run it (no {path.with_suffix('.onnx').name} that was made from it lies alongside), and "
            f"torch is not installed: {install_hint('train')}, or export the model where torch is installed"
        ) from error
    return TorchPredictor(load_checkpoint(path), device, threads=threads)
