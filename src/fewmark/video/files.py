"""Decode a video file by OpenCV or PyAV: frames with their times, past damage, with notes on what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.files import utf8_path
from fewmark.core.geometry import Image
from fewmark.core.install import install_hint
from fewmark.core.text import count
from fewmark.video.containers import Container

FPS = 25.0
"""Frames per second of a folder of images, and of a video whose times are missing or impossible."""
_MAX_FPS = 1000.0  # faster times are no times
_LOOK_AHEAD = 250  # frames whose times give the frame rate
_SAME_RATE = 0.002  # relative difference below which the rate in the file is that of the times
_MAX_BAD = 250  # frames in a row that cannot be decoded, after which a file is given up
_COUNT_TOLERANCE = 2  # frames by which the count in a whole file may be wrong


@dataclass
class Stream:
    """The images of a file.

    Attributes:
        path: The file.
        container: What its container says.
        fps: Usual frames per second, from the frames' times.
        n_frames: Number of frames that the file lists; None: it lists none.
        images: (time, s; (H, W, 3) RGB, upright) of each frame that can be decoded.
        impossible_fps: Rate of times that cannot be true; the frames are taken as evenly spaced, `FPS` a second.
        n_bad: Frames so far that could not be decoded.
        first_bad: Number of frames before the first of them.
    """

    path: Path
    container: Container
    fps: float = FPS
    n_frames: int | None = None
    images: Iterator[tuple[float, Image]] = field(default_factory=lambda: iter(()))
    impossible_fps: float | None = None
    n_bad: int = 0
    first_bad: int = 0

    def add_bad(self, n: int, n_read: int) -> None:
        self.first_bad = self.first_bad if self.n_bad else n_read
        self.n_bad += n

    def notes(self, n_read: int, last_s: float) -> list[str]:
        """What the file lacks, once its images are read: number of them, time of the last."""
        read, notes = f"{count(n_read, 'frame')}, the last at {last_s:.2f} s", []
        if self.impossible_fps is not None:
            notes.append(
                f"{self.path}: its times are of {self.impossible_fps:.0f} frames a second; {FPS:g} are assumed"
            )
        if self.n_bad and not (self.container.is_cut and self.first_bad == n_read):
            bad = f"{count(self.n_bad, 'frame')} could not be decoded and {'is' if self.n_bad == 1 else 'are'} left out"
            notes.append(f"{self.path}: damaged: {bad}, the first after frame {self.first_bad}")
        if self.container.is_cut:
            notes.append(f"{self.path}: cut off: it ends after {read}; the rest is missing")
        elif self.container.is_broken and not self.n_bad:
            notes.append(f"{self.path}: damaged: only {read}, could be read; the rest is missing")
        elif self.n_frames is not None and n_read + self.n_bad < self.n_frames - _COUNT_TOLERANCE:
            more = f"the file lists {self.n_frames}; the rest is missing, or the list is wrong"
            notes.append(f"{self.path}: only {read}, could be read; {more}")
        return notes


def frame_rate(times_s: Sequence[float], stated: float = 0.0) -> float:
    """Usual frames per second of frame times, in any order; longer pauses do not count.

    Args:
        times_s: Times of frames, s.
        stated: Rate in the file's head; used where it agrees with the times, and where there are none.

    >>> round(frame_rate([0, 0.2, 0.4, 60, 60.2], stated=1000), 6), frame_rate([0.0], stated=90000)
    (5.0, 25.0)
    """
    steps = np.diff(np.sort(np.asarray(times_s, np.float64)))
    steps = steps[steps > 0]
    if not len(steps):
        return stated if 1 <= stated <= 240 else FPS
    rate = float(1 / steps[steps <= 1.5 * np.median(steps)].mean())
    return stated if abs(stated - rate) < _SAME_RATE * rate else rate


def open_by_cv2(path: Path, container: Container) -> Stream:
    """Open a file by OpenCV."""
    stream = Stream(path, container)
    with quiet(), utf8_path(path) as name:
        capture = cv2.VideoCapture(name)
        opened, first = capture.isOpened(), None
        if opened:
            first = _next_by_cv2(capture, stream, 0)
    if first is None:
        capture.release()
        what = "holds no frame that can be read" if opened else "cannot be opened as a video"
        why = f"it may be cut off, hold only sound, or be in a form that OpenCV does not know; PyAV may: {install_hint('video')}"
        raise InputError(f"{path}: {what}; {'it is cut off' if container.is_cut else why}")
    listed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    stream.n_frames = listed if listed > 0 and container.has_table else None
    _set_rate(stream, _times_by_cv2(path), float(capture.get(cv2.CAP_PROP_FPS)))

    def images() -> Iterator[tuple[float, Image]]:
        image, n_read = first, 0
        try:
            while image is not None:
                time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                yield (
                    time_s if stream.impossible_fps is None else n_read / FPS,
                    np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8),
                )
                n_read += 1
                image = _next_by_cv2(capture, stream, n_read)
        finally:
            capture.release()

    stream.images = images()
    return stream


def _next_by_cv2(capture: cv2.VideoCapture, stream: Stream, n_read: int) -> Any:
    """The next frame that can be decoded; OpenCV does not tell a bad one from the end."""
    for n_bad in range(_MAX_BAD):
        if (image := capture.read()[1]) is not None:
            if n_bad:
                stream.add_bad(n_bad, n_read)
            return image
    return None


def _times_by_cv2(path: Path) -> list[float]:
    with quiet(), utf8_path(path) as name:
        capture = cv2.VideoCapture(name)
        times: list[float] = []
        while len(times) < _LOOK_AHEAD and capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        capture.release()
    return times


def open_by_av(path: Path, container: Container) -> Stream:
    """Open a file by PyAV (the extra `video`)."""
    try:
        import av
    except ImportError as error:
        raise InputError(f"PyAV is not installed: {install_hint('video')}, or read with OpenCV") from error
    stream = Stream(path, container)
    ends = "it is cut off" if container.is_cut else "it may be cut off"
    try:
        with utf8_path(path) as name:
            source, times = av.open(name), _times_by_av(name)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be opened as a video ({_reason(error)}); {ends}") from error
    video = source.streams.best("video")
    if video is None or "attached_pic" in str(video.disposition):
        source.close()
        raise InputError(f"{path}: has no images, only sound or text; expected a video")
    video.thread_type = "AUTO"
    stream.n_frames = int(video.frames) or None if container.has_table else None
    _set_rate(stream, times, float(video.average_rate or video.guessed_rate or 0))
    frames = _frames_by_av(source, video, stream)
    first = next(frames, None)
    if first is None:
        source.close()
        raise InputError(f"{path}: holds no frame that can be read; {ends}")

    def images() -> Iterator[tuple[float, Image]]:
        frame, n_read = first, 0
        try:
            while frame is not None:
                timed = stream.impossible_fps is None and frame.time is not None
                yield float(frame.time) if timed else n_read / stream.fps, _upright(frame)
                n_read += 1
                frame = next(frames, None)
        finally:
            source.close()

    stream.images = images()
    return stream


def _frames_by_av(source: Any, video: Any, stream: Stream) -> Iterator[Any]:
    """The frames that can be decoded; damaged ones are left out."""
    from av.error import FFmpegError

    n_read = n_row = 0
    packets = source.demux(video)
    while n_row < _MAX_BAD:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            for frame in packet.decode():
                if frame.is_corrupt:
                    stream.add_bad(1, n_read)
                else:
                    yield frame
                    n_read, n_row = n_read + 1, 0
        except FFmpegError:
            stream.add_bad(1, n_read)
            n_row += 1
            packets = source.demux(video)  # an iterator that raised is at its end


def _times_by_av(name: str) -> list[float]:
    """Times of the first frames, without decoding them."""
    import av

    times: list[float] = []
    with av.open(name) as source:
        video = source.streams.best("video")
        if video is None:
            return times
        try:
            for packet in source.demux(video):
                at = packet.dts if packet.pts is None else packet.pts
                if at is not None and not packet.is_discard:
                    times.append(float(at * packet.time_base))
                if len(times) >= _LOOK_AHEAD:
                    break
        except av.error.FFmpegError:  # damage here; the frames so far do
            pass
    return times


def _set_rate(stream: Stream, times_s: list[float], stated: float) -> None:
    stream.fps = frame_rate(times_s, stated)
    if stream.fps > _MAX_FPS * (1 + _SAME_RATE):
        stream.fps, stream.impossible_fps = FPS, stream.fps


def _upright(frame: Any) -> Image:
    """Rotate a frame upright: `rotation` is in degrees counter-clockwise, in quarter turns."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence OpenCV's own messages; an error reports the problem once."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)
