"""Measure a detector on labelled faces, and write its cumulative error curve."""

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
"""Name of all lists together."""
PLOT_SUFFIXES = (".csv", ".html", ".pdf", ".png", ".svg")


def evaluate(
    detector: Detector,
    samples: Sequence[FaceSample],
    *,
    box: BoxKind = "gt",
    normalizer: str | None = None,
    threshold: float = THRESHOLD,
    flip: bool | None = None,
    passes: int | None = None,
    scheme: str | None = None,
) -> Score:
    """Measure a detector on labelled faces: NME, AUC and failure rate.

    Args:
        detector: Finds the landmarks.
        samples: Labelled faces, e.g. from `read_faces`.
        box: Which box to crop around: "gt" the tight box of the true landmarks, "detect" the detected face, "column" the box in the
            label file; see `predict_samples`.
        normalizer: Name of the scheme's normaliser; None: its default.
        threshold: NME (a fraction) up to which AUC is taken, and above which a face counts as a failure.
        flip: See `Detector.detect`.
        passes: See `Detector.detect`.
        scheme: Annotation scheme of the labels; None: the model's.

    Raises:
        InputError: The normaliser or scheme is unknown, or see `predict_samples` and `score`.
    """
    lists = {"": samples}
    return evaluate_lists(
        detector,
        lists,
        box=box,
        normalizer=normalizer,
        threshold=threshold,
        flip=flip,
        passes=passes,
        scheme=scheme,
    )[""]


def evaluate_lists(
    detector: Detector,
    lists: Mapping[str, Sequence[FaceSample]],
    *,
    box: BoxKind = "gt",
    normalizer: str | None = None,
    threshold: float = THRESHOLD,
    flip: bool | None = None,
    passes: int | None = None,
    scheme: str | None = None,
) -> dict[str, Score]:
    """Measure a detector on several lists of labelled faces, and on all their faces together; see `evaluate`.

    Args:
        detector: See `evaluate`.
        lists: Name -> labelled faces. A face in several lists is predicted, and counted among all, once.
        box: See `evaluate`.
        normalizer: See `evaluate`.
        threshold: See `evaluate`.
        flip: See `evaluate`.
        passes: See `evaluate`.
        scheme: See `evaluate`.

    Returns:
        One score per list, in order, and `FULL` last if there are several lists.

    Raises:
        InputError: See `evaluate`.
    """
    target = detector.checkpoint.scheme_of(scheme)
    target.get_normalizer(normalizer or target.default_normalizer)
    index_of: dict[tuple[Path, str], int] = {}
    samples: list[FaceSample] = []
    rows: dict[str, list[int]] = {}
    for name, part in lists.items():
        rows[name] = []
        for s in part:
            key = (s.image, s.name)
            if key not in index_of:
                index_of[key] = len(samples)
                samples.append(s)
            rows[name].append(index_of[key])
    found = predict_samples(detector, samples, box, flip=flip, passes=passes, scheme=scheme).landmarks
    if len(lists) > 1:
        rows[FULL] = list(range(len(samples)))
    true = stack_landmarks(samples)
    boxes = np.stack([s.face_box() for s in samples])
    return {
        name: score(found[r], true[r], target, boxes=boxes[r], normalizer=normalizer, threshold=threshold)
        for name, r in rows.items()
    }


def summary(result: Score, box: str) -> dict[str, Any]:
    """Convert a score to plain data for JSON, without the values per face."""
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
    """Write cumulative error distributions: the share of faces with at most a given NME.

    Args:
        path: Its suffix selects the format: .csv (list, nme, share), .html (a self-contained chart), or .png, .svg and .pdf by
            matplotlib.
        scores: Name -> score, all by one normaliser; at least one.

    Raises:
        InputError: The suffix is another, matplotlib is missing, or the file cannot be written.
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
    """Check that a plot can be written to a path; returns the path.

    Raises:
        InputError: Its suffix is none of `PLOT_SUFFIXES`, or it needs matplotlib, which is missing.
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
    """The curve as a step function, up to `end`."""
    x, y = ced(per_face)
    kept = x <= end
    x, y = x[kept], y[kept]
    return np.append(np.repeat(x, 2)[1:], end), np.repeat(y, 2)
