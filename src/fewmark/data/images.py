"""Image reading and writing: every file becomes an upright RGB uint8 array."""

from __future__ import annotations

import inspect
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage
from PIL import TiffImagePlugin, UnidentifiedImageError

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, user_path
from fewmark.core.pixels import as_rgb as as_rgb
from fewmark.data.decoders import open_by_pillow, quiet_cv2, why_undecodable
from fewmark.data.heif import decode_heif, heif_kind, heif_size
from fewmark.data.image_ends import broken_off
from fewmark.data.image_limit import check_pixels

ImageLike: TypeAlias = (
    NDArray[Any] | PilImage.Image | str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
)
"""An image in any form: an array, a Pillow image, a file's path, its bytes, or a file opened in binary mode."""

_USUAL = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif", ".jfif", ".jpe")
IMAGE_SUFFIXES = (*_USUAL, ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".gif")
WRITABLE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
JPEG_QUALITY = 92

_EXIF_ORIENTATION = 0x0112
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|data:")


def to_rgb(image: ImageLike, where: str = "image", *, bgr: bool = False) -> NDArray[np.uint8]:
    """Convert an image of any kind to upright RGB uint8 (H, W, 3).

    Args:
        image: A file's path, its bytes, a file opened in binary mode, an array (H, W, 3), or whatever else `as_rgb` takes.
        where: Its name, for messages; a file is named by its path.
        bgr: See `as_rgb`; files and bytes know their own order.

    Raises:
        InputError: See `read_image`, `decode_image` and `as_rgb`.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), where)
    if hasattr(image, "read"):
        return decode_image(_content(image, where), where)
    return as_rgb(image, where, bgr=bgr)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image as RGB uint8 (H, W, 3) with EXIF orientation applied, alpha dropped and 16 bits scaled to 8.

    Args:
        path: A file; `~` is the home folder.

    Raises:
        InputError: The file is missing, empty, truncated or not an image, or the path is a folder or a web address.
    """
    file = user_path(path)
    if _ADDRESS.match(str(path)) and not file.exists():
        raise InputError(f"{str(path)[:80]}: expected a file, given a web address; download it first")
    if _is_pipe(file):
        raise InputError(
            f"{path}: expected a file, given a pipe, whose reader would wait for its writer; give its bytes"
        )
    try:
        data = file.read_bytes()
    except IsADirectoryError as error:
        raise InputError(
            f"{path}: cannot be read as one image: it is a folder; `fewmark detect` takes folders, detect_batch a list of files"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{str(path)[:300]}: cannot be read ({reason}); check the path") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, where: str = "image") -> NDArray[np.uint8]:
    """Decode an image from bytes; see `read_image`. What follows the image in the bytes is ignored.

    Raises:
        InputError: The bytes are not an image, are truncated, state too many pixels (see `fewmark.data.image_limit`), or are HEIC and
            the extra `heic` is not installed.
    """
    if not data:
        raise InputError(f"{where}: the file is empty; expected an image")
    if (reason := broken_off(data)) is not None:
        raise InputError(f"{where}: {reason}; copy the file again")
    check_pixels(data, where)
    if heif_kind(data) is not None:
        decoded = decode_heif(data, where)
        if decoded is not None:
            return decoded
    if (image := open_by_pillow(data)) is not None:
        return as_rgb(image, where)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # applies EXIF orientation, drops alpha, keeps 16 bits
    try:
        with quiet_cv2():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{where}: cannot be decoded as an image ({error.err})") from error
    if pixels is None:
        raise InputError(f"{where}: {why_undecodable(data)}")
    if pixels.ndim == 3 and pixels.dtype in (np.uint8, np.uint16):
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # fifty times faster than reversing the last axis
    elif pixels.ndim == 3:
        pixels = pixels[..., ::-1]
    return as_rgb(pixels, where)


def _is_pipe(file: Path) -> bool:
    """Whether a file is a named pipe, but for those of a shell's own <(...)."""
    with suppress(OSError, ValueError):
        return file.is_fifo() and not str(file).startswith(("/dev/", "/proc/"))
    return False


def _content(file: Any, where: str) -> bytes:
    """Read an open file to its end."""
    try:
        data = file.read()
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{where}: cannot be read from the open file ({error})") from error
    if inspect.iscoroutine(data):
        data.close()
        raise InputError(f"{where}: expected bytes, given a file that is read asynchronously; give `await file.read()`")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(
            f"{where}: expected a file opened in binary mode, given {type(data).__name__}; open it with 'rb'"
        )
    if not data:
        raise InputError(f"{where}: the open file is at its end or empty; expected an image; call seek(0) first")
    return bytes(data)


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the width and height in px, after EXIF orientation.

    Raises:
        InputError: The file is missing or not an image.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(256)
            if heif_kind(head) is not None:
                size = heif_size(head + file.read(), str(path))
                if size is not None:
                    return size
        with PilImage.open(path) as image:
            width, height = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow rotates the size of a TIFF, but not its tags
                width, height = image.tag_v2[256], image.tag_v2[257]
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not an image, or damaged; expected JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({error.strerror or error}); check the path") from error
    except PilImage.DecompressionBombError as error:
        raise InputError(f"{path}: too many pixels ({error})") from error
    return (height, width) if turned else (width, height)


def write_image(path: str | Path, image: NDArray[np.uint8], *, replace: bool = True) -> None:
    """Write an image atomically, see `atomic_path`.

    Args:
        path: Image file, with one of `WRITABLE_SUFFIXES`.
        image: (H, W, 3) RGB.
        replace: Replace a file that is there; otherwise that is an error.

    Raises:
        InputError: The suffix is not supported, the image is too large for the format, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise InputError(f"{path}: expected a file name ending in {', '.join(WRITABLE_SUFFIXES)}")
    suffix = path.suffix.lower()
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    try:
        done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    except cv2.error:
        done = False
    if not done:
        size = f"{image.shape[1]} x {image.shape[0]} px"
        raise InputError(f"{path}: {size} cannot be written as {suffix}; choose another format or a smaller image")
    with atomic_path(path, replace=replace) as temporary:
        temporary.write_bytes(data.tobytes())
