"""Splits that keep groups together, and small labelled subsets of a training set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fewmark.core.errors import InputError
from fewmark.data.samples import FaceSample


def split_groups(
    samples: Sequence[FaceSample], fractions: Sequence[float], rng: np.random.Generator
) -> list[list[FaceSample]]:
    """Split faces into parts without dividing any group (person, scene or video).

    Groups are assigned from largest to smallest, in random order among equal sizes, each to the part furthest below
    its share. A face without a group forms its own group; faces in one image stay together.

    Args:
        samples: Faces to split.
        fractions: Shares of the parts, positive and summing to 1.
        rng: Source of the random order.

    Returns:
        One list per fraction, each in the order of `samples`; together they contain every face once.

    Raises:
        InputError: A fraction is not positive, the fractions do not sum to 1, or there are fewer groups than parts.

    >>> from pathlib import Path
    >>> faces = [FaceSample(Path(f"{i}.jpg"), group=str(i // 2)) for i in range(8)]
    >>> [len(part) for part in split_groups(faces, [0.75, 0.25], np.random.default_rng(0))]
    [6, 2]
    """
    shares = np.asarray(list(fractions), np.float64)
    if shares.ndim != 1 or len(shares) == 0 or not (shares > 0).all() or abs(float(shares.sum()) - 1) > 1e-6:
        raise InputError(f"split: fractions: expected positive numbers that sum to 1, given {list(fractions)}")
    groups = _groups(samples)
    if len(groups) < len(shares):
        raise InputError(f"split: expected at least {len(shares)} groups for {len(shares)} parts, given {len(groups)}")
    order = rng.permutation(len(groups))
    order = order[np.argsort([-len(groups[i]) for i in order], kind="stable")]
    target = shares * len(samples)
    parts: list[list[int]] = [[] for _ in shares]
    for position, index in enumerate(order.tolist()):
        sizes = np.array([len(part) for part in parts])
        empty = np.flatnonzero(sizes == 0)
        must_fill = len(groups) - position <= len(empty)  # no part stays empty
        part = int(empty[0]) if must_fill else int(np.argmax((target - sizes) / target))
        parts[part] += groups[index]
    return [[samples[i] for i in sorted(part)] for part in parts]


def few_labels(samples: Sequence[FaceSample], fractions: Sequence[float], seed: int) -> dict[float, list[FaceSample]]:
    """Draw nested subsets of labelled faces: the 5 % subset is part of the 10 % subset, and so on.

    The seed determines one random order, and each fraction takes the first faces of it. Fractions of one seed are
    therefore comparable, and different seeds are independent draws. Groups may be divided, since all these faces are
    training faces.

    Args:
        samples: Training faces; those without landmarks are left out.
        fractions: Fractions in (0, 1].
        seed: Seed of the order; 0, 1 and 2 for the three runs of a table.

    Returns:
        Fraction -> fraction * n faces (rounded half up, at least one), in the order of `samples`.

    Raises:
        InputError: No face is labelled, or a fraction is not in (0, 1].

    Source: TS3, section 4.1 (5, 10 and 20 % labelled).

    >>> from pathlib import Path
    >>> faces = [FaceSample(Path(f"{i}.jpg"), landmarks=np.zeros((1, 2), np.float32)) for i in range(1071)]
    >>> {fraction: len(few) for fraction, few in few_labels(faces, [0.05, 0.1, 0.2], seed=0).items()}
    {0.05: 54, 0.1: 107, 0.2: 214}
    """
    labelled = [s for s in samples if s.is_labelled]
    if not labelled:
        raise InputError("few_labels: expected labelled faces, given none")
    wrong = [f for f in fractions if not 0 < f <= 1]
    if wrong:
        raise InputError(f"few_labels: fractions: expected numbers above 0 and up to 1, given {wrong[0]}")
    order = np.random.default_rng(seed).permutation(len(labelled))
    counts = {f: max(1, math.floor(f * len(labelled) + 0.5)) for f in fractions}
    return {f: [labelled[i] for i in sorted(order[:n].tolist())] for f, n in counts.items()}


def _groups(samples: Sequence[FaceSample]) -> list[list[int]]:
    """Group the indices of faces that share a group or an image, in order of first appearance."""
    parent = list(range(len(samples)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, s in enumerate(samples):
        for key in [("image", str(s.image))] + ([("group", s.group)] if s.group else []):
            a, b = root(first.setdefault(key, i)), root(i)
            parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for i in range(len(samples)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())
