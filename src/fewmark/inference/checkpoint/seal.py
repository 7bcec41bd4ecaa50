"""A digest in a model file of all its other bytes, so that a damaged copy is refused and does not answer wrongly in silence.

It stands in the model's metadata, as 64 hexadecimal digits behind `KEY`, and is the SHA-256 of the file with 64 zeros in their place.
Packaged models are older than it; theirs are listed in `weights/sha256.txt`.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path

from fewmark.core.errors import InputError

KEY = "fewmark_sha256"
BLANK = "0" * 64
"""What stands in the place of the digest until `seal`."""
_DIGITS = re.compile(rb'[\\": ]{3,8}([0-9a-f]{64})')  # after the key, with or without the backslashes of JSON in JSON


def seal(raw: bytes) -> bytes:
    """The bytes of a model file, in whose metadata `KEY` is `BLANK`, with the digest."""
    start, end = _place(raw) or (0, 0)
    assert raw[start:end] == BLANK.encode()
    return raw[:start] + hashlib.sha256(raw).hexdigest().encode() + raw[end:]


def check_seal(raw: bytes, path: Path) -> None:
    """Check the bytes of a model file; one without a digest passes: it is of an earlier version and not packaged, or not finished.

    Raises:
        InputError: A byte is not what was written.
    """
    place, packaged = _place(raw), _packaged().get(path.name) if path.parent == _weights() else None
    if place is not None:
        start, end = place
        digest = hashlib.sha256(raw[:start])
        digest.update(BLANK.encode())
        digest.update(memoryview(raw)[end:])
        expected, given = raw[start:end].decode(), digest.hexdigest()
        if expected == BLANK:
            return
    elif packaged is not None:
        expected, given = packaged, hashlib.sha256(raw).hexdigest()
    else:
        return
    if given != expected:
        raise InputError(f"{path}: damaged: its bytes have another SHA-256 than was written; copy or install it again")


def _place(raw: bytes) -> tuple[int, int] | None:
    """Where the digits stand."""
    at = raw.find(KEY.encode())
    found = None if at < 0 else _DIGITS.match(raw, at + len(KEY))
    return None if found is None else found.span(1)


def _weights() -> Path:
    return Path(str(resources.files("fewmark") / "inference/weights"))


def _packaged() -> dict[str, str]:
    """Name of a packaged file -> its SHA-256."""
    path = _weights() / "sha256.txt"
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split() for line in lines)}
