"""From a model's predictions to the answer that a caller asked for: its scheme, and what error to expect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import face_sizes
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True, eq=False)
class Answer:
    """Landmarks of N faces in the scheme that was asked for.

    Attributes:
        scheme: The landmarks' scheme.
        landmarks: (N, K, 2) image px.
        scores: (N, K) confidence; a transferred landmark's is the weighted mean of the scores that it comes from.
        expected_errors: (N, K) image px, see `Face`; None from a model without calibration, and after a transfer.
    """

    scheme: LandmarkScheme
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    expected_errors: NDArray[np.float32] | None


def make_answer(
    landmarks: NDArray[np.float32], scores: NDArray[np.float32], checkpoint: Checkpoint, scheme: str | None = None
) -> Answer:
    """Turn predictions into the answer in a scheme.

    Args:
        landmarks: (N, K, 2) image px, in the model's scheme.
        scores: (N, K).
        checkpoint: The model: its transfers and its calibration.
        scheme: Name of the answer's scheme; None: the model's.

    Raises:
        InputError: The model has no transfer to the scheme.
    """
    transfer = checkpoint.transfer_to(scheme)
    if transfer is not None:
        points, confidence = transfer.apply(landmarks), transfer.apply_scores(scores)
        return Answer(transfer.target, points.astype(np.float32), confidence.astype(np.float32), None)
    calibration = checkpoint.calibration
    errors = None if calibration is None else calibration.expected_errors(scores, face_sizes(landmarks))
    return Answer(checkpoint.scheme, landmarks, scores, errors)
