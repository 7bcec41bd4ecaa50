"""The metadata of an ONNX file, read without onnx, onnxruntime and torch.

An ONNX file is one protobuf message, ModelProto: a sequence of fields, each with a number, a wire type and a value. The metadata
is in field 14, `metadata_props`: messages of a key (field 1) and a value (field 2).

Source: onnx/onnx.proto of the ONNX project; the encoding of protocol buffers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fewmark.core.errors import InputError

_METADATA_PROPS = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_properties(path: str | Path) -> dict[str, str]:
    """Read the `metadata_props` of an ONNX file.

    Raises:
        InputError: The file is missing, truncated or not an ONNX file.
    """
    return parse_properties(read_bytes(path), path)


def parse_properties(data: bytes, path: str | Path) -> dict[str, str]:
    """Read the `metadata_props` of an ONNX file in memory.

    Args:
        data: The whole file.
        path: Its path, for messages.

    Raises:
        InputError: It is truncated or not an ONNX file.
    """
    try:
        entries = [dict(_fields(value)) for field, value in _fields(data) if field == _METADATA_PROPS]
        return {entry[1].decode(): entry.get(2, b"").decode() for entry in entries}
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: expected an ONNX file, given another kind of file or a truncated one ({len(data)} bytes); "
            "copy the file again"
        ) from error


def read_bytes(path: str | Path) -> bytes:
    """The contents of a model file.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message as (number, value); the value of a numeric field is b"".

    Raises:
        ValueError: The bytes are not a message, or a truncated one.
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
    """Decode a number (groups of 7 bits, lowest first) at an offset; returns it and the offset after it."""
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
