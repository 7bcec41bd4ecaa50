"""What labels have that a mirrored network cannot learn: how far they lie to one side.

A network that learns from mirrored faces as from the others, or is averaged with its own mirror, treats left and right alike. Where
labels do not - 300-W's and MERL-RAV's lie 0.4 % of the face's size too far right of where images are symmetric - it learns
what lies between the labels and their mirror image. The rest is a number or two a landmark, which a few labelled faces tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import face_sizes

MIN_FACES = 10
"""Labelled faces below which nothing is said: of fewer, chance could make anything."""
N_TURNS, SIGNIFICANCE = 400, 0.01
"""How often faces are mirrored at random to see how large chance makes the mean, and how seldom it may be as large as the one found."""
N_FOLDS = 5
"""Of held-out faces that tell the bias and are measured with it."""


def fit_label_bias(
    found: NDArray[np.float32], truth: NDArray[np.float32], mirror: Sequence[int]
) -> NDArray[np.float64] | None:
    """How far labels lie to one side of what a network finds, as a part of the face's size (the longer side of the true
    landmarks' box).

    The mean difference, but only its part that changes sign under the mirror: the other one the network could learn. It is not believed unless
    it is larger than chance makes it where any face could as well be its mirror image, and shrunk by how much of it is noise: errors of
    a face go together, so that few turned heads already look like a bias.

    Args:
        found: (N, K, 2) image px, NaN where nothing was found.
        truth: (N, K, 2) image px, NaN where not annotated.
        mirror: (K,) see `LandmarkScheme`.

    Returns:
        (K, 2), 0 for a landmark that is never annotated; or None where fewer than `MIN_FACES` faces can be compared, or chance may be
        all of it.

    Source: Fisher's test by random signs; the shrinkage is James and Stein's, with its positive part (Efron and Morris, JASA 1973).
    """
    apart = np.asarray(truth - found, np.float64) / face_sizes(truth)[:, None, None]
    apart = apart[np.any(np.isfinite(apart).all(2), axis=1)]
    if len(apart) < MIN_FACES:
        return None
    odd = (apart - _mirrored(apart, mirror)) / 2
    known = np.isfinite(odd)
    n = known.sum(0)
    odd = np.where(known, odd, 0)
    mean = odd.sum(0) / np.maximum(n, 1)
    noise = float((np.where(known, odd - mean, 0) ** 2).sum(0).ravel() @ (1 / np.maximum(n * (n - 1), 1)).ravel())
    turns = np.random.default_rng(0).choice([-1.0, 1.0], (N_TURNS, len(odd)))
    by_chance = ((np.tensordot(turns, odd, 1) / np.maximum(n, 1)) ** 2).sum((1, 2))
    size = float((mean**2).sum())
    if float((by_chance >= size).mean()) > SIGNIFICANCE:
        return None
    return np.asarray(np.round(max(0.0, 1 - noise / size) * mean, 5), np.float64)


def with_bias(found: NDArray[np.float32], bias: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, K, 2) landmarks and (K, 2) parts of their face's size -> the landmarks where labels lie, image px."""
    return np.asarray(found + bias * face_sizes(found)[:, None, None], np.float32)


def cross_fitted(found: NDArray[np.float32], truth: NDArray[np.float32], mirror: Sequence[int]) -> NDArray[np.float32]:
    """(N, K, 2) landmarks, each face's with the bias that the faces of the other folds tell; see `fit_label_bias`."""
    result = np.array(found, np.float32)
    for fold in range(N_FOLDS):
        out = np.arange(len(found)) % N_FOLDS == fold
        bias = fit_label_bias(found[~out], truth[~out], mirror)
        if bias is not None:
            result[out] = with_bias(found[out], bias)
    return result


def _mirrored(apart: NDArray[np.float64], mirror: Sequence[int]) -> NDArray[np.float64]:
    """(N, K, 2) differences of the mirrored faces."""
    return apart[:, list(mirror)] * [-1, 1]
