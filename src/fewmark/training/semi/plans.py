"""From settings to plans: students, teacher, rounds, and the trainings that these amount to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from fewmark.core.errors import InputError
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec
from fewmark.models.mobilenet_v2 import find_imagenet
from fewmark.training.events import PlannedTraining
from fewmark.training.semi.rounds import Loop
from fewmark.training.semi.selection import SelectionRule, quota, selection_rule
from fewmark.training.semi.students import StudentPlan
from fewmark.training.semi.teacher import TeacherPlan
from fewmark.training.settings import Config, StudentSettings

TEACHER_KINDS = {
    "peaks": TeacherPlan(),
    "patchgan": TeacherPlan(
        target="heatmap", n_copies=8, width=64, norm="instance", peaks=False, batch_size=128, learning_rate=0.01
    ),
}
"""teacher.kind -> the teacher, but for its source and steps. "patchgan" is the paper's: TS3, sections 3.2 and 4.2; "peaks" is chosen
by its rank correlation with the true error from 107 labelled faces, see docs/decisions.md."""
CLIP_NORM = 5.0
"""Largest norm of the gradient under AdamW; the paper's optimizers do not clip."""


def student_plans(config: Config) -> list[StudentPlan]:
    """The students of a config.

    Raises:
        InputError: A network or an argument of it does not exist.
    """
    return [_student_plan(name, s) for name, s in config.students.items()]


def check_students(config: Config) -> None:
    """Check that the students can be built and fit the crop.

    Raises:
        InputError: A network, an argument of it or the crop's size does not fit, or ImageNet's weights are not installed.
    """
    student_plans(config)
    for s in config.students.values():
        if config.crop.size % 32 and s.architecture in ("compact", "mobilenet_v2"):
            raise InputError(f"crop.size: {s.architecture} needs a multiple of 32, given {config.crop.size}")
        if s.weights == "imagenet":
            find_imagenet()


def teacher_plan(config: Config) -> TeacherPlan:
    """The teacher of a config."""
    t = config.teacher
    return replace(
        TEACHER_KINDS[t.kind],
        source=t.source,
        n_steps=t.steps,
        standardise=t.standardise,
        n_layers=t.layers,
        shrink=t.shrink,
    )


def make_loop(config: Config, n_labelled: int, n_unlabelled: int) -> Loop:
    """The rounds of a config. Selection "none" trains on L alone, as many steps as the rounds would take.

    Args:
        config: Settings.
        n_labelled: Number of faces of L; 0: synthetic faces take their place, and no training ends on labels.
        n_unlabelled: Number of faces of U.
    """
    s = config.semi
    rounds, last = s.rounds, s.last_length if n_labelled else 0.0
    n_labelled = n_labelled or config.synthetic.faces
    first: float | list[float] = s.first_length
    mean_teacher = s.mean_teacher
    if s.selection == "none":
        rounds = 0
        last, mean_teacher = (last if s.rounds or mean_teacher else 0.0), 0.0
        first = [
            s.first_length
            + last
            + s.mean_teacher
            * steps_per_epoch(student, n_labelled + n_unlabelled)
            / steps_per_epoch(student, n_labelled)
            + sum(
                steps_per_epoch(student, n_labelled + quota(i, s.ratio, n_unlabelled))
                / steps_per_epoch(student, n_labelled)
                for i in range(1, s.rounds + 1)
            )
            for student in config.students.values()
        ]
    return Loop(
        n_rounds=rounds,
        ratio=s.ratio,
        restart=s.restart,
        n_views=s.views,
        labelled_share=s.labelled_share,
        fold_length=s.fold_length,
        first_length=first,
        last_length=last,
        mean_teacher_length=mean_teacher,
        pseudo_weight=s.pseudo_weight,
        weigh_by_spread=s.weigh_by_spread,
        synthetic_length=config.synthetic.length,
    )


def make_selection(config: Config) -> SelectionRule:
    """The selection rule of a config; any for "none", whose loop has no rounds."""
    name = "random" if config.semi.selection == "none" else config.semi.selection
    return selection_rule(name, config.run.seed)


def planned_rounds(
    config: Config, n_labelled: int, n_unlabelled: int, *, converted: bool = False
) -> Iterator[PlannedTraining]:
    """The trainings of the rounds, in order; `converted`: the run starts from a model of another scheme."""
    loop = make_loop(config, n_labelled, n_unlabelled)

    def train_all(prefix: str, n_faces: int, length: float | None = 1.0) -> Iterator[PlannedTraining]:
        for j, (name, s) in enumerate(config.students.items()):
            epochs = max(1, round(s.n_epochs * (loop.first_length_of(j) if length is None else length)))
            yield PlannedTraining(f"{prefix}_{name}", name, epochs * steps_per_epoch(s, n_faces))

    if config.synthetic.faces and n_labelled:
        yield from train_all("synthetic", config.synthetic.faces, loop.synthetic_length)
    if converted and n_unlabelled:
        yield from train_all("converted", n_unlabelled, loop.synthetic_length)
    n_labelled = n_labelled or config.synthetic.faces
    yield from train_all("round0", n_labelled, None)
    out_of_fold = config.semi.selection == "teacher" and config.teacher.source == "out-of-fold"
    for i in range(1, loop.n_rounds + 1):
        for fold in range(loop.n_folds if out_of_fold else 0):
            suffix = "" if i == 1 else f"_round{i}"
            n_pseudo = quota(i - 1, loop.ratio, n_unlabelled) if i > 1 else 0
            yield from train_all(f"fold{fold}{suffix}", n_labelled + n_pseudo, loop.fold_length)
        yield from train_all(f"round{i}", n_labelled + quota(i, loop.ratio, n_unlabelled))
    if loop.mean_teacher_length:
        first = next(iter(config.students.values()))
        epochs = max(1, round(first.n_epochs * loop.mean_teacher_length))
        yield PlannedTraining(
            "mean_teacher",
            " + ".join(config.students),
            epochs * steps_per_epoch(first, n_labelled + n_unlabelled),
        )
    if loop.uses_unlabelled and loop.last_length:
        yield from train_all("last", n_labelled, loop.last_length)


def steps_per_epoch(student: StudentSettings, n_faces: int) -> int:
    """Roughly the optimizer steps of one epoch over so many faces."""
    return student.n_batches or max(1, n_faces // student.batch_size)


def _student_plan(name: str, s: StudentSettings) -> StudentPlan:
    integral = s.loss == "integral"
    return StudentPlan(
        name=name,
        architecture=s.architecture,
        codec=HeatmapCodec(
            stride=_network_stride(name, s),
            sigma=s.codec.sigma,
            background=not integral,
            decoding=s.codec.decoding,
            logits=integral,
        ),
        arguments=s.arguments,
        weights=s.weights,
        loss=s.loss,
        optimizer=s.optimizer,
        learning_rate=s.learning_rate,
        weight_decay=s.weight_decay,
        n_epochs=s.n_epochs,
        n_batches=s.n_batches or None,
        batch_size=s.batch_size,
        milestones=tuple(s.milestones),
        clip_norm=CLIP_NORM if s.optimizer == "adamw" else 0.0,
        map_weight=s.map_weight,
    )


def _network_stride(name: str, s: StudentSettings) -> int:
    """The network's stride: it is built without memory for its weights, which also checks its arguments."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            stride = build_model(s.architecture, **{**s.arguments, "n_maps": 1}).stride
    except InputError as error:
        raise InputError(f"students.{name}: {error}") from None
    assert isinstance(stride, int)
    return stride
