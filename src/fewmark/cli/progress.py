"""What a person sees while a detector is trained: a live display, or plain lines without a terminal."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import err
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.cascade.plans import cascade_trainings
from fewmark.training.config import Config
from fewmark.training.semi.plans import make_loop
from fewmark.training.semi.selection import quota

Event = dict[str, Any]
Result = TypeVar("Result")

CASCADE_COST = {"angle": 1.0, "coarse": 5.0, "component": 0.5, "point": 6.0}
"""Of a batch of each stage, roughly, before any time is known; twins cost twice as much."""


def percent(value: float | None) -> str:
    """An NME for people."""
    return "-" if value is None or value != value else f"{100 * value:.2f} %"


class WorkPlan:
    """Which trainings a run consists of, and how many batches each; an estimate that serves the time left.

    Args:
        config: of the run.
        n_labelled: faces.
        n_unlabelled: faces.
        scheme: of the labels; the trainings of a cascade follow from it.
        distilled: the students learn from other models.
    """

    def __init__(
        self,
        config: Config,
        n_labelled: int,
        n_unlabelled: int,
        scheme: LandmarkScheme | None = None,
        *,
        distilled: bool = False,
    ) -> None:
        self.batches: dict[str, float] = {}
        self.student: dict[str, str] = {}
        if distilled:
            n_faces = n_labelled + quota(1, config.semi.ratio, n_unlabelled)
            for name, s in config.students.items():
                self.batches[f"distilled_{name}"] = s.n_epochs * (s.n_batches or max(1, n_faces // s.batch_size))
                self.student[f"distilled_{name}"] = name
        elif config.cascade.stages:
            assert scheme is not None
            for training in cascade_trainings(config, scheme, n_labelled):
                cost = CASCADE_COST[training.stage] * (2 if config.cascade.twin and training.stage == "coarse" else 1)
                self.batches[training.name] = cost * training.n_epochs * training.n_batches
                self.student[training.name] = training.stage
        else:
            self._add_rounds(config, n_labelled, n_unlabelled)
        self.order = list(self.batches)
        self.current = ""
        self.done = 0.0  # share of the current training
        self.speed: dict[str, float] = {}  # seconds a batch

    def _add_rounds(self, config: Config, n_labelled: int, n_unlabelled: int) -> None:
        loop = make_loop(config)
        students = config.students

        def add(name: str, student: str, n_faces: int, length: float) -> None:
            s = students[student]
            epochs = max(1, round(s.n_epochs * length))
            self.batches[name] = epochs * (s.n_batches or max(1, n_faces // s.batch_size))
            self.student[name] = student

        for student in students if config.synthetic.faces else ():
            add(f"synthetic_{student}", student, config.synthetic.faces, loop.synthetic_length)
        for student in students:
            add(f"round0_{student}", student, n_labelled, loop.first_length)
        if loop.n_rounds and config.semi.selection == "teacher" and config.teacher.source == "out-of-fold":
            for fold in range(loop.n_folds):
                for student in students:
                    add(f"fold{fold}_{student}", student, n_labelled, loop.fold_length)
        for i in range(1, loop.n_rounds + 1):
            for student in students:
                n_faces = n_labelled + quota(i, loop.ratio, n_unlabelled)
                add(f"round{i}_{student}", student, n_faces, 1.0)

    @property
    def total(self) -> float:
        return sum(self.batches.values())

    @property
    def finished(self) -> float:
        """Batches that need not be trained any more."""
        if self.current not in self.batches:
            return 0.0
        before = self.order[: self.order.index(self.current)]
        return sum(self.batches[n] for n in before) + self.done * self.batches[self.current]

    def begin(self, name: str) -> None:
        self.current, self.done = name, 0.0

    def epoch(self, event: Event, first: int) -> None:
        """An epoch has ended; `first` is the first one since this training began or went on."""
        self.begin(event["name"])
        self.done = event["epoch"] / event["n_epochs"]
        seen = self.batches.get(event["name"], 0.0) * (event["epoch"] - first + 1) / event["n_epochs"]
        if seen:
            self.speed[self.student[event["name"]]] = event["seconds"] / seen

    def seconds_left(self) -> float | None:
        """None before anything is known."""
        if not self.speed or self.current not in self.batches:
            return None
        usual = sum(self.speed.values()) / len(self.speed)
        start = self.order.index(self.current)
        left = (1 - self.done) * self.batches[self.current] * self.speed.get(self.student[self.current], usual)
        return left + sum(self.batches[n] * self.speed.get(self.student[n], usual) for n in self.order[start + 1 :])


class TrainingDisplay:
    """Shows a run's events; call it with each. Use it as a context.

    Args:
        console: where; a live display if it is a terminal, a line an event otherwise.
        plan: of the run.
    """

    def __init__(self, console: Console, plan: WorkPlan) -> None:
        self.console, self.plan = console, plan
        self.records: list[Sequence[Event]] = []
        self.stages: list[Event] = []
        self._status, self._first, self._began = "", 1, time.monotonic()
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("training", total=max(1.0, plan.total), left="")
        self._live = (
            Live(self._bar, console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> TrainingDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        kind = event["kind"]
        line = ""
        if kind == "reading":
            line = f"reading {event['n_faces']} faces"
        elif kind == "note":
            line = event["text"]
        elif kind == "training":
            self.plan.begin(event["name"])
            self._first = 0
            line = f"{_place(event)}: training {event.get('student', event['name'])} on {event['n_faces']} faces"
            if event.get("n_pseudo"):
                line += f", {event['n_pseudo']} of them with pseudo labels"
        elif kind == "epoch":
            self._first = self._first or event["epoch"]
            self.plan.epoch(event, self._first)
            line = (
                f"{_place(event)}: {event.get('student', event['name'])}, epoch {event['epoch']} of {event['n_epochs']}"
            )
            line += "" if event.get("loss") is None else f", loss {event['loss']:.4f}"
            line += f", validation NME {percent(event['val_nme'])}" if event.get("val_nme") is not None else ""
        elif kind == "teacher":
            line = f"round {event['round']}: the teacher for {event['student']}, loss {event['loss']:.4f}"
        elif kind == "round":
            self.records.append(event["records"])
            first = event["records"][0] if event["records"] else {}
            line = f"round {event['round']} is done"
            if "val_nme" in first:
                each = ", ".join(f"{r['student']} {percent(r['val_nme'])}" for r in event["records"])
                ensemble = percent(event["records"][-1]["ensemble_val_nme"])
                line += f": validation NME {each}, ensemble {ensemble}"
        elif kind == "stage":
            self.stages.append(event)
            line = f"stage {event['stage']} is done" + "".join(f": {s}" for s in stage_lines([event]))
        elif kind == "done":
            line = f"done in {duration(event['seconds'])}"
        if line:
            self._show(line)

    def _show(self, line: str) -> None:
        left = self.plan.seconds_left()
        remains = "" if left is None else f"about {duration(left)} left"
        if self._live is None:
            mark = f"[{duration(time.monotonic() - self._began):>7}] "
            self.console.print(Text(mark + line + (f" ({remains})" if remains else "")), soft_wrap=True)
            return
        self._bar.update(self._task, completed=self.plan.finished, left=remains)
        parts: list[Progress | Text] = [self._bar, Text(line, style="dim")]
        self._live.update(Group(rounds_table(self.records), *parts) if self.records else Group(*parts))


def run_displayed(display: TrainingDisplay, train: Callable[[], Result]) -> Result:
    """Run a training under its display.

    Raises:
        typer.Exit: 130 after Ctrl-C, with the command that goes on; 0 under torchrun in all processes but the first, which speaks
            for all.
    """
    from fewmark.training.launch import leave

    try:
        with display:
            result = train()
    except KeyboardInterrupt:
        words = [*sys.argv[1:], *([] if "--resume" in sys.argv else ["--resume"])]
        err.print(Text(f"stopped; go on with: fewmark {shlex.join(words)}", style="yellow"), soft_wrap=True)
        raise typer.Exit(130) from None
    leave()
    if os.environ.get("RANK", "0") != "0":
        raise typer.Exit
    return result


def rounds_table(records: Sequence[Sequence[Event]]) -> Table:
    """A row a round: pseudo labels taken, and validation NME per student and of all together."""
    table = Table(title_justify="left", header_style="bold")
    table.add_column("round", justify="right")
    table.add_column("pseudo labels", justify="right")
    names = [r["student"] for r in records[0]] if records else []
    measured = bool(records) and "val_nme" in records[0][0]
    for name in [*names, "ensemble"] if measured else []:
        table.add_column(name, justify="right")
    for part in records:
        row = [str(part[0]["round"]), str(max(r.get("n_selected", 0) for r in part))]
        if measured:
            row += [percent(r.get("val_nme")) for r in part] + [percent(part[-1].get("ensemble_val_nme"))]
        table.add_row(*row)
    return table


def stage_lines(stages: Sequence[Event]) -> list[str]:
    """What the validation faces say of each stage of a cascade."""
    lines = []
    for e in stages:
        if e.get("val_nme") is not None:
            lines.append(f"after {e['stage']} NME {percent(e['val_nme'])} by {e['normalizer']}")
        elif e.get("within_5_degrees") is not None:
            lines.append(f"{100 * e['within_5_degrees']:.0f} % of the angles within 5 degrees")
    return lines


def duration(seconds: float) -> str:
    """
    >>> duration(75)
    '1:15 min'
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d} min"


def _place(event: Event) -> str:
    if "stage" in event:
        return f"stage {event['stage']}"
    if event.get("synthetic"):
        return "synthetic faces"
    fold = event.get("fold")
    return f"fold {fold}" if fold is not None else f"round {event['round']}"
