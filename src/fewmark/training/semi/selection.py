"""Selection: which pseudo labels enter a round, the one thing in which TS3, SPL and SPaCo differ; and the record of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.files import atomic_path, write_text
from fewmark.landmarks.metrics import spearman
from fewmark.training.semi.pseudo_labels import PseudoLabels, landmark_weights

Select = Callable[[PseudoLabels, int], NDArray[np.int64]]
"""Pseudo labels, number -> (n,) indices of the selected faces, best first."""

SPACO_GAMMA = 0.3
"""Weight of the other students' selections, in units of the median loss. Source: SPaCo's public code, gamma."""


@dataclass(frozen=True)
class SelectionRule:
    """A way to select, and what it needs.

    Attributes:
        name: Its name in settings and commands.
        select: The function.
        needs_teacher: Whether a teacher is trained in every round.
        own_labels: Whether each student learns from its own predictions alone (SPL) in place of all students' (Eq. 5).
    """

    name: str
    select: Select
    needs_teacher: bool = False
    own_labels: bool = False


def quota(round_index: int, ratio: float, n_unlabelled: int) -> int:
    """Number of faces that enter round `round_index` (from 1): floor(r * i * |U|), at most |U|.

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
    """Select the highest quality by the teacher. Source: TS3, Eq. 3."""
    if labels.quality is None:
        raise ValueError("by_quality: the pseudo labels have no teacher's quality")
    return lowest(-labels.quality, n)


def by_own_loss(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """Select the lowest loss of the student against its own prediction. Source: SPL, as in TS3, section 4.4."""
    return lowest(labels.own_losses[labels.student], n)


def by_cotraining(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """Select the lowest own loss, less gamma for every other student whose last selection holds the face.

    Source: Ma et al., Self-paced co-training, ICML 2017: v_j = 1 where l_j - gamma * sum of the other v < lambda_j; lambda
        follows from the quota.
    Differs: losses are divided by their median, so that one gamma serves every student and round.
    """
    losses = labels.own_losses[labels.student]
    others = np.delete(labels.last_selected, labels.student, axis=0).sum(0)
    return lowest(losses / max(float(np.median(losses)), 1e-12) - SPACO_GAMMA * others, n)


def by_peak_score(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """Select the highest mean peak of the averaged maps: the plainest confidence."""
    return lowest(-labels.scores.mean(1), n)


def by_disagreement(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """Select the faces on which students and views disagree least."""
    return lowest(labels.disagreement.mean(1), n)


def by_true_error(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
    """Select the lowest true error: an oracle, for ablations on data whose labels are known."""
    if labels.true_error is None or np.isnan(labels.true_error).all():
        raise ValueError("by_true_error: the oracle needs the true landmarks of the unlabelled faces")
    return lowest(labels.true_error, n)


def at_random(seed: int) -> Select:
    """Select any faces, as a function of the seed, the student and the number."""

    def select(labels: PseudoLabels, n: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([seed, labels.student + 1, n])
        return rng.permutation(len(labels))[:n].astype(np.int64)

    return select


SELECTION_NAMES = ("teacher", "spl", "spaco", "peak", "spread", "random", "oracle")


def selection_rule(name: str, seed: int = 0) -> SelectionRule:
    """The rule of one of `SELECTION_NAMES`.

    Raises:
        ValueError: There is no such rule.
    """
    rules = {
        "teacher": SelectionRule("teacher", by_quality, needs_teacher=True),
        "spl": SelectionRule("spl", by_own_loss, own_labels=True),
        "spaco": SelectionRule("spaco", by_cotraining),
        "peak": SelectionRule("peak", by_peak_score),
        "spread": SelectionRule("spread", by_disagreement),
        "random": SelectionRule("random", at_random(seed)),
        "oracle": SelectionRule("oracle", by_true_error),
    }
    if name not in rules:
        raise ValueError(f"selection {name!r}: expected one of {', '.join(rules)}")
    return rules[name]


@dataclass(frozen=True)
class TrueErrors:
    """How good pseudo labels are where the truth of U is known.

    Attributes:
        per_face: (U,) true error, px of the crops; None where unknown.
        mean: Mean over all known faces.
        mean_selected: Mean over the selected ones, or None if there is none.
        rank_correlation: Measure -> Spearman's correlation of its negative with the true error, or None where it ranks nothing.
    """

    per_face: list[float | None]
    mean: float
    mean_selected: float | None
    rank_correlation: dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Selection:
    """The pseudo labels selected for one student in one round.

    Attributes:
        rule: Name of the rule.
        selected: (n,) indices of U, best first.
        landmarks: (n, K, 2) their pseudo labels, px of the upright crops.
        weights: (n, K) their weights in the loss.
        quality: (U,) the teacher's quality of all of U, or None without a teacher.
        errors: How good the pseudo labels are, or None where nothing is known.
    """

    rule: str
    selected: NDArray[np.int64]
    landmarks: NDArray[np.float32]
    weights: NDArray[np.float32]
    quality: list[float] | None = None
    errors: TrueErrors | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data as in rounds.jsonl, all but the landmarks and their weights."""
        record: dict[str, Any] = {
            "selection": self.rule,
            "n_selected": len(self.selected),
            "selected": [int(u) for u in self.selected],
            "quality": self.quality,
        }
        if self.errors is not None:
            record["true_error"] = self.errors.per_face
            record["true_error_all"] = self.errors.mean
            record["true_error_selected"] = self.errors.mean_selected
            record["rank_correlation"] = self.errors.rank_correlation
        return record

    @classmethod
    def from_dict(
        cls, record: Mapping[str, Any], landmarks: NDArray[np.float32], weights: NDArray[np.float32]
    ) -> Selection:
        """The inverse of `to_dict`."""
        errors = None
        if "true_error" in record:
            errors = TrueErrors(
                record["true_error"],
                record["true_error_all"],
                record["true_error_selected"],
                record["rank_correlation"],
            )
        selected = np.asarray(record["selected"], np.int64)
        return cls(record["selection"], selected, landmarks, weights, record["quality"], errors)


def select_pseudo_labels(
    pseudo: PseudoLabels, rule: SelectionRule, n: int, *, weight: float = 1.0, by_spread: bool = False
) -> Selection:
    """Select n faces of U by a rule, and record how good its measure and others are where the truth is known.

    Args:
        pseudo: Pseudo labels of U.
        rule: The rule.
        n: Number of faces.
        weight: Weight of a pseudo label in the loss; 1 is a human label's.
        by_spread: Whether a landmark weighs the less the more students and views disagree about it, see `landmark_weights`.
    """
    selected = rule.select(pseudo, n)
    weights = np.full(pseudo.landmarks[selected].shape[:2], weight, np.float32)
    if by_spread:
        usual = float(np.median(pseudo.disagreement))
        weights *= landmark_weights(pseudo.disagreement[selected], usual)
    return Selection(
        rule.name,
        selected,
        pseudo.landmarks[selected],
        weights,
        None if pseudo.quality is None else [round(float(q), 5) for q in pseudo.quality],
        _true_errors(pseudo, selected),
    )


def write_selection(path: Path | None, selection: Selection) -> None:
    """Write the record as JSON and next to it, first, x, y and weight of the landmarks as .npy; nothing without a path."""
    if path is None:
        return
    with atomic_path(path.with_suffix(".npy")) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.concatenate([selection.landmarks, selection.weights[..., None]], axis=2))
    write_text(path, json.dumps(selection.to_dict()))


def read_selection(path: Path | None) -> Selection | None:
    """Read what `write_selection` wrote; None where there is no such file."""
    if path is None or not path.is_file():
        return None
    values = np.load(path.with_suffix(".npy"))
    weights = values[..., 2] if values.shape[2] == 3 else np.ones(values.shape[:2], np.float32)  # without: version 0.1
    return Selection.from_dict(json.loads(path.read_text(encoding="utf-8")), values[..., :2], weights)


def _true_errors(pseudo: PseudoLabels, selected: NDArray[np.int64]) -> TrueErrors | None:
    error = pseudo.true_error
    if error is None or np.isnan(error).all():
        return None
    known = ~np.isnan(error)
    return TrueErrors(
        per_face=[None if np.isnan(e) else round(float(e), 4) for e in error],
        mean=float(error[known].mean()),
        mean_selected=float(np.nanmean(error[selected])) if len(selected) else None,
        rank_correlation={
            name: _rank_correlation(-values[known], error[known]) for name, values in _measures(pseudo).items()
        },
    )


def _measures(pseudo: PseudoLabels) -> dict[str, NDArray[np.float32]]:
    """(U,) values by which faces could be ranked, higher is better."""
    quality = {} if pseudo.quality is None else {"quality": pseudo.quality}
    return {
        **quality,
        "own_loss": -pseudo.own_losses[pseudo.student],
        "peak": pseudo.scores.mean(1),
        "spread": -pseudo.disagreement.mean(1),
    }


def _rank_correlation(measure: NDArray[np.floating], error: NDArray[np.floating]) -> float | None:
    """None where nothing is ranked: fewer than two faces, or equal values."""
    rank = spearman(measure, error) if len(error) > 1 else float("nan")
    return None if np.isnan(rank) else round(rank, 4)
