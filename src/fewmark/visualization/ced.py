"""Cumulative error distributions (CED) as charts and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, write_text
from fewmark.core.geometry import FloatArray
from fewmark.core.install import install_hint
from fewmark.landmarks.metrics import Score, ced
from fewmark.visualization.charts import Point, line_chart

CED_SUFFIXES = (".csv", ".html", ".pdf", ".png", ".svg")

_TITLE = "Cumulative error distribution"


def ced_points(nme: FloatArray, end: float) -> list[Point]:
    """Compute the corners of the CED steps from 0 to `end`.

    Args:
        nme: (N,) per-face NME, a fraction; values that are not finite count as above every threshold.
        end: NME at which the curve ends, a fraction.

    Returns:
        (NME, share of the faces with at most that NME), both in %.

    >>> ced_points(np.array([0.01, 0.05, np.inf, 0.2]), 0.08)
    [(0.0, 0.0), (1.0, 0.0), (1.0, 25.0), (5.0, 25.0), (5.0, 50.0), (8.0, 50.0)]
    """
    x, y = ced(np.where(np.isfinite(nme), nme, np.inf))
    x, y = x[x <= end], y[x <= end]
    corners = np.append(np.repeat(x, 2)[1:], end), np.repeat(y, 2)
    return [(round(100 * a, 6), round(100 * b, 6)) for a, b in zip(*(c.tolist() for c in corners), strict=True)]


def ced_chart(
    curves: Mapping[str, FloatArray], *, normalizer: str, end: float, y_label: str = "faces with at most this NME, %"
) -> str:
    """Draw one CED per name as SVG text.

    Args:
        curves: name -> (N,) per-face NME; see `ced_points`.
        normalizer: normaliser of the NME, for the axis label.
        end: end of the x axis, a fraction.
        y_label: label of the y axis.
    """
    return line_chart(
        {name: ced_points(nme, end) for name, nme in curves.items()},
        title=_TITLE,
        x_label=f"NME ({normalizer}), %",
        y_label=y_label,
        x_range=(0.0, 100 * end),
        y_range=(0.0, 100.0),
    )


def write_ced(path: str | Path, scores: Mapping[str, Score]) -> None:
    """Write the CED of one or more scores up to twice their threshold.

    Args:
        path: output file; its suffix selects the format: .csv (list, nme, share), .html (a self-contained chart), or .png,
            .svg, .pdf (drawn by matplotlib).
        scores: name -> score, all with one normaliser; at least one.

    Raises:
        InputError: unknown suffix, matplotlib is missing, or the file cannot be written.
    """
    path = check_ced_path(path)
    first = next(iter(scores.values()))
    end = 2 * first.threshold
    scored = {name: s.per_face[~np.isnan(s.per_face)] for name, s in scores.items()}
    suffix = path.suffix.lower()
    if suffix == ".csv":
        lines = ["list,nme,share"]
        for name, nme in scored.items():
            lines += [f"{name},{a:.6g},{b:.6g}" for a, b in zip(*ced(nme), strict=True)]
        write_text(path, "\n".join(lines) + "\n")
    elif suffix == ".html":
        chart = ced_chart(scored, normalizer=first.normalizer, end=end, y_label="faces, %")
        head = f'<!doctype html><meta charset="utf-8"><title>{_TITLE}</title>'
        write_text(path, f'{head}<body style="max-width:860px;margin:24px auto">{chart}</body>\n')
    else:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name, nme in scored.items():
            axes.plot(*np.array(ced_points(nme, end)).T, label=f"{name}: NME {100 * scores[name].nme:.2f} %")
        axes.set(
            title=_TITLE, xlabel=f"NME ({first.normalizer}), %", ylabel="faces, %", xlim=(0, 100 * end), ylim=(0, 100)
        )
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)


def check_ced_path(path: str | Path) -> Path:
    """Check, before any work is done, that a CED can be written to `path`.

    Raises:
        InputError: the suffix is not one of `CED_SUFFIXES`, or it needs matplotlib, which is missing.
    """
    path = Path(path)
    if path.suffix.lower() not in CED_SUFFIXES:
        raise InputError(f"{path}: expected a file name ending in {', '.join(CED_SUFFIXES)}")
    if path.suffix.lower() not in (".csv", ".html"):
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise InputError(
                f"{path}: needs matplotlib: {install_hint('plot')}, or name a .html or .csv file"
            ) from error
    return path
