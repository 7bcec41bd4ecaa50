"""What a run came to: its detector measured on the validation faces, and the horizontal label bias that labels tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.checkpoint.io import Checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.label_bias import cross_fitted, fit_label_bias, with_bias
from fewmark.landmarks.metrics import Score, score
from fewmark.landmarks.scheme import LandmarkScheme

HELD_OUT_FACES = 20
"""Validation faces from which they tell the horizontal label bias, in place of the labelled ones."""
N_BIAS_FACES = 400
"""Labelled faces that tell it; more change it by less than a hundredth of a per cent of NME."""


@dataclass(frozen=True, eq=False)
class Measured:
    """The validation faces as the detector sees them.

    Attributes:
        samples: V faces with their true landmarks.
        landmarks: (V, K, 2) found, image px.
        scores: (V, K) of these.
        score: of these.
        box: which boxes they were looked for in.
    """

    samples: Sequence[FaceSample]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    score: Score
    box: BoxKind

    @property
    def truth(self) -> NDArray[np.float32]:
        """(V, K, 2) the true landmarks, image px."""
        return _truth(self.samples)

    def moved(self, landmarks: NDArray[np.float32], scheme: LandmarkScheme) -> Measured:
        """The same faces with other landmarks (V, K, 2), scored anew."""
        return replace(self, landmarks=landmarks, score=_scored(landmarks, self.samples, scheme))


def measure(checkpoint: Checkpoint, samples: Sequence[FaceSample], *, flip: bool) -> Measured:
    """Find the landmarks of the validation faces, in the boxes of their list where all have one.

    Args:
        samples: at least one, all with landmarks.
        flip: see `Detector.detect`.
    """
    kind: BoxKind = "column" if all(s.box is not None for s in samples) else "gt"
    found, scores = predict_samples(Detector(checkpoint), samples, kind, flip=flip)
    return Measured(samples, found, scores, _scored(found, samples, checkpoint.scheme), kind)


def find_bias(
    checkpoint: Checkpoint,
    labelled: Sequence[FaceSample],
    measured: Measured | None,
    teachers: Sequence[Checkpoint],
    *,
    flip: bool,
) -> tuple[NDArray[np.float64] | None, Measured | None]:
    """The horizontal label bias of labels, which mirrored networks could not learn, and the validation faces with it.

    Validation faces tell it where there are `HELD_OUT_FACES`, each measured with what the others tell. Else labelled ones do, of
    which networks have learned a part of the bias by heart; and where there are none, the models that were distilled.

    Args:
        checkpoint: without a bias as yet.
        labelled: faces, of which some `N_BIAS_FACES` are looked at.
        measured: of this checkpoint.
        teachers: that were distilled.
        flip: as the detector will be used.

    Returns:
        see `Checkpoint.label_bias`, None where the scheme has no mirror or no face tells it; and `measured` as the detector with it
        would be.
    """
    mirror = checkpoint.scheme.mirror
    if mirror is None:
        return None, measured
    if measured is not None and len(measured.samples) >= HELD_OUT_FACES:
        truth = measured.truth
        landmarks = cross_fitted(measured.landmarks, truth, mirror)
        return fit_label_bias(measured.landmarks, truth, mirror), measured.moved(landmarks, checkpoint.scheme)
    bias = _estimated_from_labels(checkpoint, labelled, mirror, flip=flip)
    told = [t.label_bias for t in teachers if t.label_bias is not None]
    if bias is None and not labelled and told:
        bias = np.mean(told, axis=0)
    if bias is None or measured is None:
        return bias, measured
    return bias, measured.moved(with_bias(measured.landmarks, bias), checkpoint.scheme)


def _estimated_from_labels(
    checkpoint: Checkpoint, labelled: Sequence[FaceSample], mirror: Sequence[int], *, flip: bool
) -> NDArray[np.float64] | None:
    faces = [s for s in labelled if _has_extent(s)]
    faces = faces[:: max(1, len(faces) // N_BIAS_FACES)]
    if not faces:
        return None
    kind: BoxKind = "column" if all(s.box is not None for s in faces) else "gt"
    found = predict_samples(Detector(checkpoint), faces, kind, flip=flip).landmarks
    return fit_label_bias(found, _truth(faces), mirror)


def _truth(samples: Sequence[FaceSample]) -> NDArray[np.float32]:
    """(N, K, 2) the true landmarks, image px."""
    return stack_landmarks(samples)


def _scored(landmarks: NDArray[np.float32], samples: Sequence[FaceSample], scheme: LandmarkScheme) -> Score:
    boxes = np.stack([s.face_box() for s in samples])
    return score(landmarks, _truth(samples), scheme, boxes=boxes)


def _has_extent(sample: FaceSample) -> bool:
    """Whether a face has landmarks in more than one place."""
    points = np.asarray(sample.landmarks, np.float64)
    points = points[np.isfinite(points).all(1)]
    return len(points) > 0 and bool(np.ptp(points, axis=0).max() > 0)
