"""The mean face with its landmarks coloured by their error, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from fewmark.core.geometry import FloatArray, box_of_points, box_size
from fewmark.landmarks.scheme import LandmarkScheme

_LOW, _MIDDLE, _HIGH = (15, 118, 110), (245, 190, 65), (185, 28, 28)
_SIDE, _MARGIN, _LEGEND = 420, 26, 44


def error_map(face: FloatArray, errors: Sequence[float], scheme: LandmarkScheme) -> str:
    """Draw a face whose points are the larger and the redder the larger their error; a point's name and error show on hovering.

    Args:
        face: (K, 2) points in any unit, y downwards; those with NaN are left out.
        errors: (K,) NME, fractions; NaN where unknown.
        scheme: Gives edges and names.

    Returns:
        One <svg> element.
    """
    seen = np.asarray(np.isfinite(face).all(1), np.bool_)
    known = [e for e, s in zip(errors, seen, strict=True) if s and math.isfinite(e)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    box = box_of_points(face)
    scale = (_SIDE - 2 * _MARGIN) / max(float(box_size(box).max()), 1e-9)
    offset = (_SIDE - scale * box_size(box)) / 2
    points = (np.asarray(face, np.float64) - box[:2]) * scale + offset
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIDE} {_SIDE + _LEGEND}" role="img" '
        'aria-label="error per landmark" font-family="system-ui, sans-serif">'
    ]
    for a, b in scheme.edges:
        if seen[a] and seen[b]:
            (x0, y0), (x1, y1) = points[a], points[b]
            parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#d5dbe1"/>')
    thin = min(1.0, math.sqrt(68 / max(len(points), 1)))
    for i in sorted(range(len(points)), key=lambda i: errors[i] if math.isfinite(errors[i]) else -1.0):
        if not seen[i]:
            continue
        share = (errors[i] - low) / (high - low) if math.isfinite(errors[i]) and high > low else 0.0
        ink = _ink(share) if math.isfinite(errors[i]) else "#c3cbd3"
        x, y = points[i]
        said = f"{100 * errors[i]:.2f} %" if math.isfinite(errors[i]) else "not labelled"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{thin * (3.2 + 5 * share):.1f}" fill="{ink}" fill-opacity="0.9">'
            f"<title>{i} {escape(scheme.landmarks[i])}: {said}</title></circle>"
        )
    for n in range(40):
        x = _SIDE / 2 - 100 + 5 * n
        parts.append(f'<rect x="{x:.0f}" y="{_SIDE + 6}" width="5.5" height="10" fill="{_ink(n / 39)}"/>')
    for value, x in ((low, _SIDE / 2 - 100), (high, _SIDE / 2 + 100)):
        parts.append(
            f'<text x="{x:.0f}" y="{_SIDE + 33}" font-size="12" fill="#44515e" text-anchor="middle">{100 * value:.1f} %</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _ink(share: float) -> str:
    a, b, t = (_LOW, _MIDDLE, 2 * share) if share < 0.5 else (_MIDDLE, _HIGH, 2 * share - 1)
    red, green, blue = (round((1 - t) * p + t * q) for p, q in zip(a, b, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"
