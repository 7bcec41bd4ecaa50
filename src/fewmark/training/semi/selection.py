"""Selections: which pseudo labels enter a round. The one thing in which TS3, SPL and SPaCo differ.

A selection is a function (PseudoLabels, n) -> indices (n,) of the faces taken, best first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.training.semi.pseudo_labels import PseudoLabels

Selection = Callable[[PseudoLabels, int], NDArray[np.int64]]

SPACO_GAMMA = 0.3
"""Weight of the other students' choice, in units of the median loss. Source: SPaCo's public code, gamma."""


@dataclass(frozen=True)
class SelectionRule:
    """A selection and what it needs.

    Attributes:
        name: as the commands call it.
        select: the function.
        needs_teacher: a teacher is trained in every round.
        own_labels: each student learns from its own predictions alone (SPL), not from all students' (Eq. 5).
    """

    name: str
    select: Selection
    needs_teacher: bool = False
    own_labels: bool = False


def quota(round_index: int, ratio: float, n_unlabelled: int) -> int:
    """How many faces enter round `round_index` (from 1): floor(r * i * |U|), at most |U|.

    Source: TS3, Algorithm 1, lines 10 and 15.

    >>> [quota(i, 0.1, 964) for i in (1, 2, 6, 12)]
    [96, 192, 578, 964]
    """
    if round_index < 1 or ratio < 0 or n_unlabelled < 0:
        raise ValueError(
            f"quota: expected a round from 1 and no negative number, given {round_index}, {ratio}, {n_unlabelled}"
        )
    return min(n_unlabelled, int(ratio * round_index * n_unlabelled + 1e-9))


def lowest(values: NDArray[np.floating], n: int) -> NDArray[np.int64]:
    """Indices of the n lowest values, lowest first; equal ones in order, NaN last."""
    return np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")[:n].astype(np.int64)


def by_quality(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """The faces of the highest quality by the teacher. Source: TS3, Eq. 3."""
    if labels.quality is None:
        raise ValueError("by_quality: the pseudo labels carry no teacher's quality")
    return lowest(-labels.quality, n)


def by_own_loss(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """The lowest loss of the student against its own prediction. Source: SPL, as in TS3, section 4.4."""
    return lowest(labels.own_losses[labels.student], n)


def by_cotraining(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """The lowest own loss, less gamma for every other student that chose the face last.

    Source: Ma et al., Self-paced co-training, ICML 2017: v_j = 1 where l_j - gamma * sum of the other v <
    lambda_j; lambda follows from the quota. Differs: losses are divided by their median, so that one gamma
    serves every student and round.
    """
    losses = labels.own_losses[labels.student]
    others = np.delete(labels.chosen, labels.student, axis=0).sum(0)
    return lowest(losses / max(float(np.median(losses)), 1e-12) - SPACO_GAMMA * others, n)


def by_peak_score(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """The highest mean peak of the averaged maps: the plainest confidence."""
    return lowest(-labels.scores.mean(1), n)


def by_spread(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """The faces on which students and views agree best."""
    return lowest(labels.spread.mean(1), n)


def by_true_error(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """The faces of the lowest true error: an oracle, for ablations on data whose labels are known."""
    if labels.true_error is None or np.isnan(labels.true_error).all():
        raise ValueError("by_true_error: the oracle needs the true landmarks of the unlabelled faces")
    return lowest(labels.true_error, n)


def at_random(seed: int) -> Selection:
    """Any faces; a function of the seed, the student and the number taken."""

    def select(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([seed, labels.student + 1, n])
        return rng.permutation(len(labels))[:n].astype(np.int64)

    return select


def selection_rule(name: str, seed: int = 0) -> SelectionRule:
    """The rule that the commands call by this name.

    Raises:
        ValueError: there is no such rule.
    """
    rules = {
        "teacher": SelectionRule("teacher", by_quality, needs_teacher=True),
        "spl": SelectionRule("spl", by_own_loss, own_labels=True),
        "spaco": SelectionRule("spaco", by_cotraining),
        "peak": SelectionRule("peak", by_peak_score),
        "spread": SelectionRule("spread", by_spread),
        "random": SelectionRule("random", at_random(seed)),
        "oracle": SelectionRule("oracle", by_true_error),
    }
    if name not in rules:
        raise ValueError(f"selection {name!r}: expected one of {', '.join(rules)}")
    return rules[name]


SELECTION_NAMES = ("teacher", "spl", "spaco", "peak", "spread", "random", "oracle")
