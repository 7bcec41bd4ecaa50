"""Write robustness as tables, charts, an HTML page or JSON."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, write_text
from fewmark.core.install import install_hint
from fewmark.core.text import percent
from fewmark.evaluation.robustness import RISE, Curve, Kind, Level, Robustness
from fewmark.visualization.charts import Point, line_chart

SUFFIXES = (".html", ".json", ".png")
TITLES: Mapping[Kind, str] = {
    "shift": "Box shifted, mean over 8 directions",
    "scale": "Box scaled",
    "rotation": "Image rotated about the face",
    "size": "Face reduced",
    "yaw": "Head turned to either side",
    "roll": "Head tilted",
}
_AXES: Mapping[Kind, str] = {
    "shift": "shift, % of the box's longer side",
    "scale": "factor of the box's sides",
    "rotation": "degrees counter-clockwise",
    "size": "longer side of the box at most, px",
    "yaw": "yaw to either side, mean of the bin, degrees",
    "roll": "roll to either side, mean of the bin, degrees",
}
_HEADINGS: Mapping[Kind, str] = {"shift": "shift", "scale": "factor", "rotation": "angle", "size": "side"}
_TOP = 4.0  # charts end at this multiple of the unperturbed NME; the differences that matter are below
_STYLE = (
    "body{max-width:1180px;margin:24px auto;padding:0 16px;font:15px/1.5 system-ui,sans-serif;color:#1c2733}"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:16px}svg{width:100%;height:auto}"
    "table{border-collapse:collapse;margin:8px 0 24px;font-variant-numeric:tabular-nums}"
    "th,td{padding:4px 14px;text-align:right;border-bottom:1px solid #e3e8ed;font-size:14px}"
    "th:first-child,td:first-child{text-align:left}th{font-weight:500;color:#5d6b79}"
)


def check_output(path: str | Path) -> Path:
    """Check that `write_robustness` can write to a path; returns the path.

    Raises:
        InputError: Its suffix is none of `SUFFIXES`, or it needs matplotlib, which is missing.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: expected a file name that ends in {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".png":
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError as error:
            raise InputError(f"{path}: needs matplotlib: {install_hint('plot')}, or name a .html file") from error
    return path


def write_robustness(
    path: str | Path, result: Robustness, *, title: str, context: Mapping[str, Any] | None = None
) -> None:
    """Write a result to a file.

    Args:
        path: Its suffix selects the format: .html (a self-contained page of charts and tables), .json (`Robustness.to_dict`), or
            .png (the charts, by matplotlib).
        result: With at least one curve.
        title: Title of the page or image.
        context: More fields of the JSON, before the others.

    Raises:
        InputError: The suffix is another, matplotlib is missing, or the file cannot be written.
    """
    path = check_output(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        data = {**(context or {}), **result.to_dict()}
        write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    elif suffix == ".html":
        write_text(path, _page(result, title))
    else:
        _image(path, result, title)


def kinds_of(result: Robustness) -> list[Kind]:
    """The kinds of the curves, in their order."""
    return list(dict.fromkeys(c.kind for c in result.curves))


def title_of(curve: Curve) -> str:
    """Title of a curve: the perturbation and the number of passes."""
    return f"{TITLES[curve.kind]}, {passes_text(curve.passes)}"


def table_of(curve: Curve) -> tuple[list[str], list[list[str]]]:
    """A curve as text: headings, and one row per level."""
    worst = ["worst direction"] if curve.kind == "shift" else []
    headings = [_HEADINGS.get(curve.kind, curve.kind), "NME", "ratio", "failures", *worst, "faces"]
    rows = []
    for v in curve.levels:
        row = [v.label, percent(v.nme), _ratio(v), percent(v.failure_rate)]
        row += [_worst(v)] if worst else []
        rows.append([*row, str(v.n_faces)])
    return headings, rows


def summary_lines(result: Robustness) -> list[str]:
    """Summary sentences: the unperturbed faces, the tolerated shift, and notes."""
    plain = result.unperturbed
    lines = [
        f"unperturbed: NME {percent(plain.nme)} by {result.normalizer}, failures {percent(plain.failure_rate)} at "
        f"{100 * result.threshold:g} %, {plain.n_faces} faces"
        + (f", {result.n_left_out} left out" if result.n_left_out else "")
    ]
    for n, shift in result.tolerated_shift.items():
        largest = 100 * result.curve("shift", n).levels[-1].value
        where = f"no shift up to {largest:g} %" if shift is None else f"a shift of {100 * shift:.1f} %"
        lines.append(f"NME is {100 * RISE:g} % higher, with {passes_text(n)}, at {where} of the box's longer side")
    return [*lines, *result.notes]


def passes_text(passes: int) -> str:
    """Number of passes in words."""
    return "one pass" if passes == 1 else f"{passes} passes"


def _ratio(level: Level) -> str:
    return f"{level.ratio:.2f}" if math.isfinite(level.ratio) else "-"


def _worst(level: Level) -> str:
    return "" if level.worst_nme is None else f"{percent(level.worst_nme)} {level.worst_direction}"


def _lines(result: Robustness, kind: Kind) -> dict[str, list[Point]]:
    """Lines of a chart: name -> (value, NME in %); the unperturbed faces as a horizontal line."""
    x_scale = 100.0 if kind == "shift" else 1.0
    curves = [c for c in result.curves if c.kind == kind]
    lines: dict[str, list[Point]] = {}
    for c in curves:
        name = "once" if c.passes == 1 else "twice"  # short: the legend is one line
        lines[name] = [(x_scale * v.value, 100 * v.nme) for v in c.levels]
        if kind == "shift":
            worst = [v.nme if v.worst_nme is None else v.worst_nme for v in c.levels]
            lines[f"{name}, worst"] = [(x_scale * v.value, 100 * w) for v, w in zip(c.levels, worst, strict=True)]
    ends = [v.value * x_scale for c in curves for v in c.levels]
    lines["unperturbed"] = [(min(ends), 100 * result.unperturbed.nme), (max(ends), 100 * result.unperturbed.nme)]
    return lines


def _top(result: Robustness, lines: Mapping[str, list[Point]]) -> float:
    """End of the y axis, %."""
    values = [y for line in lines.values() for _, y in line if math.isfinite(y)]
    highest, plain = max(values, default=0.0), 100 * result.unperturbed.nme
    top = 1.06 * highest
    return (min(top, _TOP * plain) if math.isfinite(plain) and plain > 0 else top) or 1.0


def _below(line: list[Point], top: float) -> list[Point]:
    """Cut a line where it leaves the chart; NaN outside."""
    kept: list[Point] = []
    for before, after in itertools.pairwise([line[0], *line]):
        low, high = sorted((before, after), key=lambda p: p[1])
        if low[1] <= top < high[1] < math.inf:
            fraction = (top - low[1]) / (high[1] - low[1])
            kept.append((low[0] + fraction * (high[0] - low[0]), top))
        kept.append(after if after[1] <= top else (after[0], math.nan))
    return kept


def _page(result: Robustness, title: str) -> str:
    charts, tables, cut = "", "", False
    for kind in kinds_of(result):
        lines = _lines(result, kind)
        top = _top(result, lines)
        cut = cut or any(y > top for line in lines.values() for _, y in line)
        chart = line_chart(
            {name: _below(line, top) for name, line in lines.items()},
            title=TITLES[kind],
            x_label=_AXES[kind],
            y_label=f"NME ({result.normalizer}), %",
            y_range=(0.0, top),
            dots=True,
        )
        charts += f"<div>{chart}</div>"
    for curve in result.curves:
        headings, rows = table_of(curve)
        head = "".join(f"<th>{escape(h)}</th>" for h in headings)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        tables += f"<h2>{escape(title_of(curve))}</h2><table><tr>{head}</tr>{body}</table>"
    summary = "".join(f"<p>{escape(line)}</p>" for line in summary_lines(result))
    note = f"<p>The charts end at {_TOP:g} times the unperturbed NME; the tables have all values.</p>" if cut else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{summary}\n"
        f'<div class="grid">{charts}</div>{note}\n{tables}</body></html>\n'
    )


def _image(path: Path, result: Robustness, title: str) -> None:
    from matplotlib.figure import Figure

    kinds = kinds_of(result)
    columns = min(3, len(kinds))
    rows = math.ceil(len(kinds) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.6 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    for n, kind in enumerate(kinds):
        lines = _lines(result, kind)
        axes = figure.add_subplot(rows, columns, n + 1)
        for name, line in lines.items():
            style = {"color": "0.6", "linestyle": ":"} if name == "unperturbed" else {"marker": "o", "markersize": 3.5}
            axes.plot([x for x, _ in line], [y for _, y in line], label=name, **style)
        axes.set(title=TITLES[kind], xlabel=_AXES[kind], ylabel=f"NME ({result.normalizer}), %")
        axes.set_ylim(0, _top(result, lines))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
