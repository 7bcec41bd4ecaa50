"""How good a detector is on lists of labelled faces, and the curve of it in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, write_text
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.metrics import THRESHOLD, Score, ced, score
from fewmark.visualization.charts import line_chart

FULL = "full"
"""The name of all lists together."""
PLOT_SUFFIXES = (".csv", ".html", ".pdf", ".png", ".svg")


def evaluate_lists(
    detector: Detector,
    lists: Mapping[str, Sequence[FaceSample]],
    *,
    box: BoxKind = "gt",
    normalizer: str | None = None,
    threshold: float = THRESHOLD,
    scheme: str | None = None,
) -> dict[str, Score]:
    """Score a detector on each list, and on all their faces together.

    Args:
        detector: its settings say whether it looks at the flipped image too.
        lists: name -> labelled faces; a face that is in several lists is looked at, and counted in all, once.
        box: where a face is, see `predict_samples`.
        normalizer: of the scheme; None = its default.
        threshold: of AUC and failure rate.
        scheme: of the labels, see `predict_samples`; None = the model's.

    Returns:
        one score a list, in order, and `FULL` last where there are several lists.

    Raises:
        InputError: an unknown normaliser or scheme, or the reasons of `predict_samples` and `score`.
    """
    meaning = detector.checkpoint.scheme_of(scheme)
    meaning.get_normalizer(normalizer or meaning.default_normalizer)
    places: dict[tuple[Path, str], int] = {}
    samples: list[FaceSample] = []
    rows: dict[str, list[int]] = {}
    for name, part in lists.items():
        rows[name] = []
        for s in part:
            key = (s.image, s.name)
            if key not in places:
                places[key] = len(samples)
                samples.append(s)
            rows[name].append(places[key])
    found = predict_samples(detector, samples, box, flip=detector.checkpoint.flip, scheme=scheme).landmarks
    if len(lists) > 1:
        rows[FULL] = list(range(len(samples)))
    true = stack_landmarks(samples)
    boxes = np.stack([s.face_box() for s in samples])
    return {
        name: score(found[r], true[r], meaning, boxes=boxes[r], normalizer=normalizer, threshold=threshold)
        for name, r in rows.items()
    }


def summary(result: Score, box: str) -> dict[str, Any]:
    """A score as plain data for JSON, without the values per face."""
    data = result.to_dict()
    wanted = ("nme", "auc", "failure_rate", "normalizer", "threshold", "n_faces", "n_landmarks", "n_missing")
    return {
        **{name: data[name] for name in wanted},
        "n_undetected": data["n_undetected"],
        "n_left_out": data["n_left_out"],
        "box": box,
        "per_component": data["per_component"],
    }


def write_ced(path: str | Path, scores: Mapping[str, Score]) -> None:
    """Write cumulative error distributions: which share of the faces has at most a given NME.

    Args:
        path: its suffix says what: .csv (list, nme, share), .html (a chart that needs nothing else), or
            .png, .svg, .pdf by matplotlib.
        scores: name -> score, all by one normaliser; at least one.

    Raises:
        InputError: another suffix, matplotlib is missing, or the file cannot be written.
    """
    path = check_plot(path)
    first = next(iter(scores.values()))
    end = 2 * first.threshold
    curves = {name: _steps(s.per_face, end) for name, s in scores.items()}
    title, x_label = "Cumulative error distribution", f"NME ({first.normalizer}), %"
    y_label = "faces, %"
    suffix = path.suffix.lower()
    if suffix == ".csv":
        lines = ["list,nme,share"]
        for name, result in scores.items():
            x, y = ced(result.per_face)
            lines += [f"{name},{a:.6g},{b:.6g}" for a, b in zip(x, y, strict=True)]
        write_text(path, "\n".join(lines) + "\n")
    elif suffix == ".html":
        chart = line_chart(
            {name: list(zip((100 * x).tolist(), (100 * y).tolist(), strict=True)) for name, (x, y) in curves.items()},
            title=title,
            x_label=x_label,
            y_label=y_label,
            x_range=(0, 100 * end),
            y_range=(0, 100),
        )
        head = f'<!doctype html><meta charset="utf-8"><title>{title}</title>'
        write_text(path, f'{head}<body style="max-width:860px;margin:24px auto">{chart}</body>\n')
    else:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name, (x, y) in curves.items():
            axes.plot(100 * x, 100 * y, label=f"{name}: NME {100 * scores[name].nme:.2f} %")
        axes.set(title=title, xlabel=x_label, ylabel=y_label, xlim=(0, 100 * end), ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def check_plot(path: str | Path) -> Path:
    """The path of a plot that can be written here.

    Raises:
        InputError: its suffix is none of `PLOT_SUFFIXES`, or it needs matplotlib, which is missing.
    """
    path = Path(path)
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise InputError(f"{path}: expected a file name that ends in {', '.join(PLOT_SUFFIXES)}")
    if path.suffix.lower() not in (".csv", ".html"):
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"{path}: needs matplotlib: pip install 'fewmark[plot]', or name a .html or .csv file"
            ) from error
    return path


def _steps(per_face: NDArray[np.float64], end: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve with its steps drawn out, up to `end`."""
    x, y = ced(per_face)
    kept = x <= end
    x, y = x[kept], y[kept]
    return np.append(np.repeat(x, 2)[1:], end), np.repeat(y, 2)
