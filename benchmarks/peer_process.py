"""The contenders' processes (peer_child.py) as peers.py sees them: started, asked in turns, stopped."""

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

CHILD = Path(__file__).with_name("peer_child.py")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Numbers = dict[str, Any]


class StoppedError(Exception):
    """A process ended unasked; the message is the last line that it wrote."""


class Process:
    """A contender with its own threads and memory.

    Args:
        order: "contender", "given" and "python", see `peers.wanted_rows`.
        threads: that it may use.
        folder: the faces.
        landmarks: file for its landmarks, or None.

    Raises:
        InputError: the interpreter cannot be started.
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
        """Its next answer.

        Raises:
            StoppedError: it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            self._errors.seek(0)
            said = [text.strip() for text in self._errors if text.strip()]
            raise StoppedError(f"it stopped: {said[-1] if said else f'exit status {self._process.returncode}'}")
        return dict(json.loads(line))

    def ask(self, what: str) -> Numbers:
        """Its answer to "warm", "look" or "many"; see `peer_child`.

        Raises:
            StoppedError: it has ended.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `read` says why
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        return self.read()

    def stop(self) -> None:
        """End it: it has nothing more to read."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()


class Runner:
    """One row of the table while it is measured with so many threads.

    Args:
        row: see `peers.wanted_rows`; what is measured is written into it.
        threads: that it may use.
        folder: the faces.
        landmarks: file for its landmarks, or None.
    """

    def __init__(self, row: Numbers, threads: int, folder: Path, landmarks: Path | None) -> None:
        self.row, self.times = row, row["times"].setdefault(str(threads), {})
        self.process = Process(row["order"], threads, folder, landmarks)
        self.looks: list[list[float]] = []
        self.chunks: list[list[float]] = []
        self.has_many = False
        self.runs = True

    def start(self) -> None:
        """Load and warm up; a row that says nothing new, or cannot be measured, ends here."""
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

    def look(self) -> None:
        answer = self.process.ask("look")
        self.looks.append(answer["ms"])
        self.times["peak_mb"] = answer["peak_mb"]

    def many(self) -> None:
        if self.has_many:
            self.chunks.append(self.process.ask("many")["seconds"])

    def end(self) -> None:
        self.process.stop()
        self.runs = False
        if self.looks:
            self.times |= summary(self.looks, self.chunks)


def run_threads(rows: Sequence[Numbers], threads: int, folder: Path, repeats: int, say: Callable[[str], None]) -> None:
    """Measure all contenders with so many threads, in turns, and write what is found into their rows.

    Args:
        rows: see `peers.wanted_rows`.
        threads: that each may use.
        folder: the faces; landmarks-ROW.npy come to lie there.
        repeats: rounds.
        say: told how far it is.
    """
    runners = []
    for i, row in enumerate(rows):
        if "missing" not in row and not row.get("left_out"):
            file = folder / f"landmarks-{i}.npy"
            runners.append(Runner(row, threads, folder, None if file.is_file() else file))
            _in_turns(runners[-1:], Runner.start)
    for what, do in (("one by one", Runner.look), ("many at once", Runner.many)):
        for turn in range(repeats):
            say(f"{threads} thread{'s' * (threads > 1)}, {what}: round {turn + 1} of {repeats}")
            _in_turns(runners, do)
    _in_turns(runners, Runner.end)


def _in_turns(runners: Sequence[Runner], do: Callable[[Runner], None]) -> None:
    for runner in runners:
        if runner.runs:
            try:
                do(runner)
            except StoppedError as stopped:
                runner.row["missing"] = str(stopped)
                runner.runs = False


def summary(looks: Sequence[Sequence[float]], chunks: Sequence[Sequence[float]]) -> Numbers:
    """Milliseconds a face and faces a second.

    Args:
        looks: one list a round: ms of each face.
        chunks: one list a round: seconds of each chunk of the faces in the contender's other way; none where it has none.

    >>> summary([[2.0, 6.0], [4.0, 2.0]], [])
    {'ms': 2.0, 'faces_per_s': 500.0, 'way': 'one by one'}
    >>> summary([[2.0, 6.0], [4.0, 2.0]], [[0.002], [0.001]])
    {'ms': 2.0, 'faces_per_s': 2000.0, 'way': 'many'}
    """
    ms = float(np.min(looks, axis=0).mean())
    rate, way = 1000 / ms, "one by one"
    if chunks:
        many = len(looks[0]) / float(np.min(chunks, axis=0).sum())
        if many > rate:
            rate, way = many, "many"
    return {"ms": ms, "faces_per_s": rate, "way": way}
