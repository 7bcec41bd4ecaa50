"""Which faces to look at next, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fewmark.core.text import percent
from fewmark.project.choice import farthest_first, typical
from fewmark.project.cut import find_cut
from fewmark.project.embedding import balanced
from fewmark.project.labels import Labels
from fewmark.project.predictions import Predictions, Run

QueueKind = Literal["best", "centres", "doubt", "cut", "random"]
POWER = 2.0
"""Of the doubt by which a face counts."""
BATCH = 20
"""Groups at a time: the first faces of a long queue are those of a short one."""
CANDIDATES, LARGEST = 5_000, 1_500
"""Of more unlabelled faces so many are drawn at random, and of these so many by their weight, among which representatives are sought."""


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
        kind: best: faces that stand for many others like them and unlike all labelled ones; once there is a model, faces count by the
            square of its doubt about them. centres: faces that are most unlike each other and all labelled ones; doubt: those that
            the model errs about most by its own account; cut: faces near the line between predictions that people accept and such as
            they fix (`fewmark.project.cut`), or the median doubt; random is for comparison.
        run: The model's run; None: there is no model yet.
        seed: Of what is drawn.

    Source: Hacohen et al., ICML 2022 (best); Sener and Savarese, ICLR 2018 (centres); Settles, Active learning literature survey, 2009 (doubt).
    """
    if kind == "random":
        numbers = labels.face_numbers("unlabelled")
        drawn = np.random.default_rng([seed, len(numbers)]).permutation(len(numbers))[:n]
        return [QueueItem(numbers[i], "drawn at random") for i in drawn]
    if kind == "best":
        return _best(labels, predictions, n, run, seed)
    if kind == "centres" or run is None:
        return _centres(labels, predictions, n, seed)
    if kind == "cut":
        return _near_the_cut(predictions, n, run)
    return [QueueItem(face, _doubtful(doubt, run)) for face, doubt in predictions.doubts(run.id, n)]


def _best(labels: Labels, predictions: Predictions, n: int, run: Run | None, seed: int) -> list[QueueItem]:
    """Faces in the middle of groups that no labelled face stands for."""
    unlabelled = _some(labels.face_numbers("unlabelled"), seed, CANDIDATES)
    doubts = {} if run is None else predictions.doubts_of(run.id, unlabelled)
    usual = float(np.median(list(doubts.values()))) if doubts else 1.0
    weights = np.array([max(doubts.get(face, usual), 1e-9) for face in unlabelled]) ** POWER
    if len(unlabelled) > LARGEST:
        drawn = np.random.default_rng([seed, 1]).choice(
            len(unlabelled), LARGEST, replace=False, p=weights / weights.sum()
        )
        unlabelled, weights = [unlabelled[i] for i in sorted(drawn.tolist())], np.ones(LARGEST)
    weight_of = dict(zip(unlabelled, weights.tolist(), strict=True))
    numbers, vectors = predictions.embeddings([*unlabelled, *_some(labels.face_numbers("labelled"), seed)])
    chosen: list[int] = []
    if numbers:
        vectors = balanced(vectors)
        taken = [i for i, face in enumerate(numbers) if face not in weight_of]
        weight = np.array([weight_of.get(face, 0.0) for face in numbers], np.float32)
        while len(chosen) < min(n, len(numbers) - len(taken)):
            wanted = min(BATCH, n - len(chosen))
            chosen += typical(vectors, wanted, [*taken, *chosen], weight, seed)

    def reason(face: int) -> str:
        if run is None:
            return "stands for others like it"
        if face not in doubts:
            return "added since the last training"
        return f"{_doubtful(doubts[face], run)}, and stands for others like it"

    items = [QueueItem(numbers[i], reason(numbers[i])) for i in chosen]
    return items + _without_box(unlabelled, numbers, n - len(items))


def _some(faces: list[int], seed: int, n: int = LARGEST) -> list[int]:
    """n of them, drawn at random where there are more."""
    if len(faces) <= n:
        return faces
    drawn = np.random.default_rng([seed, 1]).permutation(len(faces))[:n]
    return [faces[i] for i in sorted(drawn.tolist())]


def _without_box(unlabelled: Sequence[int], numbers: Sequence[int], n: int) -> list[QueueItem]:
    """Faces without a box have no vector, and come last."""
    known = set(numbers)
    rest = [face for face in unlabelled if face not in known]
    return [QueueItem(face, "no face was found in this image") for face in rest[: max(0, n)]]


def _centres(labels: Labels, predictions: Predictions, n: int, seed: int) -> list[QueueItem]:
    unlabelled = labels.face_numbers("unlabelled")
    unlabelled = _some(unlabelled, seed)
    labelled = _some(labels.face_numbers("labelled"), seed)
    numbers, vectors = predictions.embeddings([*unlabelled, *labelled])
    done = set(labelled)
    taken = [i for i, number in enumerate(numbers) if number in done]
    chosen = farthest_first(balanced(vectors), n, taken) if numbers else []
    reason = "unlike all labelled faces" if taken else "unlike the others"
    items = [QueueItem(numbers[i], reason) for i in chosen]
    return [*items, *_without_box(unlabelled, numbers, n - len(items))]


def _near_the_cut(predictions: Predictions, n: int, run: Run) -> list[QueueItem]:
    cut, line = find_cut(predictions.reviews(run.id)), "the line between accepted and fixed"
    if cut is None:
        doubts = predictions.all_doubts(run.id)
        cut, line = float(np.median(doubts)) if doubts else 0.0, "the middle of all doubts"
    near = predictions.nearest(run.id, n, cut)
    return [QueueItem(face, f"{_doubtful(doubt, run)}, near {line}, {percent(cut)}") for face, doubt in near]


def _doubtful(doubt: float, run: Run) -> str:
    return f"{'expected error' if run.calibrated else 'views disagree by'} {percent(doubt)} of the face's size"
