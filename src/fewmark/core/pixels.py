"""Images in memory (arrays, Pillow images, tensors) as RGB uint8 arrays."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError

_EXPECTED = "(H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA"
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_TO_STRAIGHT = {"P": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
"""Pillow modes that have no direct or no silent way to RGB -> the one to go through."""


def as_rgb(image: Any, where: str = "image", *, bgr: bool = False) -> NDArray[np.uint8]:
    """Convert an image in memory to RGB uint8 (H, W, 3); the memory of an array that is so already is not copied.

    Grey is repeated and alpha dropped, the colours below it as they are stored. 16-bit values are divided by 257 and floats in [0, 1]
    multiplied by 255. A Pillow image is converted by its mode: a palette is looked up, bits are 0 and 255, CMYK, YCbCr, HSV and LAB
    become RGB; if it carries an EXIF orientation it is turned upright, as its file would be (`ImageOps.exif_transpose`). A tensor is
    taken as its array.

    Args:
        image: (H, W, 3), (H, W, 4), (H, W, 1) or (H, W) array or tensor of uint8, uint16 or floats; or a Pillow image.
        where: Its name, for messages.
        bgr: The channels of an array are blue, green, red, as cv2 has them; a Pillow image knows its own.

    Raises:
        InputError: It is no image, is damaged, or its range of values is unknown (integers of other sizes, floats beyond [0, 1]).
    """
    if is_pillow(image):
        return _pillow_rgb(image, where)
    array = _array(image, where)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{where}: expected {_EXPECTED}, given shape {np.shape(image)}{_advice(array)}")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    array = array[..., 2::-1] if bgr else array[..., :3]
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = (array.astype(np.uint32) * 255 + 32767) // 65535
    elif array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not np.isfinite([low, high]).all():
            raise InputError(f"{where}: expected float values in [0, 1], given NaN or infinite ones")
        if low < 0 or high > 1:
            raise InputError(
                f"{where}: expected float values in [0, 1], given {low} to {high}; give uint8, or divide by the white value"
            )
        array = np.rint(array * 255)
    elif array.dtype != np.uint8:
        advice = (
            "image.astype(np.uint8) * 255" if array.dtype == bool else "image.astype(np.uint8) if they are 0 to 255"
        )
        raise InputError(f"{where}: expected uint8, uint16 or float values, given {array.dtype}; {advice}")
    return np.ascontiguousarray(array, np.uint8)


def is_pillow(image: Any) -> bool:
    """Whether it is a Pillow image; Pillow is not imported for it."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def _pillow_rgb(image: Any, where: str = "image") -> NDArray[np.uint8]:
    """Convert a Pillow image, see `as_rgb`; its current frame, if it has several.

    Raises:
        InputError: See `as_rgb`.
    """
    from PIL import ImageOps

    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode == "I":
            raise InputError(
                f"{where}: expected a Pillow image of a mode with a known range, given mode I (32-bit integers); convert it, e.g. "
                "16 bits by Image.fromarray(np.asarray(image).astype(np.uint16))"
            )
        if upright.mode == "F" or upright.mode in _SIXTEEN_BITS:
            return as_rgb(np.asarray(upright), where)
        while upright.mode in _TO_STRAIGHT:
            upright = upright.convert(_TO_STRAIGHT[upright.mode])
        return as_rgb(np.asarray(upright.convert("RGB")), where)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, ImportError, KeyError, AttributeError) as error:
        raise InputError(
            f"{where}: cannot be read ({_one_line(error)}); copy the file again, or open it anew"
        ) from error


def _array(image: Any, where: str) -> NDArray[Any]:
    if isinstance(image, np.ndarray):
        return image
    if image is None:
        raise InputError(
            f"{where}: expected an image, given None; cv2.imread returns None for a file that it cannot read: give its path instead"
        )
    if isinstance(image, list | tuple):
        raise InputError(
            f"{where}: expected one image, given {len(image)} in a {type(image).__name__}; call detect_batch for several"
        )
    try:
        if hasattr(image, "detach"):  # a torch tensor
            image = image.detach().cpu().numpy()
        if hasattr(image, "__array__"):
            return np.asarray(image)
        given = f"given {type(image).__name__}"
    except (TypeError, ValueError, RuntimeError) as error:
        given = f"given {type(image).__name__}, which is no array ({_one_line(error)})"
    raise InputError(f"{where}: expected a file name, the bytes of a file, a NumPy array or a Pillow image, {given}")


def _advice(array: NDArray[Any]) -> str:
    shape = array.shape
    if array.ndim == 4:
        return "; one image at a time: give image[0]" if shape[0] == 1 else "; call detect_batch for several images"
    if array.ndim == 3 and shape[0] in (1, 3, 4):
        return "; its channels come first: give image.transpose(1, 2, 0), of a tensor image.permute(1, 2, 0)"
    return ""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
