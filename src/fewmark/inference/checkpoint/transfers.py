"""Transfers between schemes in files of their own and inside model files. Imports no torch.

A transfer's file is a .safetensors file with one tensor, `matrix`, and one JSON string under "fewmark_transfer" in its
metadata. A model file has a list `transfers` of the same JSON in its own metadata, and tensors `transfer0.matrix`, ...
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.core.geometry import Floats
from fewmark.core.json import json_value
from fewmark.core.version import __version__
from fewmark.inference.checkpoint.metadata import TRANSFER_KEY, read_transfer_metadata, require
from fewmark.landmarks.scheme import LandmarkScheme, scheme_from_dict
from fewmark.landmarks.transfer import SchemeTransfer

TRANSFER_VERSION = 1


def save_transfer(path: str | Path, transfer: SchemeTransfer) -> None:
    """Write a transfer to a file of its own.

    Args:
        path: Ends in .safetensors.
        transfer: The transfer.

    Raises:
        InputError: The name has another ending, or the file cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise InputError(f"{path}: expected a file name that ends in .safetensors")
    text = json.dumps(transfer_metadata(transfer), ensure_ascii=False, allow_nan=False)
    raw = safetensors.numpy.save({"matrix": stored_matrix(transfer)}, {TRANSFER_KEY: text})
    with atomic_path(path) as temporary:
        temporary.write_bytes(raw)


def load_transfer(path: str | Path) -> SchemeTransfer:
    """Read a transfer's file.

    Raises:
        InputError: The file is missing, not a transfer or of another format version, or a field or the tensor is missing or does not
            fit.
    """
    data = read_transfer_metadata(path)
    return transfer_from_parts(data, read_tensors(path), "matrix", str(path))


def matrix_name(index: int) -> str:
    """Name of the tensor of a model's transfer."""
    return f"transfer{index}.matrix"


def load_transfers(data: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], where: str) -> list[SchemeTransfer]:
    """The transfers of a model file; [] for a file of a version without transfers.

    Args:
        data: The model's metadata.
        tensors: Name -> tensor; at least those of the transfers.
        where: The file, for messages.

    Raises:
        InputError: A field or tensor is missing or does not fit.
    """
    given = data.get("transfers", [])
    if not isinstance(given, Sequence):
        raise InputError(f"{where}: transfers: expected a list, given {type(given).__name__}")
    return [transfer_from_parts(t, tensors, matrix_name(i), f"{where}: transfers[{i}]") for i, t in enumerate(given)]


def check_source(model: LandmarkScheme, source: LandmarkScheme, target: LandmarkScheme, where: str) -> None:
    """Check that a transfer's source is the model's scheme and its target is not.

    Raises:
        InputError: It does not fit the model.
    """
    if source.landmarks != model.landmarks:
        raise InputError(
            f"{where}: expected a transfer from the model's scheme {model.name} ({model.n_landmarks} landmarks), given "
            f"one from {source.name} ({source.n_landmarks}) to {target.name}"
        )
    if target.name == model.name:
        raise InputError(f"{where}: the model is of scheme {model.name} already; expected a transfer to another scheme")


def transfer_metadata(transfer: SchemeTransfer) -> dict[str, Any]:
    """Plain data for JSON, without the matrix; numbers that are not finite are null."""
    return {
        "format_version": TRANSFER_VERSION,
        "package_version": __version__,
        "source": transfer.source.to_dict(),
        "target": transfer.target.to_dict(),
        "mean_shape": transfer.mean_shape.tolist(),
        "target_mean_shape": [p if all(map(math.isfinite, p)) else None for p in transfer.target_mean_shape.tolist()],
        "ridge": transfer.ridge,
        "n_pairs": transfer.n_pairs,
        "normalizer": transfer.normalizer,
        "expected_error": json_value(transfer.expected_error),
        "expected_error_per_landmark": json_value(transfer.expected_error_per_landmark),
        "provenance": transfer.provenance,
        "licence": transfer.licence,
    }


def transfer_facts(transfer: SchemeTransfer) -> dict[str, Any]:
    """Summary of a transfer for its results, as plain data: the schemes' names and the expected error."""
    return {
        "source": transfer.source.name,
        "target": transfer.target.name,
        "n_pairs": transfer.n_pairs,
        "ridge": transfer.ridge,
        "expected_error": json_value(transfer.expected_error),
        "normalizer": transfer.normalizer,
        "expected_error_per_component": json_value(transfer.expected_error_per_component),
    }


def transfer_from_parts(data: Any, tensors: Mapping[str, NDArray[Any]], name: str, where: str) -> SchemeTransfer:
    """Build a transfer from its metadata and the tensor of a name.

    Raises:
        InputError: The format version is another, or a field or the tensor is missing or does not fit.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where}: expected the fields of a transfer, given {type(data).__name__}")
    version = data.get("format_version")
    if version != TRANSFER_VERSION:
        newer = isinstance(version, int) and version > TRANSFER_VERSION
        advice = "install a newer fewmark" if newer else "fit the transfer again"
        raise InputError(f"{where}: format_version: expected {TRANSFER_VERSION}, given {version!r}; {advice}")
    source = scheme_from_dict(require(data, "source", where), f"{where}: source")
    target = scheme_from_dict(require(data, "target", where), f"{where}: target")
    wanted = (2 * source.n_landmarks + 1, 2 * target.n_landmarks)
    matrix = tensors.get(name)
    if matrix is None or matrix.shape != wanted:
        given = "none" if matrix is None else matrix.shape
        raise InputError(f"{where}: tensor {name}: expected {wanted}, given {given}; fit the transfer again")
    try:
        mean = np.asarray(require(data, "mean_shape", where), np.float64)
        errors = [math.nan if e is None else float(e) for e in require(data, "expected_error_per_landmark", where)]
        overall = require(data, "expected_error", where)
        transfer = SchemeTransfer(
            source=source,
            target=target,
            mean_shape=mean,
            matrix=np.asarray(matrix, np.float64),
            ridge=float(require(data, "ridge", where)),
            n_pairs=int(require(data, "n_pairs", where)),
            normalizer=str(require(data, "normalizer", where)),
            expected_error=math.nan if overall is None else float(overall),
            expected_error_per_landmark=np.asarray(errors, np.float64),
            provenance=str(require(data, "provenance", where)),
            licence=str(require(data, "licence", where)),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: a field of the transfer is wrong ({error!r})") from error
    if mean.shape != (source.n_landmarks, 2) or not np.isfinite(mean).all() or len(errors) != target.n_landmarks:
        raise InputError(f"{where}: mean_shape or expected_error_per_landmark does not fit the schemes; fit it again")
    return transfer


def stored_matrix(transfer: SchemeTransfer) -> Floats:
    """The matrix as files hold it."""
    return np.ascontiguousarray(transfer.matrix, np.float64)


def read_tensors(path: str | Path) -> dict[str, NDArray[Any]]:
    """The tensors of a .safetensors file by name.

    Raises:
        InputError: They cannot be read.
    """
    try:
        return dict(safetensors.numpy.load_file(path))
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(f"{path}: its tensors cannot be read ({error}); copy the file again") from error
