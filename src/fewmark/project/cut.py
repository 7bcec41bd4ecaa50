"""What people did with the predictions that they were shown, and the line that this draws through the doubts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 10
"""Reviewed faces from which a line is drawn."""


@dataclass(frozen=True)
class Review:
    """What became of a prediction.

    Attributes:
        face: Number of the face.
        doubt: How doubtful the model was, see `fewmark.project.predictions.Run.calibrated`.
        accepted: Whether a person took the landmarks as they were.
        moved: Mean distance from the prediction to the label, a fraction of the longer side of the predicted landmarks' box.
    """

    face: int
    doubt: float
    accepted: bool
    moved: float


def find_cut(reviews: Sequence[Review]) -> float | None:
    """The doubt that best parts accepted predictions, below it, from those that were fixed; None if there are too few of them.

    >>> reviews = [Review(i, i / 8, accepted=i < 8, moved=0.0) for i in range(12)]
    >>> find_cut(reviews), find_cut(reviews[:8])
    (0.9375, None)
    """
    accepted = np.array([r.accepted for r in reviews], bool)
    if len(reviews) < LEAST or accepted.all() or not accepted.any():
        return None
    doubts = np.array([r.doubt for r in reviews])
    order = np.argsort(doubts, kind="stable")
    doubts, accepted = doubts[order], accepted[order]
    wrong = np.concatenate([[0], np.cumsum(~accepted)]) + np.concatenate([np.cumsum(accepted[::-1])[::-1], [0]])
    where = int(wrong.argmin())  # so many lie below the line
    edges = np.concatenate([doubts[:1], (doubts[1:] + doubts[:-1]) / 2, doubts[-1:]])
    return float(edges[where])
