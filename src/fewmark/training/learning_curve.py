"""The learning curve: the error by the number of labels, and what more labels would buy. Needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.geometry import FloatArray, Floats
from fewmark.core.json import json_value

CURVE_FILE = "curve.json"
BAND = 0.8
"""Probability that the band holds the mean error, if the error goes on falling as a power of the number of labels."""
_SAMPLES = 4000
_SMALLEST_SPREAD = 0.01  # relative, of one run about the curve: what a handful of runs shows may be less by luck


@dataclass(frozen=True)
class CurvePoint:
    """One run.

    Attributes:
        n_labels: Number of labelled faces that it learned from.
        draw: Which draw of the labelled faces; larger parts of a draw contain the smaller ones.
        nme: NME on the held-out faces, a fraction.
    """

    n_labels: int
    draw: int
    nme: float


@dataclass(frozen=True)
class LearningCurve:
    """NME = a n^-b over n labelled faces, fitted to the logarithms of single runs.

    Attributes:
        points: The runs; at least three, with at least two numbers of labels.

    Raises:
        InputError: There are fewer.
    """

    points: Sequence[CurvePoint]

    def __post_init__(self) -> None:
        if len(self.points) < 3 or len({p.n_labels for p in self.points}) < 2:
            raise InputError(
                f"learning curve: expected three runs or more, with two numbers of labels or more, given {len(self.points)}"
            )

    @cached_property
    def _samples(self) -> tuple[float, Floats]:
        """The middle of the logarithms of n, and likely lines: (S, 2) height there and slope.

        The posterior of a line under errors of unknown normal spread, with flat priors (Gelman et al., Bayesian Data Analysis, 14.2).
        """
        x = np.log([p.n_labels for p in self.points])
        y = np.log([p.nme for p in self.points])
        middle = float(x.mean())
        dx = x - middle
        height, slope = float(y.mean()), float((dx * y).sum() / (dx**2).sum())
        free = len(x) - 2
        squares = float(((y - height - slope * dx) ** 2).sum()) + free * _SMALLEST_SPREAD**2
        rng = np.random.default_rng(0)
        spread = np.sqrt(squares / rng.chisquare(free, _SAMPLES))
        heights = height + spread * rng.standard_normal(_SAMPLES) / math.sqrt(len(x))
        slopes = slope + spread * rng.standard_normal(_SAMPLES) / math.sqrt(float((dx**2).sum()))
        return middle, np.column_stack([heights, slopes])

    def nme(self, n_labels: FloatArray | float) -> Floats:
        """The band of the mean NME at n labels, (..., 3): its lower edge, middle and upper edge, fractions."""
        middle, lines = self._samples
        x = np.log(np.asarray(n_labels, np.float64))[..., None] - middle
        return _band(np.exp(lines[:, 0] + lines[:, 1] * x))

    def gain(self, n_labels: int, n_more: int) -> Floats:
        """By how much `n_more` labels lower the NME at n labels, (3,) relative: lower edge of the band, middle, upper edge."""
        _, lines = self._samples
        return _band(1 - (1 + n_more / n_labels) ** lines[:, 1])


def _band(values: Floats) -> Floats:
    """(..., S) -> (..., 3)."""
    low = (1 - BAND) / 2
    return np.moveaxis(np.quantile(values, [low, 0.5, 1 - low], axis=-1), 0, -1)


def write_curve(folder: Path, curve: LearningCurve, n_more: int) -> None:
    """Keep a curve beside its runs, as `curve.json`, see `curve_data`."""
    write_text(folder / CURVE_FILE, json.dumps(curve_data(curve, n_more), indent=1) + "\n")


def curve_data(curve: LearningCurve, n_more: int) -> dict[str, Any]:
    """The runs, the band, and what more labels would buy, as JSON data; fractions."""
    most = max(p.n_labels for p in curve.points)
    return json_value(  # type: ignore[no-any-return]
        {
            "runs": [{"n_labels": p.n_labels, "draw": p.draw, "nme": p.nme} for p in curve.points],
            "band_probability": BAND,
            "fitted": {
                str(n): curve.nme(n).round(5)
                for n in sorted({p.n_labels for p in curve.points} | {most + n_more, 2 * most})
            },
            "n_more": n_more,
            "gain": curve.gain(most, n_more).round(4),
        }
    )
