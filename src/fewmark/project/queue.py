"""Which faces to look at next, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewmark.core.text import percent
from fewmark.project.choice import cluster, farthest_first
from fewmark.project.cut import find_cut
from fewmark.project.embedding import balanced
from fewmark.project.labels import Labels
from fewmark.project.predictions import Predictions, Run

QueueKind = Literal["best", "centres", "doubt", "cut", "random"]
DOUBTFUL = 4
"""The queue chooses among so many times as many faces as are asked for, the most doubtful ones."""
NOT_SEEN = "added since the last training, or without a face that was found"
LARGEST = 5_000
"""Faces among which centres are sought; of more, so many are drawn at random first."""


@dataclass(frozen=True)
class QueueItem:
    """A face to look at.

    Attributes:
        face: Its number.
        reason: Why, in a few words for a person.
    """

    face: int
    reason: str


def make_queue(
    labels: Labels,
    predictions: Predictions,
    n: int,
    kind: QueueKind = "best",
    *,
    run: Run | None = None,
    seed: int = 0,
) -> list[QueueItem]:
    """Unlabelled faces to look at next.

    Args:
        labels: The project's labels.
        predictions: The project's predictions.
        n: Most faces.
        kind: best: before the first model, faces that are most unlike each other and all labelled ones; after it, of the faces that
            it errs about most by its own account, such as are unlike each other, so that forty images of one person do not come at
            once. centres and doubt are these two alone; cut: faces near the line between predictions that people accept and
            such as they fix (`fewmark.project.cut`), or the median doubt; random is for comparison.
        run: The model's run; None: there is no model yet.
        seed: Of the random queue.

    Source: Sener and Savarese, ICLR 2018 (centres); Settles, Active learning literature survey, 2009 (doubt).
    """
    if kind == "random":
        numbers = labels.face_numbers("unlabelled")
        drawn = np.random.default_rng([seed, len(numbers)]).permutation(len(numbers))[:n]
        return [QueueItem(numbers[i], "drawn at random") for i in drawn]
    doubts = [] if run is None else predictions.doubts(run.id, DOUBTFUL * n)
    if kind == "centres" or run is None:
        return _centres(labels, predictions, n, seed)
    if kind == "cut":
        return _near_the_cut(predictions, n, run)
    if kind == "doubt":
        return [QueueItem(face, _doubtful(doubt, run)) for face, doubt in doubts[:n]]
    items = _doubtful_and_unlike(predictions, n, doubts, run)
    return items + [QueueItem(face, NOT_SEEN) for face in predictions.unseen(run.id, n - len(items))]


def _centres(labels: Labels, predictions: Predictions, n: int, seed: int) -> list[QueueItem]:
    unlabelled = labels.face_numbers("unlabelled")
    if len(unlabelled) > LARGEST:
        drawn = np.random.default_rng([seed, 1]).permutation(len(unlabelled))[:LARGEST]
        unlabelled = [unlabelled[i] for i in sorted(drawn.tolist())]
    labelled = labels.face_numbers("labelled")
    numbers, vectors = predictions.embeddings([*unlabelled, *labelled])
    if not numbers:
        return [QueueItem(face, "not labelled yet") for face in unlabelled[:n]]
    done = set(labelled)
    taken = [i for i, number in enumerate(numbers) if number in done]
    chosen = farthest_first(balanced(vectors), n, taken)
    reason = "unlike all labelled faces" if taken else "unlike the others"
    items = [QueueItem(numbers[i], reason) for i in chosen]
    known = {item.face for item in items} | set(numbers)
    rest = [face for face in unlabelled if face not in known]  # no box, so no vector
    return [*items, *(QueueItem(face, "no face was found in this image") for face in rest)][:n]


def _near_the_cut(predictions: Predictions, n: int, run: Run) -> list[QueueItem]:
    cut, line = find_cut(predictions.reviews(run.id)), "the line between accepted and fixed"
    if cut is None:
        doubts = predictions.all_doubts(run.id)
        cut, line = float(np.median(doubts)) if doubts else 0.0, "the middle of all doubts"
    near = predictions.nearest(run.id, n, cut)
    return [QueueItem(face, f"{_doubtful(doubt, run)}, near {line}, {percent(cut)}") for face, doubt in near]


def _doubtful_and_unlike(
    predictions: Predictions, n: int, doubts: Sequence[tuple[int, float]], run: Run
) -> list[QueueItem]:
    """The most doubtful face of each of n groups of doubtful faces that look alike."""
    doubt = dict(doubts)
    numbers, vectors = predictions.embeddings(list(doubt))
    if not numbers:
        return [QueueItem(face, _doubtful(value, run)) for face, value in doubts[:n]]
    vectors = balanced(vectors)
    centres = farthest_first(vectors, n)
    group = cluster(vectors, centres)
    items = []
    for position in range(len(centres)):
        members = [numbers[i] for i in np.flatnonzero(group == position)]
        worst = max(members, key=lambda face: doubt[face])
        alike = f", the most of {len(members)} alike" if len(members) > 1 else ""
        items.append(QueueItem(worst, _doubtful(doubt[worst], run) + alike))
    return sorted(items, key=lambda item: -doubt[item.face])


def _doubtful(doubt: float, run: Run) -> str:
    return f"{'expected error' if run.calibrated else 'views disagree by'} {percent(doubt)} of the face's size"
