"""The progress of a training: a live display, or plain lines without a terminal."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import err
from fewmark.core.text import percent
from fewmark.training.events import Event
from fewmark.training.semi.rounds import RoundRecord
from fewmark.training.work_plan import WorkPlan

Result = TypeVar("Result")


class TrainingDisplay:
    """Display of a run's events: a context, called with each event.

    Args:
        console: A terminal gets a live display, anything else one line per event.
        plan: The run's trainings.
    """

    def __init__(self, console: Console, plan: WorkPlan) -> None:
        self.console, self.plan = console, plan
        self.records: list[Sequence[RoundRecord]] = []
        self.stages: list[Event] = []
        self._began = time.monotonic()
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
            line = f"{_part_of(event)}: training {event.get('student', event['name'])} on {event['n_faces']} faces"
            if event.get("n_pseudo"):
                line += f", {event['n_pseudo']} of them with pseudo labels"
        elif kind == "epoch":
            self.plan.epoch(event)
            line = f"{_part_of(event)}: {event.get('student', event['name'])}, epoch {event['epoch']} of {event['n_epochs']}"
            line += "" if event.get("loss") is None else f", loss {event['loss']:.4f}"
            line += f", validation NME {percent(event['val_nme'])}" if event.get("val_nme") is not None else ""
        elif kind == "teacher":
            line = f"round {event['round']}: the teacher for {event['student']}, loss {event['loss']:.4f}"
        elif kind == "round":
            records: list[RoundRecord] = event["records"]
            self.records.append(records)
            line = f"round {event['round']} is done"
            if records and records[0].val_nme is not None:
                each = ", ".join(f"{r.student} {percent(r.val_nme)}" for r in records)
                line += f": validation NME {each}, ensemble {percent(records[-1].ensemble_val_nme)}"
        elif kind == "stage":
            self.stages.append(event)
            line = f"stage {event['stage']} is done" + "".join(f": {s}" for s in stage_lines([event]))
        elif kind == "done":
            line = f"done in {duration(event['seconds'])}"
        if line:
            self._show(line, None if kind == "done" else self.plan.seconds_left())

    def _show(self, line: str, left: float | None) -> None:
        remains = "" if left is None else f"about {duration(left)} left"
        if self._live is None:
            mark = f"[{duration(time.monotonic() - self._began):>7}] "
            self.console.print(Text(mark + line + (f" ({remains})" if remains else "")), soft_wrap=True)
            return
        self._bar.update(self._task, completed=self.plan.finished, left=remains)
        parts: list[Progress | Text] = [self._bar, Text(line, style="dim")]
        self._live.update(Group(rounds_table(self.records), *parts) if self.records else Group(*parts))


def run_displayed(display: TrainingDisplay, train: Callable[[], Result]) -> Result:
    """Run a training with its display.

    Raises:
        typer.Exit: 130 after Ctrl-C, with the command that resumes it; 0 under torchrun in all processes but the first,
            which prints the results.
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


def rounds_table(records: Sequence[Sequence[RoundRecord]]) -> Table:
    """One row per round: number of pseudo labels, and validation NME per student and of all together."""
    table = Table(title_justify="left", header_style="bold")
    table.add_column("round", justify="right")
    table.add_column("pseudo labels", justify="right")
    names = [r.student for r in records[0]] if records else []
    measured = bool(records) and records[0][0].val_nme is not None
    for name in [*names, "ensemble"] if measured else []:
        table.add_column(name, justify="right")
    for part in records:
        row = [str(part[0].round), str(max(r.n_selected for r in part))]
        if measured:
            row += [percent(r.val_nme) for r in part] + [percent(part[-1].ensemble_val_nme)]
        table.add_row(*row)
    return table


def stage_lines(stages: Sequence[Event]) -> list[str]:
    """Results of a cascade's stages on the validation faces, one line each."""
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


def _part_of(event: Event) -> str:
    if "stage" in event:
        return f"stage {event['stage']}"
    if event.get("synthetic"):
        return "synthetic faces"
    if event.get("converted"):
        return "converted landmarks"
    if event.get("mean_teacher"):
        return "mean teacher"
    if event.get("last"):
        return "labels, last"
    fold = event.get("fold")
    return f"fold {fold}" if fold is not None else f"round {event['round']}"
