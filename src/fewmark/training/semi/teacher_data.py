"""What a teacher learns from: predictions on faces whose truth is known, by students that may not have seen them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from fewmark.data.crops import CachedFace
from fewmark.training.semi.runner import Trainings
from fewmark.training.semi.teacher import ScoredPredictions, TeacherPlan, join_scored, score_predictions
from fewmark.training.semi.training_set import labels_only

TEACHER_FLIP = 0.5
"""Flips of the faces that the teacher learns from, whatever the students' are. Source: TS3, section 4.2."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Labelled faces that are held out, and students trained on the others: to them these are as new as U."""

    students: list[nn.Module]
    faces: list[CachedFace]


def split_folds(n_faces: int, n_folds: int, seed: int) -> list[list[int]]:
    """The indices that each fold holds out, ascending; every face is in one fold.

    >>> split_folds(6, 2, seed=0)
    [[0, 1, 4], [2, 3, 5]]
    """
    order = np.random.default_rng([seed, 5]).permutation(n_faces)
    return [sorted(order[f::n_folds].tolist()) for f in range(n_folds)]


def train_folds(run: Trainings, labelled: Sequence[CachedFace], n_folds: int, length: float) -> list[Fold]:
    """Train all students once a fold, without its faces.

    Args:
        length: of each training, a factor on a student's number of epochs.
    """
    folds = []
    for f, held_out in enumerate(split_folds(len(labelled), n_folds, run.seed)):
        seen = sorted(set(range(len(labelled))) - set(held_out))
        rest = labels_only([labelled[i] for i in seen])
        students = []
        for j, plan in enumerate(run.plans):
            module = run.new_student(j, 0, j, f, 6)
            about = {"round": 0, "fold": f}
            run.train(f"fold{f}_{plan.name}", j, module, rest, run.derive_seed(0, j, f, 7), length, about)
            students.append(module)
        folds.append(Fold(students, [labelled[i] for i in held_out]))
    return folds


def judge_source(
    run: Trainings,
    plan: TeacherPlan,
    modules: Sequence[nn.Module],
    labelled: Sequence[CachedFace],
    folds: Sequence[Fold],
    seed: int,
) -> ScoredPredictions:
    """The predictions that `plan.source` names: by the students as they are, or by those of each fold.

    Source: TS3, Algorithm 1, lines 7 and 12.
    """

    def judged(students: Sequence[nn.Module], faces: Sequence[CachedFace]) -> ScoredPredictions:
        return score_predictions(
            students,
            [p.codec for p in run.plans],
            faces,
            plan,
            scheme=run.scheme,
            size=run.size,
            augment=replace(run.augment, flip=TEACHER_FLIP),
            seed=seed,
            device=run.fabric.device,
        )

    if plan.source == "validation" and run.validation is not None:
        return judged(modules, run.validation.faces)
    if plan.source == "labelled":
        return judged(modules, labelled)
    return join_scored([judged(fold.students, fold.faces) for fold in folds])
