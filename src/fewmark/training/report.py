"""The report of a run: its detector on the validation faces, its trainings and its rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import box_of_points
from fewmark.data.images import read_image
from fewmark.inference.checkpoint.io import Checkpoint
from fewmark.landmarks.metrics import Score
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.events import Event
from fewmark.training.semi.rounds import RoundRecord
from fewmark.training.validation import Measured
from fewmark.visualization.draw import face_tile
from fewmark.visualization.report import Captioned, write_report

N_TILES = 5
"""Number of best and of worst faces that are shown."""


def write_run_report(
    path: Path,
    checkpoint: Checkpoint,
    measured: Measured | None,
    *,
    records: Sequence[RoundRecord],
    metrics: Sequence[Event],
    truth: NDArray[np.float32] | None,
    seconds: float,
) -> None:
    """Write the report of a run.

    Args:
        path: The HTML file.
        checkpoint: The model.
        measured: Its predictions on the validation faces, or None where nothing is held out.
        records: Records of all rounds.
        metrics: Events of metrics.jsonl.
        truth: (U, K, 2) labels that unlabelled faces may have, px of the crops, NaN where there is none; or None.
        seconds: Duration of the run.
    """
    scheme = checkpoint.scheme
    labelled, unlabelled = checkpoint.counts["labelled"], checkpoint.counts["unlabelled"]
    best, worst = _extremes(measured, scheme)
    write_report(
        path,
        title=f"{scheme.name}: {labelled} labelled, {unlabelled} unlabelled faces"
        if checkpoint.cascade is None
        else f"{scheme.name}: a cascade from {labelled} labelled faces",
        config=checkpoint.config,
        rounds=_rounds(records),
        metrics=_curves(metrics),
        ced={} if measured is None else {"validation": measured.score.per_face},
        best=best,
        worst=worst,
        quality=[] if truth is None else _quality(records, _lengths(truth, scheme)),
        facts={
            **({} if measured is None else _score_facts(measured.score)),
            **{f"NME after {e['stage']}": f"{100 * e['val_nme']:.2f} %" for e in _last_stages(metrics)},
            "labelled faces": str(labelled),
            "unlabelled faces": str(unlabelled),
            "minutes": f"{seconds / 60:.1f}",
        },
        normalizer=scheme.default_normalizer,
    )


def _score_facts(result: Score) -> dict[str, str]:
    return {
        f"validation NME ({result.normalizer})": f"{100 * result.nme:.2f} %",
        f"AUC at {result.threshold:g}": f"{100 * result.auc:.1f}",
        "failures": f"{100 * result.failure_rate:.1f} %",
    }


def _extremes(measured: Measured | None, scheme: LandmarkScheme) -> tuple[list[Captioned], list[Captioned]]:
    """The faces of the lowest errors, best first, and those of the highest, worst first."""
    if measured is None:
        return [], []
    errors = measured.score.per_face
    order = np.argsort(np.nan_to_num(errors, nan=np.inf))

    def tile(i: int) -> Captioned:
        s = measured.samples[i]
        image = face_tile(read_image(s.image), measured.landmarks[i], scheme, truth=s.landmarks)
        return image, f"{s.name or s.image.name}: {100 * errors[i]:.1f} %"

    return [tile(i) for i in order[:N_TILES]], [tile(i) for i in order[::-1][:N_TILES]]


def _curves(metrics: Sequence[Event]) -> list[dict[str, Any]]:
    """The epochs of a cascade's trainings or of the students, without the students of folds, which serve the teacher alone."""
    return [
        {**e, "part": e["stage"], "training": e["name"]}
        if "stage" in e
        else {
            **e,
            "part": e["student"],
            "training": "synthetic faces" if (e.get("synthetic") or e.get("drawn")) else f"round {e['round']}",
        }
        for e in metrics
        if e["kind"] == "epoch" and "fold" not in e
    ]


def _last_stages(metrics: Sequence[Event]) -> list[Event]:
    """The results of the stages; the last one of a stage that was measured twice, in a run that was resumed."""
    return list({e["stage"]: e for e in metrics if e["kind"] == "stage" and e.get("val_nme") is not None}.values())


def _rounds(records: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    """One row per round: number of selected faces, and validation NME of each student and of all together."""
    rounds: dict[int, dict[str, Any]] = {}
    for record in records:
        row = rounds.setdefault(record.round, {"round": record.round, "n_selected": 0, "val_nme": {}})
        row["n_selected"] = max(row["n_selected"], record.n_selected)
        if record.val_nme is not None:
            row["val_nme"][record.student] = record.val_nme
            row["val_nme"]["ensemble"] = record.ensemble_val_nme
    return [rounds[i] for i in sorted(rounds)]


def _lengths(truth: NDArray[np.float32], scheme: LandmarkScheme) -> NDArray[np.float64]:
    """(U,) normalising lengths of the faces whose labels are known, crop px; boxes are the points' own."""
    lengths = [scheme.normalizer(t, box_of_points(t)) if np.isfinite(t).any() else np.nan for t in truth]
    return np.asarray([n if n > 0 else np.nan for n in lengths], np.float64)


def _quality(records: Sequence[RoundRecord], lengths: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The teacher's quality against the true NME, for the first student of every round."""
    rows: dict[int, dict[str, Any]] = {}
    for record in records:
        selection = record.selection
        if selection is None or selection.quality is None or selection.errors is None or record.round in rows:
            continue
        error = np.asarray([np.nan if e is None else e for e in selection.errors.per_face], np.float64) / lengths
        known = np.isfinite(error)
        rows[record.round] = {
            "round": record.round,
            "quality": np.asarray(selection.quality, np.float64)[known],
            "error": error[known],
            "spearman": selection.errors.rank_correlation["quality"],
        }
    return [rows[i] for i in sorted(rows)]
