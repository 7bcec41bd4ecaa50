"""What a method trained, for the model file and the report of its run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.checkpoint.io import TeacherPart
from fewmark.training.semi.rounds import RoundRecord


@dataclass(frozen=True, eq=False)
class Trained:
    """What a method trained.

    Attributes:
        box_from_detector: Adapter from the packaged face detector's boxes to the labels'.
        students: Networks of the students; empty for a cascade.
        cascade: The cascade, or None.
        teacher: Quality network, or None.
        n_pseudo: Unlabelled faces that were learned from.
        n_unlabelled: Unlabelled faces that could be used.
        names: Their names, in the order of the records and of `truth`; empty where there are no rounds.
        stage_nmes: Validation NME after each stage of a cascade.
        records: Records of the rounds.
        truth: (U, K, 2) labels of the unlabelled faces, px of the upright crops, or None.
        n_converted: Unlabelled faces that were labelled by the converted landmarks of the start.
        start_nme: See `fewmark.training.run.RunResult`.
    """

    box_from_detector: tuple[float, float, float]
    students: Sequence[nn.Module] = ()
    cascade: Cascade | None = None
    teacher: TeacherPart | None = None
    n_pseudo: int = 0
    n_unlabelled: int = 0
    names: Sequence[str] = ()
    stage_nmes: dict[str, float] = field(default_factory=dict)
    records: Sequence[RoundRecord] = ()
    truth: NDArray[np.float32] | None = None
    n_converted: int = 0
    start_nme: float = math.nan
