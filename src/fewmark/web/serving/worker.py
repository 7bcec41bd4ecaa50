"""A process that holds a detector and answers batches of images; it can be killed and begun anew."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.names import dump_json
from fewmark.data.images import decode_image
from fewmark.inference.detector import Detector

START_S = 120.0
"""Time after which a process that has not loaded its model is given up."""


@dataclass(frozen=True)
class ServedModel:
    """What a worker answers with.

    Attributes:
        model: See `Detector`.
        scheme: Scheme of the landmarks; None: the model's.
        max_faces: Most faces of an image; the largest are kept.
    """

    model: str
    scheme: str | None = None
    max_faces: int = 100

    def load(self) -> Detector:
        """The detector, on one thread."""
        return Detector(self.model, threads=1)


@dataclass(frozen=True)
class Job:
    """An image of a request.

    Attributes:
        name: Its name in the answer.
        data: The bytes of its file.
        boxes: (x0, y0, x1, y1) image px of its faces, or None: they are detected.
    """

    name: str
    data: bytes
    boxes: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class JobAnswer:
    """The answer to an image.

    Attributes:
        text: Its part of the response, JSON.
        n_faces: Number of faces.
        refused: Whether the image cannot be used; the text says why.
    """

    text: bytes
    n_faces: int = 0
    refused: bool = False


class WorkerDied(Exception):  # noqa: N818 it is not the caller's error
    """The process ended, or did not answer in time."""


class Worker:
    """A detector's process, as its owner sees it.

    Args:
        served: What it answers with.

    Raises:
        WorkerDied: It cannot load the model.
    """

    def __init__(self, served: ServedModel) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self.process = context.Process(target=run_worker, args=(other, served), daemon=True)
        self.process.start()
        other.close()
        self._receive(START_S)

    def answer(self, jobs: Sequence[Job], timeout_s: float) -> list[JobAnswer]:
        """Answer a batch.

        Raises:
            WorkerDied: It did not answer in time; it is killed.
        """
        try:
            self._pipe.send(list(jobs))
        except OSError as error:
            raise WorkerDied("the process has ended") from error
        return self._receive(timeout_s)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join(5)
        self._pipe.close()

    def _receive(self, timeout_s: float) -> list[JobAnswer]:
        try:
            if not self._pipe.poll(timeout_s):
                self.process.kill()
                raise WorkerDied(f"no answer in {timeout_s:g} s")
            found: list[JobAnswer] = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerDied("the process has ended") from error
        return found


def run_worker(pipe: Connection, served: ServedModel) -> None:
    """Answer batches until the owner is gone; the first answer, an empty one, says that the model is loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who still wants its answers
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    detector = served.load()
    detector.detect(np.zeros((64, 64, 3), np.uint8))
    pipe.send([])
    while True:
        try:
            jobs: list[Job] = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(answer_jobs(detector, served, jobs))


def answer_jobs(detector: Detector, served: ServedModel, jobs: Sequence[Job]) -> list[JobAnswer]:
    """Find the faces of the images; one that cannot be used is refused and stops no other."""
    answers: dict[int, JobAnswer] = {}
    images: dict[int, NDArray[np.uint8]] = {}

    def refuse(index: int, error: InputError) -> None:
        answers[index] = JobAnswer(_json({"name": jobs[index].name, "error": str(error)}), refused=True)

    for index, job in enumerate(jobs):
        try:
            images[index] = decode_image(job.data, job.name)
        except InputError as error:
            refuse(index, error)
    order = list(images)
    boxes = [None if (b := jobs[i].boxes) is None else np.array(b, np.float32).reshape(-1, 4) for i in order]
    found = detector.detect_batch(
        [images[i] for i in order],
        boxes,
        scheme=served.scheme,
        on_error=lambda row, error: refuse(order[row], error),
    )
    for index, faces in zip(order, found, strict=True):
        if index not in answers:
            height, width = images[index].shape[:2]
            kept = faces[: served.max_faces]
            data = {"name": jobs[index].name, "width": width, "height": height, "faces": [f.to_dict() for f in kept]}
            if len(faces) > len(kept):
                data["left_out"] = len(faces) - len(kept)
            answers[index] = JobAnswer(_json(data), len(kept))
    return [answers[i] for i in range(len(jobs))]


def _json(data: object) -> bytes:
    return dump_json(data).encode()
