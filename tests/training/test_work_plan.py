"""The time left of a run, by a clock of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.events import PlannedTraining
from fewmark.training.work_plan import MIN_STEPS, WorkPlan, plan_training

DEMO = Path(__file__).parents[2] / "examples/demo.toml"


class Machine:
    """Runs a plan's trainings in no time.

    Args:
        step: Seconds of a step of each student.
        pause: Seconds between two trainings of the rounds.
        warm_up: Seconds that the first epoch takes longer.
        stall: Seconds for which the machine stands still in one early epoch and in the first pause.
    """

    def __init__(self, step: dict[str, float], pause: float, warm_up: float = 0.0, stall: float = 0.0) -> None:
        self.step, self.pause, self.warm_up, self.stall = step, pause, warm_up, stall
        self.now = 0.0

    def run(self, plan: WorkPlan, steps_per_epoch: int) -> list[tuple[float, float | None]]:
        """The time at the end of every epoch, and the time left by the plan; at the end the time left is 0."""
        plan.clock = lambda: self.now
        shown, n = [], 0
        for name in plan.order:
            if name in plan.pauses:
                self.now += self.pause + (self.stall if name == "round1_unet" else 0.0)
            plan.begin(name)
            began, training = self.now, plan.trainings[name]
            n_epochs = training.n_steps // steps_per_epoch
            for epoch in range(1, n_epochs + 1):
                n += 1
                self.now += steps_per_epoch * self.step[training.part]
                self.now += self.warm_up if n == 1 else self.stall if n == 5 else 0.0
                plan.epoch({"name": name, "epoch": epoch, "n_epochs": n_epochs, "seconds": self.now - began})
                shown.append((self.now, plan.seconds_left()))
        return shown


@pytest.mark.parametrize("hourglass", [0.07, 0.09, 0.11])
@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0], ids=["fast", "usual", "slow"])
def test_the_time_left_of_the_demo_holds_from_the_start(hourglass: float, factor: float) -> None:
    plan = plan_training(load_config(DEMO), load_scheme("ibug-68"), 24, 200)
    machine = Machine({"unet": 0.058 * factor, "hourglass": hourglass * factor}, 4.5 * factor, warm_up=60 * factor)
    shown = machine.run(plan, 30)
    assert [left is None for _, left in shown[:4]] == [True, True, False, False]
    end, warm = machine.now, machine.warm_up
    for now, left in shown[2:-1]:
        assert left is not None
        assert (end - now) / 1.5 - 1e-6 < left < 1.5 * (end - now) + 1e-6, (now - warm, end - warm)
    assert shown[-1][1] == pytest.approx(0)


def test_a_machine_that_stands_still_for_a_while_hardly_changes_an_estimate() -> None:
    plan = plan_training(load_config(DEMO), load_scheme("ibug-68"), 24, 200)
    calm = Machine({"unet": 0.06, "hourglass": 0.09}, 5.0).run(plan, 30)
    again = plan_training(load_config(DEMO), load_scheme("ibug-68"), 24, 200)
    stalled = Machine({"unet": 0.06, "hourglass": 0.09}, 5.0, stall=100.0).run(again, 30)
    for (_, left), (_, other) in zip(calm[2:30], stalled[2:30], strict=True):
        assert other == pytest.approx(left, rel=0.05)


def test_nothing_is_shown_before_enough_steps_are_timed() -> None:
    plan = WorkPlan([PlannedTraining("a", "a", 4 * MIN_STEPS), PlannedTraining("b", "b", 4 * MIN_STEPS, 3.0)])
    plan.begin("a")
    lefts = []
    for epoch in range(1, 9):
        plan.epoch({"name": "a", "epoch": epoch, "n_epochs": 8, "seconds": 100.0 + epoch})
        lefts.append(plan.seconds_left())
    assert lefts[:2] == [None, None]
    assert lefts[2] == pytest.approx(5 + 24)
    assert lefts[-1] == pytest.approx(24)


def test_a_resumed_training_is_timed_from_where_it_goes_on() -> None:
    plan = WorkPlan([PlannedTraining("a", "a", 1000)])
    plan.begin("a")
    for epoch, seconds in ((7, 9.0), (8, 11.0)):
        plan.epoch({"name": "a", "epoch": epoch, "n_epochs": 10, "seconds": seconds})
    assert plan.seconds_left() == pytest.approx(4.0)


def test_a_pause_runs_down() -> None:
    now = [0.0]
    plan = WorkPlan([PlannedTraining("a", "a", 300), PlannedTraining("b", "b", 300)], {"b": 100}, lambda: now[0])
    plan.begin("a")
    for epoch in (1, 2, 3):
        now[0] += 10
        plan.epoch({"name": "a", "epoch": epoch, "n_epochs": 3, "seconds": now[0]})
    assert plan.seconds_left() == pytest.approx(10 + 30)
    now[0] += 4
    assert plan.seconds_left() == pytest.approx(6 + 30)
    now[0] += 30
    assert plan.seconds_left() == pytest.approx(30)
    assert plan.finished == 300
    plan.begin("b")
    assert plan.finished == 400


def test_the_students_differ_in_cost() -> None:
    scheme = load_scheme("ibug-68")
    small, large = (
        plan_training(load_config("compact", [f"students.compact.arguments.widths={w}"]), scheme, 20, 0).total
        for w in ("[16, 24, 48, 96, 160]", "[32, 64, 96, 160, 256]")
    )
    assert large > 1.5 * small
    rounds = plan_training(load_config(DEMO), scheme, 24, 200)
    alone = plan_training(load_config(DEMO, ["semi.selection=none"]), scheme, 24, 200)
    assert list(rounds.pauses) == [f"round{i}_{s}" for i in (1, 2) for s in ("unet", "hourglass")]
    assert not alone.pauses
    assert rounds.trainings["round0_hourglass"].step_cost > 1.3 * rounds.trainings["round0_unet"].step_cost
