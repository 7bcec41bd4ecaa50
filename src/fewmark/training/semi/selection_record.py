"""Which pseudo labels one student is trained on in one round, the record of why, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.files import atomic_path, write_text
from fewmark.landmarks.metrics import spearman
from fewmark.training.semi.pseudo_labels import PseudoLabels


@dataclass(frozen=True, eq=False)
class SelectionRecord:
    """The pseudo labels that were taken for one student.

    Attributes:
        record: who was taken with what score, plain data as in rounds.jsonl.
        landmarks: (n, K, 2) of the faces taken, best first, px of the upright crops.
    """

    record: dict[str, Any]
    landmarks: NDArray[np.float32]

    @property
    def taken(self) -> NDArray[np.int64]:
        """(n,) indices of U, best first."""
        return np.asarray(self.record["selected"], np.int64)


def record_selection(pseudo: PseudoLabels, taken: NDArray[np.int64], selection: str) -> SelectionRecord:
    """The choice of some faces, with how good the scores are where the truth is known.

    Args:
        pseudo: of all of U.
        taken: (n,) indices of U, best first.
        selection: the name of the rule that took them.
    """
    record: dict[str, Any] = {
        "selection": selection,
        "n_selected": len(taken),
        "selected": [int(u) for u in taken],
        "quality": None if pseudo.quality is None else [round(float(q), 5) for q in pseudo.quality],
    }
    if pseudo.true_error is not None and not np.isnan(pseudo.true_error).all():
        error = pseudo.true_error
        known = ~np.isnan(error)
        record["true_error"] = [None if np.isnan(e) else round(float(e), 4) for e in error]
        record["true_error_all"] = float(error[known].mean())
        record["true_error_selected"] = float(np.nanmean(error[taken])) if len(taken) else None
        record["rank_correlation"] = {
            name: _rank_correlation(-values[known], error[known]) for name, values in _measures(pseudo).items()
        }
    return SelectionRecord(record, pseudo.landmarks[taken])


def write_selection(path: Path | None, choice: SelectionRecord) -> None:
    """Write the record as JSON, and before it the landmarks beside it as .npy; nothing where there is no path."""
    if path is None:
        return
    with atomic_path(path.with_suffix(".npy")) as temporary, temporary.open("wb") as stream:
        np.save(stream, choice.landmarks)
    write_text(path, json.dumps(choice.record))


def read_selection(path: Path | None) -> SelectionRecord | None:
    """What `write_selection` wrote, or None where there is no such file."""
    if path is None or not path.is_file():
        return None
    return SelectionRecord(json.loads(path.read_text(encoding="utf-8")), np.load(path.with_suffix(".npy")))


def _measures(pseudo: PseudoLabels) -> dict[str, NDArray[np.float32]]:
    """(U,) values by which faces could be ranked, higher = better."""
    quality = {} if pseudo.quality is None else {"quality": pseudo.quality}
    return {
        **quality,
        "own_loss": -pseudo.own_losses[pseudo.student],
        "peak": pseudo.scores.mean(1),
        "spread": -pseudo.spread.mean(1),
    }


def _rank_correlation(doubt: NDArray[np.floating], error: NDArray[np.floating]) -> float | None:
    """None where nothing is ranked: fewer than two faces, or equal values."""
    rank = spearman(doubt, error) if len(error) > 1 else float("nan")
    return None if np.isnan(rank) else round(rank, 4)
