"""What an exported model (.onnx) says about itself, read without onnx, onnxruntime and torch; and where it lies.

An ONNX file is one protobuf message, ModelProto: fields of a number, a wire type and a value, one after the other. Ours
are in field 14, `metadata_props`: messages of a key (field 1) and a value (field 2).

Source: onnx/onnx.proto of the ONNX project; the encoding of protocol buffers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from fewmark.core.errors import InputError

_METADATA_PROPS = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
TENSORS_KEY = "fewmark_tensors"
"""Of what an exported model carries beside its network: a .safetensors file in base64."""


def read_properties(path: str | Path) -> dict[str, str]:
    """The `metadata_props` of an ONNX file.

    Raises:
        InputError: no such file, another kind of file, or a truncated one.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        entries = [dict(_fields(value)) for field, value in _fields(data) if field == _METADATA_PROPS]
        return {entry[1].decode(): entry.get(2, b"").decode() for entry in entries}
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: expected an ONNX file, given another kind of file or a truncated one ({len(data)} bytes); "
            "copy the file again"
        ) from error


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message, number -> value; numbers as no bytes.

    Raises:
        ValueError: the bytes are no message, or not all of one.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        value = b""
        if wire == _VARINT:
            _, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            value = data[at : at + length]
            at += length
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")
        if at > len(data):
            raise ValueError("the last field is cut off")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    result = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise ValueError("a number has more than 10 bytes")
