"""What an image's header says, without decoding it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from fewmark.core.errors import InputError
from fewmark.data.heif import heif_kind, heif_size

_EXIF_ORIENTATION = 0x0112


def read_size(path: str | Path) -> tuple[int, int]:
    """Width and height in px, EXIF orientation applied.

    Raises:
        InputError: the file is missing or no image.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(256)
            if heif_kind(head) is not None:
                size = heif_size(head + file.read(), str(path))
                if size is not None:
                    return size
        with Image.open(path) as image:
            width, height = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow turns a TIFF's size, but not its tags
                width, height = image.tag_v2[256], image.tag_v2[257]
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not an image, or damaged; expected JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({error.strerror or error}); check the path") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: an image of too many pixels ({error})") from error
    return (height, width) if turned else (width, height)
