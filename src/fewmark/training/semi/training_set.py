"""What a student is trained on: human labels, or human and pseudo labels together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.data.crops import CachedFace


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Faces with their labels, pseudo or human.

    Attributes:
        faces: N cached faces.
        landmarks: (N, K, 2) px of the upright crops.
        weights: (N, K) in the loss.
        shares: (N,) how often each is drawn, or None.
    """

    faces: Sequence[CachedFace]
    landmarks: NDArray[np.float32]
    weights: NDArray[np.float32]
    shares: NDArray[np.float64] | None = None


def labels_only(labelled: Sequence[CachedFace]) -> TrainingSet:
    """L by itself, every label with weight 1."""
    landmarks = np.stack([f.landmarks for f in labelled])
    return TrainingSet(labelled, landmarks, np.ones(landmarks.shape[:2], np.float32))


def with_pseudo_labels(
    labelled: Sequence[CachedFace],
    extra: Sequence[CachedFace],
    landmarks: NDArray[np.float32],
    *,
    pseudo_weight: float = 1.0,
    labelled_share: float = 0.0,
) -> TrainingSet:
    """L and the selected faces of U.

    Args:
        extra: M unlabelled faces.
        landmarks: (M, K, 2) their pseudo labels, px of the upright crops.
        pseudo_weight: of these in the loss.
        labelled_share: least share of L among the faces drawn; 0 = as they come.

    Source: TS3, Algorithm 1, lines 11 and 16.
    """
    base = labels_only(labelled)
    n, m = len(labelled), len(extra)
    weights = np.concatenate([base.weights, np.full((m, base.weights.shape[1]), pseudo_weight, np.float32)])
    shares = None
    if labelled_share > n / max(1, n + m):
        shares = np.concatenate([np.full(n, labelled_share / n), np.full(m, (1 - labelled_share) / max(1, m))])
    return TrainingSet([*labelled, *extra], np.concatenate([base.landmarks, landmarks]), weights, shares)
