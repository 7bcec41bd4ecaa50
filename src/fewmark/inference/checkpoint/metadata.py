"""The metadata of model files, read without torch and without the tensors.

A .safetensors file is 8 bytes (little-endian length), a JSON header of that length, and the tensors. The header's `__metadata__`
holds one JSON string under "fewmark".
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import IO, Any

from fewmark.core.errors import InputError
from fewmark.core.files import user_path
from fewmark.data.crops import CropRule
from fewmark.inference.checkpoint.onnx_metadata import read_properties
from fewmark.inference.checkpoint.seal import KEY

FORMAT_VERSION = 1
METADATA_KEY = "fewmark"
TRANSFER_KEY = "fewmark_transfer"
"""Key of a file that holds a transfer between schemes, not a model."""

_MAX_HEADER = 100_000_000  # bytes; the format's own limit

RUN_MODEL = "detector.safetensors"
"""The model file in the folder of a training run."""

_ENDINGS = (".safetensors", ".onnx")
"""Endings of packaged models; an .onnx file alongside a .safetensors file of the same name is part of that model."""


def packaged_names() -> list[str]:
    """Names of the packaged models: .safetensors files, and exported models without one."""
    folder = resources.files("fewmark") / "inference/weights"
    if not folder.is_dir():
        return []
    return sorted({p.name.removesuffix(e) for p in folder.iterdir() for e in _ENDINGS if p.name.endswith(e)})


def resolve_model(path_or_name: str | os.PathLike[str]) -> Path:
    """The file of a packaged model, the path itself, or the model file in a folder such as a training run's; `~` is the home folder.

    Raises:
        InputError: There is neither such a file nor such a packaged model, or not one model in the folder.
    """
    path, name = user_path(path_or_name), str(path_or_name)
    if path.is_file():
        return path
    names = packaged_names()
    if name in names:
        folder = resources.files("fewmark") / "inference/weights"
        files = [folder / f"{name}{ending}" for ending in _ENDINGS]
        with resources.as_file(next(f for f in files if f.is_file())) as packaged:
            return packaged
    if path.is_dir():
        return _model_in(path)
    import difflib

    near = difflib.get_close_matches(Path(name).stem.lower() if name.endswith(_ENDINGS) else name.lower(), names, n=1)
    raise InputError(
        f"model {name!r}: expected a .safetensors or .onnx file, a run folder or a packaged name "
        f"({', '.join(names) or 'this installation has none'}), given none of them; "
        + (f"did you mean {near[0]!r}? Else check the path" if near else "check the path")
    )


def _model_in(folder: Path) -> Path:
    """The model file of a folder: a run's, or the only one; an exported model belongs to the file of its name."""
    files = sorted(f for f in folder.iterdir() if f.suffix in _ENDINGS and f.is_file())
    if (run := folder / RUN_MODEL) in files:
        return run
    models = [f for f in files if f.suffix != ".onnx" or f.with_suffix(".safetensors") not in files]
    if len(models) == 1:
        return models[0]
    if models:
        raise InputError(
            f"model {str(folder)!r}: expected a file, given a folder of {len(models)} models; give one, e.g. {models[0]}"
        )
    raise InputError(
        f"model {str(folder)!r}: expected a .safetensors or .onnx file, given a folder without one; a training run writes "
        f"{RUN_MODEL} at its end; check the path"
    )


def read_metadata(path_or_name: str | Path) -> dict[str, Any]:
    """The metadata of a model file: scheme, parts, codecs, crop, accuracy, counts, seed, config, licence, provenance.

    Args:
        path_or_name: A .safetensors or .onnx file, or the name of a packaged model.

    Raises:
        InputError: The model is missing, truncated, another kind of file, not written by fewmark, or of another format version.
    """
    path = resolve_model(path_or_name)
    texts = read_properties(path) if path.suffix == ".onnx" else _read_texts(path)
    return parse_metadata(texts, path)


def parse_metadata(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Parse the model's metadata.

    Args:
        texts: The metadata of the safetensors or ONNX file, key -> text.
        path: The file, for messages.

    Raises:
        InputError: fewmark did not write the file, or it has another format version.
    """
    if METADATA_KEY not in texts:
        kind = "an ONNX" if path.suffix == ".onnx" else "a safetensors"
        other = f"{kind} file without {METADATA_KEY!r} in its metadata"
        given = "a transfer between schemes" if TRANSFER_KEY in texts else other
        raise InputError(f"{path}: expected a model that fewmark wrote, given {given}")
    data = _parsed(path, texts, METADATA_KEY)
    version = data.get("format_version")
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        advice = "install a newer fewmark" if newer else "train or export the model again"
        raise InputError(f"{path}: format_version: expected {FORMAT_VERSION}, given {version!r}; {advice}")
    data.pop(KEY, None)
    if "crop" in data:
        try:
            CropRule(**data["crop"])
        except (TypeError, InputError) as error:
            raise InputError(f"{path}: metadata: {error}; export or train the model again") from error
    return data


def read_transfer_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a transfer's file; `load_transfer` checks its fields.

    Raises:
        InputError: The file is missing, truncated, not a .safetensors file, or holds no transfer.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a transfer, as `fewmark transfer fit --out` writes it")
    texts = _read_texts(path)
    if TRANSFER_KEY not in texts:
        other = f"a safetensors file without {TRANSFER_KEY!r} in its metadata"
        given = "a model" if METADATA_KEY in texts else other
        raise InputError(f"{path}: expected a transfer, as `fewmark transfer fit --out` writes it, given {given}")
    return _parsed(path, texts, TRANSFER_KEY)


def holds_transfer(path: str | Path) -> bool:
    """Whether a .safetensors file holds a transfer, not a model."""
    path = Path(path)
    return path.is_file() and TRANSFER_KEY in _read_texts(path)


def scheme_from_metadata(metadata: Mapping[str, Any], name: str | None, where: str) -> dict[str, Any]:
    """A scheme that the model can answer in, as plain data.

    Args:
        metadata: Result of `read_metadata`.
        name: Name of the model's own scheme or of a transfer's target; None: the model's.
        where: The file, for messages.

    Raises:
        InputError: The model has no such scheme.
    """
    try:
        schemes = [require(metadata, "scheme", where), *(t["target"] for t in metadata.get("transfers", []))]
        known: dict[str, dict[str, Any]] = {s["name"]: s for s in schemes}
    except (TypeError, KeyError) as error:
        raise InputError(f"{where}: a scheme of the metadata is missing or wrong ({error!r})") from error
    own, *targets = known
    if name is not None and name not in known:
        raise unknown_scheme(name, own, targets, where)
    return known[name or own]


def unknown_scheme(name: str, own: str, targets: Sequence[str], where: str) -> InputError:
    """The error for a scheme that a model cannot answer in."""
    transfers = f"has transfers to {', '.join(targets)}" if targets else "has no transfer"
    return InputError(
        f"{where}: scheme {name!r}: the model finds {own} and {transfers}; "
        "put one in with `fewmark transfer fit ... --into MODEL`"
    )


def require(data: Mapping[str, Any], field: str, where: str) -> Any:
    """A field of the metadata.

    Raises:
        InputError: It is missing.
    """
    if field not in data:
        raise InputError(f"{where}: field {field!r} of the metadata is missing; expected a whole fewmark model")
    return data[field]


def _parsed(path: Path, texts: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        data = json.loads(texts[key])
    except ValueError as error:
        raise InputError(f"{path}: metadata {key!r}: expected JSON, given something else ({error})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: metadata {key!r}: expected a JSON object, given {type(data).__name__}")
    return data


def _read_texts(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file, whose tensors are not read."""
    try:
        with path.open("rb") as file:
            return header_texts(file, path.stat().st_size, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def header_texts(file: IO[bytes], size: int, path: Path) -> dict[str, str]:
    """The metadata in the header of a .safetensors file, key -> text.

    Args:
        file: At its start.
        size: Size of the whole file, bytes.
        path: Its path, for messages.

    Raises:
        InputError: It is truncated or not a .safetensors file.
    """
    first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else _MAX_HEADER + 1
    if length > _MAX_HEADER:
        raise InputError(f"{path}: expected a safetensors file, given another kind of file ({size} bytes)")
    if size < 8 + length:
        raise InputError(f"{path}: truncated: expected {8 + length} bytes, given {size}; copy the file again")
    raw = file.read(length)
    try:
        header = json.loads(raw)
        ends = [int(t["data_offsets"][1]) for name, t in header.items() if name != "__metadata__"]
        texts = dict(header.get("__metadata__", {}))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: expected a safetensors file, given one without a JSON header ({error})") from error
    expected = 8 + length + max(ends, default=0)
    if size < expected:
        raise InputError(f"{path}: truncated: expected {expected} bytes, given {size}; copy the file again")
    return texts
