"""TS3's rounds: Algorithm 1 with any number of students and any selection, resumable at every training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.events import Validation
from fewmark.training.runner import RunContext
from fewmark.training.semi.mean_teacher import train_mean_teacher
from fewmark.training.semi.pseudo_labels import PseudoLabels, mean_errors
from fewmark.training.semi.selection import (
    Selection,
    SelectionRule,
    quota,
    read_selection,
    select_pseudo_labels,
    write_selection,
)
from fewmark.training.semi.students import (
    StudentPlan,
    StudentTrainer,
    TrainingSet,
    labels_only,
    with_pseudo_labels,
)
from fewmark.training.semi.teacher import Fold, TeacherPlan, make_teacher_data, train_folds, train_teacher


@dataclass(frozen=True)
class Loop:
    """The parameters of Algorithm 1, and the choices that it leaves open.

    Attributes:
        n_rounds: S.
        ratio: r.
        restart: Whether students are retrained from scratch (the paper) or continue from their weights.
        n_views: Views over which a pseudo label is averaged, see `write_pseudo_labels`.
        labelled_share: Least share of the human labels among the training faces; 0 leaves it as it is (the paper).
        n_folds: Folds of the out-of-fold teacher.
        fold_length: Length of a fold's training relative to a round's.
        first_length: Length of the initial training relative to a round's; one of each student, or one for all.
        last_length: Length of a last training on L alone, after all rounds, relative to a round's; 0 for none (the paper).
        pseudo_weight: Weight of a pseudo label in the loss; a human label's is 1.
        mean_teacher_length: Length of a training by a mean teacher after the rounds, relative to a round's; 0 for none (the paper). See
            `fewmark.training.semi.mean_teacher`.
        weigh_by_spread: Whether a pseudo label also weighs the less the more students and views disagree, see `landmark_weights`.
        synthetic_length: Length of the training on synthetic and on converted faces, where there are any, relative to a round's.
    """

    n_rounds: int = 6
    ratio: float = 0.1
    restart: bool = True
    n_views: int = 1
    labelled_share: float = 0.0
    n_folds: int = 2
    fold_length: float = 0.5
    first_length: float | Sequence[float] = 1.0
    last_length: float = 0.0
    mean_teacher_length: float = 0.0
    pseudo_weight: float = 1.0
    weigh_by_spread: bool = False
    synthetic_length: float = 1.0

    @property
    def uses_unlabelled(self) -> bool:
        """Whether a training after the first one needs U."""
        return bool(self.n_rounds or self.mean_teacher_length)

    def first_length_of(self, student: int) -> float:
        """Length of a student's initial training relative to a round's."""
        return self.first_length if isinstance(self.first_length, float | int) else self.first_length[student]


@dataclass(frozen=True, eq=False)
class RoundRecord:
    """The update of one student in one round: a line of rounds.jsonl.

    Attributes:
        round: i of Algorithm 1; 0 is the initial training on L.
        student: Name of the student.
        val_nme: Its validation NME after the update, a fraction; None where nothing is held out.
        ensemble_val_nme: Validation NME of all students together at that moment.
        selection: Its pseudo labels; None in round 0.
    """

    round: int
    student: str
    val_nme: float | None = None
    ensemble_val_nme: float | None = None
    selection: Selection | None = None

    @property
    def n_selected(self) -> int:
        """Number of its pseudo labels."""
        return 0 if self.selection is None else len(self.selection.selected)

    def to_dict(self) -> dict[str, Any]:
        """Plain data as in rounds.jsonl; what is None is left out."""
        record: dict[str, Any] = {"round": self.round, "student": self.student}
        if self.val_nme is not None:
            record |= {"val_nme": self.val_nme, "ensemble_val_nme": self.ensemble_val_nme}
        return record if self.selection is None else record | self.selection.to_dict()


@dataclass(frozen=True, eq=False)
class Round:
    """The students after a round; round 0 is the initial training on L.

    Attributes:
        index: i of Algorithm 1.
        students: Their networks, in order.
        teacher: The last teacher, or None.
        selected: For each student the indices of U on which it was trained, best first.
        records: One per student.
    """

    index: int
    students: list[nn.Module]
    teacher: nn.Module | None
    selected: list[NDArray[np.int64]]
    records: list[RoundRecord]


def run_rounds(
    plans: Sequence[StudentPlan],
    teacher_plan: TeacherPlan,
    labelled: Sequence[CachedFace],
    unlabelled: Sequence[CachedFace],
    *,
    scheme: LandmarkScheme,
    size: int,
    augment: AugmentRule,
    rule: SelectionRule,
    loop: Loop,
    context: RunContext,
    synthetic: Sequence[CachedFace] = (),
    converted: Sequence[CachedFace] = (),
    initial_weights: Sequence[Mapping[str, Tensor]] = (),
    validation: Validation | None = None,
    truth: NDArray[np.float32] | None = None,
) -> Iterator[Round]:
    """Train students on L and, round by round, on L and the best pseudo labels of U.

    Yields round 0 (trained on L) and then each round, after all its students were updated in turn. All randomness follows from
    the context's seed; with a folder, a run that was stopped continues at the last saved epoch and ends with the same weights.

    Args:
        plans: The students; two unlike ones are the paper's.
        teacher_plan: The teacher; not used by a rule that needs none.
        labelled: L.
        unlabelled: U; their landmarks are not used.
        scheme: Scheme of the landmarks.
        size: Side of the crops, px.
        augment: Ranges of the augmentation.
        rule: Which pseudo labels are selected.
        loop: Parameters of the algorithm.
        context: What all trainings share; its events are training, epoch, teacher and round.
        synthetic: Faces on which every student is trained first. "From scratch" then means from these weights, as the paper's CPM
            starts from ImageNet's. None: random weights.
        converted: Faces with converted landmarks of another model, on which every student is trained next.
        initial_weights: State dict from which each student begins, before the synthetic faces; empty for random weights.
        validation: Faces to measure on after every training; they train nothing unless `teacher_plan.source` is "validation".
        truth: (U, K, 2) true landmarks of U, px of the upright crops, NaN where unknown: for the oracle and for reports.

    Raises:
        InputError: There are no labels, no unlabelled faces for a round, no truth for the oracle, or no faces for the teacher.

    Source: TS3, Algorithm 1; the numbers below are its lines.
    """
    _check(labelled, unlabelled, teacher_plan, rule, loop, validation, truth)
    trainer = StudentTrainer(plans, scheme, size, augment, context, validation, initial_weights)
    if synthetic:
        trainer.train_before("synthetic", synthetic, loop.synthetic_length)
    if converted:
        trainer.train_before("converted", converted, loop.synthetic_length)
    everyone = range(len(plans))
    selected = [np.zeros(0, np.int64) for _ in everyone]
    teacher: nn.Module | None = None
    replaced = False  # the kept teacher, by one that was trained here
    folds: list[Fold] = []

    def end_round(i: int, records: list[RoundRecord]) -> Round:
        context.emit({"kind": "round", "round": i, "records": records})
        return Round(i, list(students), teacher, [s.copy() for s in selected], records)

    # 5: initialize every w on L
    students = [trainer.new_student(j, context.derive_seed("weights", 0, j)) for j in everyone]
    for j, plan in enumerate(plans):
        seed = context.derive_seed("training", 0, j)
        data = labels_only(labelled)
        trainer.train(f"round0_{plan.name}", j, students[j], data, seed, {"round": 0}, length=loop.first_length_of(j))
    yield end_round(0, [_record(trainer, students, 0, j) for j in everyone])
    out_of_fold = rule.needs_teacher and teacher_plan.source == "out-of-fold"
    chosen: list[Selection | None] = [None for _ in everyone]

    def with_chosen(j: int, faces: Sequence[CachedFace]) -> TrainingSet:
        """Labelled faces and the pseudo labels that student j has learned from last."""
        last = chosen[j]
        if last is None:
            return labels_only(faces)
        return with_pseudo_labels(
            faces,
            [unlabelled[u] for u in last.selected],
            last.landmarks,
            last.weights,
            labelled_share=loop.labelled_share,
        )

    def needs_last_teacher(i: int, j: int) -> bool:
        """Whether the last teacher is to be trained again though what it selected is kept: its file is gone, or an earlier one's."""
        last = i == loop.n_rounds and j == len(plans) - 1
        return rule.needs_teacher and last and (replaced or not context.has_ended("teacher"))

    # 6: for i = 1 .. S
    for i in range(1, loop.n_rounds + 1):
        records = []
        if out_of_fold:
            folds = train_folds(
                trainer,
                labelled,
                loop.n_folds,
                loop.fold_length,
                round_index=i,
                before=[] if loop.restart else folds,
                training_set=with_chosen,
            )
        for j, plan in enumerate(plans):
            name = f"round{i}_{plan.name}"
            file = context.file(f"{name}.json")
            selection = context.fabric.broadcast(read_selection(file))
            if selection is None or needs_last_teacher(i, j):
                if rule.needs_teacher:
                    # 7, 12: predict on L; 8, 13: optimize the teacher from scratch
                    seed = context.derive_seed("teacher data", i, j)
                    examples = make_teacher_data(trainer, teacher_plan, students, labelled, folds, seed)
                    seed = context.derive_seed("teacher", i, j)
                    teacher, state = train_teacher(
                        teacher_plan, examples, scheme=scheme, fabric=context.fabric, seed=seed
                    )
                    context.emit({"kind": "teacher", "round": i, "student": plan.name, "loss": state.losses[-1]})
                    context.save("teacher", teacher)
                    replaced = True
                # 7, 12: predict on U; 9, 14: estimate the quality of every pseudo label
                pseudo = _predict_unlabelled(trainer, students, j, unlabelled, rule, loop, teacher, selected, truth)
                # 10, 15: select the top r * i * |U|
                selection = select_pseudo_labels(
                    pseudo,
                    rule,
                    quota(i, loop.ratio, len(unlabelled)),
                    weight=loop.pseudo_weight,
                    by_spread=loop.weigh_by_spread,
                )
                selection = context.fabric.broadcast(selection)
                if context.fabric.is_global_zero:
                    write_selection(file, selection)
            selected[j], chosen[j] = selection.selected, selection
            # 11, 16: retrain w on L and the selection
            data = with_chosen(j, labelled)
            if loop.restart:
                students[j] = trainer.new_student(j, context.derive_seed("weights", i, j))
            seed = context.derive_seed("training", i, j)
            labels = {"round": i, "n_pseudo": len(selection.selected)}
            trainer.train(name, j, students[j], data, seed, labels)
            records.append(_record(trainer, students, i, j, selection))
        if rule.needs_teacher and teacher is None and context.has_ended("teacher"):  # every selection was read
            teacher = teacher_plan.build(scheme, 0)
            context.load("teacher", teacher)
        yield end_round(i, records)
    after = loop.n_rounds
    if loop.mean_teacher_length:
        # not in Algorithm 1: the averages of the students label U while they learn
        after += 1
        train_mean_teacher(
            trainer,
            students,
            labelled,
            unlabelled,
            name="mean_teacher",
            round_index=after,
            length=loop.mean_teacher_length,
            labelled_share=loop.labelled_share,
            weight=loop.pseudo_weight,
        )
        yield end_round(after, [_record(trainer, students, after, j) for j in everyone])
    if after and loop.last_length:
        # not in Algorithm 1: pseudo labels first, human labels last
        for j, plan in enumerate(plans):
            seed = context.derive_seed("last training", 0, j)
            labels = {"round": after, "last": True}
            data = labels_only(labelled)
            trainer.train(f"last_{plan.name}", j, students[j], data, seed, labels, length=loop.last_length)
        yield end_round(after + 1, [_record(trainer, students, after + 1, j) for j in everyone])


def _predict_unlabelled(
    trainer: StudentTrainer,
    students: Sequence[nn.Module],
    j: int,
    unlabelled: Sequence[CachedFace],
    rule: SelectionRule,
    loop: Loop,
    teacher: nn.Module | None,
    selected: Sequence[NDArray[np.int64]],
    truth: NDArray[np.float32] | None,
) -> PseudoLabels:
    """Pseudo labels of U for student j, with what its selection may use."""
    who = [j] if rule.own_labels else list(range(len(students)))
    last_selected = np.zeros((len(who), len(unlabelled)), bool)
    for row, w in enumerate(who):
        last_selected[row, selected[w]] = True
    pseudo = trainer.predict([students[w] for w in who], who, unlabelled, loop.n_views, teacher)
    return replace(
        pseudo,
        student=who.index(j),
        last_selected=last_selected,
        true_error=None if truth is None else mean_errors(pseudo.landmarks, truth),
    )


def _record(
    trainer: StudentTrainer, students: Sequence[nn.Module], i: int, j: int, selection: Selection | None = None
) -> RoundRecord:
    """The record of student j, which was just trained, with the validation NME of it and of all together."""
    own = trainer.nme([students[j]], [j])
    ensemble = trainer.nme(students, range(len(students)))
    return RoundRecord(i, trainer.plans[j].name, own, ensemble, selection)


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
    if loop.uses_unlabelled and not unlabelled:
        raise InputError(
            "training: there are no unlabelled faces for the rounds; give some, or set semi.rounds=0 and semi.mean_teacher=0"
        )
    if rule.name == "oracle" and (truth is None or np.isnan(truth).all()):
        raise InputError("selection oracle: expected true landmarks of the unlabelled faces, given none")
    if rule.needs_teacher and teacher.source == "validation" and validation is None:
        raise InputError("teacher.source validation: expected a validation list, given none; use out-of-fold")
    if rule.needs_teacher and teacher.source == "out-of-fold" and len(labelled) < 2 * loop.n_folds:
        raise InputError(
            f"teacher.source out-of-fold: {loop.n_folds} folds need {2 * loop.n_folds} labelled faces, "
            f"given {len(labelled)}"
        )
