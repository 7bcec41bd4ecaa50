"""The runs of a learning curve: trainings on parts of the labels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.training.events import Event
from fewmark.training.faces import TrainingData
from fewmark.training.learning_curve import CurvePoint, LearningCurve
from fewmark.training.run import train
from fewmark.training.runner import ignore
from fewmark.training.settings import Config

FRACTIONS = (0.25, 0.5, 1.0)
"""Fractions of the labels that are learned from."""
LEAST_TO_SPLIT = 30
"""Labelled faces from which a third is held out where no validation faces are given."""


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
