"""Evaluate a trained detector on the validation faces, and estimate the horizontal label bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.checkpoint.io import Checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.label_bias import apply_label_bias, cross_fit_label_bias, fit_label_bias
from fewmark.landmarks.metrics import Score, score
from fewmark.landmarks.scheme import LandmarkScheme

HELD_OUT_FACES = 20
"""Least number of validation faces that estimate the horizontal label bias in place of the labelled ones."""
N_BIAS_FACES = 400
"""Labelled faces that estimate it; more change NME by less than a hundredth of a per cent."""
PACKAGED = "ibug-68"
"""The packaged model beside which a report puts the run's."""
N_COMPARED = 100
"""Most labelled faces, and most validation faces in detected boxes, on which a report measures the model."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A detector's predictions on the validation faces.

    Attributes:
        samples: V faces with their true landmarks.
        landmarks: (V, K, 2) predicted, image px.
        scores: (V, K) confidences.
        score: Their evaluation.
        box: Origin of the boxes.
    """

    samples: Sequence[FaceSample]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    score: Score
    box: BoxKind

    @property
    def truth(self) -> NDArray[np.float32]:
        """(V, K, 2) true landmarks, image px."""
        return stack_landmarks(self.samples)

    def with_landmarks(self, landmarks: NDArray[np.float32], scheme: LandmarkScheme) -> Measured:
        """The same faces with other predictions (V, K, 2), evaluated anew."""
        return replace(self, landmarks=landmarks, score=_scored(landmarks, self.samples, scheme))

    def accuracy(self) -> dict[str, Any]:
        """The entry in a model file's `accuracy`."""
        names = ("nme", "auc", "failure_rate", "normalizer", "n_faces")
        scores = self.score.to_dict()
        return {"data": "validation", "box": self.box, **{k: v for k, v in scores.items() if k in names}}


def measure(checkpoint: Checkpoint, samples: Sequence[FaceSample]) -> Measured:
    """Predict the landmarks of the validation faces, in the boxes of their list where all have one.

    Args:
        checkpoint: The detector.
        samples: At least one face, all with landmarks.
    """
    kind: BoxKind = "column" if all(s.box is not None for s in samples) else "gt"
    found, scores = predict_samples(Detector(checkpoint), samples, kind, flip=checkpoint.flip)
    return Measured(samples, found, scores, _scored(found, samples, checkpoint.scheme), kind)


def measure_training(checkpoint: Checkpoint, labelled: Sequence[FaceSample]) -> Score | None:
    """The score on at most `N_COMPARED` of the faces that a detector learned from; None where none can be measured."""
    faces = _some([s for s in labelled if _has_extent(s)])
    try:
        return measure(checkpoint, faces).score if faces else None
    except InputError:
        return None


def measure_detected(checkpoint: Checkpoint, samples: Sequence[FaceSample]) -> Score | None:
    """The score on at most `N_COMPARED` validation faces in the face detector's boxes, as in use; None where none can be measured."""
    faces = _some(samples)
    try:
        found = predict_samples(Detector(checkpoint), faces, "detect", flip=checkpoint.flip).landmarks
        return _scored(found, faces, checkpoint.scheme)
    except InputError:
        return None


def measure_packaged(samples: Sequence[FaceSample], scheme: LandmarkScheme) -> tuple[Checkpoint, Score] | None:
    """The packaged model `PACKAGED` and its score on the validation faces, in the tight boxes of their landmarks.

    None where it neither finds the scheme's landmarks nor has a transfer to them, or cannot be measured on these faces.
    """
    try:
        detector = Detector.load(PACKAGED)
        target = detector.checkpoint.scheme_of(scheme.name)
        if target.landmarks != scheme.landmarks:
            return None
        found = predict_samples(detector, samples, "gt", scheme=scheme.name).landmarks
        return detector.checkpoint, _scored(found, samples, scheme)
    except InputError:
        return None


def _some(samples: Sequence[FaceSample]) -> list[FaceSample]:
    """At most `N_COMPARED` faces, from all over the list."""
    n = len(samples)
    return [samples[i * n // N_COMPARED] for i in range(N_COMPARED)] if n > N_COMPARED else list(samples)


def find_bias(
    checkpoint: Checkpoint,
    labelled: Sequence[FaceSample],
    measured: Measured | None,
    teachers: Sequence[Checkpoint],
) -> tuple[NDArray[np.float64] | None, Measured | None]:
    """Estimate the horizontal bias of the labels, which networks averaged over flips cannot learn.

    From the validation faces where there are `HELD_OUT_FACES`, each then corrected by the estimate from the others; else from
    the labelled ones, of which the networks have learned a part of the bias by heart; where there are none, the distilled
    models' mean.

    Args:
        checkpoint: The detector without a bias.
        labelled: Labelled faces, of which some `N_BIAS_FACES` are used.
        measured: Its predictions on the validation faces, or None.
        teachers: The distilled models.

    Returns:
        See `Checkpoint.label_bias`, None where the scheme has no mirror or nothing estimates it; and `measured` with the bias.
    """
    mirror = checkpoint.scheme.mirror
    if mirror is None:
        return None, measured
    if measured is not None and len(measured.samples) >= HELD_OUT_FACES:
        truth = measured.truth
        landmarks = cross_fit_label_bias(measured.landmarks, truth, mirror)
        bias = fit_label_bias(measured.landmarks, truth, mirror)
        return bias, measured.with_landmarks(landmarks, checkpoint.scheme)
    estimated = _bias_from_labels(checkpoint, labelled, mirror)
    inherited = [t.label_bias for t in teachers if t.label_bias is not None]
    if estimated is None and not labelled and inherited:
        estimated = np.mean(inherited, axis=0)
    if estimated is None or measured is None:
        return estimated, measured
    return estimated, measured.with_landmarks(apply_label_bias(measured.landmarks, estimated), checkpoint.scheme)


def _bias_from_labels(
    checkpoint: Checkpoint, labelled: Sequence[FaceSample], mirror: Sequence[int]
) -> NDArray[np.float64] | None:
    faces = [s for s in labelled if _has_extent(s)]
    faces = faces[:: max(1, len(faces) // N_BIAS_FACES)]
    if not faces:
        return None
    kind: BoxKind = "column" if all(s.box is not None for s in faces) else "gt"
    found = predict_samples(Detector(checkpoint), faces, kind, flip=checkpoint.flip).landmarks
    return fit_label_bias(found, stack_landmarks(faces), mirror)


def _scored(landmarks: NDArray[np.float32], samples: Sequence[FaceSample], scheme: LandmarkScheme) -> Score:
    boxes = np.stack([s.face_box() for s in samples])
    return score(landmarks, stack_landmarks(samples), scheme, boxes=boxes)


def _has_extent(sample: FaceSample) -> bool:
    """Whether a face has landmarks at more than one point."""
    points = np.asarray(sample.landmarks, np.float64)
    points = points[np.isfinite(points).all(1)]
    return len(points) > 0 and bool(np.ptp(points, axis=0).max() > 0)
