"""HEIC and AVIF images: the kinds of file that cv2 reads nowhere, or not on every machine."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

from fewmark.core.errors import InputError

_HEIC = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}


def heif_kind(data: bytes) -> str | None:
    """ "avif" or "heic" by the brands that the file's head names, None for other files.

    >>> heif_kind(bytes([0, 0, 0, 20]) + b"ftypavif" + bytes(4) + b"mif1")
    'avif'
    """
    if data[4:8] != b"ftyp":
        return None
    head = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    brands = {head[i : i + 4] for i in range(0, len(head), 4)}
    return "avif" if brands & _AVIF else "heic" if brands & _HEIC else None


def decode_heif(data: bytes, where: str) -> NDArray[np.uint8] | None:
    """The image as RGB uint8 (H, W, 3), turned as its file says; None: this Pillow knows no AVIF, cv2 may.

    HEIC is turned by the container's own transformation, which the library applies; its EXIF orientation, which
    repeats that one, is not applied again.

    Raises:
        InputError: HEIC without the extra `heic`, or a damaged file.
    """
    try:
        image = _open(data, where)
        if image is None:
            return None
        upright = ImageOps.exif_transpose(image) if heif_kind(data) == "avif" else image
        return np.asarray(upright.convert("RGB"), np.uint8).copy()
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{where}: cannot be decoded as an image ({error}); copy the file again") from error


def heif_size(data: bytes, where: str) -> tuple[int, int] | None:
    """Width and height in px of an upright image, from its head; None as in `decode_heif`.

    Raises:
        InputError: as `decode_heif`.
    """
    try:
        image = _open(data, where)
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
            f"{where}: is HEIC, which needs pillow-heif: pip install 'fewmark[heic]', or convert it to JPEG"
        ) from error
    image: Image.Image = HeifImageFile(io.BytesIO(data))
    return image
