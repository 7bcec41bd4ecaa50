"""The work of a run before it is done: its trainings in order, how far it is, and the time that is left."""

from __future__ import annotations

from collections.abc import Iterable

from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.cascade.plans import planned_cascade
from fewmark.training.config import Config
from fewmark.training.distillation import planned_distillation
from fewmark.training.events import Event, PlannedTraining
from fewmark.training.semi.plans import planned_rounds


def plan_training(config: Config, scheme: LandmarkScheme, n_labelled: int, n_unlabelled: int) -> WorkPlan:
    """The work of `fewmark.train`."""
    if config.cascade.stages:
        return WorkPlan(planned_cascade(config, scheme, n_labelled))
    return WorkPlan(planned_rounds(config, n_labelled, n_unlabelled))


def plan_distillation(config: Config, n_labelled: int, n_unlabelled: int) -> WorkPlan:
    """The work of `fewmark.distill`."""
    return WorkPlan(planned_distillation(config, n_labelled, n_unlabelled))


class WorkPlan:
    """Estimates the time left of a run from its planned trainings and the events seen so far.

    Args:
        trainings: The trainings in order.
    """

    def __init__(self, trainings: Iterable[PlannedTraining]) -> None:
        self.trainings = {t.name: t for t in trainings}
        self.order = list(self.trainings)
        self.current = ""
        self.done = 0.0  # fraction of the current training
        self.speed: dict[str, float] = {}  # seconds per unit of work, by part

    @property
    def total(self) -> float:
        """Work of all trainings."""
        return sum(self._work(name) for name in self.order)

    @property
    def finished(self) -> float:
        """Work that is done."""
        if self.current not in self.trainings:
            return 0.0
        before = self.order[: self.order.index(self.current)]
        return sum(self._work(n) for n in before) + self.done * self._work(self.current)

    def begin(self, name: str) -> None:
        """A training begins."""
        self.current, self.done = name, 0.0

    def epoch(self, event: Event, first: int) -> None:
        """An epoch has ended; `first` is the first one since this training began or was resumed."""
        self.begin(event["name"])
        self.done = event["epoch"] / event["n_epochs"]
        training = self.trainings.get(event["name"])
        if training is not None:
            work = self._work(training.name) * (event["epoch"] - first + 1) / event["n_epochs"]
            self.speed[training.part] = event["seconds"] / work

    def seconds_left(self) -> float | None:
        """The time left, or None before any training was timed."""
        if not self.speed or self.current not in self.trainings:
            return None
        usual = sum(self.speed.values()) / len(self.speed)

        def seconds(name: str) -> float:
            return self._work(name) * self.speed.get(self.trainings[name].part, usual)

        later = self.order[self.order.index(self.current) + 1 :]
        return (1 - self.done) * seconds(self.current) + sum(seconds(name) for name in later)

    def _work(self, name: str) -> float:
        training = self.trainings[name]
        return training.n_steps * training.step_cost
