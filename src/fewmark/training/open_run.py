"""An opened run: its folder is free or holds its own beginning, its processes are started, its events are logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fewmark.core.errors import InputError
from fewmark.core.json import json_value
from fewmark.data.crops import CropRule
from fewmark.inference.checkpoint.io import Checkpoint
from fewmark.training.events import Event
from fewmark.training.faces import TrainingData, note_missing_mirror
from fewmark.training.folder_lock import alone_in
from fewmark.training.launch import first_process, launch
from fewmark.training.recovery import recover
from fewmark.training.run_folder import append_line, check_folder, update_settings, write_settings
from fewmark.training.runner import RunContext
from fewmark.training.settings import Config
from fewmark.training.unchanged import check_unchanged, write_digests

LOGGED = ("epoch", "teacher", "stage")
"""Kinds of events that metrics.jsonl keeps."""


@dataclass(frozen=True, eq=False)
class OpenRun:
    """A run whose folder is free or holds its own beginning.

    Attributes:
        config: Settings.
        data: Faces.
        data_hash: Their hash.
        folder: The run folder.
        teachers: Models that are distilled.
        start: Model that it starts from, or None.
        resume: Whether it goes on.
        context: What its trainings share.
        started_at: Time of its start, seconds on a monotonic clock.
    """

    config: Config
    data: TrainingData
    data_hash: str
    folder: Path
    teachers: Sequence[Checkpoint]
    start: Checkpoint | None
    resume: bool
    context: RunContext
    started_at: float = field(default_factory=time.monotonic)

    @property
    def crop(self) -> CropRule:
        """The networks' crop."""
        return CropRule(self.config.crop.size, self.config.crop.margin)

    def begin(self) -> None:
        """Write the settings, once all images could be read: from now on the folder holds the run.

        Raises:
            InputError: The folder cannot be written to, or an image is gone.
        """

        def write() -> None:
            write_digests(self.folder / "state", self.data)
            if self.resume:
                update_settings(self.folder, self.config, distillation=bool(self.teachers))
            else:
                write_settings(self.folder, self.config, self.data_hash)

        problem = first_process(self.context.fabric, write)
        if problem is not None:
            raise InputError(problem)


@contextmanager
def open_run(
    config: Config,
    data: TrainingData,
    folder: Path,
    teachers: Sequence[Checkpoint],
    start: Checkpoint | None,
    resume: bool,
    on_event: Callable[[Event], None],
) -> Iterator[OpenRun]:
    """Start the processes, and take the run folder until the end of the block.

    Raises:
        InputError: See `alone_in`, `check_folder` and `check_unchanged`.
    """
    fabric = launch(config)
    data_hash = data.hash([*teachers, *([] if start is None else [start])])

    def emit(event: Event) -> None:
        if not fabric.is_global_zero:
            return
        event = {k: v if k == "records" else json_value(v) for k, v in event.items()}
        if event["kind"] in LOGGED:
            append_line(folder / "metrics.jsonl", event)
        on_event(event)

    with ExitStack() as stack:

        def take_folder() -> None:
            stack.enter_context(alone_in(folder))
            check_folder(folder, config, data_hash, resume=resume, distillation=bool(teachers))
            if resume:
                recover(folder, lambda text: emit({"kind": "note", "text": text}))
                check_unchanged(folder / "state", data)

        problem = first_process(fabric, take_folder)
        if problem is not None:
            raise InputError(problem)
        context = RunContext(fabric, folder / "state", config.run.seed, emit)
        note_missing_mirror(data.scheme, config.augment.flip, context)
        yield OpenRun(config, data, data_hash, folder, teachers, start, resume, context)
