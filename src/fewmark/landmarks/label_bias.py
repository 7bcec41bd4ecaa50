"""Horizontal label bias: the part of the labels that changes sign under the mirror.

A network trained on flipped faces, or averaged over an image and its flip, treats left and right alike. Labels may not: those of
300-W and MERL-RAV lie 0.4 % of the face size to the right of where images are symmetric. The network then learns the mean of the
labels and their mirror image. The remaining offset is one vector per landmark, estimated from a few labelled faces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import face_sizes

MIN_FACES = 10
"""Fewest labelled faces from which a bias is estimated."""
N_PERMUTATIONS, SIGNIFICANCE = 400, 0.01
"""Random sign flips of the test, and the p-value above which no bias is reported."""
N_FOLDS = 5
"""Cross-fitting folds."""


def fit_label_bias(
    found: NDArray[np.float32], truth: NDArray[np.float32], mirror: Sequence[int]
) -> NDArray[np.float64] | None:
    """Estimate the offset of labels from a network's predictions, as a fraction of the face size (longer side of the true
    landmarks' tight box).

    Only the part of the mean difference that changes sign under the mirror counts; the network could learn the rest. A permutation
    test that replaces faces by their mirror images at random guards against chance, since errors within a face are correlated
    and a few rotated heads look like a bias. The estimate is then shrunk by its share of noise.

    Args:
        found: (N, K, 2) predictions, image px, NaN where missing.
        truth: (N, K, 2) image px, NaN where not annotated.
        mirror: (K,) see `LandmarkScheme`.

    Returns:
        (K, 2), 0 for a landmark that is never annotated; None with fewer than `MIN_FACES` comparable faces or without significance.

    Source: Fisher's randomisation test; positive-part James-Stein shrinkage (Efron and Morris, JASA 1973).
    """
    residuals = np.asarray(truth - found, np.float64) / face_sizes(truth)[:, None, None]
    residuals = residuals[np.any(np.isfinite(residuals).all(2), axis=1)]
    if len(residuals) < MIN_FACES:
        return None
    odd = (residuals - _mirrored(residuals, mirror)) / 2
    known = np.isfinite(odd)
    n = known.sum(0)
    odd = np.where(known, odd, 0)
    mean = odd.sum(0) / np.maximum(n, 1)
    noise = float((np.where(known, odd - mean, 0) ** 2).sum(0).ravel() @ (1 / np.maximum(n * (n - 1), 1)).ravel())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (N_PERMUTATIONS, len(odd)))
    by_chance = ((np.tensordot(signs, odd, 1) / np.maximum(n, 1)) ** 2).sum((1, 2))
    size = float((mean**2).sum())
    if float((by_chance >= size).mean()) > SIGNIFICANCE:
        return None
    return np.asarray(np.round(max(0.0, 1 - noise / size) * mean, 5), np.float64)


def apply_label_bias(found: NDArray[np.float32], bias: NDArray[np.float64]) -> NDArray[np.float32]:
    """Shift landmarks (N, K, 2) px by a bias (K, 2), a fraction of the face size, to where the labels are."""
    return np.asarray(found + bias * face_sizes(found)[:, None, None], np.float32)


def cross_fit_label_bias(
    found: NDArray[np.float32], truth: NDArray[np.float32], mirror: Sequence[int]
) -> NDArray[np.float32]:
    """Shift each face's landmarks (N, K, 2) by the bias that the other folds' faces give; see `fit_label_bias`."""
    result = np.array(found, np.float32)
    for fold in range(N_FOLDS):
        out = np.arange(len(found)) % N_FOLDS == fold
        bias = fit_label_bias(found[~out], truth[~out], mirror)
        if bias is not None:
            result[out] = apply_label_bias(found[out], bias)
    return result


def _mirrored(residuals: NDArray[np.float64], mirror: Sequence[int]) -> NDArray[np.float64]:
    """(N, K, 2) residuals of the mirrored faces."""
    return residuals[:, list(mirror)] * [-1, 1]
