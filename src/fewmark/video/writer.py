"""Write a video of evenly spaced frames from frames with times."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, utf8_path
from fewmark.video.mp4_size import set_mp4_size

_MIN_FPS = 5.0  # of the file; each frame of a slower video is written several times
_MAX_GAP_S = 60.0  # a longer gap between two frames is not filled


class VideoWriter:
    """Writes an MP4 file (MPEG-4 part 2), whole or not at all; use it as a context manager.

    Frames are repeated or left out according to their times, so that the video lasts as long as the original; a gap of more than a
    minute is cut out. OpenCV writes even sides only: one of an odd side gets another row or column, and the stated size hides it.

    Args:
        path: Ends in .mp4.
        fps: Frames per second of the file, kept to within 0.001.

    Attributes:
        notes: Gaps that were cut out, in sentences.

    Raises:
        InputError: The suffix is another, fps is not above 0, or the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise InputError(f"{path}: expected a file name that ends in .mp4")
        if not 0.001 <= fps < 1001:
            raise InputError(f"{path}: expected frames a second from 0.001 to 1000, given {fps}")
        self._repeats = max(1, math.ceil(_MIN_FPS / fps))
        self.fps, self.notes = _kept_rate(fps * self._repeats) / self._repeats, list[str]()
        self._stack = ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._size = self._shown = (0, 0)  # (width, height): written, and of the first frame
        self._start_s, self._n_written = 0.0, 0

    def __enter__(self) -> VideoWriter:
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
            if kind is None and self._shown != self._size:
                set_mp4_size(self._temporary, self._shown)
        self._stack.__exit__(kind, value, trace)

    def write(self, image: NDArray[np.uint8], time_s: float) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) RGB; a frame of another size than the first is reduced to fit into it, on black.
            time_s: Time of the frame, not before the last one's.

        Raises:
            InputError: OpenCV cannot write such a file here.
        """
        if self._writer is None:
            self._open(image, time_s)
        due = round((time_s - self._start_s) * self.fps) + 1
        if due - self._n_written > _MAX_GAP_S * self.fps + 1:
            gap_s = (due - self._n_written) / self.fps
            self.notes.append(f"{self.path}: a gap of {gap_s:.0f} s before {time_s:.2f} s is cut out")
            self._start_s = time_s - self._n_written / self.fps
            due = self._n_written + 1
        frame = cv2.cvtColor(_fit(image, self._shown, self._size), cv2.COLOR_RGB2BGR)
        while self._writer is not None and self._n_written < due:
            for _ in range(self._repeats):
                self._writer.write(frame)
            self._n_written += 1

    def _open(self, image: NDArray[np.uint8], time_s: float) -> None:
        height, width = image.shape[:2]
        self._shown = (width, height)
        self._size = (width + width % 2, height + height % 2)  # the format needs even sides
        self._start_s = time_s
        fps = self.fps * self._repeats
        with utf8_path(self._temporary) as name:
            writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), fps, self._size)
        if not writer.isOpened():
            raise InputError(
                f"{self.path}: OpenCV cannot write MP4 files of {width} x {height} px here; leave the overlay out"
            )
        self._writer = writer


def _kept_rate(fps: float) -> float:
    """The rate that OpenCV states for a file: a number of as few decimals as come within 0.001."""
    base = 1
    while base < 1000 and abs(int(fps * base + 0.5) / base - fps) > 0.001:
        base *= 10
    return max(int(fps * base + 0.5) / base, 0.001)


def _fit(image: NDArray[np.uint8], shown: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Put an image on a canvas of (width, height), reduced if it is larger than what is shown; a hidden row repeats its neighbour."""
    scale = min(1.0, shown[0] / image.shape[1], shown[1] / image.shape[0])
    if scale < 1:
        small = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    canvas = np.zeros((shown[1], shown[0], 3), np.uint8)
    canvas[:height, :width] = image
    return np.pad(canvas, ((0, size[1] - shown[1]), (0, size[0] - shown[0]), (0, 0)), mode="edge")
