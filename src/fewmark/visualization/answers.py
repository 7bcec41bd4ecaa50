"""The sections of a report that answer: is it good enough, what went wrong, what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from fewmark.core.geometry import FloatArray
from fewmark.core.text import percent
from fewmark.landmarks.metrics import Score
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.visualization.error_map import error_map

N_WORST = 5
"""Landmarks that are named."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a report answers.

    Attributes:
        scores: Name of a measurement -> its score, the model's on the validation faces first.
        remarks: What these say in words, one sentence or more each.
        how_to: What to run to learn what is not known, or "".
        face: (K, 2) a usual face, y downwards, or None.
        scheme: Scheme of the landmarks.
        others: Name of another model -> its NME per component, for the component table.
        advice: What was found and what to do about it.
        label_next: Names of faces to label next.
    """

    scheme: LandmarkScheme
    scores: Mapping[str, Score] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    how_to: str = ""
    face: FloatArray | None = None
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    advice: Sequence[tuple[str, str]] = ()
    label_next: Sequence[str] = ()


def good_enough_section(answers: Answers) -> str:
    """The model's error beside that of others, and what it means."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{s.n_faces}</td><td>{percent(s.nme)}</td><td>{percent(s.standard_error)}</td>"
        f"<td>{percent(s.median)}</td><td>{100 * s.failure_rate:.1f} %</td><td>{s.n_undetected}</td></tr>"
        for name, s in answers.scores.items()
    )
    table = (
        '<div class="wide"><table><tr><th>measured on</th><th>faces</th><th>NME</th><th>standard error</th><th>median</th>'
        f"<th>failed</th><th>not found</th></tr>{rows}</table></div>"
    )
    remarks = "".join(f"<li>{escape(r)}</li>" for r in answers.remarks)
    how_to = (
        f"<details><summary>Measure it by labelling twice</summary><pre>{escape(answers.how_to)}</pre></details>"
        if answers.how_to
        else ""
    )
    return f'<h2>Is it good enough?</h2>{table if rows else ""}<ul class="said">{remarks}</ul>{how_to}'


def wrong_section(answers: Answers) -> str:
    """Errors per landmark and component of the first score, and the landmarks of the highest."""
    if not answers.scores:
        return ""
    score = next(iter(answers.scores.values()))
    scheme, errors = answers.scheme, score.per_landmark
    chart = (
        "" if answers.face is None else f'<div class="card">{error_map(answers.face, errors.tolist(), scheme)}</div>'
    )
    return (
        "<h2>What went wrong</h2><p class='note'>Mean error of each landmark on the validation faces, NME by "
        f"{escape(score.normalizer)}; larger and redder is worse.</p>"
        f'<div class="grid">{chart}<div>{_components(answers, score)}{_landmarks(scheme, errors)}</div></div>'
    )


def _components(answers: Answers, score: Score) -> str:
    if not score.per_component:
        return ""
    top = max((e for e in score.per_component.values() if math.isfinite(e)), default=1.0) or 1.0
    head = "".join(f"<th>{escape(n)}</th>" for n in answers.others)
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{len(answers.scheme.components[name])}</td><td>{percent(e)}</td>"
        + "".join(f"<td>{percent(o.get(name))}</td>" for o in answers.others.values())
        + f'<td class="bar"><i style="width:{100 * e / top if math.isfinite(e) else 0:.0f}%"></i></td></tr>'
        for name, e in score.per_component.items()
    )
    return f"<table><tr><th>component</th><th>points</th><th>NME</th>{head}<th></th></tr>{rows}</table>"


def _landmarks(scheme: LandmarkScheme, errors: FloatArray) -> str:
    order = np.argsort(np.where(np.isfinite(errors), -errors, np.inf), kind="stable")[:N_WORST]
    rows = "".join(
        f"<tr><td>{i} {escape(scheme.landmarks[i])}</td><td>{percent(float(errors[i]))}</td></tr>"
        for i in order.tolist()
        if math.isfinite(errors[i])
    )
    return f'<table style="margin-top:14px"><tr><th>worst landmarks</th><th>NME</th></tr>{rows}</table>' if rows else ""


def next_section(answers: Answers) -> str:
    """What was found and what to do, and the faces to label next."""
    if not answers.advice:
        return ""
    items = "".join(f"<li>{escape(finding)} <b>{escape(action)}</b></li>" for finding, action in answers.advice)
    names = escape("\n".join(answers.label_next))
    faces = (
        f"<details><summary>The {len(answers.label_next)} unlabelled faces of the lowest quality, worst first</summary>"
        f"<pre>{names}</pre></details>"
        if names
        else ""
    )
    return f'<h2>What to do next</h2><ol class="said">{items}</ol>{faces}'
