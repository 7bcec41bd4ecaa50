"""What the trainings of all methods share in words: events, planned trainings, and the faces held out for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.data.crops import CachedFace

Event = dict[str, Any]
"""A report of a run in progress, plain data with a `kind`: reading, note, training, epoch, teacher, round, stage or done."""


@dataclass(frozen=True)
class PlannedTraining:
    """A training that a run will do.

    Attributes:
        name: Name in files and events.
        part: The student or the cascade stage that is trained; students that are trained together are joined by " + ".
        n_steps: Expected number of optimizer steps.
        step_cost: Cost of a step relative to those of other parts, for the time before any step was timed.
    """

    name: str
    part: str
    n_steps: int
    step_cost: float = 1.0


@dataclass(frozen=True, eq=False)
class Validation:
    """Held-out labelled faces.

    Attributes:
        faces: V cached faces with their true landmarks.
        lengths: (V,) normalising lengths, px of the upright crops.
    """

    faces: Sequence[CachedFace]
    lengths: NDArray[np.float64]
