"""A training that the page has started: one at a time, its events for whoever listens, and its end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError

ENDS = ("ended", "failed", "stopped")
"""Kinds of the last event of a training."""
QUIET_S = 15.0
"""Seconds without an event after which listeners are told that the connection lives."""


@dataclass(frozen=True, eq=False)
class _Training:
    """A process, and what it has said."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]]

    @property
    def has_ended(self) -> bool:
        """Whether its last event is there."""
        return self.events[-1]["kind"] in ENDS


class Trainer:
    """Starts and stops a project's training in a process of its own.

    Args:
        folder: The project folder.
        options: Further options of `fewmark.project.training_process`.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder, self.options = folder, list(options)
        self._changed = threading.Condition()
        self._training: _Training | None = None

    @property
    def running(self) -> bool:
        """Whether a training is under way: its last event is not there, though its process may take a moment longer to leave."""
        return self._training is not None and not self._training.has_ended

    def start(self) -> None:
        """Start a training.

        Raises:
            InputError: One is under way.
        """
        with self._changed:
            if self.running:
                raise InputError("a training is under way; stop it, or wait for its end")
            command = [sys.executable, "-m", "fewmark.project.training_process", str(self.folder), *self.options]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self._training = _Training(process, [{"kind": "started"}])
            threading.Thread(target=self._follow, args=(self._training,), daemon=True).start()
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop the training that is under way, if there is one; what it has done is kept."""
        if self._training is not None and self.running:
            self._training.process.terminate()
            try:
                self._training.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._training.process.kill()

    def events(self) -> Iterator[str]:
        """All events of the training from its start, and then each as it comes, as server-sent events; ends with the training."""
        training, sent = self._training, 0
        while training is not None:
            with self._changed:
                if sent == len(training.events):
                    if training.has_ended:
                        return
                    self._changed.wait(QUIET_S)
                fresh = training.events[sent:]
            sent += len(fresh)
            yield "".join(f"data: {json.dumps(e)}\n\n" for e in fresh) or ": still here\n\n"

    def _follow(self, training: _Training) -> None:
        """Collect what the process says, and how it ends."""
        process = training.process
        assert process.stdout is not None
        assert process.stderr is not None
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        reader.start()
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:  # a library's own words
                continue
            self._add(training, event)
        code = process.wait()
        reader.join(timeout=5)
        if not training.has_ended:
            last = next((line.strip() for line in reversed(errors) if line.strip()), f"exit code {code}")
            stopped = code in (143, -15, -9, 137)
            self._add(training, {"kind": "stopped"} if stopped else {"kind": "failed", "text": last})

    def _add(self, training: _Training, event: dict[str, Any]) -> None:
        with self._changed:
            training.events.append(event)
            self._changed.notify_all()
