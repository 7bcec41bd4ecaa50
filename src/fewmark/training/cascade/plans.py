"""The trainings of a cascade that the settings describe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewmark.inference.cascade.coarse import contour_and_inner
from fewmark.inference.cascade.frames import inner_components
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.cascade.fit_stage import synthetic_epochs
from fewmark.training.config import Config

CASCADE_EPOCHS = {"angle": 160, "coarse": 90, "component": 50, "point": 30}
"""Of each stage's trainings."""
CASCADE_BATCH = 32
MIN_BATCHES = 600
"""Of a stage's training: few faces are seen more often."""


@dataclass(frozen=True)
class CascadeTraining:
    """One training of a cascade.

    Attributes:
        name: of its files and events.
        stage: that it is for.
        n_epochs: passes over the labelled faces.
        n_faces: that it sees in an epoch.
    """

    name: str
    stage: str
    n_epochs: int
    n_faces: int

    @property
    def n_batches(self) -> int:
        """Of an epoch."""
        return max(1, math.ceil(self.n_faces / CASCADE_BATCH))


def cascade_trainings(config: Config, scheme: LandmarkScheme, n_faces: int) -> list[CascadeTraining]:
    """The trainings of a cascade, in order; before each, where the settings ask for synthetic faces, the one on these.

    Raises:
        InputError: the scheme lacks the components that a stage needs.
    """
    c = config.cascade
    n_batches = max(1, math.ceil(n_faces / CASCADE_BATCH))
    n_synthetic = config.synthetic.faces
    found = []
    for stage in c.stages:
        names: list[str] = [stage]
        if stage == "coarse" and c.apart:
            names = [f"coarse_{i}" for i in range(len(contour_and_inner(scheme)))]
        elif stage == "component":
            names = [f"component_{name}" for name in inner_components(scheme)]
        elif stage == "point":
            inner_components(scheme)
        epochs = max(CASCADE_EPOCHS[stage], math.ceil(MIN_BATCHES / n_batches))
        n_epochs = max(1, round(epochs * c.length))
        for name in names:
            if n_synthetic:
                first = synthetic_epochs(config.synthetic.length, n_epochs, n_faces, n_synthetic)
                found.append(CascadeTraining(f"synthetic_{name}", stage, first, n_synthetic))
            found.append(CascadeTraining(name, stage, n_epochs, n_faces))
    return found
