"""Detector: faces and their landmarks in an image, from a model file. What most users import."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import BadImageWarning, InputError
from fewmark.core.geometry import Box, FloatArray, face_sizes
from fewmark.data.images import as_rgb, read_image
from fewmark.inference.checkpoint.exported import ExportedModel
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import FaceDetector, FullImage, SlimeFaceDetector, adapt_box
from fewmark.inference.predictor import LandmarkPredictor
from fewmark.inference.predictor_onnx import OnnxPredictor, find_onnx_export
from fewmark.landmarks.scheme import LandmarkScheme

if TYPE_CHECKING:
    import torch

Runtime = Literal["auto", "onnx", "torch"]
ImageLike = NDArray[np.generic] | str | Path

_IMAGES = 32  # in memory at a time


@dataclass(frozen=True, eq=False)
class _FaceRequest:
    """A face whose landmarks are wanted.

    Attributes:
        owner: the place of its image in the batch.
        image: (H, W, 3) RGB.
        box: (4,) image px, of the kind that the model was trained on.
        box_score: of the face detector, None for a given box.
        n_passes: how often it is looked at.
    """

    owner: int
    image: NDArray[np.uint8]
    box: Box
    box_score: float | None
    n_passes: int


class Detector:
    """Finds faces and their landmarks.

    Args:
        checkpoint: see `load_checkpoint`.
        face_detector: finds the faces where no boxes are given; `SlimeFaceDetector()` by default, made at its first
            use.
        device: where torch runs the networks, e.g. "cuda".
        locate: what runs the networks; by default torch, which is then imported.
        keep_unlikely: keep found faces that `is_face` takes for none.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        face_detector: FaceDetector | None = None,
        device: torch.device | str = "cpu",
        locate: LandmarkPredictor | None = None,
        keep_unlikely: bool = False,
    ) -> None:
        if locate is None:
            from fewmark.inference.predictor_torch import TorchPredictor

            locate = TorchPredictor(checkpoint, device)
        self.checkpoint = checkpoint
        self.locate = locate
        self.keep_unlikely = keep_unlikely
        self._face_detector = face_detector

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        threads: int | None = None,
        face_detector: FaceDetector | None = None,
        device: torch.device | str = "cpu",
        runtime: Runtime = "auto",
        keep_unlikely: bool = False,
    ) -> Detector:
        """A detector from a model file or a packaged name.

        Args:
            path_or_name: a .safetensors file, an .onnx file that `fewmark export` wrote or, e.g., "ibug-68".
            threads: CPU threads, of torch for the whole process; None leaves them.
            face_detector: see `Detector`.
            device: where torch runs the networks; ONNX Runtime runs them on the CPU.
            runtime: "onnx" or "torch", or "auto": ONNX Runtime where it is installed and there is an exported model, which is
                the .onnx file itself or NAME.onnx beside NAME.safetensors if it was made from just that file.
            keep_unlikely: see `Detector`.

        Raises:
            InputError: see `load_checkpoint` and `OnnxPredictor`; threads below 1; or a runtime that cannot run the file.
        """
        if threads is not None and threads < 1:
            raise InputError(f"threads: expected 1 or more, given {threads}")
        if runtime not in get_args(Runtime):
            raise InputError(f"runtime: expected {', '.join(get_args(Runtime))}, given {runtime!r}")
        path = resolve_model(path_or_name)
        on_cpu = str(device) == "cpu"
        is_export = path.suffix == ".onnx"
        if is_export and (runtime == "torch" or not on_cpu):
            given = "runtime torch" if runtime == "torch" else f"device {device}"
            raise InputError(f"{path}: ONNX Runtime runs it on the CPU, given {given}; load its .safetensors file")
        exported: Path | ExportedModel | None = path if is_export else None
        if exported is None and runtime != "torch" and on_cpu:
            exported = find_onnx_export(path)
        if runtime == "onnx" and exported is None:
            raise InputError(
                f"{path}: runtime onnx: expected onnxruntime, device cpu and {path.with_suffix('.onnx').name} made from this "
                f'file; pip install "fewmark[onnx]" and fewmark export {path_or_name} --to onnx'
            )
        if exported is not None:
            locate = OnnxPredictor(exported, threads=threads)
            return cls(locate.checkpoint, face_detector=face_detector, locate=locate, keep_unlikely=keep_unlikely)
        try:
            import torch

            from fewmark.inference.checkpoint.io import load_checkpoint
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path}: ONNX Runtime cannot run it (no {path.with_suffix('.onnx').name} that was made from it lies beside it), and "
                "torch is not installed: pip install 'fewmark[train]', or export the model where torch is"
            ) from error

        if threads is not None:
            torch.set_num_threads(threads)
        return cls(load_checkpoint(path), face_detector=face_detector, device=device, keep_unlikely=keep_unlikely)

    @property
    def scheme(self) -> LandmarkScheme:
        return self.checkpoint.scheme

    @property
    def face_detector(self) -> FaceDetector:
        if self._face_detector is None:
            self._face_detector = SlimeFaceDetector()
        return self._face_detector

    @overload
    def detect(  # type: ignore[overload-overlap]  # a str is a sequence of str, and means one file
        self,
        image: ImageLike,
        boxes_xyxy: FloatArray | None = None,
        *,
        flip: bool | None = None,
        passes: int | None = None,
        scheme: str | None = None,
    ) -> list[Face]: ...

    @overload
    def detect(
        self,
        image: Sequence[ImageLike],
        boxes_xyxy: Sequence[FloatArray | None] | None = None,
        *,
        flip: bool | None = None,
        passes: int | None = None,
        scheme: str | None = None,
    ) -> list[list[Face]]: ...

    def detect(
        self,
        image: ImageLike | Sequence[ImageLike],
        boxes_xyxy: FloatArray | Sequence[FloatArray | None] | None = None,
        *,
        flip: bool | None = None,
        passes: int | None = None,
        scheme: str | None = None,
    ) -> list[Face] | list[list[Face]]:
        """The faces of one image, or of each of several.

        Args:
            image: a file, or an array as `fewmark.data.images.as_rgb` takes it; a list or another sequence of these is a
                batch, see `detect_batch`.
            boxes_xyxy: (N, 4) image px, of the kind that the model was trained on (the tight box of the
                landmarks); None: the faces are looked for. Of a batch one such entry an image.
            flip: average with what is seen in the flipped crop; twice the time, a little more accurate. None: as the model
                asks.
            passes: how often each face is looked at, at most; every further pass cuts its crop round the points of the
                one before, turned upright, and is left out where these lie where the last crop expected them (`locating.MAX_BOX_CHANGE`,
                `locating.MIN_ROTATION`). Where the first or the last pass leaves a doubt (`locating.LOW_CONFIDENCE`), the face is looked for from the
                other three sides too. None: once for given boxes, twice for found ones.
            scheme: the name of the scheme of the answer: the model's, or one that it carries a transfer to. A
                transferred landmark's score is the weighted mean of the scores that it comes from.

        Returns:
            in the order of the boxes, or the largest first; [] if there is none. Of a batch a list of them, one an image.

        Raises:
            InputError: no image, a scheme that the model carries no transfer to, or a box that is not finite, has no
                extent or lies outside the image. Of a batch see `detect_batch`.
        """
        if isinstance(image, Sequence) and not isinstance(image, str):
            boxes = cast(Sequence[FloatArray | None] | None, boxes_xyxy)
            return self._detect_each(image, boxes, flip, passes, scheme, _warn)
        box = cast(FloatArray | None, boxes_xyxy)
        return self._detect_each([image], None if box is None else [box], flip, passes, scheme, None)[0]

    def detect_batch(
        self,
        images: Sequence[ImageLike],
        boxes_xyxy: Sequence[FloatArray | None] | None = None,
        *,
        flip: bool | None = None,
        passes: int | None = None,
        scheme: str | None = None,
        on_error: Callable[[int, InputError], None] | None = None,
    ) -> list[list[Face]]:
        """The faces of each of several images, whose crops share batches; 32 images are in memory at a time.

        An image that cannot be used does not stop the others: its faces are [], and `on_error` is told.

        Args:
            images: files or arrays.
            boxes_xyxy: one (N, 4) an image, None for an image whose faces are looked for.
            flip: see `detect`.
            passes: see `detect`.
            scheme: see `detect`.
            on_error: called with the place of an image that cannot be used and why; e.g. `failures.__setitem__` of a dict, or
                something that raises. None: a `BadImageWarning` each.

        Returns:
            one list an image, in their order; see `detect`.

        Raises:
            InputError: what is wrong with the request and not with an image: another number of boxes than of images, passes
                below 1, a scheme that the model carries no transfer to, or no face detector.
        """
        if isinstance(images, str):
            raise InputError(f"images: expected a list of images, given {images!r}; detect takes one image")
        return self._detect_each(images, boxes_xyxy, flip, passes, scheme, on_error or _warn)

    def _detect_each(
        self,
        images: Sequence[ImageLike],
        boxes_xyxy: Sequence[FloatArray | None] | None,
        flip: bool | None,
        passes: int | None,
        scheme: str | None,
        on_error: Callable[[int, InputError], None] | None,
    ) -> list[list[Face]]:
        """See `detect_batch`; without `on_error` an image that cannot be used raises."""
        self.checkpoint.transfer_to(scheme)
        if boxes_xyxy is not None and len(boxes_xyxy) != len(images):
            raise InputError(
                f"boxes_xyxy: expected one entry for each of {len(images)} images, given {len(boxes_xyxy)}"
            )
        if passes is not None and passes < 1:
            raise InputError(f"passes: expected 1 or more, given {passes}")
        given = [None] * len(images) if boxes_xyxy is None else list(boxes_xyxy)
        if any(boxes is None for boxes in given):
            _ = self.face_detector  # that there is none is no image's fault
        result: list[list[Face]] = [[] for _ in images]
        for start in range(0, len(images), _IMAGES):
            looks: list[_FaceRequest] = []
            for p in range(start, min(len(images), start + _IMAGES)):
                try:
                    looks += self._find(images[p], given[p], p, passes)
                except InputError as error:
                    if on_error is None:
                        raise
                    on_error(
                        p, InputError(str(error))
                    )  # one that is kept does not keep the images, as its frames would
            for look, face in zip(looks, self._locate(looks, flip, scheme), strict=True):
                if face is not None:
                    result[look.owner].append(face)
        return result

    def _find(self, image: ImageLike, boxes: FloatArray | None, owner: int, passes: int | None) -> list[_FaceRequest]:
        """The faces of one image, not yet their landmarks.

        Raises:
            InputError: no image, or a bad box.
        """
        if isinstance(image, str | Path):
            rgb, where = read_image(image), str(image)
        else:
            rgb, where = as_rgb(image), f"image {owner}"
        if boxes is None:
            return [_FaceRequest(owner, rgb, box, score, passes or 2) for box, score in self.detect_faces(rgb)]
        checked = check_boxes(boxes, (rgb.shape[0], rgb.shape[1]), where)
        return [_FaceRequest(owner, rgb, box, None, passes or 1) for box in checked]

    def _locate(self, looks: Sequence[_FaceRequest], flip: bool | None, scheme: str | None) -> list[Face | None]:
        """The landmarks of each; None where a found face is none."""
        transfer = self.checkpoint.transfer_to(scheme)
        located = self.locate([x.image for x in looks], [x.box for x in looks], [x.n_passes for x in looks], flip=flip)
        landmarks, scores = located.landmarks, located.scores
        if transfer is not None:
            landmarks = transfer.apply(landmarks).astype(np.float32)
            scores = transfer.apply_scores(scores).astype(np.float32)
        meaning = self.scheme if transfer is None else transfer.target
        calibration = None if transfer is not None else self.checkpoint.calibration
        expected = None if calibration is None else calibration.expected_errors(scores, face_sizes(landmarks))
        faces: list[Face | None] = []
        for i, look in enumerate(looks):
            if look.box_score is not None and not self.is_face(located.scores[i]):
                faces.append(None)
                continue
            angle, quality = float(located.angles[i]), located.quality_of(i)
            # rows of their own: a face that is kept does not keep its batch
            points, sure = landmarks[i].copy(), scores[i].copy()
            errors = None if expected is None else expected[i].copy()
            faces.append(Face(look.box, points, sure, look.box_score, meaning, angle, errors, quality))
        return faces

    def is_face(self, scores: NDArray[np.float32]) -> bool:
        """Whether landmarks that were looked for in a found box can be a face's, see `ErrorCalibration.is_face`; True from a model that
        was not calibrated.

        Args:
            scores: (K,) of the model's own scheme.
        """
        calibration = self.checkpoint.calibration
        if self.keep_unlikely or calibration is None or isinstance(self._face_detector, FullImage):
            return True
        return calibration.is_face(scores)

    def detect_faces(self, image: NDArray[np.uint8]) -> list[tuple[Box, float | None]]:
        """Boxes of the kind that the model was trained on, from the face detector, and its scores; the
        largest first.

        Args:
            image: (H, W, 3) RGB.
        """
        adapter = self.checkpoint.box_from_detector
        return [
            (f.box_xyxy if adapter is None else adapt_box(f.box_xyxy, adapter), f.score)
            for f in self.face_detector(image)
        ]


def _warn(place: int, error: InputError) -> None:
    message = str(error).removeprefix(f"image {place}: ")
    warnings.warn(f"image {place} is left out: {message}", BadImageWarning, stacklevel=4)  # who asked for the batch


def check_boxes(boxes_xyxy: FloatArray, size: tuple[int, int], where: str) -> NDArray[np.float32]:
    """Boxes that a person gave, as (N, 4) float32.

    Args:
        boxes_xyxy: (N, 4), or (4,) for one; image px.
        size: of the image, (H, W) px.
        where: the image, for messages.

    Raises:
        InputError: another shape, or a box that is not finite, has no extent or lies outside the image.
    """
    boxes = np.asarray(boxes_xyxy, np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    boxes = boxes[None] if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{where}: boxes: expected (N, 4) x0 y0 x1 y1, given shape {np.shape(boxes_xyxy)}")
    height, width = size
    for i, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        given = [round(v, 1) for v in (x0, y0, x1, y1)]
        if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
            raise InputError(
                f"{where}: box {i}: expected x0 < x1 and y0 < y1 (px), given {given}; is it x y width height?"
            )
        if x1 <= -0.5 or y1 <= -0.5 or x0 >= width - 0.5 or y0 >= height - 0.5:
            raise InputError(f"{where}: box {i}: expected a box in the image of {width} x {height} px, given {given}")
    return boxes
