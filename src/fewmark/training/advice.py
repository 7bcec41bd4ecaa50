"""What to do after a run, by plain rules from its numbers: what was found, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fewmark.core.text import count, percent
from fewmark.landmarks.metrics import Score
from fewmark.training.semi.rounds import RoundRecord

ENOUGH_HELD_OUT = 20
"""Validation faces from which the horizontal label bias and the expected errors are estimated, too."""
OVERFITTED = 0.6
"""Training NME as a share of the validation NME, below which the training faces are known by heart."""
MUCH_WORSE = 2.0
"""NME of a component relative to the median of the others, from which it stands out."""
LEAST_NEXT, MOST_NEXT = 10, 50
"""Bounds of the number of faces to label next."""


class Advice(NamedTuple):
    """What the numbers say, and what to do about it."""

    finding: str
    action: str


@dataclass(frozen=True, eq=False)
class Numbers:
    """What the rules read; None or 0 where it is not known.

    Attributes:
        n_labelled: Labelled faces.
        validation: Score on the validation faces.
        training: Score on labelled faces.
        detected: Score on validation faces in detected boxes.
        packaged: NME per component of the packaged model on the validation faces.
        packaged_ahead: How the packaged model is clearly better on the validation faces, in words, or "".
        n_without_face: Unlabelled images that were left out, as no face was detected.
        records: Records of all rounds.
        n_ranked: Unlabelled faces with a teacher's quality.
        rank: Rank correlation of that quality with the true error; below 0 is right.
    """

    n_labelled: int
    validation: Score | None = None
    training: Score | None = None
    detected: Score | None = None
    packaged: Mapping[str, float] | None = None
    packaged_ahead: str = ""
    n_without_face: int = 0
    records: Sequence[RoundRecord] = ()
    n_ranked: int = 0
    rank: float | None = None


def advise(numbers: Numbers) -> list[Advice]:
    """What the numbers of a run say, most urgent first."""
    rules = (_held_out, _packaged, _overfitting, _components, _boxes, _pseudo_labels, _labels)
    return [advice for rule in rules for advice in rule(numbers)]


def n_next(n_labelled: int) -> int:
    """How many faces to label next: as many as are labelled, in bounds; who has twelve does not want fifty more at once.

    >>> [n_next(n) for n in (3, 12, 107)]
    [10, 12, 50]
    """
    return min(MOST_NEXT, max(LEAST_NEXT, n_labelled))


def round_nmes(records: Sequence[RoundRecord]) -> dict[int, float]:
    """Validation NME of all students together after each round."""
    return {r.round: r.ensemble_val_nme for r in records if r.ensemble_val_nme is not None}


def _held_out(numbers: Numbers) -> list[Advice]:
    score = numbers.validation
    if score is None:
        return [
            Advice(
                "No face is held out, so nothing is known about how good the model is.",
                f"Take at least {ENOUGH_HELD_OUT} labelled faces out of the labelled list and give them by --val.",
            )
        ]
    if score.n_faces >= ENOUGH_HELD_OUT:
        return []
    return [
        Advice(
            f"{count(score.n_faces, 'validation face')}: the NME is rough, {percent(score.nme)} ± {percent(score.standard_error)} "
            "(standard error).",
            f"Hold out at least {ENOUGH_HELD_OUT} faces; expected errors and the bias of the labels are then estimated, too.",
        )
    ]


def _packaged(numbers: Numbers) -> list[Advice]:
    if not numbers.packaged_ahead:
        return []
    return [
        Advice(
            numbers.packaged_ahead,
            "Use it, or start from it: --start ibug-68; its licence then counts.",
        )
    ]


def _overfitting(numbers: Numbers) -> list[Advice]:
    train, val = numbers.training, numbers.validation
    if train is None or val is None or not train.nme < OVERFITTED * val.nme < math.inf:
        return []
    return [
        Advice(
            f"The error of labelled faces, {percent(train.nme)}, is much lower than that of validation faces, {percent(val.nme)}.",
            "Label more faces, or augment more, e.g. --set augment.scale=0.2 --set augment.shift=0.1.",
        )
    ]


def _components(numbers: Numbers) -> list[Advice]:
    worst = None if numbers.validation is None else _outlier(numbers.validation.per_component)
    if worst is None or numbers.validation is None:
        return []
    name, times = worst
    error = percent(numbers.validation.per_component[name])
    finding = f"{name}: {error}, {times:.1f} times the median of the other components."
    packaged = None if numbers.packaged is None else _outlier(numbers.packaged)
    if packaged is not None and packaged[0] == name:
        action = f"It is so for the packaged model, too ({packaged[1]:.1f} times): harder by its definition, not by these labels alone."
    else:
        action = "Look at its labels in the worst faces: are its points defined so that two people would click the same places?"
    return [Advice(finding, action)]


def _outlier(components: Mapping[str, float]) -> tuple[str, float] | None:
    """The component that is much worse than the median of the others, and how many times, or None."""
    known = {n: e for n, e in components.items() if math.isfinite(e)}
    if len(known) < 3:
        return None
    name = max(known, key=lambda n: known[n])
    others = float(np.median([e for n, e in known.items() if n != name]))
    return (name, known[name] / others) if others > 0 and known[name] >= MUCH_WORSE * others else None


def _boxes(numbers: Numbers) -> list[Advice]:
    advice = []
    detected = numbers.detected
    if detected is not None and detected.n_undetected:
        advice.append(
            Advice(
                f"{detected.n_undetected} of {count(detected.n_faces, 'validation face')} not found by the face detector.",
                "Small faces: --tiles 640. Else try another --face-detector, or give boxes (detect --boxes).",
            )
        )
    if numbers.n_without_face:
        advice.append(
            Advice(
                f"{count(numbers.n_without_face, 'unlabelled image')} left out: no face was detected.",
                "Give their boxes (box_x0, box_y0, box_x1, box_y1 in a table) to learn from them, too.",
            )
        )
    return advice


def _pseudo_labels(numbers: Numbers) -> list[Advice]:
    nmes = round_nmes(numbers.records)
    if len(nmes) < 2:
        return []
    first, last = nmes[min(nmes)], nmes[max(nmes)]
    if last < first:
        return []
    return [
        Advice(
            f"The rounds with pseudo labels did not lower the validation error: {percent(first)} after labels only, {percent(last)} "
            f"after round {max(nmes)}.",
            "Train as long on the labels alone: --selection none.",
        )
    ]


def _labels(numbers: Numbers) -> list[Advice]:
    finding = f"How fast the error falls with more labels cannot be seen from one run with {numbers.n_labelled}."
    wanted = n_next(numbers.n_labelled)
    n = min(wanted, numbers.n_ranked)
    if not n:
        return [Advice(finding, f"Label {wanted} more faces, train again, and compare the two reports.")]
    action = f"Label the {count(n, 'unlabelled face')} that the teacher judges worst (listed below), train again, and compare the reports."
    if numbers.rank is not None and numbers.rank > -0.2:
        action += f" The teacher judges badly here (rank correlation {numbers.rank:+.2f}): any {n} are about as good."
    return [Advice(finding, action)]
