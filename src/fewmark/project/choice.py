"""Which of many vectors to take first: those that stand for the others, or those that are far from all taken before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 1024
"""Vectors that are compared with many others at a time."""
ROUNDS, TRIES = 15, 2
"""Of k means; of its beginnings the best end counts."""


def typical(
    vectors: NDArray[np.float32],
    n: int,
    taken: Sequence[int] = (),
    weights: NDArray[np.float32] | None = None,
    seed: int = 0,
) -> list[int]:
    """Indices of n vectors, each in the middle of a group of vectors that no other stands for; the largest group's first.

    Groups are those of k means, beside fixed centres at what is taken.

    Args:
        vectors: (N, D).
        n: Number of indices, at most N.
        taken: Indices that count as taken before; they are not among the result.
        weights: (N,) how much each vector counts; None: all the same.
        seed: Of the first centres.

    Source: Hacohen, Dekel and Weinshall, Active learning on a budget: opposite strategies suit high and low budgets, ICML 2022; Arthur and
        Vassilvitskii, k-means++: the advantages of careful seeding, 2007.
    """
    free = np.setdiff1d(np.arange(len(vectors)), np.asarray(taken, np.int64))
    weight = np.ones(len(free)) if weights is None else np.maximum(np.asarray(weights, np.float64)[free], 1e-12)
    if len(free) <= n:
        return [int(i) for i in free[np.argsort(-weight, kind="stable")]]
    x = vectors[free]
    fixed = _squared_to_all(x, vectors[list(taken)]) if len(taken) else np.full(len(x), np.inf, np.float32)
    rng = np.random.default_rng(seed)
    tried = [_k_means(x, n, weight, fixed, rng) for _ in range(TRIES)]
    _, group, squared = min(tried, key=lambda t: t[0])
    found: list[tuple[float, int]] = []
    for k in range(n):
        members = np.flatnonzero(group == k)
        if len(members):
            found.append((-float(weight[members].sum()), int(members[squared[members, k].argmin()])))
    chosen = [int(free[i]) for _, i in sorted(found)]
    return chosen if len(chosen) == n else chosen + farthest_first(vectors, n - len(chosen), [*taken, *chosen])


def _k_means(
    x: NDArray[np.float32],
    n: int,
    weight: NDArray[np.float64],
    fixed: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[float, NDArray[np.int64], NDArray[np.float32]]:
    """k means beside fixed centres, each vector's squared distance to the nearest of which is given.

    Returns: the mean that is minimised, (N,) the group of each vector, -1 where a fixed centre is nearer, (N, n) squared distances.
    """
    norms, everyone = (x**2).sum(1), np.arange(len(x))
    centres, nearest = np.empty((n, x.shape[1]), np.float32), fixed
    for k in range(n):
        chances = weight * (nearest if np.isfinite(nearest).all() else 1) + 1e-12
        centres[k] = x[rng.choice(len(x), p=chances / chances.sum())]
        nearest = np.minimum(nearest, np.maximum(norms - 2 * x @ centres[k] + centres[k] @ centres[k], 0))
    for last in [False] * ROUNDS + [True]:
        squared = np.maximum(norms[:, None] - 2 * x @ centres.T + (centres**2).sum(1), 0)
        group = np.where(squared.min(1) < fixed, squared.argmin(1), -1)
        if last:
            break
        of = np.zeros((n, len(x)), np.float32)
        of[group[group >= 0], everyone[group >= 0]] = weight[group >= 0]
        totals = of.sum(1, keepdims=True)
        centres = np.where(totals > 0, of @ x / np.maximum(totals, 1e-30), centres).astype(np.float32)
    return float(weight @ np.minimum(squared.min(1), fixed)), group, squared


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


def _squared(vectors: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    return np.asarray(((vectors - vectors[index]) ** 2).sum(1), np.float32)


def _squared_to_all(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) squared distance of each vector to the nearest of others."""
    lengths, nearest = (others**2).sum(1), np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        nearest[start : start + BLOCK] = (lengths - 2 * part @ others.T).min(1) + (part**2).sum(1)
    return np.maximum(nearest, 0)
