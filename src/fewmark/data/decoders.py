"""Which decoder reads a file: cv2 most, Pillow those that cv2 gets wrong or cannot read; and why none does."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import cv2
from PIL import Image

from fewmark.data.heif import heif_kind

_BY_PILLOW = {"I", "F", "LAB", "LA", "PA", "La", "RGBA", "RGBa"}
"""Modes of TIFFs that cv2 darkens by their alpha, shifts in colour or cannot read."""
_GIF = b"GIF8"
_CLASSIC_TIFF = (b"II*\0", b"MM\0*")
_TIFF = (*_CLASSIC_TIFF, b"II+\0", b"MM\0+")
_KINDS = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"RIFF": "WebP", b"BM": "BMP", _GIF: "GIF", **dict.fromkeys(_TIFF, "TIFF"),
    b"P5": "PGM", b"P6": "PPM", b"\0\0\0\x0cjP  ": "JPEG 2000",
}  # fmt: skip
_VIDEOS = {b"\x1aE\xdf\xa3": "WebM or Matroska", b"FLV\1": "FLV", b"0&\xb2u\x8ef\xcf\x11": "WMV", b"\0\0\1\xba": "MPEG"}
FOR_VIDEOS = "`fewmark track MODEL VIDEO --out DIR` is for videos"


def open_by_pillow(data: bytes) -> Image.Image | None:
    """Open a file that Pillow reads better than cv2, without decoding it: a GIF, or a TIFF with alpha, LAB, floats or 32 bits."""
    if not data.startswith((_GIF, *_TIFF)) or (data.startswith(_CLASSIC_TIFF) and not _has_directory(data)):
        return None
    try:
        image = Image.open(io.BytesIO(data), formats=["GIF", "TIFF"])
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, Image.DecompressionBombError):
        return None
    return image if image.format == "GIF" or image.mode in _BY_PILLOW else None


def _has_directory(data: bytes) -> bool:
    """Whether a TIFF's first directory, often at its end, is there; Pillow would warn of half a one."""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    at = int.from_bytes(data[4:8], order)
    return at + 2 + 12 * int.from_bytes(data[at : at + 2], order) <= len(data)


def video_kind(head: bytes) -> str | None:
    """The kind of video that a file is by its first bytes; None for other files.

    >>> video_kind(bytes([0, 0, 0, 20]) + b"ftypisom"), video_kind(b"RIFF....WEBP")
    ('MP4', None)
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide") and heif_kind(head) is None:
        return "QuickTime" if head[8:10] == b"qt" else "MP4"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    return next((kind for magic, kind in _VIDEOS.items() if head.startswith(magic)), None)


def why_undecodable(data: bytes) -> str:
    """What is wrong with a file that no decoder reads.

    >>> why_undecodable(b"BM..")
    'a truncated or damaged BMP; copy the file again'
    """
    if (video := video_kind(data)) is not None:
        return f"a video ({video}), expected an image; {FOR_VIDEOS}"
    for magic, kind in _KINDS.items():
        if data.startswith(magic):
            return f"a truncated or damaged {kind}; copy the file again"
    return "not an image, or damaged; expected JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF"


class _Quiet:
    """How many threads want cv2 quiet, and its log level before the first."""

    lock = threading.Lock()
    n_threads = 0
    level = 0


@contextmanager
def quiet_cv2() -> Iterator[None]:
    """Keep cv2 from writing its own lines about damaged files to the standard error."""
    logging = getattr(cv2.utils, "logging", cv2)  # cv2 4 has the function elsewhere
    with _Quiet.lock:
        if _Quiet.n_threads == 0:
            _Quiet.level = logging.setLogLevel(0)
        _Quiet.n_threads += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.n_threads -= 1
            if _Quiet.n_threads == 0:
                logging.setLogLevel(_Quiet.level)
