"""The work of a run before it is done: its trainings in order, how far it is, and the time that is left."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import nn

from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.build import build_model, count_multiply_adds, count_outputs
from fewmark.training.cascade.plans import planned_cascade
from fewmark.training.distillation import planned_distillation
from fewmark.training.events import Event, PlannedTraining
from fewmark.training.semi.plans import make_loop, make_selection, planned_rounds, student_plans, teacher_plan
from fewmark.training.settings import Config

MIN_STEPS = 50
"""Steps that are timed before a time is shown; the first epoch is not among them, because it warms up."""
WINDOW = 9
"""Last epochs of a part whose median is its speed: a machine that stands still for a while does not change it."""
PAUSE = "pause"
"""The part of what is done between trainings: teachers and pseudo labels."""
AUGMENTATION = 1.0
"""Time to augment a face, see `_face_cost`."""
FORWARD = 1 / 6
"""Share of a prediction in the time of a training step, per face."""


def plan_training(
    config: Config, scheme: LandmarkScheme, n_labelled: int, n_unlabelled: int, *, converted: bool = False
) -> WorkPlan:
    """The work of `fewmark.train`; `converted`: it starts from a model of another scheme."""
    if config.cascade.stages:
        return WorkPlan(planned_cascade(config, scheme, n_labelled))
    costs = _student_costs(config, scheme)
    trainings = [
        replace(t, step_cost=sum(costs[p] * config.students[p].batch_size for p in t.part.split(" + ")))
        for t in planned_rounds(config, n_labelled, n_unlabelled, converted=converted)
    ]
    loop, pause = make_loop(config, n_labelled, n_unlabelled), 0.0
    if loop.n_rounds:
        pause = FORWARD * sum(costs.values()) * n_unlabelled * loop.n_views
        if make_selection(config).needs_teacher:
            teacher = teacher_plan(config)
            network = _on_meta("teacher", **teacher.arguments(scheme))
            pause += FORWARD * sum(costs.values()) * n_labelled * teacher.n_copies
            pause += _face_cost(network, config.crop.size) * teacher.n_steps * teacher.batch_size
    updates = [f"round{i}_{name}" for i in range(1, loop.n_rounds + 1) for name in config.students]
    return WorkPlan(trainings, dict.fromkeys(updates, pause))


def plan_distillation(config: Config, n_labelled: int, n_unlabelled: int) -> WorkPlan:
    """The work of `fewmark.distill`."""
    return WorkPlan(planned_distillation(config, n_labelled, n_unlabelled))


class WorkPlan:
    """Estimates the time left of a run from its planned trainings and the events seen so far.

    Args:
        trainings: The trainings in order.
        pauses: Name of a training -> work before it, in the unit of `PlannedTraining.step_cost`; none where it is left out.
        clock: Seconds on a monotonic clock.
    """

    def __init__(
        self,
        trainings: Iterable[PlannedTraining],
        pauses: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trainings = {t.name: t for t in trainings}
        self.pauses = dict(pauses or {})
        self.clock = clock
        self.order = list(self.trainings)
        self.current = ""
        self.done = 0.0  # fraction of the current training
        self.times: dict[str, deque[float]] = {}  # seconds per unit of work, by part
        self._steps, self._seconds, self._warm = 0.0, 0.0, False
        self._ended: float | None = None  # when the current training ended

    @property
    def total(self) -> float:
        """Work of all trainings, and before them."""
        return sum(self._work(name) + self.pauses.get(name, 0.0) for name in self.order)

    @property
    def finished(self) -> float:
        """Work that is done."""
        if self.current not in self.trainings:
            return 0.0
        before = self.order[: self.order.index(self.current)]
        work = sum(self._work(n) + self.pauses.get(n, 0.0) for n in before)
        return work + self.pauses.get(self.current, 0.0) + self.done * self._work(self.current)

    def begin(self, name: str) -> None:
        """A training begins."""
        pause = self.pauses.get(name, 0.0)
        if pause and self._ended is not None:
            self._time(PAUSE, (self.clock() - self._ended) / pause)
        self.current, self.done, self._seconds, self._ended = name, 0.0, 0.0, None

    def epoch(self, event: Event) -> None:
        """An epoch has ended."""
        if event["name"] != self.current:
            self.begin(event["name"])
        seconds, self._seconds = float(event["seconds"]) - self._seconds, float(event["seconds"])
        self.done = float(event["epoch"] / event["n_epochs"])
        if event["epoch"] == event["n_epochs"]:
            self._ended = self.clock()
        training = self.trainings.get(event["name"])
        if training is not None and self._warm:
            self._steps += training.n_steps / event["n_epochs"]
            self._time(training.part, seconds * event["n_epochs"] / self._work(training.name))
        self._warm = True

    def seconds_left(self) -> float | None:
        """The time left, or None before enough steps were timed."""
        if self._steps < MIN_STEPS or self.current not in self.trainings:
            return None
        speeds = {part: statistics.median_low(times) for part, times in self.times.items() if part != PAUSE}
        usual = statistics.fmean(speeds.values())
        pause: float = statistics.median_low([usual, *self.times.get(PAUSE, ())])  # pauses are few: a guess has a vote
        later = self.order[self.order.index(self.current) + 1 :]
        pauses = [self.pauses.get(name, 0.0) * pause for name in later]
        if pauses and self._ended is not None:
            pauses[0] = max(0.0, pauses[0] - (self.clock() - self._ended))
        trainings = [self._work(name) * speeds.get(self.trainings[name].part, usual) for name in [self.current, *later]]
        return (1 - self.done) * trainings[0] + sum(trainings[1:]) + sum(pauses)

    def _time(self, part: str, seconds: float) -> None:
        self.times.setdefault(part, deque(maxlen=WINDOW)).append(seconds)

    def _work(self, name: str) -> float:
        training = self.trainings[name]
        return training.n_steps * training.step_cost


def _student_costs(config: Config, scheme: LandmarkScheme) -> dict[str, float]:
    """Student -> rough time of a training step per face, ms on two CPU cores."""
    return {
        p.name: AUGMENTATION
        + _face_cost(
            _on_meta(p.architecture, **p.arguments, n_maps=p.codec.n_maps(scheme.n_landmarks)), config.crop.size
        )
        for p in student_plans(config)
    }


def _face_cost(network: nn.Module, size: int) -> float:
    """Rough time of a network in a training step per face, ms on two CPU cores, from what it computes and what it writes.

    The factors are fitted to the students of the demo and of the recipe `paper`. They say how much longer one network takes than
    another, until both are timed.
    """
    return 0.03e-6 * count_multiply_adds(network, size) + 6.5e-6 * count_outputs(network, size)


def _on_meta(architecture: str, **arguments: object) -> nn.Module:
    """A network without memory for its weights."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return build_model(architecture, **arguments)
