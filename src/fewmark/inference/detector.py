"""Detector: the faces of an image and their landmarks, by a model file. The class that most users import."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import BadImageWarning, InputError
from fewmark.core.geometry import Box, FloatArray, Image
from fewmark.data.images import ImageLike, to_rgb
from fewmark.inference.answer import make_answer
from fewmark.inference.checkpoint.metadata import packaged_names
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import FaceDetector, FullImage, SlimeFaceDetector, adapt_box
from fewmark.inference.loading import Runtime, load_predictor
from fewmark.inference.predictor import LandmarkPredictor
from fewmark.landmarks.scheme import LandmarkScheme

if TYPE_CHECKING:
    import torch

_IMAGES = 32  # in memory at a time


@dataclass(frozen=True, eq=False)
class _FaceRequest:
    """A face whose landmarks are wanted.

    Attributes:
        image_index: Index of its image in the batch.
        image: (H, W, 3) RGB.
        box: (4,) image px, of the kind that the model was trained on.
        box_score: The face detector's score; None for a given box.
        n_passes: Most passes.
    """

    image_index: int
    image: Image
    box: Box
    box_score: float | None
    n_passes: int


class Detector:
    """Finds the faces of an image and their landmarks.

    Args:
        checkpoint: A packaged name such as "ibug-68" (see `packaged_names`), a .safetensors file, an .onnx file that `fewmark export`
            wrote, the folder of a training run, or a model in memory (see `load_checkpoint`).
        threads: CPU threads; for torch of the whole process. None: the runtime's default.
        face_detector: Finds the faces where no boxes are given; `SlimeFaceDetector()`, made at its first use, if None.
        device: Where torch runs the networks, e.g. "cuda"; ONNX Runtime runs them on the CPU.
        runtime: "onnx", "torch" or "auto": ONNX Runtime if it is installed and there is an exported model, which is the .onnx file
            itself or NAME.onnx alongside NAME.safetensors if it was exported from just that file; otherwise torch. A model in memory
            is run by torch.
        predictor: Runs the networks of a model in memory in place of torch.
        keep_unlikely: Keep detected faces that `is_face` rejects.

    Raises:
        InputError: There is no such model, its file is damaged or of another kind, threads are below 1, or the runtime or the device
            cannot run it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | str | os.PathLike[str],
        *,
        threads: int | None = None,
        face_detector: FaceDetector | None = None,
        device: torch.device | str = "cpu",
        runtime: Runtime = "auto",
        predictor: LandmarkPredictor | None = None,
        keep_unlikely: bool = False,
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads: expected 1 or more, given {threads}")
        if isinstance(checkpoint, str | os.PathLike):
            if predictor is not None:
                raise InputError(
                    "predictor: expected with a model in memory, given with a file; load_checkpoint reads it"
                )
            predictor = load_predictor(checkpoint, threads=threads, device=device, runtime=runtime)
            checkpoint = predictor.checkpoint
        elif not isinstance(checkpoint, Checkpoint):
            raise InputError(
                f"model: expected a packaged name, a file or a Checkpoint, given {type(checkpoint).__name__}; packaged are "
                f"{', '.join(packaged_names())}"
            )
        elif runtime == "onnx" or (threads is not None and predictor is not None):
            raise InputError(
                "runtime and threads: expected with a model file, given with a model in memory or a predictor"
            )
        elif predictor is None:
            from fewmark.inference.predictor_torch import TorchPredictor

            predictor = TorchPredictor(checkpoint, device, threads=threads)
        self.checkpoint = checkpoint
        self.predictor = predictor
        self.keep_unlikely = keep_unlikely
        self._face_detector = face_detector

    @classmethod
    def load(
        cls,
        path_or_name: str | os.PathLike[str],
        *,
        threads: int | None = None,
        face_detector: FaceDetector | None = None,
        device: torch.device | str = "cpu",
        runtime: Runtime = "auto",
        keep_unlikely: bool = False,
    ) -> Detector:
        """Load a detector from a packaged name, a model file or a run folder; the same as `Detector(path_or_name, ...)`."""
        return cls(
            path_or_name,
            threads=threads,
            face_detector=face_detector,
            device=device,
            runtime=runtime,
            keep_unlikely=keep_unlikely,
        )

    @property
    def scheme(self) -> LandmarkScheme:
        """The model's own annotation scheme."""
        return self.checkpoint.scheme

    @property
    def face_detector(self) -> FaceDetector:
        if self._face_detector is None:
            self._face_detector = SlimeFaceDetector()
        return self._face_detector

    def detect(
        self,
        image: ImageLike,
        boxes_xyxy: FloatArray | None = None,
        *,
        flip: bool | None = None,
        passes: int | None = None,
        scheme: str | None = None,
        bgr: bool = False,
    ) -> list[Face]:
        """Find the faces of one image and their landmarks.

        Args:
            image: A file's path or bytes, a file opened in binary mode, an array (H, W, 3) RGB or a Pillow image, see
                `fewmark.data.images.to_rgb`. Files and Pillow images are turned upright by their EXIF orientation, and the landmarks
                are those of the upright image.
            boxes_xyxy: (N, 4) image px, of the kind that the model was trained on (the tight box of the landmarks). None: the face
                detector finds them.
            flip: Average with the prediction from the flipped crop: twice the time, a little more accurate. None: as the model asks.
            passes: Most passes per face. Each pass after the first crops around the landmarks of the one before, rotated upright,
                and is skipped where it would see nearly the same crop (`predictor.MAX_BOX_CHANGE`, `predictor.MIN_ROTATION`). If
                the scores of the first or last pass are low (`predictor.LOW_CONFIDENCE`), other rotations are tried too. None: 1
                for given boxes, 2 for detected ones.
            scheme: Name of the answer's annotation scheme: the model's, or one that it has a transfer to. A transferred landmark's
                score is the weighted mean of the scores that it comes from.
            bgr: An array's channels are blue, green, red, as cv2.imread and cv2.VideoCapture have them.

        Returns:
            The faces in the order of the boxes, or the largest first; [] if there is none.

        Raises:
            InputError: The image cannot be read, the model has no transfer to the scheme, or a box is not finite, has no extent or
                lies outside the image.
        """
        self._check_request(passes, scheme)
        requests = self._request_faces(image, boxes_xyxy, passes, bgr=bgr)
        return [face for face in self._predict_faces(requests, flip, scheme) if face is not None]

    def detect_batch(
        self,
        images: Sequence[ImageLike],
        boxes_xyxy: Sequence[FloatArray | None] | None = None,
        *,
        flip: bool | None = None,
        passes: int | None = None,
        scheme: str | None = None,
        bgr: bool = False,
        on_error: Callable[[int, InputError], None] | None = None,
    ) -> list[list[Face]]:
        """Find the faces of each of several images; their crops share batches, and 32 images are in memory at a time.

        An image that cannot be used does not stop the others: it is reported to `on_error`, and its faces are [].

        Args:
            images: Images, each as `detect` takes it.
            boxes_xyxy: One (N, 4) array per image, or None for an image whose faces are to be detected.
            flip: See `detect`.
            passes: See `detect`.
            scheme: See `detect`.
            bgr: See `detect`.
            on_error: Called with the index of an image that cannot be used and the reason, e.g. `failures.__setitem__` of a dict,
                or a function that raises. None: warn with a `BadImageWarning` each.

        Returns:
            One list per image, in their order; see `detect`.

        Raises:
            InputError: The request is wrong, not an image: another number of boxes than of images, passes below 1, a scheme that
                the model has no transfer to, or no face detector.
        """
        _check_list(images)
        self._check_request(passes, scheme)
        if boxes_xyxy is not None and len(boxes_xyxy) != len(images):
            raise InputError(
                f"boxes_xyxy: expected one entry for each of {len(images)} images, given {len(boxes_xyxy)}"
            )
        boxes = [None] * len(images) if boxes_xyxy is None else list(boxes_xyxy)
        if any(b is None for b in boxes):
            _ = self.face_detector  # if it is missing, that is no image's fault
        report = on_error or _warn
        faces: list[list[Face]] = [[] for _ in images]
        for start in range(0, len(images), _IMAGES):
            requests: list[_FaceRequest] = []
            for i in range(start, min(len(images), start + _IMAGES)):
                try:
                    requests += self._request_faces(images[i], boxes[i], passes, image_index=i, bgr=bgr)
                except InputError as error:
                    report(i, InputError(str(error)))  # a new one: the frames of the caught one hold images
            for request, face in zip(requests, self._predict_faces(requests, flip, scheme), strict=True):
                if face is not None:
                    faces[request.image_index].append(face)
        return faces

    def _check_request(self, passes: int | None, scheme: str | None) -> None:
        self.checkpoint.transfer_to(scheme)
        if passes is not None and passes < 1:
            raise InputError(f"passes: expected 1 or more, given {passes}")

    def _request_faces(
        self,
        image: ImageLike,
        boxes_xyxy: FloatArray | None,
        passes: int | None,
        image_index: int = 0,
        *,
        bgr: bool = False,
    ) -> list[_FaceRequest]:
        """Read an image and find its faces, unless their boxes are given.

        Raises:
            InputError: The image cannot be read, or a box is bad.
        """
        rgb = to_rgb(image, bgr=bgr)
        name = str(image) if isinstance(image, str | os.PathLike) else ""
        if boxes_xyxy is None:
            found = self.detect_faces(rgb)
            return [_FaceRequest(image_index, rgb, box, score, passes or 2) for box, score in found]
        boxes = check_boxes(boxes_xyxy, (rgb.shape[0], rgb.shape[1]), name)
        return [_FaceRequest(image_index, rgb, box, None, passes or 1) for box in boxes]

    def _predict_faces(
        self, requests: Sequence[_FaceRequest], flip: bool | None, scheme: str | None
    ) -> list[Face | None]:
        """Predict the landmarks of each face; None for a detected face that is rejected."""
        found = self.predictor.predict(
            [r.image for r in requests], [r.box for r in requests], [r.n_passes for r in requests], flip=flip
        )
        answer = make_answer(found.landmarks, found.scores, self.checkpoint, scheme)
        faces: list[Face | None] = []
        for i, request in enumerate(requests):
            if request.box_score is not None and not self.is_face(found.scores[i]):
                faces.append(None)
                continue
            errors = answer.expected_errors
            faces.append(
                Face(
                    box=request.box,
                    landmarks=answer.landmarks[i].copy(),  # a face that is kept does not keep its batch
                    scores=answer.scores[i].copy(),
                    box_score=request.box_score,
                    scheme=answer.scheme,
                    angle=float(found.angles[i]),
                    expected_errors=None if errors is None else errors[i].copy(),
                    quality=found.quality_of(i),
                )
            )
        return faces

    def is_face(self, scores: NDArray[np.float32]) -> bool:
        """Whether the landmarks predicted in a detected box can be a face's, see `ErrorCalibration.is_face`; True from a model
        without calibration.

        Args:
            scores: (K,) in the model's own scheme.
        """
        calibration = self.checkpoint.calibration
        if self.keep_unlikely or calibration is None or isinstance(self._face_detector, FullImage):
            return True
        return calibration.is_face(scores)

    def detect_faces(self, image: Image) -> list[tuple[Box, float | None]]:
        """Find faces without their landmarks.

        Args:
            image: (H, W, 3) RGB.

        Returns:
            (4,) box, image px, of the kind that the model was trained on, and the face detector's score; the largest first.
        """
        adapter = self.checkpoint.box_from_detector
        return [
            (f.box_xyxy if adapter is None else adapt_box(f.box_xyxy, adapter), f.score)
            for f in self.face_detector(image)
        ]


def _check_list(images: Any) -> None:
    """Raises: InputError: It is one image, a folder or an iterator, not several images."""
    shape = getattr(images, "shape", None)
    is_one = shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[2] in (1, 3, 4)))
    if (
        is_one
        or not isinstance(images, Sequence | np.ndarray)
        or isinstance(images, str | bytes | bytearray | memoryview)
    ):
        given = f"one of shape {tuple(shape)}" if is_one and shape is not None else type(images).__name__
        given = repr(images) if isinstance(images, str | os.PathLike) else given
        advice = "give list(...)" if isinstance(images, Iterator) else "detect takes one image"
        raise InputError(f"images: expected a list of images, given {given}; {advice}")


def _warn(index: int, error: InputError) -> None:
    warnings.warn(f"image {index} is left out: {error}", BadImageWarning, stacklevel=3)  # the caller of detect_batch


def check_boxes(boxes_xyxy: FloatArray, size: tuple[int, int], context: str = "") -> NDArray[np.float32]:
    """Check boxes that a user gave; returns them as (N, 4) float32.

    Args:
        boxes_xyxy: (N, 4), or (4,) for one; image px.
        size: (H, W) of the image, px.
        context: The image, for messages.

    Raises:
        InputError: The shape is another, or a box is not finite, has no extent or lies outside the image.
    """
    where = f"{context}: " if context else ""
    boxes = np.asarray(boxes_xyxy, np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    boxes = boxes[None] if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{where}boxes: expected (N, 4) x0 y0 x1 y1, given shape {np.shape(boxes_xyxy)}")
    height, width = size
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        given = [round(v, 1) for v in (x0, y0, x1, y1)]
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
            raise InputError(
                f"{where}box {i}: expected x0 < x1 and y0 < y1 (px), given {given}; is it x y width height?"
            )
        if x1 <= -0.5 or y1 <= -0.5 or x0 >= width - 0.5 or y0 >= height - 0.5:
            raise InputError(f"{where}box {i}: expected a box in the image of {width} x {height} px, given {given}")
    return boxes
