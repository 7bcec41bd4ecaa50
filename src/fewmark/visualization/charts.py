"""Charts as SVG text, written directly so that a report needs neither network access nor matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

INKS = ("#0f766e", "#d97706", "#4f46e5", "#be185d", "#0284c7", "#65a30d", "#7c3aed", "#57534e")
"""Colours of the series, in order."""

Point = tuple[float, float]

_FONT = "system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 58, 48


def nice_ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Choose about n round numbers within [low, high].

    >>> nice_ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def line_chart(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    width: int = 560,
    height: int = 340,
    x_range: Point | None = None,
    y_range: Point | None = None,
    dots: bool = False,
    whole_x: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
    marks: Mapping[str, Sequence[Point]] | None = None,
) -> str:
    """Draw lines with a legend.

    Args:
        series: Name -> points (x, y); a non-finite point breaks its line.
        title: Title above the chart.
        x_label: Label of the x axis, with its unit.
        y_label: Label of the y axis, with its unit.
        width: Width of the chart, px.
        height: Height of the chart, px.
        x_range: Range of the x axis; None for the range of the data.
        y_range: Range of the y axis; None for the range of the data plus a margin.
        dots: Mark every point.
        whole_x: Place x ticks only at whole numbers.
        bands: Name of a series -> (x, low, high), a shaded area about it.
        marks: Name -> points that no line connects.

    Returns:
        One <svg> element.
    """
    bands, marks = bands or {}, marks or {}
    points = [p for line in [*series.values(), *marks.values()] for p in line]
    points += [(x, y) for band in bands.values() for x, low, high in band for y in (low, high)]
    frame = _Frame(points, width, height, x_range, y_range, whole_x)
    body = []
    for n, name in enumerate(series):
        band = bands.get(name, ())
        edge = [*((x, high) for x, _, high in band), *((x, low) for x, low, _ in reversed(band))]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in edge)
        if edge:
            body.append(f'<polygon points="{path}" fill="{INKS[n % len(INKS)]}" fill-opacity="0.15"/>')
    for n, (name, line) in enumerate(series.items()):
        ink = INKS[n % len(INKS)]
        for run in _runs(line):
            path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in run)
            body.append(
                f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="2" '
                'stroke-linejoin="round" stroke-linecap="round"/>'
            )
            if dots or len(run) == 1:
                body += [
                    f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.6" fill="#fff" stroke="{ink}" '
                    f'stroke-width="2"><title>{escape(name)}: {x:g}, {y:.4g}</title></circle>'
                    for x, y in run
                ]
    for n, (name, cloud) in enumerate(marks.items(), len(series)):
        body += [
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.6" fill="{INKS[n % len(INKS)]}">'
            f"<title>{escape(name)}: {x:g}, {y:.4g}</title></circle>"
            for x, y in cloud
        ]
    return frame.svg("\n".join(body), title, x_label, y_label, [*series, *marks])


def scatter_chart(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    width: int = 560,
    height: int = 340,
    x_range: Point | None = None,
    y_range: Point | None = None,
) -> str:
    """Draw points; see `line_chart`. Points outside a given range are placed on its edge."""
    points = [p for cloud in series.values() for p in cloud]
    frame = _Frame(points, width, height, x_range, y_range, False)
    body = []
    for n, cloud in enumerate(series.values()):
        ink = INKS[n % len(INKS)]
        opacity = 0.55 if len(cloud) < 400 else 0.35
        body += [
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.6" fill="{ink}" fill-opacity="{opacity}"/>'
            for x, y in cloud
            if math.isfinite(x) and math.isfinite(y)
        ]
    return frame.svg("\n".join(body), title, x_label, y_label, list(series))


class _Frame:
    """Axes that map data to chart px."""

    def __init__(
        self,
        points: Sequence[Point],
        width: int,
        height: int,
        x_range: Point | None,
        y_range: Point | None,
        whole_x: bool,
    ) -> None:
        data = np.asarray(points, np.float64).reshape(-1, 2)
        data = data[np.isfinite(data).all(1)]
        self.empty = len(data) == 0
        self.x_range = x_range or _spread(data[:, 0], 0.0)
        self.y_range = y_range or _spread(data[:, 1], 0.06)
        self.width, self.height, self.whole_x = width, height, whole_x

    def x(self, value: float) -> float:
        return _between(value, self.x_range, _LEFT, self.width - _RIGHT)

    def y(self, value: float) -> float:
        return _between(value, self.y_range, self.height - _BOTTOM, _TOP)

    def svg(self, body: str, title: str, x_label: str, y_label: str, names: Sequence[str]) -> str:
        left, right, top, bottom = _LEFT, self.width - _RIGHT, _TOP, self.height - _BOTTOM
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(title)}" font-family="{_FONT}">',
            f'<text x="{left - 44}" y="20" font-size="14" font-weight="600" fill="#1c2733">{escape(title)}</text>',
        ]
        for tick in nice_ticks(*self.y_range):
            y = self.y(tick)
            parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e7ebef"/>')
            parts.append(_text(left - 8, y + 4, f"{tick:g}", "end"))
        ticks = nice_ticks(*self.x_range, n=6)
        for tick in sorted({float(round(t)) for t in ticks}) if self.whole_x else ticks:
            if not self.x_range[0] <= tick <= self.x_range[1]:
                continue
            x = self.x(tick)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}" stroke="#aab4be"/>')
            parts.append(_text(x, bottom + 18, f"{tick:g}", "middle"))
        parts.append(f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#aab4be"/>')
        parts.append(_text((left + right) / 2, self.height - 8, x_label, "middle", 12, "#44515e"))
        middle = (top + bottom) / 2
        parts.append(
            f'<text x="16" y="{middle:.0f}" font-size="12" fill="#44515e" text-anchor="middle" '
            f'transform="rotate(-90 16 {middle:.0f})">{escape(y_label)}</text>'
        )
        if self.empty:
            parts.append(_text((left + right) / 2, middle, "no data", "middle", 13, "#8a96a3"))
        parts.append(body)
        x = float(left)
        for n, name in enumerate(names if len(names) > 1 else []):
            length = 22 + 7.0 * len(name)
            if x + length > right and n:
                break
            ink = INKS[n % len(INKS)]
            parts.append(f'<rect x="{x:.0f}" y="33" width="11" height="11" rx="3" fill="{ink}"/>')
            parts.append(_text(x + 16, 43, name, "start", 12, "#44515e"))
            x += length + 10
        parts.append("</svg>")
        return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str, size: int = 11, ink: str = "#6b7885") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{ink}" text-anchor="{anchor}">{escape(text)}</text>'


def _between(value: float, source: Point, low: float, high: float) -> float:
    share = (value - source[0]) / (source[1] - source[0])
    return low + min(1.0, max(0.0, share)) * (high - low)


def _spread(values: np.ndarray[tuple[int], np.dtype[np.float64]], room: float) -> Point:
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if not high > low:
        half = abs(low) * 0.1 or 0.5
        return low - half, high + half
    return low - room * (high - low), high + room * (high - low)


def _runs(line: Sequence[Point]) -> list[list[Point]]:
    runs: list[list[Point]] = [[]]
    for x, y in line:
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
