"""TS3's loop: Algorithm 1, with any number of students, any selection, and resumable at every training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.events import Event, Validation
from fewmark.training.semi.pseudo_labels import mean_errors
from fewmark.training.semi.runner import Trainings
from fewmark.training.semi.selection import SelectionRule, quota
from fewmark.training.semi.selection_record import SelectionRecord, read_selection, record_selection, write_selection
from fewmark.training.semi.students import StudentPlan
from fewmark.training.semi.teacher import TeacherPlan, train_teacher
from fewmark.training.semi.teacher_data import Fold, judge_source, train_folds
from fewmark.training.semi.training_set import labels_only, with_pseudo_labels


@dataclass(frozen=True, eq=False)
class Round:
    """The students after a round; round 0 is the initial training on L.

    Attributes:
        index: i of Algorithm 1.
        students: their networks, in order.
        teacher: the last one trained, or None.
        selected: for each student the indices of U that it was trained on, best first.
        records: one a student, as in rounds.jsonl.
    """

    index: int
    students: list[nn.Module]
    teacher: nn.Module | None
    selected: list[NDArray[np.int64]]
    records: list[Event]


@dataclass(frozen=True)
class Loop:
    """The settings of Algorithm 1 and the choices that it leaves open.

    Attributes:
        n_rounds: S.
        ratio: r.
        restart: students are retrained from scratch (the paper), or go on from their weights.
        n_views: views that a pseudo label is averaged over, see `write_pseudo_labels`.
        labelled_share: least share of the human labels among the faces drawn; 0 = as they come (the paper).
        pseudo_weight: of pseudo labels in the loss.
        n_folds: for the out-of-fold teacher.
        fold_length: length of a fold's training relative to a student's.
        first_length: length of the initial training relative to a round's.
        synthetic_length: length of the training on synthetic faces, where there are any, relative to a round's.
    """

    n_rounds: int = 6
    ratio: float = 0.1
    restart: bool = True
    n_views: int = 1
    labelled_share: float = 0.0
    pseudo_weight: float = 1.0
    n_folds: int = 2
    fold_length: float = 0.5
    first_length: float = 1.0
    synthetic_length: float = 1.0


def run_rounds(
    plans: Sequence[StudentPlan],
    teacher: TeacherPlan,
    labelled: Sequence[CachedFace],
    unlabelled: Sequence[CachedFace],
    *,
    scheme: LandmarkScheme,
    size: int,
    augment: AugmentRule,
    rule: SelectionRule,
    loop: Loop,
    fabric: Fabric,
    seed: int,
    synthetic: Sequence[CachedFace] = (),
    starts: Sequence[dict[str, Tensor]] = (),
    folder: Path | None = None,
    validation: Validation | None = None,
    truth: NDArray[np.float32] | None = None,
    n_threads: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Iterator[Round]:
    """Train students on L and, round by round, on the best pseudo labels of U.

    Yields round 0 (trained on L) and then each round, after all its students were updated in turn. All
    randomness follows from `seed`; with a `folder`, a run that was killed goes on at the epoch where it was
    saved and ends with the same weights.

    Args:
        plans: the students; two unlike ones are the paper's.
        teacher: how the teacher is trained; not used by a rule that needs none.
        labelled: L.
        unlabelled: U; their landmarks are not looked at.
        size: crop px.
        rule: which pseudo labels are taken.
        synthetic: faces on which every student is trained first; its "scratch" is then what it learned from them,
            as the paper's CPM starts from ImageNet's weights. None = random weights.
        starts: the weights from which each student begins, before the synthetic faces if there are any; none = random ones.
        folder: where weights and states are kept, or None.
        validation: measured after every training; trains nothing unless `teacher.source` is "validation".
        truth: (U, K, 2) true landmarks of U, px of the upright crops, NaN where unknown: for the oracle and
            for reports.
        on_event: told of trainings, epochs, teachers and rounds, as plain dicts.

    Raises:
        InputError: no labels; no unlabelled faces for a round; the oracle without truth; the teacher's
            source without faces.

    Source: TS3, Algorithm 1.
    """
    _check(labelled, unlabelled, teacher, rule, loop, validation, truth)
    run = Trainings(plans, scheme, size, augment, fabric, seed, folder, n_threads, on_event, validation, list(starts))
    if synthetic:
        run.train_starts(synthetic, loop.synthetic_length)
    everyone = range(len(plans))
    modules = [run.new_student(j, 0, j) for j in everyone]
    labels = labels_only(labelled)
    for j, plan in enumerate(plans):
        seed_of_training = run.derive_seed(0, j, 1)
        run.train(f"round0_{plan.name}", j, modules[j], labels, seed_of_training, loop.first_length, {"round": 0})
    now = _Students(run, teacher, rule, loop, labelled, unlabelled, truth, modules)
    yield now.end_round(0, [now.scores(0, j) for j in everyone])
    if rule.needs_teacher and teacher.source == "out-of-fold" and loop.n_rounds:
        now.folds = train_folds(run, labelled, loop.n_folds, loop.fold_length)
    for i in range(1, loop.n_rounds + 1):
        yield now.end_round(i, [now.update(i, j) for j in everyone])


def _check(
    labelled: Sequence[CachedFace],
    unlabelled: Sequence[CachedFace],
    teacher: TeacherPlan,
    rule: SelectionRule,
    loop: Loop,
    validation: Validation | None,
    truth: NDArray[np.float32] | None,
) -> None:
    if not labelled:
        raise InputError("training: the labelled list is empty; at least one labelled face is needed")
    if loop.n_rounds and not unlabelled:
        raise InputError("training: there are no unlabelled faces for the rounds; give some, or set semi.rounds=0")
    if rule.name == "oracle" and (truth is None or np.isnan(truth).all()):
        raise InputError("selection oracle: expected true landmarks of the unlabelled faces, given none")
    if rule.needs_teacher and teacher.source == "validation" and validation is None:
        raise InputError("teacher.source validation: expected a validation list, given none; use out-of-fold")
    if rule.needs_teacher and teacher.source == "out-of-fold" and len(labelled) < 2 * loop.n_folds:
        raise InputError(
            f"teacher.source out-of-fold: {loop.n_folds} folds need {2 * loop.n_folds} labelled faces, "
            f"given {len(labelled)}"
        )


@dataclass(eq=False)
class _Students:
    """The students as they are at one moment of Algorithm 1, and what it takes to update them.

    Attributes:
        modules: their networks.
        folds: for the out-of-fold teacher.
        judge: the last teacher, or None.
        selected: for each student the indices of U that it was trained on last; SPaCo's memory.
    """

    run: Trainings
    teacher: TeacherPlan
    rule: SelectionRule
    loop: Loop
    labelled: Sequence[CachedFace]
    unlabelled: Sequence[CachedFace]
    truth: NDArray[np.float32] | None
    modules: list[nn.Module]
    folds: list[Fold] = field(default_factory=list)
    judge: nn.Module | None = None
    selected: list[NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        self.selected = [np.zeros(0, np.int64) for _ in self.modules]

    def update(self, i: int, j: int) -> Event:
        """Update student j in round i, and tell how good it is. Source: TS3, Algorithm 1, lines 7-11 and 12-16."""
        run, loop = self.run, self.loop
        name = f"round{i}_{run.plans[j].name}"
        choice = run.fabric.broadcast(read_selection(run.file(f"{name}.json")))
        if choice is None:
            choice = run.fabric.broadcast(self.choose(i, j))
            if run.fabric.is_global_zero:
                write_selection(run.file(f"{name}.json"), choice)
        self.selected[j] = choice.taken
        data = with_pseudo_labels(
            self.labelled,
            [self.unlabelled[u] for u in choice.taken],
            choice.landmarks,
            pseudo_weight=loop.pseudo_weight,
            labelled_share=loop.labelled_share,
        )
        if loop.restart:
            self.modules[j] = run.new_student(j, i, j)
        about = {"round": i, "n_pseudo": len(choice.taken)}
        run.train(name, j, self.modules[j], data, run.derive_seed(i, j, 1), 1.0, about)
        return {**self.scores(i, j), **choice.record}

    def choose(self, i: int, j: int) -> SelectionRecord:
        """Take the best pseudo labels of U, by a new teacher where the rule needs one. Source: lines 7-10 and 12-15."""
        run, rule = self.run, self.rule
        if rule.needs_teacher:
            judged = judge_source(run, self.teacher, self.modules, self.labelled, self.folds, run.derive_seed(i, j, 2))
            self.judge, state = train_teacher(
                self.teacher, judged, scheme=run.scheme, fabric=run.fabric, seed=run.derive_seed(i, j, 3)
            )
            run.on_event({"kind": "teacher", "round": i, "student": run.plans[j].name, "loss": state.losses[-1]})
            run.save("teacher", self.judge)
        who = [j] if rule.own_labels else list(range(len(self.modules)))
        pseudo = run.predict([self.modules[w] for w in who], who, self.unlabelled, self.loop.n_views, self.judge)
        chosen = np.zeros((len(who), len(self.unlabelled)), bool)
        for row, w in enumerate(who):
            chosen[row, self.selected[w]] = True
        error = None if self.truth is None else mean_errors(pseudo.landmarks, self.truth)
        pseudo = pseudo.seen_by(who.index(j), chosen=chosen, true_error=error)
        taken = rule.select(pseudo, quota(i, self.loop.ratio, len(self.unlabelled)))
        return record_selection(pseudo, taken, rule.name)

    def scores(self, i: int, j: int) -> Event:
        """Validation NME of student j, which was just trained, and of all together."""
        record: Event = {"round": i, "student": self.run.plans[j].name}
        if self.run.validation is not None:
            record["val_nme"] = self.run.nme([self.modules[j]], [j])
            record["ensemble_val_nme"] = self.run.nme(self.modules, range(len(self.modules)))
        return record

    def end_round(self, i: int, records: list[Event]) -> Round:
        """Tell of the round, and keep the students as they are now."""
        self.run.on_event({"kind": "round", "round": i, "records": records})
        if i and self.rule.needs_teacher and self.judge is None:  # every choice was read, none was made
            self.judge = self.teacher.build(self.run.scheme, 0)
            self.run.load("teacher", self.judge)
        return Round(i, list(self.modules), self.judge, [s.copy() for s in self.selected], records)
