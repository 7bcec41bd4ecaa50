"""Read frames and their times from a video file, a folder of images or a camera."""

from __future__ import annotations

import importlib.util
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image
from fewmark.data.images import IMAGE_SUFFIXES, read_image
from fewmark.video.containers import read_container
from fewmark.video.files import FPS, open_by_av, open_by_cv2, quiet

Backend = Literal["auto", "cv2", "av"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        index: Number of the frame, from 0.
        time_s: Time since the first frame.
        image: (H, W, 3) RGB, upright.
    """

    index: int
    time_s: float
    image: Image


class Video:
    """An open video; iterate over its frames once.

    Attributes:
        source: The file, folder or camera.
        fps: Usual frames per second: of a file, from the times of its frames.
        n_frames: Number of frames that the source lists; None for a camera and other sources without a list.
        notes: Problems with the source, in sentences; complete after the last frame.
    """

    def __init__(
        self,
        source: str,
        images: Iterator[tuple[float, Image]],
        fps: float,
        n_frames: int | None,
        notes: list[str],
        last_notes: Callable[[int, float], list[str]] = lambda n, s: [],
    ) -> None:
        self.source, self.fps, self.n_frames, self.notes = source, fps, n_frames, notes
        self._images, self._last_notes = images, last_notes

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames with rising times: a time that does not rise is replaced by the last one plus 1 / fps."""
        start, last, n_read = 0.0, -math.inf, 0
        for index, (time_s, image) in enumerate(self._images):
            if index == 0:
                start = time_s
            now = time_s - start
            last = now if now > last else last + 1 / self.fps
            n_read = index + 1
            yield Frame(index, last, image)
        self.notes += self._last_notes(n_read, last)


def read_video(source: str | Path | int, *, fps: float | None = None, backend: Backend = "auto") -> Video:
    """Open a video.

    Args:
        source: A file; a folder, whose images are ordered by name, numbers in names by value; or the number of a camera.
        fps: Frames per second of a folder of images; None: `FPS`.
        backend: Reads files: PyAV ("av"), OpenCV ("cv2"), or PyAV if it is installed ("auto"). PyAV knows the true times of
            frames that are not evenly spaced.

    Raises:
        InputError: There is no such file, folder or camera, it is no video, no frame can be read, PyAV is requested and not
            installed, or fps is not above 0 or given for anything else than a folder.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"fps: expected frames a second, above 0, given {fps}")
    if fps is not None and (isinstance(source, int) or not Path(source).is_dir()):
        raise InputError(f"{source}: fps is for a folder of images; videos and cameras have their own times")
    if isinstance(source, int):
        return _open_camera(source)
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, fps or FPS)
    if not path.exists():
        raise InputError(f"{path}: no such video or folder; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; expected a video")
    try:
        container = read_container(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if container.is_image or (not container.kind and path.suffix.lower() in IMAGE_SUFFIXES):
        raise InputError(f"{path}: an image; expected a video, or a folder of images (`fewmark detect` takes images)")
    by_av = backend == "av" or (backend == "auto" and importlib.util.find_spec("av") is not None)
    stream = (open_by_av if by_av else open_by_cv2)(path, container)
    return Video(str(path), stream.images, stream.fps, stream.n_frames, [], stream.notes)


def camera_number(source: str) -> int | None:
    """The camera number that a word stands for: digits that are no file's name; else None.

    >>> camera_number("0"), camera_number("clip.mp4")
    (0, None)
    """
    return int(source) if re.fullmatch(r"\d{1,3}", source) and not Path(source).exists() else None


def _open_camera(number: int) -> Video:
    with quiet():
        capture = cv2.VideoCapture(number)
        first = capture.read()[1] if capture.isOpened() else None
    if first is None:
        capture.release()
        raise InputError(
            f"camera {number}: not there, in use, or not to be read by this user; try another number (the first is 0)"
        )
    rate = float(capture.get(cv2.CAP_PROP_FPS))

    def images() -> Iterator[tuple[float, Image]]:
        image = first
        try:
            while image is not None:
                yield time.monotonic(), np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                image = capture.read()[1]
        finally:
            capture.release()
        notes.append(f"camera {number}: it gave no more frames")

    notes: list[str] = []
    return Video(f"camera {number}", images(), rate if 0 < rate < 1000 else FPS, None, notes)


def _open_folder(folder: Path, fps: float) -> Video:
    files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    files.sort(key=lambda f: (_number_key(f.name), f.name))
    if not files:
        raise InputError(f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), given a folder without")
    notes: list[str] = []

    def images() -> Iterator[tuple[float, Image]]:
        for i, file in enumerate(files):
            try:
                image = read_image(file)
            except InputError as error:
                notes.append(f"left out: {error}")
                continue
            yield i / fps, image

    return Video(str(folder), images(), fps, len(files), notes)


def _number_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts frame2 before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts]
