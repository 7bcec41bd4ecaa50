"""FaceSample: one face in one image. And the one door through which images enter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, box_of_points
from fewmark.data.heif import decode_heif, heif_kind

_USUAL = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif")
IMAGE_SUFFIXES = (*_USUAL, ".bmp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True, eq=False)
class FaceSample:
    """One face in one image: labelled, unlabelled or pseudo-labelled.

    Attributes:
        image: the image's file.
        box: (4,) x0 y0 x1 y1 image px, or None.
        landmarks: (K, 2) image px, NaN rows where not annotated; None = unlabelled.
        occluded: (K,) bool, or None where the annotation does not say.
        group: person, scene or video; no split cuts a group.
        name: how lists name the face (its file relative to the data), unique in a data set.
    """

    image: Path
    box: Box | None = None
    landmarks: NDArray[np.float32] | None = None
    occluded: NDArray[np.bool_] | None = None
    group: str = ""
    name: str = ""

    def face_box(self) -> Box:
        """The face's box: the one given, else the tight box of its landmarks.

        Raises:
            InputError: the face has neither.
        """
        if self.box is not None:
            return self.box
        if self.landmarks is None or not np.isfinite(self.landmarks).all(1).any():
            raise InputError(
                f"{self.image}: the face has neither a box nor landmarks; give box_x0,box_y0,box_x1,box_y1"
            )
        return box_of_points(self.landmarks)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as RGB uint8 (H, W, 3), EXIF orientation applied, alpha dropped, 16 bit scaled to 8.

    Raises:
        InputError: the file is missing, empty, truncated or no image.
    """
    path = Path(path)
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if raw.size == 0:
        raise InputError(f"{path}: the file is empty; expected an image")
    return decode_image(raw.tobytes(), str(path))


def decode_image(data: bytes, where: str = "image") -> NDArray[np.uint8]:
    """Decode an image's bytes; see `read_image`.

    Raises:
        InputError: the bytes are no image, a truncated one, or HEIC where the extra `heic` is not installed.
    """
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-65536:]:
        raise InputError(f"{where}: a truncated JPEG (no end marker); copy the file again")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and b"IEND" not in data[-64:]:
        raise InputError(f"{where}: a truncated PNG (no end chunk); copy the file again")
    if heif_kind(data) is not None:
        decoded = decode_heif(data, where)
        if decoded is not None:
            return decoded
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH  # obeys EXIF, drops alpha, keeps 16 bit
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InputError(f"{where}: cannot be decoded as an image ({error.err})") from error
    if image is None:
        raise InputError(f"{where}: not an image, or damaged; expected JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF")
    if image.ndim == 3 and image.dtype in (np.uint8, np.uint16):
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # fifty times as fast as turning the last axis round
    elif image.ndim == 3:
        image = image[..., ::-1]
    return as_rgb(image, where)


def as_rgb(image: NDArray[np.generic], where: str = "image") -> NDArray[np.uint8]:
    """An array as RGB uint8 (H, W, 3): grey is repeated, alpha dropped, 16 bit divided by 257, floats in [0, 1] times 255.

    Raises:
        InputError: the array is no image.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(f"{where}: expected (H, W, 3) RGB, (H, W) grey or (H, W, 4) RGBA, given shape {array.shape}")
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    array = array[..., :3]
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) * 255 + 32767) // 65535
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError(f"{where}: expected float values in [0, 1], given {array.min()} to {array.max()}")
        array = np.rint(array * 255)
    elif array.dtype != np.uint8:
        raise InputError(f"{where}: expected uint8, uint16 or float values, given {array.dtype}")
    return np.ascontiguousarray(array, np.uint8)
