"""The report of a run: its detector on the validation faces, its trainings and its rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import box_of_points
from fewmark.core.text import count, percent
from fewmark.data.images import read_image
from fewmark.data.samples import face_name, usual_face
from fewmark.inference.checkpoint.io import Checkpoint
from fewmark.landmarks.metrics import Score, landmark_errors
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.advice import ENOUGH_HELD_OUT, Numbers, advise, n_next
from fewmark.training.events import Event
from fewmark.training.faces import TrainingData
from fewmark.training.semi.rounds import RoundRecord
from fewmark.training.trained import Trained
from fewmark.training.validation import PACKAGED, Measured, measure_detected, measure_packaged, measure_training
from fewmark.visualization.answers import Answers
from fewmark.visualization.draw import face_tile
from fewmark.visualization.report import Captioned, quality_rank, write_report

N_TILES = 5
"""Number of best and of worst faces that are shown."""
TILE = 512
"""Side of their images, px; they are shown smaller until they are clicked."""


def write_run_report(
    path: Path,
    checkpoint: Checkpoint,
    measured: Measured | None,
    *,
    data: TrainingData,
    trained: Trained,
    metrics: Sequence[Event],
    seconds: float,
) -> None:
    """Write the report of a run.

    Args:
        path: The HTML file.
        checkpoint: The model.
        measured: Its predictions on the validation faces, or None where nothing is held out.
        data: Faces of the run.
        trained: What it trained.
        metrics: Events of metrics.jsonl.
        seconds: Duration of the run.
    """
    scheme, records, truth = checkpoint.scheme, trained.records, trained.truth
    best, worst = _extremes(measured, scheme)
    score = None if measured is None else measured.score
    quality = [] if truth is None else _quality(records, _lengths(truth, scheme))
    used, given = trained.n_unlabelled, len(data.unlabelled)
    learned = f"{len(data.labelled)} labelled, {used} unlabelled"
    if trained.cascade is not None:
        learned = f"a cascade from {count(len(data.labelled), 'labelled face')}"
    write_report(
        path,
        title=f"{scheme.name}: {learned}, {len(data.validation)} validation faces",
        config=checkpoint.config,
        answers=_answers(checkpoint, measured, data, trained, quality),
        rounds=_rounds(records),
        metrics=_curves(metrics),
        ced={} if score is None else {"validation": score.per_face[~np.isnan(score.per_face)]},
        best=best,
        worst=worst,
        quality=quality,
        facts={
            **({} if score is None else _score_facts(score)),
            **{f"NME after {e['stage']}": f"{100 * e['val_nme']:.2f} %" for e in _last_stages(metrics)},
            "labelled faces": str(len(data.labelled)),
            "validation faces": str(len(data.validation)),
            "unlabelled faces": str(used) if used == given else f"{used} of {given} given",
            **({"of these pseudo-labelled in the end": str(trained.n_pseudo)} if trained.n_pseudo else {}),
            **({"of these labelled by the start's landmarks": str(trained.n_converted)} if trained.n_converted else {}),
            "minutes": f"{seconds / 60:.1f}",
        },
        normalizer=scheme.default_normalizer,
    )


def _answers(
    checkpoint: Checkpoint,
    measured: Measured | None,
    data: TrainingData,
    trained: Trained,
    quality: Sequence[Mapping[str, Any]],
) -> Answers:
    """Measure what the numbers are compared with, and say what they mean."""
    scheme = checkpoint.scheme
    scores: dict[str, Score] = {}
    remarks = ["No face is held out: give --val."] if measured is None else []
    ahead = ""
    others: dict[str, Mapping[str, float]] = {}
    training = detected = None
    if measured is not None:
        scores["validation faces"] = measured.score
        if (detected := measure_detected(checkpoint, measured.samples)) is not None:
            scores["validation faces, boxes of the face detector"] = detected
        if (packaged := measure_packaged(measured.samples, scheme)) is not None:
            scores[f"validation faces, packaged {PACKAGED}"] = packaged[1]
            others[PACKAGED] = packaged[1].per_component
            gain = _difference(measured.score, packaged[1])
            remarks += _beside_packaged(*gain, packaged[0].provenance)
            if gain[0] > 2 * gain[1] and packaged[0].scheme.landmarks == scheme.landmarks:
                ahead = f"The packaged model is better on these faces: {percent(packaged[1].nme)}."
        else:
            remarks.append(f"No packaged model finds the landmarks of scheme {scheme.name!r} to compare with.")
        if math.isfinite(trained.start_nme):
            remarks.append(
                f"The landmarks of the model that it started from, converted: {percent(trained.start_nme)} in boxes of the face detector."
            )
        if (training := measure_training(checkpoint, data.labelled)) is not None:
            scores["labelled faces, which it learned from"] = training
        remarks = [_precision(measured.score), *remarks, _SPREAD]
    ranked, rank = _ranked(trained), None
    if quality:
        rank = quality_rank(np.asarray(quality[-1]["quality"]), np.asarray(quality[-1]["error"]))
    numbers = Numbers(
        n_labelled=len(data.labelled),
        validation=None if measured is None else measured.score,
        training=training,
        detected=detected,
        packaged=others.get(PACKAGED),
        packaged_ahead=ahead,
        n_without_face=len(data.unlabelled) - trained.n_unlabelled if trained.n_unlabelled else 0,
        records=trained.records,
        n_ranked=len(ranked),
        rank=rank,
    )
    return Answers(
        scheme,
        scores,
        remarks,
        how_to="" if measured is None else _LABEL_TWICE.format(scheme=scheme.name),
        face=usual_face([*data.labelled, *data.validation], scheme),
        others=others,
        advice=advise(numbers),
        label_next=ranked[: n_next(len(data.labelled))],
    )


_SPREAD = "The least error that can be reached is the spread of the annotators. It is not known for these labels: labels made once cannot tell it."
_LABEL_TWICE = """# label some 20 of the validation faces again without looking at the first labels, save both as tables, and compare them:
import fewmark, numpy as np
scheme = fewmark.load_scheme("{scheme}")  # or the scheme's file
first = {{f.name: f for f in fewmark.read_faces("first.csv", scheme=scheme)}}
second = [f for f in fewmark.read_faces("second.csv", scheme=scheme) if f.name in first]
same = [first[f.name] for f in second]
boxes = np.stack([f.face_box() for f in same])
print(fewmark.score(np.stack([f.landmarks for f in second]), np.stack([f.landmarks for f in same]), scheme, boxes=boxes))"""


def _precision(score: Score) -> str:
    """How exact the NME is."""
    text = f"NME {percent(score.nme)} on {count(score.n_faces, 'validation face')}"
    if not np.isfinite(score.standard_error):
        return f"{text}: too few to say how exact that is."
    rough = f"; fewer than {ENOUGH_HELD_OUT} faces: a rough figure" if score.n_faces < ENOUGH_HELD_OUT else ""
    return f"{text}, standard error {percent(score.standard_error)} (deviation / √n){rough}."


def _difference(own: Score, packaged: Score) -> tuple[float, float]:
    """Mean difference of NME on the faces that both found, and its standard error; NaN for fewer than two."""
    both = np.isfinite(own.per_face) & np.isfinite(packaged.per_face)
    difference = own.per_face[both] - packaged.per_face[both]
    if len(difference) < 2:
        return np.nan, np.nan
    return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _beside_packaged(mean: float, error: float, provenance: str) -> list[str]:
    """The difference to the packaged model in words."""
    if not np.isfinite(mean):
        return []
    said = "no clear difference" if abs(mean) <= 2 * error else "this model is " + ("better" if mean < 0 else "worse")
    return [
        f"Beside {PACKAGED} on the same faces: {100 * mean:+.2f} ± {100 * error:.2f} percentage points of NME: {said}. {PACKAGED} was "
        f"{provenance}; faces from there flatter it."
    ]


def _ranked(trained: Trained) -> list[str]:
    """Names of the unlabelled faces that the last teacher judged, worst first."""
    for record in reversed(trained.records):
        judged = None if record.selection is None else record.selection.quality
        if judged is not None and len(judged) == len(trained.names):
            return [trained.names[i] for i in np.argsort(judged, kind="stable")]
    return []


def _score_facts(result: Score) -> dict[str, str]:
    return {
        f"validation NME ({result.normalizer})": percent(result.nme),
        f"AUC at {result.threshold:g}": f"{100 * result.auc:.1f}",
        "failures": f"{100 * result.failure_rate:.1f} %",
    }


def _extremes(measured: Measured | None, scheme: LandmarkScheme) -> tuple[list[Captioned], list[Captioned]]:
    """The faces of the lowest errors, best first, and those of the highest, worst first."""
    if measured is None:
        return [], []
    errors = measured.score.per_face
    order = measured.score.worst_faces(len(errors))
    distances = landmark_errors(measured.landmarks, measured.truth)

    def tile(i: int) -> Captioned:
        s = measured.samples[i]
        image = face_tile(read_image(s.image), measured.landmarks[i], scheme, size=TILE, truth=s.landmarks)
        return (
            image,
            f"{face_name(s)}: {100 * errors[i]:.1f} %, most at {scheme.landmarks[int(np.nanargmax(distances[i]))]}",
        )

    return [tile(i) for i in order[::-1][:N_TILES]], [tile(i) for i in order[:N_TILES]]


def _curves(metrics: Sequence[Event]) -> list[dict[str, Any]]:
    """The epochs of a cascade's trainings or of the students, without the students of folds, which serve the teacher alone."""
    return [
        {**e, "part": e["stage"], "training": e["name"]}
        if "stage" in e
        else {
            **e,
            "part": e["student"],
            "training": _training_of(e),
        }
        for e in metrics
        if e["kind"] == "epoch" and "fold" not in e
    ]


def _training_of(epoch: Event) -> str:
    if epoch.get("synthetic") or epoch.get("drawn"):
        return "synthetic faces"
    if epoch.get("last"):
        return "labels, last"
    return "converted landmarks" if epoch.get("converted") else f"round {epoch['round']}"


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
    for row in rounds.values():  # all together last, as in the terminal
        row["val_nme"] = {n: e for n, e in row["val_nme"].items() if n != "ensemble"} | (
            {"ensemble": row["val_nme"]["ensemble"]} if "ensemble" in row["val_nme"] else {}
        )
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
        }
    return [rows[i] for i in sorted(rows)]
