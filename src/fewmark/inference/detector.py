"""Detector: the faces of an image and their landmarks, by a model file. The class that most users import."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import BadImageWarning, InputError
from fewmark.core.geometry import FloatArray, Image
from fewmark.data.images import ImageLike
from fewmark.inference.answer import make_answer
from fewmark.inference.arguments import check_list, read_request
from fewmark.inference.checkpoint.metadata import packaged_names
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import FaceDetector, FullImage, SlimeFaceDetector
from fewmark.inference.loading import Runtime, load_predictor
from fewmark.inference.predictor import LandmarkPredictor
from fewmark.inference.search import FaceRequest, FoundFace, find_each, given_faces, predict_requests, request_faces
from fewmark.landmarks.scheme import LandmarkScheme

if TYPE_CHECKING:
    import torch

_IMAGES = 32  # in memory at a time


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
        turned: bool | None = None,
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
            turned: Detect faces on their side and upside down, too: the face detector also searches the image rotated by 90, 180
                and 270 degrees, about four times its time. None: if the upright search finds no certain face, or one that looks
                rotated (`search.may_be_rotated`). False: never; faces are then found up to some 60 degrees from upright.

        Returns:
            The faces in the order of the boxes, or the largest first; [] if there is none.

        Raises:
            InputError: The image cannot be read, the model has no transfer to the scheme, or a box is not finite, has no extent or
                lies outside the image.
        """
        self._check_request(passes, scheme)
        rgb, boxes = read_request(image, boxes_xyxy, bgr=bgr)
        if boxes is None:
            found = self.find_faces([rgb], flip=flip, passes=passes, turned=turned)[0]
        else:
            found = predict_requests(self.predictor, given_faces(rgb, boxes, passes or 1), flip=flip)
        return [face for face in self._answer(found, scheme) if face is not None]

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
        turned: bool | None = None,
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
            turned: See `detect`.

        Returns:
            One list per image, in their order; see `detect`.

        Raises:
            InputError: The request is wrong, not an image: another number of boxes than of images, passes below 1, a scheme that
                the model has no transfer to, or no face detector.
        """
        check_list(images)
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
            whole: dict[int, Image] = {}
            given: list[FaceRequest] = []
            for i in range(start, min(len(images), start + _IMAGES)):
                try:
                    rgb, own = read_request(images[i], boxes[i], bgr=bgr)
                except InputError as error:
                    report(i, InputError(str(error)))  # a new one: the frames of the caught one hold images
                    continue
                if own is None:
                    whole[i] = rgb
                else:
                    given += given_faces(rgb, own, passes or 1, i)
            found = predict_requests(self.predictor, given, flip=flip)
            for of_image in self._find_each(whole, report, flip, passes, turned).values():
                found += of_image
            for one, face in zip(found, self._answer(found, scheme), strict=True):
                if face is not None:
                    faces[one.request.image_index].append(face)
        return faces

    def find_faces(
        self,
        images: Sequence[Image],
        *,
        flip: bool | None = None,
        passes: int | None = None,
        turned: bool | None = None,
    ) -> list[list[FoundFace]]:
        """Find the faces of images and the model's own landmarks, those that `is_face` rejects included.

        Args:
            images: (H, W, 3) RGB each.
            flip: See `detect`.
            passes: See `detect`.
            turned: See `detect`.
        """
        return list(self._find_each(dict(enumerate(images)), _raise, flip, passes, turned).values())

    def _find_each(
        self,
        images: Mapping[int, Image],
        report: Callable[[int, InputError], None],
        flip: bool | None,
        passes: int | None,
        turned: bool | None,
    ) -> dict[int, list[FoundFace]]:
        """See `find_faces`; the face detector's `InputError` about an image is reported."""

        def search(i: int, directions: Sequence[float]) -> list[FaceRequest]:
            try:
                return self.search(images[i], directions, passes=passes, image_index=i)
            except InputError as error:
                report(i, InputError(str(error)))
                return []

        turned = False if isinstance(self._face_detector, FullImage) else turned
        return find_each(images, search, self.predictor, flip=flip, turned=turned)

    def search(
        self, image: Image, directions: Sequence[float] = (0.0,), *, passes: int | None = None, image_index: int = 0
    ) -> list[FaceRequest]:
        """Run the face detector in some directions; see `request_faces`."""
        adapter = self.checkpoint.box_from_detector
        return request_faces(self.face_detector, adapter, image, directions, passes or 2, image_index)

    def _check_request(self, passes: int | None, scheme: str | None) -> None:
        self.checkpoint.transfer_to(scheme)
        if passes is not None and passes < 1:
            raise InputError(f"passes: expected 1 or more, given {passes}")

    def _answer(self, found: Sequence[FoundFace], scheme: str | None) -> list[Face | None]:
        """Each face in the answer's scheme; None for a detected face that is rejected."""
        if not found:
            return []
        landmarks = np.concatenate([f.prediction.landmarks for f in found])
        answer = make_answer(landmarks, np.stack([f.scores for f in found]), self.checkpoint, scheme)
        faces: list[Face | None] = []
        for i, face in enumerate(found):
            request = face.request
            if request.box_score is not None and not self.is_face(face.scores):
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
                    angle=float(face.prediction.angles[0]),
                    expected_errors=None if errors is None else errors[i].copy(),
                    quality=face.prediction.quality_of(0),
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


def _raise(_: int, error: InputError) -> None:
    raise error


def _warn(index: int, error: InputError) -> None:
    warnings.warn(f"image {index} is left out: {error}", BadImageWarning, stacklevel=3)  # the caller of detect_batch
