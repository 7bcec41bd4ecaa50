"""What the settings mean to the rounds: plans of students and teacher, the loop and the selection."""

from __future__ import annotations

from torch import Tensor

from fewmark.core.errors import InputError
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.codec import HeatmapCodec
from fewmark.training.config import Config, StudentSettings
from fewmark.training.semi.rounds import Loop
from fewmark.training.semi.selection import SelectionRule, selection_rule
from fewmark.training.semi.students import StudentPlan
from fewmark.training.semi.teacher import TeacherPlan


def student_plans(config: Config) -> list[StudentPlan]:
    """The students that a config describes."""
    return [_student_plan(name, s) for name, s in config.students.items()]


def start_weights(config: Config, scheme: LandmarkScheme, start: Checkpoint | None) -> list[dict[str, Tensor]]:
    """The weights from which each student begins; an empty dict for one whose network the model to start from does not hold.

    Raises:
        InputError: the model is of another scheme, or holds none of the students' networks.
    """
    if start is None:
        return []
    if config.cascade.stages:
        raise InputError("--start: a cascade begins with weights of its own; leave it out")
    if start.scheme.landmarks != scheme.landmarks:
        raise InputError(f"--start: expected a model of scheme {scheme.name}, given one of {start.scheme.name}")
    held = [(p.architecture, p.arguments) for p in start.students]
    wanted = [
        (s.architecture, s.arguments | {"n_maps": p.codec.n_maps(scheme.n_landmarks)})
        for s, p in zip(config.students.values(), student_plans(config), strict=True)
    ]
    if not any(network in held for network in wanted):
        expected, given = ("; ".join(f"{a} {b}" for a, b in networks) or "none" for networks in (wanted, held))
        raise InputError(
            f"--start: expected a model that holds one of the networks {expected}, given {given}; take the recipe that it was trained by"
        )
    return [start.students[held.index(n)].module.state_dict() if n in held else {} for n in wanted]


def teacher_plan(config: Config) -> TeacherPlan:
    """The teacher that a config describes."""
    t = config.teacher
    return TeacherPlan(
        source=t.source,
        target=t.target,
        n_copies=t.copies,
        width=t.width,
        norm=t.norm,
        peaks=t.peaks,
        n_steps=t.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
    )


def make_loop(config: Config) -> Loop:
    """The rounds that a config describes. Selection "none" trains on L alone, as many steps as the rounds would take."""
    s = config.semi
    first, rounds = s.first_length, s.rounds
    if s.selection == "none":
        first, rounds = first + rounds, 0
    return Loop(
        n_rounds=rounds,
        ratio=s.ratio,
        restart=s.restart,
        n_views=s.views,
        labelled_share=s.labelled_share,
        fold_length=s.fold_length,
        first_length=first,
        synthetic_length=config.synthetic.length,
    )


def make_selection(config: Config) -> SelectionRule:
    """The rule that a config names; any for "none", whose loop has no rounds."""
    name = "random" if config.semi.selection == "none" else config.semi.selection
    return selection_rule(name, config.run.seed)


def _student_plan(name: str, s: StudentSettings) -> StudentPlan:
    return StudentPlan(
        name=name,
        architecture=s.architecture,
        codec=HeatmapCodec(**s.codec.model_dump()),
        arguments=s.arguments,
        loss=s.loss,
        optimizer=s.optimizer,
        learning_rate=s.learning_rate,
        weight_decay=s.weight_decay,
        n_epochs=s.n_epochs,
        n_batches=s.n_batches or None,
        batch_size=s.batch_size,
        milestones=tuple(s.milestones),
        clip_norm=s.clip_norm,
        map_weight=s.map_weight,
    )
