"""Writing images, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
JPEG_QUALITY = 92


def write_image(path: str | Path, image: NDArray[np.uint8]) -> None:
    """Write an image by `atomic_path`.

    Args:
        path: its suffix is one of `SUFFIXES`.
        image: (H, W, 3) RGB.

    Raises:
        InputError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: expected a file name that ends in {', '.join(SUFFIXES)}")
    suffix = path.suffix.lower()
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
