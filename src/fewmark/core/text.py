"""Formatting of numbers for people."""

from __future__ import annotations

import math


def percent(fraction: float | None, *, missing: str = "-") -> str:
    """Format a fraction, such as an NME, as a percentage; `missing` replaces None, NaN and infinity.

    >>> percent(0.0312), percent(None), percent(float("nan"), missing="not known")
    ('3.12 %', '-', 'not known')
    """
    return missing if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.2f} %"


def count(n: int, noun: str) -> str:
    """Format a count with its noun.

    >>> count(1, "face"), count(3, "face")
    ('1 face', '3 faces')
    """
    return f"{n} {noun}" + ("" if n == 1 else "s")
