"""The learning curve: the error by the number of labels, from runs with parts of them, and what more labels would buy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.geometry import FloatArray, Floats
from fewmark.core.json import json_value
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.training.events import Event
from fewmark.training.faces import TrainingData
from fewmark.training.run import train
from fewmark.training.runner import ignore
from fewmark.training.settings import Config

FRACTIONS = (0.25, 0.5, 1.0)
"""Fractions of the labels that are learned from."""
LEAST_TO_SPLIT = 30
"""Labelled faces from which a third is held out where no validation faces are given."""
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


def label_counts(n_labelled: int, counts: Sequence[int] = ()) -> list[int]:
    """Numbers of labelled faces to learn from: those asked for, or `FRACTIONS` of all.

    Raises:
        InputError: One is above the number of labelled faces or below 2, or there are not two.

    >>> label_counts(107)
    [27, 54, 107]
    """
    wanted = sorted(set(counts or [round(f * n_labelled) for f in FRACTIONS]))
    bad = [n for n in wanted if not 2 <= n <= n_labelled]
    if bad or len(wanted) < 2:
        raise InputError(
            f"learning curve: expected two different numbers of labelled faces or more, from 2 to {n_labelled}, "
            f"given {', '.join(map(str, wanted))}"
        )
    return wanted


def measure_learning_curve(
    config: Config,
    data: TrainingData,
    folder: Path,
    *,
    counts: Sequence[int] = (),
    n_draws: int = 2,
    start: Checkpoint | None = None,
    on_run: Callable[[int, int], Callable[[Event], None]] = lambda n_labels, draw: ignore,
) -> LearningCurve:
    """Train on parts of the labelled faces and fit the errors. Runs that the folder holds are not repeated; a stopped one goes on.

    Args:
        config: Settings of every run; the run's seed is moved on by the draw.
        data: The faces. Without validation faces a third of the labelled ones, other ones in each draw, are held out.
        folder: Holds a run folder per run.
        counts: Numbers of labelled faces; none for `FRACTIONS` of all.
        n_draws: Draws of the labelled faces.
        start: See `fewmark.training.run.train`.
        on_run: Number of labels, draw -> receives the events of that run.

    Raises:
        InputError: There are too few labelled faces, or see `train`.
    """
    n_held = 0 if data.validation else len(data.labelled) // 3
    if not data.validation and len(data.labelled) < LEAST_TO_SPLIT:
        raise InputError(
            f"learning curve: expected validation faces (--val), or {LEAST_TO_SPLIT} labelled faces of which a third is held out, "
            f"given {len(data.labelled)} labelled and no validation faces"
        )
    wanted = label_counts(len(data.labelled) - n_held, counts)
    points = []
    for draw in range(n_draws):
        order = np.random.default_rng([config.run.seed, draw]).permutation(len(data.labelled))
        drawn = [data.labelled[i] for i in order]
        held: Sequence[FaceSample] = data.validation or drawn[len(drawn) - n_held :]
        for n in wanted:
            run = folder / f"{n:04d}_labels_draw{draw}"
            result = run / "nme.json"
            if not result.is_file():
                seeded = config.model_copy(
                    update={"run": config.run.model_copy(update={"seed": config.run.seed + draw})}
                )
                part = replace(data, labelled=drawn[:n], validation=held)
                resume = (run / "config.toml").is_file()
                trained = train(seeded, part, run, start=start, resume=resume, on_event=on_run(n, draw))
                if trained.scores is None or not math.isfinite(trained.scores.nme):
                    raise InputError(f"{run}: the held-out faces could not be measured; give others by --val")
                write_text(result, json.dumps({"nme": trained.scores.nme}) + "\n")
            points.append(CurvePoint(n, draw, float(json.loads(result.read_text(encoding="utf-8"))["nme"])))
    return LearningCurve(points)


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
