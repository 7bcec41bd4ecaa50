"""The trainings of a cascade that a config describes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fewmark.inference.cascade.coarse import contour_and_inner
from fewmark.inference.cascade.frames import inner_components
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.cascade.fit_stage import BATCH_SIZE, STAGE_EPOCHS, synthetic_epochs
from fewmark.training.events import PlannedTraining
from fewmark.training.settings import Config

MIN_BATCHES = 600
"""Least number of batches of a stage's training: a few faces are seen more often."""
STEP_COSTS = {"angle": 1.0, "coarse": 10.0, "component": 0.5, "point": 6.0}
"""Relative cost of a batch of each stage; coarse is that of twins."""


@dataclass(frozen=True)
class CascadeTraining:
    """One training of a cascade.

    Attributes:
        name: Name in files and events.
        stage: Its stage.
        n_epochs: Passes over the faces.
        n_faces: Faces per epoch.
    """

    name: str
    stage: str
    n_epochs: int
    n_faces: int

    @property
    def n_batches(self) -> int:
        """Batches per epoch."""
        return _n_batches(self.n_faces)


def stage_epochs(stage: str, n_faces: int, length: float) -> int:
    """Passes over the faces in a stage's training.

    Args:
        stage: Name of the stage.
        n_faces: Number of labelled faces.
        length: Factor of the settings.
    """
    epochs = max(STAGE_EPOCHS[stage], math.ceil(MIN_BATCHES / _n_batches(n_faces)))
    return max(1, round(epochs * length))


def cascade_trainings(
    config: Config, scheme: LandmarkScheme, n_faces: int, *, separate_contour: bool = False
) -> list[CascadeTraining]:
    """The trainings of a cascade, in order; before each the one on synthetic faces, where the settings ask for some.

    Args:
        config: Settings.
        scheme: Scheme of the landmarks.
        n_faces: Number of labelled faces.
        separate_contour: See `fewmark.training.cascade.run.CascadeOptions`.

    Raises:
        InputError: The scheme lacks the components that a stage needs.
    """
    n_synthetic = config.synthetic.faces
    trainings = []
    for stage in config.cascade.stages:
        names: list[str] = [stage]
        if stage == "coarse" and separate_contour:
            names = [f"coarse_{i}" for i in range(len(contour_and_inner(scheme)))]
        elif stage == "component":
            names = [f"component_{name}" for name in inner_components(scheme)]
        elif stage == "point":
            inner_components(scheme)
        n_epochs = stage_epochs(stage, n_faces, config.cascade.length)
        for name in names:
            if n_synthetic:
                first = synthetic_epochs(config.synthetic.length, n_epochs, n_faces, n_synthetic)
                trainings.append(CascadeTraining(f"synthetic_{name}", stage, first, n_synthetic))
            trainings.append(CascadeTraining(name, stage, n_epochs, n_faces))
    return trainings


def planned_cascade(config: Config, scheme: LandmarkScheme, n_labelled: int) -> Iterator[PlannedTraining]:
    """The same, as all methods plan their trainings."""
    for t in cascade_trainings(config, scheme, n_labelled):
        yield PlannedTraining(t.name, t.stage, t.n_epochs * t.n_batches, STEP_COSTS[t.stage])


def _n_batches(n_faces: int) -> int:
    return max(1, math.ceil(n_faces / BATCH_SIZE))
