"""A limit on an image's pixels, by the size that its header states, before memory is taken for it."""

from __future__ import annotations

import io
import os
import re

from PIL import Image

from fewmark.core.errors import InputError
from fewmark.data.heif import heif_kind, heif_size
from fewmark.data.image_ends import PNG

VARIABLE = "FEWMARK_MAX_PIXELS"
"""Environment variable that changes the limit."""
MAX_PIXELS = 250_000_000
"""Width times height, in px: the largest cameras of phones have 200 million. Decoded, it takes 750 MB."""
_TABLES = (0xC4, 0xC8, 0xCC)
"""Segments of a JPEG among those of frame headers that are none. Source: ITU-T T.81, Table B.1."""


def check_pixels(data: bytes, where: str) -> None:
    """Refuse an image whose header states more pixels than the limit.

    Args:
        data: The bytes of its file.
        where: Its name, for messages.

    Raises:
        InputError: It has too many pixels, or the limit's variable is no number.
    """
    given = os.environ.get(VARIABLE)
    if given is not None and not given.isdecimal():
        raise InputError(f"{VARIABLE}: expected a number of pixels, given {given!r}")
    limit = MAX_PIXELS if given is None else int(given)
    n_pixels = count_pixels(data)
    if n_pixels > limit:
        raise InputError(
            f"{where}: {n_pixels / 1e6:,.0f} million pixels, expected at most {limit / 1e6:,.0f} million; "
            f"reduce the image, or allow more by {VARIABLE}"
        )


def count_pixels(data: bytes) -> int:
    """Width times height by the header; 0 where none can be read.

    >>> count_pixels(PNG + bytes(8) + (640).to_bytes(4, "big") + (480).to_bytes(4, "big"))
    307200
    """
    if data.startswith(PNG):
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    if data.startswith(b"\xff\xd8"):
        return _pixels_of_jpeg(data)
    try:
        if heif_kind(data) is not None and (size := heif_size(data, "image")) is not None:
            return size[0] * size[1]
        with Image.open(io.BytesIO(data)) as image:
            return image.width * image.height
    except Image.DecompressionBombError as error:
        stated = re.search(r"\((\d+) pixels\)", str(error))
        return int(stated[1]) if stated else 2**62
    except Exception:  # noqa: BLE001 the decoder will say what is wrong with it
        return 0


def _pixels_of_jpeg(data: bytes) -> int:
    """By the first frame header, to which the segments before it lead."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _TABLES:
            return int.from_bytes(data[at + 5 : at + 7], "big") * int.from_bytes(data[at + 7 : at + 9], "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0
