"""Detector: faces and their landmarks in a picture, from a model file. What most users import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fewmark.cascade.frames import face_angle, scheme_mean_face
from fewmark.cascade.looking import look
from fewmark.cascade.pipeline import Cascade
from fewmark.cascade.state import FaceState, Picture, wrap_angle
from fewmark.cascade.stored import cascade_modules
from fewmark.checkpoint import Checkpoint, load_checkpoint
from fewmark.data.crops import CropRule, cut
from fewmark.data.samples import FaceSample, as_rgb, read_image
from fewmark.ensemble import Ensemble, to_tensor
from fewmark.errors import InputError
from fewmark.faces import FaceFinder, SlimeFaceFinder, adapt_box, box_overlap
from fewmark.geometry import Box, FloatArray, Similarity, box_of_points, box_size
from fewmark.scheme import LandmarkScheme

Image = NDArray[np.generic] | str | Path
BoxKind = Literal["gt", "detect", "column"]

_BATCH = 32  # crops at a time
_PICTURES = 64  # pictures in memory at a time, in `evaluate_samples`
_STEADY = (0.4, 2.5)  # a second look is taken where the new box's side is within these of the old one's


@dataclass(frozen=True, eq=False)
class Face:
    """A face and its landmarks.

    Attributes:
        box: (4,) x0 y0 x1 y1 image px: the given one, or the face detector's adapted to the model.
        landmarks: (K, 2) image px.
        scores: (K,) how sure the networks are of each; NaN from a cascade, which does not say.
        box_score: the face detector's, 0 to 1; None for a given box.
        scheme: what the landmarks mean.
        angle: by which the face is turned in the picture, degrees counter-clockwise; 0 from a model without an angle stage.
    """

    box: Box
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    box_score: float | None
    scheme: LandmarkScheme
    angle: float = 0.0

    @property
    def by_name(self) -> Mapping[str, NDArray[np.float32]]:
        """Landmark name -> (2,) image px."""
        return dict(zip(self.scheme.landmarks, self.landmarks, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is missing is null."""
        return {
            "scheme": self.scheme.name,
            "box_xyxy": [round(float(v), 2) for v in self.box],
            "angle": wrap_angle(round(self.angle, 2)),
            "box_score": None if self.box_score is None else round(self.box_score, 3),
            "landmarks": [[round(float(v), 3) for v in p] if np.isfinite(p).all() else None for p in self.landmarks],
            "scores": [round(float(v), 4) if np.isfinite(v) else None for v in self.scores],
        }


@dataclass(frozen=True, eq=False)
class Located:
    """The landmarks of N faces.

    Attributes:
        landmarks: (N, K, 2) image px.
        scores: (N, K).
        angles: (N,) degrees, see `Face`.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    angles: NDArray[np.float64]


class Detector:
    """Finds faces and their landmarks.

    Args:
        checkpoint: see `load_checkpoint`.
        finder: finds the faces where no boxes are given; `SlimeFaceFinder()` by default, made at its first
            use.
        device: where the networks run, e.g. "cuda".
    """

    def __init__(
        self, checkpoint: Checkpoint, *, finder: FaceFinder | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.checkpoint = checkpoint
        self.device = torch.device(device)
        students, cascade = checkpoint.students, checkpoint.cascade
        self._ensemble: Ensemble | None = None
        if cascade is None:
            codecs = [s.codec for s in students]
            self._ensemble = Ensemble([s.module for s in students], codecs, checkpoint.scheme.mirror)
        networks = [] if cascade is None else list(cascade_modules(cascade).values())
        for network in [self._ensemble] if self._ensemble is not None else networks:
            network.to(self.device).eval()
            for parameter in network.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self._finder = finder

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        threads: int | None = None,
        finder: FaceFinder | None = None,
        device: torch.device | str = "cpu",
    ) -> Detector:
        """A detector from a model file or a packaged name.

        Args:
            path_or_name: a .safetensors file or, e.g., "ibug-68".
            threads: CPU threads of torch, for the whole process; None leaves them.
            finder: see `Detector`.
            device: see `Detector`.

        Raises:
            InputError: see `load_checkpoint`; or threads below 1.
        """
        if threads is not None:
            if threads < 1:
                raise InputError(f"threads: expected 1 or more, given {threads}")
            torch.set_num_threads(threads)
        return cls(load_checkpoint(path_or_name), finder=finder, device=device)

    @property
    def scheme(self) -> LandmarkScheme:
        return self.checkpoint.scheme

    @property
    def finder(self) -> FaceFinder:
        if self._finder is None:
            self._finder = SlimeFaceFinder()
        return self._finder

    def detect(
        self,
        image: Image,
        boxes_xyxy: FloatArray | None = None,
        *,
        flip: bool = True,
        passes: int | None = None,
        scheme: str | None = None,
    ) -> list[Face]:
        """The faces of one picture.

        Args:
            image: a file, or an array as `fewmark.data.samples.as_rgb` takes it.
            boxes_xyxy: (N, 4) image px, of the kind that the model was trained on (the tight box of the
                landmarks); None: the faces are looked for.
            flip: average with what is seen in the flipped crop; twice the time, a little more accurate.
            passes: how often each face is looked at; every further pass cuts its crop round the points of the
                one before. None: once for given boxes, twice for found ones.
            scheme: the name of the scheme of the answer: the model's, or one that it carries a transfer to. A
                transferred landmark's score is the weighted mean of the scores that it comes from.

        Returns:
            in the order of the boxes, or the largest first; [] if there is none.

        Raises:
            InputError: no picture, a scheme that the model carries no transfer to, or a box that is not finite, has no
                extent or lies outside the picture.
        """
        boxes = None if boxes_xyxy is None else [boxes_xyxy]
        return self.detect_batch([image], boxes, flip=flip, passes=passes, scheme=scheme)[0]

    def detect_batch(
        self,
        images: Sequence[Image],
        boxes_xyxy: Sequence[FloatArray | None] | None = None,
        *,
        flip: bool = True,
        passes: int | None = None,
        scheme: str | None = None,
    ) -> list[list[Face]]:
        """The faces of several pictures, whose crops share batches; see `detect`.

        Args:
            images: files or arrays.
            boxes_xyxy: one (N, 4) a picture, None for a picture whose faces are looked for.
            flip: see `detect`.
            passes: see `detect`.
            scheme: see `detect`.
        """
        transfer = self.checkpoint.transfer_to(scheme)
        if boxes_xyxy is not None and len(boxes_xyxy) != len(images):
            raise InputError(
                f"boxes_xyxy: expected one entry for each of {len(images)} pictures, given {len(boxes_xyxy)}"
            )
        if passes is not None and passes < 1:
            raise InputError(f"passes: expected 1 or more, given {passes}")
        pictures = [read_image(i) if isinstance(i, str | Path) else as_rgb(i) for i in images]
        owners: list[int] = []
        boxes: list[Box] = []
        box_scores: list[float | None] = []
        n_passes: list[int] = []
        for p, picture in enumerate(pictures):
            given = None if boxes_xyxy is None else boxes_xyxy[p]
            where = str(images[p]) if isinstance(images[p], str | Path) else f"picture {p}"
            if given is None:
                found = self.find_faces(picture)
            else:
                found = [(box, None) for box in check_boxes(given, (picture.shape[0], picture.shape[1]), where)]
            for box, box_score in found:
                owners.append(p)
                boxes.append(box)
                box_scores.append(box_score)
                n_passes.append(passes or (2 if given is None else 1))
        located = self.locate([pictures[p] for p in owners], boxes, n_passes, flip=flip)
        landmarks, scores = located.landmarks, located.scores
        if transfer is not None:
            landmarks = transfer.apply(landmarks).astype(np.float32)
            scores = transfer.apply_scores(scores).astype(np.float32)
        meaning = self.scheme if transfer is None else transfer.target
        result: list[list[Face]] = [[] for _ in pictures]
        for i, (p, box, box_score) in enumerate(zip(owners, boxes, box_scores, strict=True)):
            angle = float(located.angles[i])
            result[p].append(Face(box, landmarks[i], scores[i], box_score, meaning, angle))
        return result

    def find_faces(self, picture: NDArray[np.uint8]) -> list[tuple[Box, float | None]]:
        """Boxes of the kind that the model was trained on, from the face detector, and its scores; the
        largest first.

        Args:
            picture: (H, W, 3) RGB.
        """
        adapter = self.checkpoint.box_from_detector
        return [
            (f.box_xyxy if adapter is None else adapt_box(f.box_xyxy, adapter), f.score) for f in self.finder(picture)
        ]

    def locate(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[Box],
        n_passes: Sequence[int],
        *,
        flip: bool = True,
    ) -> Located:
        """Landmarks of N faces.

        Args:
            pictures: one (H, W, 3) RGB a face.
            boxes_xyxy: one (4,) image px a face.
            n_passes: one number a face.
            flip: see `detect`.
        """
        n_faces, k = len(pictures), self.scheme.n_landmarks
        found = Located(
            np.full((n_faces, k, 2), np.nan, np.float32), np.full((n_faces, k), np.nan, np.float32), np.zeros(n_faces)
        )
        boxes = list(boxes_xyxy)
        for n in range(max(n_passes, default=0)):
            rows = [i for i, wanted in enumerate(n_passes) if wanted > n]
            if n > 0:
                for i in rows:
                    boxes[i] = _next_box(boxes[i], found.landmarks[i])
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                if self.checkpoint.cascade is not None:
                    self._by_cascade(self.checkpoint.cascade, pictures, boxes, part, found, again=n > 0, flip=flip)
                else:
                    self._by_students(pictures, boxes, part, found, flip=flip)
        return found

    def _by_students(
        self, pictures: Sequence[Picture], boxes: Sequence[Box], rows: Sequence[int], found: Located, *, flip: bool
    ) -> None:
        assert self._ensemble is not None
        rule = self.checkpoint.crop
        maps = [rule.crop_from_image(boxes[i]) for i in rows]
        crops = [_cut_window(pictures[i], m, rule) for i, m in zip(rows, maps, strict=True)]
        prediction = self._ensemble.predict(to_tensor(np.stack(crops), self.device), flip=flip)
        points, sure = prediction.landmarks.cpu().numpy(), prediction.scores.cpu().numpy()
        for j, i in enumerate(rows):
            found.landmarks[i] = maps[j].inverse()(points[j])
            found.scores[i] = sure[j]

    def _by_cascade(
        self,
        cascade: Cascade,
        pictures: Sequence[Picture],
        boxes: Sequence[Box],
        rows: Sequence[int],
        found: Located,
        *,
        again: bool,
        flip: bool,
    ) -> None:
        """Another pass begins upright, by the angle of the landmarks of the one before."""
        turns = "angle" in [s.name for s in cascade.stages]
        if again and turns:
            mean_face = scheme_mean_face(self.scheme)
            found.angles[rows] = [face_angle(found.landmarks[i], mean_face) for i in rows]
            cascade = cascade.without("angle")
        starts = [FaceState(boxes[i], angle=float(found.angles[i])) for i in rows]
        for i, face in zip(rows, look(cascade, [pictures[i] for i in rows], starts, flip=flip), strict=True):
            found.landmarks[i] = face.landmarks
            found.angles[i] = face.angle


def check_boxes(boxes_xyxy: FloatArray, size: tuple[int, int], where: str) -> NDArray[np.float32]:
    """Boxes that a person gave, as (N, 4) float32.

    Args:
        boxes_xyxy: (N, 4), or (4,) for one; image px.
        size: of the picture, (H, W) px.
        where: the picture, for messages.

    Raises:
        InputError: another shape, or a box that is not finite, has no extent or lies outside the picture.
    """
    boxes = np.asarray(boxes_xyxy, np.float32)
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    boxes = boxes[None] if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{where}: boxes: expected (N, 4) x0 y0 x1 y1, given shape {np.shape(boxes_xyxy)}")
    height, width = size
    for i, box in enumerate(boxes):
        given = [round(float(v), 1) for v in box]
        if not np.isfinite(box).all() or not (box_size(box) > 0).all():
            raise InputError(
                f"{where}: box {i}: expected x0 < x1 and y0 < y1 (px), given {given}; is it x y width height?"
            )
        if box[2] <= -0.5 or box[3] <= -0.5 or box[0] >= width - 0.5 or box[1] >= height - 0.5:
            raise InputError(f"{where}: box {i}: expected a box in the picture of {width} x {height} px, given {given}")
    return boxes


def evaluate_samples(
    detector: Detector,
    samples: Sequence[FaceSample],
    box: BoxKind = "gt",
    *,
    flip: bool = True,
    passes: int | None = None,
    scheme: str | None = None,
) -> NDArray[np.float32]:
    """What the detector says of labelled faces.

    Args:
        detector: its scheme is the labels', or it carries a transfer to that.
        samples: labelled faces.
        box: "gt" the tight box of the true landmarks, "column" the box that the label file gives, "detect"
            the found face that overlaps the true box most.
        flip: see `Detector.detect`.
        passes: see `Detector.detect`.
        scheme: see `Detector.detect`; for another than the model's, "gt" is the tight box of the model's own landmarks
            as the mean face places it within that of the true ones.

    Returns:
        (N, K, 2) image px; NaN where "detect" finds no face that overlaps the true box.

    Raises:
        InputError: an unknown kind of box, a face without labels or with other than K of them, or "column"
            without a box.
    """
    if box not in ("gt", "detect", "column"):
        raise InputError(f"box: expected gt, detect or column, given {box!r}")
    k = detector.checkpoint.scheme_of(scheme).n_landmarks
    transfer = detector.checkpoint.transfer_to(scheme)
    predicted = np.full((len(samples), k, 2), np.nan, np.float32)
    for part in _chunks(len(samples), _PICTURES):
        rows: list[int] = []
        pictures: list[NDArray[np.uint8]] = []
        boxes: list[Box] = []
        last: tuple[Path, NDArray[np.uint8]] | None = None
        for i in part:
            sample = samples[i]
            true_box = _true_box(sample, k, box)
            if transfer is not None and box != "column":
                true_box = transfer.source_box(true_box)
            if last is None or last[0] != sample.image:
                last = (sample.image, read_image(sample.image))
            found = true_box
            if box == "detect":
                candidates = [b for b, _ in detector.find_faces(last[1])]
                overlaps = [box_overlap(b, true_box) for b in candidates]
                if not overlaps or max(overlaps) <= 0:
                    continue
                found = candidates[int(np.argmax(overlaps))]
            rows.append(i)
            pictures.append(last[1])
            boxes.append(found)
        n_passes = [passes or (2 if box == "detect" else 1)] * len(rows)
        points = detector.locate(pictures, boxes, n_passes, flip=flip).landmarks
        predicted[rows] = points if transfer is None else transfer.apply(points)
    return predicted


def _true_box(sample: FaceSample, k: int, kind: BoxKind) -> Box:
    if sample.landmarks is None or not np.isfinite(sample.landmarks).all(1).any():
        raise InputError(f"{sample.image}: expected a labelled face, given one without landmarks")
    if len(sample.landmarks) != k:
        raise InputError(f"{sample.image}: expected {k} landmarks as the scheme has, given {len(sample.landmarks)}")
    if kind != "column":
        true_box = box_of_points(sample.landmarks)
        if not box_size(true_box).max() > 0:
            raise InputError(f"{sample.image}: the true landmarks are one point, which has no box; use --box column")
        return true_box
    if sample.box is None:
        raise InputError(
            f"{sample.image}: --box column needs box_x0,box_y0,box_x1,box_y1 in the label file, given none"
        )
    if not np.isfinite(sample.box).all() or not box_size(sample.box).max() > 0:
        raise InputError(f"{sample.image}: expected a box with an extent, given {sample.box.tolist()}")
    return sample.box


def _chunks(n: int, size: int) -> Iterator[range]:
    for start in range(0, n, size):
        yield range(start, min(n, start + size))


def _cut_window(image: NDArray[np.uint8], crop_from_image: Similarity, rule: CropRule) -> NDArray[np.uint8]:
    """The crop, from the face's window of the picture only, so that a large picture costs no more than a
    small one."""
    ends = np.array([-1.0, rule.size])
    corners = crop_from_image.inverse()(np.stack(np.meshgrid(ends, ends), -1).reshape(4, 2))
    margin = 2 / crop_from_image.scale + 1  # px that the warp's averaging and interpolation reach out
    height, width = image.shape[:2]
    x0, y0 = (int(v) for v in np.clip(np.floor(corners.min(0) - margin), 0, [width - 1, height - 1]))
    x1, y1 = (int(v) for v in np.clip(np.ceil(corners.max(0) + margin), [x0 + 1, y0 + 1], [width, height]))
    return cut(image[y0:y1, x0:x1], crop_from_image @ Similarity.translation(x0, y0), rule.size)


def _next_box(box_xyxy: Box, landmarks: NDArray[np.float32]) -> Box:
    """The box of the points of the last pass; the old one where that is no likely box of the same face."""
    if not np.isfinite(landmarks).all(1).any():
        return box_xyxy
    new = box_of_points(landmarks)
    ratio = float(box_size(new).max() / box_size(box_xyxy).max())
    return new if _STEADY[0] <= ratio <= _STEADY[1] else box_xyxy
