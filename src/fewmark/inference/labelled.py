"""Predict the landmarks of labelled faces, for metrics, calibration and reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, Image, box_of_points, box_size
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample
from fewmark.inference.answer import make_answer
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import box_overlap
from fewmark.inference.search import FoundFace
from fewmark.landmarks.missing import cannot_complete, complete_landmarks
from fewmark.landmarks.scheme import LandmarkScheme

BoxKind = Literal["gt", "detect", "column"]

_IMAGES = 64  # in memory at a time


class SamplePredictions(NamedTuple):
    """Predictions for N labelled faces.

    Attributes:
        landmarks: (N, K, 2) image px; NaN for a face that was not detected.
        scores: (N, K) confidence; NaN for a face that was not detected.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]


def predict_samples(
    detector: Detector,
    samples: Sequence[FaceSample],
    box: BoxKind = "gt",
    *,
    flip: bool | None = None,
    passes: int | None = None,
    scheme: str | None = None,
) -> SamplePredictions:
    """Predict the landmarks of labelled faces.

    Args:
        detector: Its scheme is the labels', or it has a transfer to that.
        samples: Labelled faces.
        box: Which box to crop around: "gt" the tight box of the true landmarks, "column" the box in the label file, "detect" the
            detected face that overlaps the true box most.
        flip: See `Detector.detect`.
        passes: See `Detector.detect`.
        scheme: See `Detector.detect`. For another scheme than the model's, "gt" is the tight box of the model's own landmarks, which
            the mean face places within that of the true ones.

    Returns:
        Landmarks and scores; NaN where "detect" finds no face that overlaps the true box, or one that `Detector.is_face` rejects.

    Raises:
        InputError: The kind of box is unknown, a face has no labels or another number than K of them, or no box for "column".
    """
    if box not in ("gt", "detect", "column"):
        raise InputError(f"box: expected gt, detect or column, given {box!r}")
    target = detector.checkpoint.scheme_of(scheme)
    k = target.n_landmarks
    transfer = detector.checkpoint.transfer_to(scheme)
    predicted = SamplePredictions(
        np.full((len(samples), k, 2), np.nan, np.float32), np.full((len(samples), k), np.nan, np.float32)
    )
    for start in range(0, len(samples), _IMAGES):
        rows = list(range(start, min(len(samples), start + _IMAGES)))
        boxes = [labelled_box(samples[i], target, box) for i in rows]
        if transfer is not None and box != "column":
            boxes = [transfer.source_box(b) for b in boxes]
        images: dict[Path, Image] = {}
        for i in rows:
            if samples[i].image not in images:
                images[samples[i].image] = read_image(samples[i].image)
        if box == "detect":
            each = detector.find_faces(list(images.values()), flip=flip, passes=passes)
            detected = dict(zip(images, each, strict=True))
            nearest = [nearest_face(detected[samples[i].image], b) for i, b in zip(rows, boxes, strict=True)]
            likely = {i: f for i, f in zip(rows, nearest, strict=True) if f is not None and detector.is_face(f.scores)}
            rows, predictions = list(likely), [f.prediction for f in likely.values()]
        else:
            faces = [images[samples[i].image] for i in rows]
            predictions = [detector.predictor.predict(faces, boxes, passes or 1, flip=flip)]
        if rows:
            landmarks = np.concatenate([p.landmarks for p in predictions])
            scores = np.concatenate([p.scores for p in predictions])
            answer = make_answer(landmarks, scores, detector.checkpoint, scheme)
            predicted.landmarks[rows], predicted.scores[rows] = answer.landmarks, answer.scores
    return predicted


def nearest_face(faces: Sequence[FoundFace], true_box: Box) -> FoundFace | None:
    """The detected face that overlaps the true box most, or None."""
    overlaps = [box_overlap(f.request.box, true_box) for f in faces]
    return faces[int(np.argmax(overlaps))] if overlaps and max(overlaps) > 0 else None


def labelled_box(sample: FaceSample, scheme: LandmarkScheme, kind: BoxKind = "gt") -> Box:
    """The box of a labelled face: (4,) image px.

    Args:
        sample: The face.
        scheme: Scheme of its landmarks.
        kind: "column" for the box in the label file, else the tight box of the landmarks: of a partly labelled face, with the missing
            ones estimated (`fewmark.landmarks.missing`) or, if they cannot be, the box in the label file.

    Raises:
        InputError: The face has no landmarks or another number than the scheme, all are in one place, it has no box for "column", or
            too few landmarks for a box and none in the label file.
    """
    k = scheme.n_landmarks
    if sample.landmarks is None or not np.isfinite(sample.landmarks).all(1).any():
        raise InputError(f"{sample.image}: expected a labelled face, given one without landmarks")
    if len(sample.landmarks) != k:
        raise InputError(f"{sample.image}: expected {k} landmarks as the scheme has, given {len(sample.landmarks)}")
    complete = complete_landmarks(sample.landmarks, scheme.mean_face)
    if kind == "detect" and complete is None:
        return sample.face_box()  # to tell the face from others
    if kind != "column" and complete is None and sample.box is None:
        raise InputError(f"{sample.image}: {cannot_complete(sample.landmarks, scheme.mean_face)}")
    if kind != "column" and complete is not None:
        true_box = box_of_points(complete)
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
