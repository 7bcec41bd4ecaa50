"""Change a model file in place: add a transfer or a calibration. Needs no torch; the weights are copied as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.inference.checkpoint.metadata import METADATA_KEY, read_metadata, require
from fewmark.inference.checkpoint.seal import BLANK, KEY, seal
from fewmark.inference.checkpoint.transfers import (
    check_source,
    load_transfers,
    matrix_name,
    read_tensors,
    stored_matrix,
    transfer_metadata,
)
from fewmark.landmarks.calibration import ErrorCalibration
from fewmark.landmarks.scheme import scheme_from_dict
from fewmark.landmarks.transfer import SchemeTransfer


def put_transfer(model: str | Path, transfer: SchemeTransfer) -> None:
    """Add a transfer to a model file, in place of one to the same target scheme; everything else stays as it is.

    Args:
        model: A .safetensors file that fewmark wrote.
        transfer: Its source scheme is the model's.

    Raises:
        InputError: The file is missing, not a model or of another scheme, or cannot be written.
    """
    _check_editable(model, "transfer")
    data, tensors = read_metadata(model), read_tensors(model)
    scheme = scheme_from_dict(require(data, "scheme", str(model)), f"{model}: scheme")
    check_source(scheme, transfer.source, transfer.target, str(model))
    present = load_transfers(data, tensors, str(model))
    kept = [*(t for t in present if t.target.name != transfer.target.name), transfer]
    for i in range(len(present)):
        del tensors[matrix_name(i)]
    tensors |= {matrix_name(i): stored_matrix(t) for i, t in enumerate(kept)}
    _write(model, {**data, "transfers": [transfer_metadata(t) for t in kept]}, tensors)


def put_calibration(model: str | Path, calibration: ErrorCalibration) -> None:
    """Add a calibration to a model file, in place of the present one; everything else stays as it is.

    Args:
        model: A .safetensors file that fewmark wrote.
        calibration: For as many landmarks as the model's scheme has.

    Raises:
        InputError: The file is missing, not a model or of another number of landmarks, or cannot be read or written.
    """
    _check_editable(model, "calibration")
    data = {**read_metadata(model), "calibration": calibration.to_dict()}
    ErrorCalibration.from_dict(data["calibration"], len(data["scheme"]["landmarks"]))
    _write(model, data, read_tensors(model))


def _check_editable(model: str | Path, what: str) -> None:
    if not Path(model).is_file():
        raise InputError(
            f"{model}: expected a model file to put the {what} into; copy a packaged model to a file first"
        )
    if Path(model).suffix == ".onnx":
        raise InputError(f"{model}: is exported; put the {what} into its .safetensors file and export that again")


def _write(model: str | Path, data: Mapping[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
    text = json.dumps({**data, KEY: BLANK}, ensure_ascii=False, allow_nan=False)
    raw = safetensors.numpy.save(tensors, {METADATA_KEY: text})
    with atomic_path(model) as temporary:
        temporary.write_bytes(seal(raw))
