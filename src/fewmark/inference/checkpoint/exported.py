"""An exported model (.onnx) in memory: the file is read once, and hashes of other files are computed once."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from fewmark.core.errors import InputError
from fewmark.inference.checkpoint.metadata import parse_metadata, require, resolve_model
from fewmark.inference.checkpoint.model import Checkpoint, checkpoint_from_metadata
from fewmark.inference.checkpoint.onnx_metadata import parse_properties, read_bytes
from fewmark.inference.checkpoint.seal import check_seal

TENSORS_KEY = "fewmark_tensors"
"""Metadata key of the tensors that an exported model holds besides its network: a .safetensors file in base64."""


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """An .onnx file that `fewmark export` wrote.

    Attributes:
        path: The file.
        graph: The whole file, as ONNX Runtime takes it.
        properties: The file's metadata as text.
        metadata: The model's metadata, see `read_metadata`.
    """

    path: Path
    graph: bytes
    properties: dict[str, str]
    metadata: dict[str, Any]
    _hashes: dict[Path, str] = field(default_factory=dict, repr=False)

    @property
    def export(self) -> dict[str, Any]:
        """How the model was exported.

        Raises:
            InputError: The metadata lacks it.
        """
        export = require(self.metadata, "export", str(self.path))
        assert isinstance(export, dict)
        return export

    def is_from(self, source: Path) -> bool:
        """Whether the model was exported from just this .safetensors file; hashes the file on the first call."""
        source = source.absolute()
        if source not in self._hashes:
            self._hashes[source] = file_hash(source)
        return self._hashes[source] == self.export.get("source")

    def checkpoint(self) -> Checkpoint:
        """The checkpoint without its networks; `flip` is the export's.

        Raises:
            InputError: A field or tensor is missing or does not fit, or the file that holds the weights is missing or another one.
        """
        tensors: dict[str, NDArray[Any]] = {}
        try:
            if encoded := self.properties.get(TENSORS_KEY):
                tensors = safetensors.numpy.load(base64.b64decode(encoded, validate=True))
        except (SafetensorError, binascii.Error) as error:
            raise InputError(f"{self.path}: its transfers cannot be read ({error}); copy the file again") from error
        checkpoint = checkpoint_from_metadata(self.metadata, tensors, str(self.path))
        export = self.export
        weights = None if export.get("weights") is None else self.path.absolute().parent / export["weights"]
        if weights is not None and (not weights.is_file() or not self.is_from(weights)):
            given = "another file of that name" if weights.is_file() else "none"
            raise InputError(
                f"{self.path}: expected {weights.name}, whose weights it shares, alongside it, given {given}; export it again"
            )
        return replace(checkpoint, flip=bool(require(export, "flip", str(self.path))))


def read_exported(path_or_name: str | Path) -> ExportedModel:
    """Read an exported model.

    Raises:
        InputError: The file is missing, truncated, damaged, of another kind or of another format version.
    """
    path = resolve_model(path_or_name)
    graph = read_bytes(path)
    properties = parse_properties(graph, path)
    check_seal(graph, path)
    return ExportedModel(path, graph, properties, parse_metadata(properties, path))


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
