"""report.html: a run summarised on one self-contained page."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.files import write_text
from fewmark.landmarks.metrics import auc, failure_rate, spearman
from fewmark.visualization.answers import Answers, good_enough_section, next_section, wrong_section
from fewmark.visualization.ced import ced_chart
from fewmark.visualization.charts import line_chart, scatter_chart

Captioned = tuple[NDArray[np.uint8], str]

_STYLE = """
:root { --ink: #1c2733; --soft: #5d6b79; --line: #e3e8ed; --paper: #f6f8fa; --mark: #0f766e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 44px 0 4px; }
p.note { color: var(--soft); margin: 0 0 14px; max-width: 78ch; }
.facts { display: flex; flex-wrap: wrap; gap: 12px; margin: 22px 0 0; }
.fact { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: 12px 18px; min-width:
132px; } .fact b { display: block; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; }
.fact span { color: var(--soft); font-size: 13px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 16px; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: 14px 12px 8px; }
.card svg { display: block; width: 100%; height: auto; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(196px, 1fr)); gap: 12px; }
figure { margin: 0; background: #fff; border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
figure img { display: block; width: 100%; }
figcaption { padding: 6px 10px 8px; font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; background: #fff; border: 1px solid var(--line); border-radius: 12px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 16px; text-align: right; border-bottom: 1px solid var(--line); font-size: 14px; }
th { color: var(--soft); font-weight: 500; }
.grid > div { min-width: 0; overflow-x: auto; }
.grid table th, .grid table td { padding: 7px 6px; font-size: 13px; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
details { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: 10px 16px; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: 13px; line-height: 1.5; }
ul.said, ol.said { margin: 12px 0; padding-left: 22px; max-width: 96ch; } .said li { margin: 6px 0; }
.said b { font-weight: 600; } .wide { overflow-x: auto; margin-top: 12px; }
td.bar { min-width: 90px; } td.bar i { display: block; height: 9px; border-radius: 3px; background: var(--mark); }
details.face { padding: 0; border: 0; border-radius: 0; } details.face summary { list-style: none; cursor: zoom-in; }
details.face summary::-webkit-details-marker { display: none; }
details.face[open] summary { position: fixed; inset: 0; z-index: 9; padding: 2vh 2vw; background: #0e141aee; cursor: zoom-out; }
details.face[open] img { width: 100%; height: 100%; object-fit: contain; }
@media print { body { background: #fff; } .card, figure { break-inside: avoid; } }
"""


_DOTS = "White dots are the true landmarks. Click a face to enlarge it, again to go back."


def write_report(
    path: str | Path,
    *,
    title: str,
    config: Mapping[str, Any],
    answers: Answers | None = None,
    rounds: Sequence[Mapping[str, Any]] = (),
    metrics: Sequence[Mapping[str, Any]] = (),
    ced: Mapping[str, NDArray[np.floating[Any]]] | None = None,
    best: Sequence[Captioned] = (),
    worst: Sequence[Captioned] = (),
    quality: Sequence[Mapping[str, Any]] = (),
    facts: Mapping[str, str] | None = None,
    normalizer: str = "outer-eye-corners",
    threshold: float = 0.08,
) -> None:
    """Write the report of a run; sections without data are omitted.

    Args:
        path: HTML file; an existing one is replaced.
        title: Title of the page.
        config: Resolved settings, shown collapsed at the end.
        answers: Whether the model is good enough, what went wrong, and what to do next.
        rounds: One entry per round: `round`, `n_selected` (pseudo labels in its training set), `val_nme`
            {network -> NME}; optionally `pseudo_nme` {name -> NME of the pseudo labels with known truth}.
        metrics: One entry per epoch: `part` (a chart), `training` (a line in it), `epoch`, `loss`, `val_nme` (or None).
        ced: Name -> (N,) NME per face, as a fraction; faces with non-finite NME count as not found.
        best: Images (H, W, 3) RGB with the lowest errors, and their captions.
        worst: Images (H, W, 3) RGB with the highest errors, and their captions.
        quality: One entry per round: `round`, `quality` (N,), `error` (N,) true NME of the same pseudo labels.
        facts: Name -> text of the figures shown in large type at the top.
        normalizer: Name of the NME normaliser, for the labels.
        threshold: Upper limit of the CED and its AUC, as a fraction.

    Raises:
        InputError: The file cannot be written.
    """
    answered = [] if answers is None else [good_enough_section(answers), wrong_section(answers)]
    sections = [
        *answered,
        _faces_section("Worst faces", f"Faces with the highest error. {_DOTS}", worst),
        "" if answers is None else next_section(answers),
        _faces_section("Best faces", f"Faces with the lowest error. {_DOTS}", best),
        _rounds_section(rounds, normalizer),
        _ced_section(ced or {}, normalizer, threshold),
        _quality_section(quality, normalizer),
        _training_section(metrics, normalizer),
    ]
    cards = "".join(
        f'<div class="fact"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in (facts or {}).items()
    )
    settings = json.dumps(config, indent=2, default=str, ensure_ascii=False)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>\n"
        f"<h1>{escape(title)}</h1>\n"
        + (f'<div class="facts">{cards}</div>\n' if cards else "")
        + "\n".join(s for s in sections if s)
        + "\n<h2>Settings</h2><details><summary>All settings of this run</summary>"
        + f"<pre>{escape(settings)}</pre></details>\n</main></body></html>\n"
    )
    write_text(path, page)


def image_uri(image: NDArray[np.uint8], quality: int = 88) -> str:
    """Encode an image (H, W, 3) RGB as a data: URI (JPEG)."""
    ok, raw = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"image_uri: cannot encode an image of shape {image.shape}")
    return "data:image/jpeg;base64," + base64.b64encode(raw.tobytes()).decode("ascii")


def _percent(value: Any) -> float:
    return 100 * float(value) if isinstance(value, int | float) else math.nan


def _card(chart: str) -> str:
    return f'<div class="card">{chart}</div>'


def _rounds_section(rounds: Sequence[Mapping[str, Any]], normalizer: str) -> str:
    if not rounds:
        return ""
    names = list(dict.fromkeys(name for r in rounds for name in r.get("val_nme", {})))
    label = f"NME by {normalizer}, %"
    chart = line_chart(
        {n: [(float(r["round"]), _percent(r.get("val_nme", {}).get(n))) for r in rounds] for n in names},
        title="Validation error after each round",
        x_label="round (0: labels only)",
        y_label=label,
        dots=True,
        whole_x=True,
    )
    selected = line_chart(
        {"pseudo labels": [(float(r["round"]), float(r.get("n_selected", 0))) for r in rounds]},
        title="Pseudo labels in the training set",
        x_label="round",
        y_label="faces",
        dots=True,
        whole_x=True,
    )
    known = list(dict.fromkeys(name for r in rounds for name in r.get("pseudo_nme", {})))
    head = "".join(f"<th>{escape(n)}, %</th>" for n in (*names, *(f"error of {k}" for k in known)))
    rows = "".join(
        f"<tr><td>{r['round']}</td><td>{r.get('n_selected', 0)}</td>"
        + "".join(f"<td>{_cell(r.get('val_nme', {}).get(n))}</td>" for n in names)
        + "".join(f"<td>{_cell(r.get('pseudo_nme', {}).get(k))}</td>" for k in known)
        + "</tr>"
        for r in rounds
    )
    table = f"<table><tr><th>round</th><th>pseudo labels per network</th>{head}</tr>{rows}</table>"
    bias = ""
    if any(r.get("val_nme") for r in rounds):
        bias = (
            "The NME at the top is of the whole model, which also averages with the flipped image, if model.flip is on, and adds the "
            "bias of the labels."
        )
    if len(rounds) == 1:  # labels only
        return f"<h2>Rounds</h2><p class='note'>There were no rounds with pseudo labels. {bias}</p>{table}"
    last = "" if rounds[-1].get("n_selected") else "The last training is on labels alone. "
    return (
        "<h2>Rounds</h2><p class='note'>Gain from the unlabelled faces: each round adds the best pseudo "
        "labels to the labelled faces and retrains the networks. Validation faces are never used for training. "
        f'{last}{bias}</p><div class="grid">{_card(chart)}{_card(selected)}</div><div style="margin-top:16px">{table}</div>'
    )


def _cell(value: Any) -> str:
    percent = _percent(value)
    return f"{percent:.2f}" if math.isfinite(percent) else "–"


def _ced_section(ced: Mapping[str, NDArray[np.floating[Any]]], normalizer: str, threshold: float) -> str:
    ced = {name: np.asarray(errors, np.float64) for name, errors in ced.items() if len(errors)}
    if not ced:
        return ""
    rows = ""
    for name, errors in ced.items():
        found = errors[np.isfinite(errors)]
        nme = np.where(np.isfinite(errors), errors, np.inf)
        mean = f"{100 * found.mean():.2f}" if len(found) else "–"
        median = f"{100 * np.median(found):.2f}" if len(found) else "–"
        rows += (
            f"<tr><td>{escape(name)}</td><td>{len(errors)}</td><td>{len(errors) - len(found)}</td>"
            f"<td>{mean}</td>"
            f"<td>{median}</td><td>{100 * auc(nme, threshold):.1f}</td><td>{100 * failure_rate(nme, threshold):.1f}</td></tr>"
        )
    at = f"{100 * threshold:g} %"
    table = (
        "<table><tr><th>faces</th><th>n</th><th>not found</th><th>mean, %</th><th>median, %</th>"
        f"<th>AUC, %</th><th>failed, %</th></tr>{rows}</table>"
        f'<p class="note">Errors are NME by {escape(normalizer)}; the AUC ends at {at}. Faces with a larger '
        "error and faces that were not found count as failures.</p>"
    )
    return f'<h2>Accuracy</h2><div class="grid">{_card(ced_chart(ced, normalizer=normalizer, end=threshold))}<div>{table}</div></div>'


def _faces_section(title: str, note: str, faces: Sequence[Captioned]) -> str:
    if not faces:
        return ""
    figures = "".join(
        f'<figure><details class="face"><summary><img src="{image_uri(image)}" alt="{escape(caption)}"></summary></details>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for image, caption in faces
    )
    return f'<h2>{escape(title)}</h2><p class="note">{escape(note)}</p><div class="faces">{figures}</div>'


def _quality_section(quality: Sequence[Mapping[str, Any]], normalizer: str) -> str:
    charts = ""
    for entry in quality:
        judged, error = np.asarray(entry["quality"], np.float64), 100 * np.asarray(entry["error"], np.float64)
        finite = error[np.isfinite(error)]
        top = float(np.quantile(finite, 0.99)) * 1.1 if len(finite) else 1.0
        rank = quality_rank(judged, error)
        said = "" if rank is None else f", rank correlation {rank:+.2f}: {_judgement(rank)}"
        charts += _card(
            scatter_chart(
                {"pseudo labels": list(zip(judged.tolist(), error.tolist(), strict=True))},
                title=f"Round {entry['round']}{said}",
                x_label="quality predicted by the teacher",
                y_label=f"true NME by {normalizer}, %",
                y_range=(0.0, max(top, 1e-6)),
            )
        )
    if not charts:
        return ""
    return (
        "<h2>Quality predicted by the teacher</h2><p class='note'>Each point is a pseudo label whose true landmarks "
        "are known but were not used for training. A good teacher predicts high quality for low errors: the cloud slopes down to the "
        "right, and Spearman's rank correlation of quality and error is near -1. (In rounds.jsonl the correlation is with "
        "accuracy, so its sign is the other.)</p>"
        f'<div class="grid">{charts}</div>'
    )


def quality_rank(quality: NDArray[np.floating[Any]], error: NDArray[np.floating[Any]]) -> float | None:
    """Spearman's rank correlation of quality and error, -1 for a perfect teacher; None where nothing is ranked."""
    known = np.isfinite(quality) & np.isfinite(error)
    rank = spearman(quality[known], error[known]) if known.sum() > 1 else math.nan
    return rank if math.isfinite(rank) else None


def _judgement(rank: float) -> str:
    if rank > 0.2:
        return "the teacher judges the wrong way round"
    return f"the teacher judges {'well' if rank < -0.6 else 'fairly' if rank < -0.2 else 'badly'}"


def _training_section(metrics: Sequence[Mapping[str, Any]], normalizer: str) -> str:
    charts = ""
    for part in dict.fromkeys(str(m["part"]) for m in metrics):
        own = [m for m in metrics if str(m["part"]) == part]
        names = dict.fromkeys(str(m["training"]) for m in own)
        for field, name, scale in (("loss", "loss", 1.0), ("val_nme", f"NME by {normalizer}, %", 100.0)):
            series = {
                n: [
                    (float(m["epoch"]), scale * float(m[field]))
                    for m in own
                    if str(m["training"]) == n and isinstance(m.get(field), int | float)
                ]
                for n in names
            }
            series = {n: points for n, points in series.items() if points}
            if series:
                what = "training loss" if field == "loss" else "validation error"
                charts += _card(
                    line_chart(series, title=f"{part}: {what}", x_label="epoch", y_label=name, whole_x=True)
                )
    return f'<h2>Training</h2><div class="grid">{charts}</div>' if charts else ""
