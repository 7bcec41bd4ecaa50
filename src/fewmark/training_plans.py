"""What the settings mean to the rounds: plans of students and teacher, the loop and the selection."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from fewmark.cascade.coarse import contour_and_inner
from fewmark.cascade.frames import inner_components
from fewmark.cascade.training import drawn_epochs
from fewmark.checkpoint_parts import Checkpoint
from fewmark.codec import HeatmapCodec
from fewmark.config import Config, StudentSettings
from fewmark.errors import InputError
from fewmark.scheme import LandmarkScheme
from fewmark.semi.rounds import Loop
from fewmark.semi.selection import SelectionRule, selection_rule
from fewmark.semi.students import StudentPlan
from fewmark.semi.teaching import TeacherPlan


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
        drawn_length=config.drawn.length,
    )


CASCADE_EPOCHS = {"angle": 160, "coarse": 90, "component": 50, "point": 30}
"""Of each stage's trainings."""
CASCADE_BATCH = 32
LEAST_BATCHES = 600
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
    """The trainings of a cascade, in order; before each, where the settings ask for drawn faces, the one on these.

    Raises:
        InputError: the scheme lacks the components that a stage needs.
    """
    c = config.cascade
    n_batches = max(1, math.ceil(n_faces / CASCADE_BATCH))
    n_drawn = config.drawn.faces
    found = []
    for stage in c.stages:
        names: list[str] = [stage]
        if stage == "coarse" and c.apart:
            names = [f"coarse_{i}" for i in range(len(contour_and_inner(scheme)))]
        elif stage == "component":
            names = [f"component_{name}" for name in inner_components(scheme)]
        elif stage == "point":
            inner_components(scheme)
        epochs = max(CASCADE_EPOCHS[stage], math.ceil(LEAST_BATCHES / n_batches))
        n_epochs = max(1, round(epochs * c.length))
        for name in names:
            if n_drawn:
                first = drawn_epochs(config.drawn.length, n_epochs, n_faces, n_drawn)
                found.append(CascadeTraining(f"drawn_{name}", stage, first, n_drawn))
            found.append(CascadeTraining(name, stage, n_epochs, n_faces))
    return found


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
