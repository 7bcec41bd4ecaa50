"""The report of a run: its detector on the validation faces, and its rounds."""

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
from fewmark.training.validation import Measured
from fewmark.visualization.draw import face_tile
from fewmark.visualization.report import Captioned, write_report

N_TILES = 5
"""Faces among the best, and among the worst."""


def write_run_report(
    path: Path,
    checkpoint: Checkpoint,
    measured: Measured | None,
    *,
    records: Sequence[Event],
    metrics: Sequence[Event],
    truth: NDArray[np.float32],
    seconds: float,
) -> None:
    """Write the report of a run.

    Args:
        path: of the HTML file.
        measured: None = nothing is held out.
        records: of all rounds, as in rounds.jsonl.
        metrics: as in metrics.jsonl.
        truth: (U, K, 2) crop px, labels that the unlabelled faces happen to carry, NaN where there is none.
        seconds: that the run took.
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
        quality=_quality(records, _lengths(truth, scheme)),
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
    """The faces found most closely, best first, and those found least, worst first."""
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
    """The epochs of a cascade's trainings or of the students; a fold's students serve the teacher alone and are left out."""
    return [
        {**e, "part": e["stage"], "training": e["name"]}
        if "stage" in e
        else {**e, "part": e["student"], "training": "synthetic faces" if e.get("synthetic") else f"round {e['round']}"}
        for e in metrics
        if e["kind"] == "epoch" and "fold" not in e
    ]


def _last_stages(metrics: Sequence[Event]) -> list[Event]:
    """What the stages came to; of a stage that was measured twice (in a run that went on) the last."""
    return list({e["stage"]: e for e in metrics if e["kind"] == "stage" and e.get("val_nme") is not None}.values())


def _rounds(records: Sequence[Event]) -> list[dict[str, Any]]:
    """One row a round: pseudo labels taken, and validation NME per student and of all together."""
    rounds: dict[int, dict[str, Any]] = {}
    for record in records:
        row = rounds.setdefault(record["round"], {"round": record["round"], "n_selected": 0, "val_nme": {}})
        row["n_selected"] = max(row["n_selected"], record.get("n_selected", 0))
        if "val_nme" in record:
            row["val_nme"][record["student"]] = record["val_nme"]
            row["val_nme"]["ensemble"] = record["ensemble_val_nme"]
    return [rounds[i] for i in sorted(rounds)]


def _lengths(truth: NDArray[np.float32], scheme: LandmarkScheme) -> NDArray[np.float64]:
    """(U,) normalising lengths of the faces whose labels are known, crop px; boxes are the points' own."""
    lengths = [scheme.normalizer(t, box_of_points(t)) if np.isfinite(t).any() else np.nan for t in truth]
    return np.asarray([n if n > 0 else np.nan for n in lengths], np.float64)


def _quality(records: Sequence[Event], lengths: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The teacher's quality against the true NME, for the first student of every round."""
    found: dict[int, dict[str, Any]] = {}
    for record in records:
        if record.get("quality") is None or record.get("true_error") is None or record["round"] in found:
            continue
        error = np.asarray([np.nan if e is None else e for e in record["true_error"]], np.float64) / lengths
        seen = np.isfinite(error)
        found[record["round"]] = {
            "round": record["round"],
            "quality": np.asarray(record["quality"], np.float64)[seen],
            "error": error[seen],
            "spearman": record["rank_correlation"]["quality"],
        }
    return [found[i] for i in sorted(found)]
