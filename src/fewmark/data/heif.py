"""HEIC and AVIF images, which cv2 cannot read or cannot read on every machine."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from fewmark.core.errors import InputError
from fewmark.core.install import install_hint

_HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}


def heif_kind(data: bytes) -> str | None:
    """Detect "avif" or "heic" from the brands in the file header; None for other files.

    >>> heif_kind(bytes([0, 0, 0, 20]) + b"ftypavif" + bytes(4) + b"mif1")
    'avif'
    """
    if data[4:8] != b"ftyp":
        return None
    head = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    brands = {head[i : i + 4] for i in range(0, len(head), 4)}
    return "avif" if brands & _AVIF else "heic" if brands & _HEIC else None


def decode_heif(data: bytes, where: str) -> NDArray[np.uint8] | None:
    """Decode an upright RGB uint8 image (H, W, 3), or return None if Pillow lacks AVIF support (cv2 may have it).

    The library already applies the rotation stored in a HEIC container, so the EXIF orientation, which repeats it,
    is ignored.

    Raises:
        InputError: The file is damaged, or it is HEIC and the extra `heic` is not installed.
    """
    try:
        image = _open(data, where)
        if image is None:
            return None
        upright = ImageOps.exif_transpose(image) if heif_kind(data) == "avif" else image
        return np.asarray(upright.convert("RGB"), np.uint8).copy()
    except InputError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{where}: cannot be decoded as an image ({error}); copy the file again") from error


def heif_size(data: bytes, where: str) -> tuple[int, int] | None:
    """Read the upright width and height in px from the header; None as in `decode_heif`.

    Raises:
        InputError: See `decode_heif`.
    """
    try:
        image = _open(data, where)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{where}: not an image, or damaged ({error})") from error
    if image is None:
        return None
    turned = heif_kind(data) == "avif" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size


def _open(data: bytes, where: str) -> Image.Image | None:
    if heif_kind(data) == "avif":
        return Image.open(io.BytesIO(data)) if features.check("avif") else None
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise InputError(
            f"{where}: is HEIC, which needs pillow-heif: {install_hint('heic')}, or convert it to JPEG"
        ) from error
    image: Image.Image = HeifImageFile(io.BytesIO(data))
    return image
