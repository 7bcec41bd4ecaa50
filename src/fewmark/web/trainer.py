"""A training that the page has started: one at a time, its events for whoever listens, and its end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError

QUIET_S = 15.0
"""Seconds without an event after which listeners are told that the connection lives."""


class Trainer:
    """Starts and stops a project's training in a process of its own.

    Args:
        folder: The project folder.
        options: Further options of `fewmark.project.training_process`.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder, self.options = folder, list(options)
        self._changed = threading.Condition()
        self._events: list[dict[str, Any]] = []
        self._process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        """Whether a training is under way."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start a training.

        Raises:
            InputError: One is under way.
        """
        with self._changed:
            if self.running:
                raise InputError("a training is under way; stop it, or wait for its end")
            command = [sys.executable, "-m", "fewmark.project.training_process", str(self.folder), *self.options]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self._events = [{"kind": "started"}]
            threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop the training that is under way, if there is one; what it has done is kept."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()

    def events(self) -> Iterator[str]:
        """All events of the training from its start, and then each as it comes, as server-sent events; ends with the training."""
        sent = 0
        while True:
            with self._changed:
                if sent >= len(self._events):
                    if sent and self._events[-1]["kind"] in ("ended", "failed", "stopped"):
                        return
                    self._changed.wait(QUIET_S)
                fresh = self._events[sent:]
            sent += len(fresh)
            yield "".join(f"data: {json.dumps(e)}\n\n" for e in fresh) if fresh else ": still here\n\n"
            if not fresh and self._process is None:
                return

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Collect what the process says, and how it ends."""
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
            self._add(event)
        code = process.wait()
        reader.join(timeout=5)
        if self._events[-1]["kind"] not in ("ended", "failed"):
            last = next((line.strip() for line in reversed(errors) if line.strip()), f"exit code {code}")
            stopped = code in (143, -15, -9, 137)
            self._add({"kind": "stopped"} if stopped else {"kind": "failed", "text": last})

    def _add(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()
