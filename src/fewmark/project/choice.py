"""Which of many vectors to take first: those that are far from all taken before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Vectors that are compared with many others at a time."""


def farthest_first(vectors: NDArray[np.float32], n: int, taken: Sequence[int] = ()) -> list[int]:
    """Indices of n vectors, each the farthest from all before it: k centres, within twice the smallest radius.

    Args:
        vectors: (N, D).
        n: Number of indices, at most N.
        taken: Indices that count as taken before; they are not among the result. None: the first is the nearest to the mean.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance, 1985; Sener and Savarese, Active learning for convolutional
        neural networks: a core-set approach, ICLR 2018.
    """
    free = len(vectors) - len(set(taken))
    chosen: list[int] = []
    distance = np.full(len(vectors), np.inf, np.float32)
    distance[list(taken)] = -1
    if taken:
        distance = np.minimum(distance, _squared_to_all(vectors, vectors[list(taken)]))
    while len(chosen) < min(n, free):
        if not taken and not chosen:
            index = int(np.argmin(((vectors - vectors.mean(0)) ** 2).sum(1)))
        else:
            index = int(np.argmax(distance))
        chosen.append(index)
        distance = np.minimum(distance, _squared(vectors, index))
        distance[index] = -1
    return chosen


def cluster(vectors: NDArray[np.float32], centres: Sequence[int]) -> NDArray[np.int64]:
    """(N,) the position in `centres` of the centre that is nearest to each vector."""
    nearest = np.full(len(vectors), np.inf, np.float32)
    which = np.zeros(len(vectors), np.int64)
    for position, index in enumerate(centres):
        distance = _squared(vectors, index)
        closer = distance < nearest
        which[closer], nearest = position, np.minimum(nearest, distance)
    return which


def _squared(vectors: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    return np.asarray(((vectors - vectors[index]) ** 2).sum(1), np.float32)


def _squared_to_all(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) squared distance of each vector to the nearest of others."""
    lengths, nearest = (others**2).sum(1), np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        nearest[start : start + BLOCK] = (lengths - 2 * part @ others.T).min(1) + (part**2).sum(1)
    return np.maximum(nearest, 0)
