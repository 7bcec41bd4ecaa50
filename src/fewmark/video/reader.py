"""Frames with their times, from a video file, a folder of images or a camera."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image
from fewmark.data.images import IMAGE_SUFFIXES, read_image

Backend = Literal["auto", "cv2", "av"]
FPS = 25.0
"""Frames a second of a folder of images, and of a video that does not say."""
_COUNTED_OTHERWISE = 2  # frames by which a file's own number may be wrong


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        index: from 0.
        time_s: since the first frame.
        image: (H, W, 3) RGB, upright.
    """

    index: int
    time_s: float
    image: Image


class Video:
    """Frames, to be gone through once.

    Attributes:
        source: what it was opened from.
        fps: frames a second, on average, as the source says.
        n_frames: as the source says; None where it does not, e.g. of a camera.
        notes: what was wrong with it, in sentences; complete once the frames have been gone through.
    """

    def __init__(
        self, source: str, images: Iterator[tuple[float, Image]], fps: float, n_frames: int | None, notes: list[str]
    ) -> None:
        self.source, self.fps, self.n_frames, self.notes = source, fps, n_frames, notes
        self._images = images

    def __iter__(self) -> Iterator[Frame]:
        """Frames whose times rise: where the source says otherwise, a frame comes one usual step after the last."""
        start, last, n_read = 0.0, -math.inf, 0
        for index, (time_s, image) in enumerate(self._images):
            if index == 0:
                start = time_s
            now = time_s - start
            last = now if now > last else last + 1 / self.fps
            n_read = index + 1
            yield Frame(index, last, image)
        if self.n_frames is not None and n_read < self.n_frames - _COUNTED_OTHERWISE and not self.notes:
            self.notes.append(f"{self.source}: {n_read} of its {self.n_frames} frames could be read; it may be cut off")


def read_video(source: str | Path | int, *, fps: float | None = None, backend: Backend = "auto") -> Video:
    """Open a video.

    Args:
        source: a file; a folder, whose images are taken in the order of their names, numbers in them by their value; or the number
            of a camera.
        fps: of a folder of images; `FPS` if not given.
        backend: what reads files: PyAV ("av"), OpenCV ("cv2"), or PyAV where it is installed ("auto"). PyAV knows the true
            times where they are not even.

    Raises:
        InputError: there is no such file, folder or camera, it is no video, no frame of it can be read, PyAV is asked for and not
            installed, or fps is not above 0 or given for something else than a folder.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"fps: expected frames a second, above 0, given {fps}")
    if fps is not None and (isinstance(source, int) or not Path(source).is_dir()):
        raise InputError(f"{source}: fps is of a folder of images; videos and cameras have their own times")
    if isinstance(source, int):
        return _open_camera(source)
    path = Path(source)
    if path.is_dir():
        return _open_folder(path, fps or FPS)
    if not path.exists():
        raise InputError(f"{path}: no such video or folder; check the path")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{path}: an image; expected a video, or a folder of images (`fewmark detect` takes images)")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; expected a video")
    if backend == "av" or (backend == "auto" and importlib.util.find_spec("av") is not None):
        from fewmark.video.reader_av import open_av

        notes: list[str] = []
        return Video(str(path), *open_av(path, notes), notes)
    return _open_file(path)


def camera_number(source: str) -> int | None:
    """The number, where a word means a camera: digits that are no file's name.

    >>> camera_number("0"), camera_number("clip.mp4")
    (0, None)
    """
    return int(source) if re.fullmatch(r"\d{1,3}", source) and not Path(source).exists() else None


def _open_file(path: Path) -> Video:
    with _quiet():
        capture = cv2.VideoCapture(str(path))
        opened, first = capture.isOpened(), None
        if opened:
            first = capture.read()[1]
    if first is None:
        capture.release()
        what = "holds no frame that can be read" if opened else "cannot be opened as a video"
        raise InputError(
            f"{path}: {what}; it may be cut off, or in a form that OpenCV does not know (pip install fewmark[video])"
        )
    rate, count = float(capture.get(cv2.CAP_PROP_FPS)), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    n_frames = count if count > 0 else None
    fps = rate if 0 < rate < 1000 else FPS

    def images() -> Iterator[tuple[float, Image]]:
        image = first
        try:
            while image is not None:
                yield (
                    capture.get(cv2.CAP_PROP_POS_MSEC) / 1000,
                    np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8),
                )
                image = capture.read()[1]
        finally:
            capture.release()

    return Video(str(path), images(), fps, n_frames, [])


def _open_camera(number: int) -> Video:
    with _quiet():
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
    """frame2 before frame10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV's own messages back: what is wrong is said once, by an error."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)
