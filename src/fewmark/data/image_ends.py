"""Whether the image in a file breaks off: JPEG and PNG are followed to their own end, whatever lies behind it.

Phones append videos, depth maps and padding to their photographs, so the tail of a file says nothing; and decoders fill the missing
part of a JPEG with grey, some without a word.

Source: ITU-T T.81, annex B (markers of a JPEG); the PNG specification, section 5.3 (chunks).
"""

from __future__ import annotations

import re

_SOI, _EOI, _SOS, _DRI = 0xD8, 0xD9, 0xDA, 0xDD
# segments that may stand between the scans of a JPEG: tables, restart interval, lines, APPn, comment
_BETWEEN_SCANS = {0xC4, 0xCC, _SOS, 0xDB, 0xDC, _DRI, 0xFE, *range(0xE0, 0xF0)}
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""A marker; in a scan's data 0xFF 0x00 is a data byte and 0xD0 to 0xD7 separate its restart intervals."""

PNG = b"\x89PNG\r\n\x1a\n"
"""How a PNG begins."""


def broken_off(data: bytes) -> str | None:
    """Why an image is not whole: None for a whole JPEG or PNG, and for any other kind of file, which its decoder judges.

    >>> broken_off(b"GIF89a"), broken_off(bytes.fromhex("ffd8ffd9"))
    (None, 'a truncated JPEG (no end marker)')
    """
    if data[:2] == b"\xff\xd8" and not _jpeg_is_whole(data):
        return "a truncated JPEG (no end marker)"
    if data[:8] == PNG and not _png_is_whole(data):
        return "a truncated PNG (no end chunk)"
    return None


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether a scan and then the end marker are reached from segment to segment.

    What stands between two scans follows without a gap, so data that were appended to half an image are not taken for its rest.
    A JPEG with restart intervals may have damaged ones: decoders go on with the next.
    """
    at, in_scans, restarts = 2, False, False
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker == _EOI:
            return in_scans
        if in_scans and marker not in _BETWEEN_SCANS:
            if restarts and marker != _SOI:
                continue
            return False
        length = int.from_bytes(data[at : at + 2], "big")
        if marker == _SOI or length < 2:
            return False
        at += length
        restarts |= marker == _DRI
        if marker == _SOS:
            in_scans = True
        elif in_scans and data[at : at + 1] != b"\xff" and not restarts:
            return False
    return False


def _png_is_whole(data: bytes) -> bool:
    """Whether the end chunk is reached from chunk to chunk."""
    at = len(PNG)
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False
