"""The contenders' processes (peer_child.py), controlled by peers.py: started, measured in turns, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.text import count

CHILD = Path(__file__).with_name("peer_child.py")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Numbers = dict[str, Any]


class StoppedError(Exception):
    """A process ended by itself; the message holds its last line of output."""


class Process:
    """The process of a contender.

    Args:
        order: "contender", "given" and "python"; see `peers.make_rows`.
        threads: Number of threads that it may use.
        folder: Folder of the faces.
        landmarks: File to which it writes its landmarks, or None.

    Raises:
        InputError: The interpreter cannot be started.
    """

    def __init__(self, order: Numbers, threads: int, folder: Path, landmarks: Path | None) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        argument = {k: order[k] for k in ("contender", "given")}
        argument |= {
            "threads": threads,
            "folder": str(folder),
            "landmarks": None if landmarks is None else str(landmarks),
        }
        try:
            self._process = subprocess.Popen(
                [order["python"], str(CHILD), json.dumps(argument)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
            )
        except OSError as error:
            raise InputError(
                f"{order['python']}: expected a Python interpreter, given one that cannot be started ({error.strerror}); "
                "give --peers-python ENVIRONMENT/bin/python"
            ) from error

    def read(self) -> Numbers:
        """Read its next answer.

        Raises:
            StoppedError: The process has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            self._errors.seek(0)
            lines = [text.strip() for text in self._errors if text.strip()]
            raise StoppedError(f"it stopped: {lines[-1] if lines else f'exit status {self._process.returncode}'}")
        return dict(json.loads(line))

    def ask(self, request: str) -> Numbers:
        """Its answer to "warm", "single" or "batch"; see `peer_child`.

        Raises:
            StoppedError: The process has ended.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `read` reports it
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        """End the process by closing its pipes."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()


class Runner:
    """Measures one row of the table with one number of threads.

    Args:
        row: See `peers.make_rows`; the results are written to it.
        threads: Number of threads that the contender may use.
        folder: Folder of the faces.
        landmarks: File to which the contender writes its landmarks, or None.
    """

    def __init__(self, row: Numbers, threads: int, folder: Path, landmarks: Path | None) -> None:
        self.row, self.times = row, row["times"].setdefault(str(threads), {})
        self.process = Process(row["order"], threads, folder, landmarks)
        self.singles: list[list[float]] = []
        self.batches: list[list[float]] = []
        self.has_many = False
        self.runs = True

    def start(self) -> None:
        """Load and warm up; end if the row cannot be measured or would repeat another."""
        first = self.process.read()
        if "missing" in first:
            self.row["missing"] = first["missing"]
        elif self.row["order"]["only_if_it_flips"] and not first["flips"]:
            self.row["left_out"] = True
        else:
            self.row |= {k: first[k] for k in ("n_points", "model_mb", "note", "versions")}
            self.times["bare_mb"], self.has_many = first["bare_mb"], first["has_many"]
            self.process.ask("warm")
            return
        self.end()

    def time_singles(self) -> None:
        """Time all faces, one at a time."""
        answer = self.process.ask("single")
        self.singles.append(answer["ms"])
        self.times["peak_mb"] = answer["peak_mb"]

    def time_batches(self) -> None:
        """Time all faces in batches, if the contender has a way to process several."""
        if self.has_many:
            self.batches.append(self.process.ask("batch")["seconds"])

    def end(self) -> None:
        """Stop the process and summarise its times."""
        self.process.stop()
        self.runs = False
        if self.singles:
            self.times |= summary(self.singles, self.batches)


def run_threads(
    rows: Sequence[Numbers], threads: int, folder: Path, repeats: int, report: Callable[[str], None]
) -> None:
    """Measure all contenders in turns with one number of threads, and write the results to their rows.

    Args:
        rows: See `peers.make_rows`.
        threads: Number of threads that each may use.
        folder: Folder of the faces, to which landmarks-ROW.npy are written.
        repeats: Number of rounds.
        report: Called with lines of progress.
    """
    runners = []
    for i, row in enumerate(rows):
        if "missing" not in row and not row.get("left_out"):
            file = folder / f"landmarks-{i}.npy"
            runners.append(Runner(row, threads, folder, None if file.is_file() else file))
            _in_turns(runners[-1:], Runner.start)
    for name, measure in (("single faces", Runner.time_singles), ("batches", Runner.time_batches)):
        for turn in range(repeats):
            report(f"{count(threads, 'thread')}, {name}: round {turn + 1} of {repeats}")
            _in_turns(runners, measure)
    _in_turns(runners, Runner.end)


def _in_turns(runners: Sequence[Runner], step: Callable[[Runner], None]) -> None:
    for runner in runners:
        if runner.runs:
            try:
                step(runner)
            except StoppedError as stopped:
                runner.row["missing"] = str(stopped)
                runner.runs = False


def summary(singles: Sequence[Sequence[float]], batches: Sequence[Sequence[float]]) -> Numbers:
    """Milliseconds per face and faces per second.

    Args:
        singles: One list per round: ms of each face.
        batches: One list per round: seconds of each chunk of faces; empty if the contender has no way to process several.

    >>> summary([[2.0, 6.0], [4.0, 2.0]], [])
    {'ms': 2.0, 'faces_per_s': 500.0, 'way': 'one by one'}
    >>> summary([[2.0, 6.0], [4.0, 2.0]], [[0.002], [0.001]])
    {'ms': 2.0, 'faces_per_s': 2000.0, 'way': 'many'}
    """
    ms = float(np.min(singles, axis=0).mean())
    rate, way = 1000 / ms, "one by one"
    if batches:
        many = len(singles[0]) / float(np.min(batches, axis=0).sum())
        if many > rate:
            rate, way = many, "many"
    return {"ms": ms, "faces_per_s": rate, "way": way}
