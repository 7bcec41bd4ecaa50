"""Write a video of evenly spaced frames from frames with times."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, utf8_path

_MAX_GAP_S = 2.0  # a longer gap between two frames is not filled


class VideoWriter:
    """Writes an MP4 file (MPEG-4 part 2), whole or not at all; use it as a context manager.

    Frames are repeated or left out according to their times, so that the video plays at the speed of the original.

    Args:
        path: Ends in .mp4.
        fps: Frames per second of the file.

    Raises:
        InputError: The suffix is another, fps is not above 0, or the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path, self.fps = Path(path), fps
        if self.path.suffix.lower() != ".mp4":
            raise InputError(f"{path}: expected a file name that ends in .mp4")
        if not 0 < fps < 1000:
            raise InputError(f"{path}: expected frames a second between 0 and 1000, given {fps}")
        self._stack = ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._start_s, self._n_written = 0.0, 0

    def __enter__(self) -> VideoWriter:
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
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
        if due - self._n_written > _MAX_GAP_S * self.fps:
            self._start_s = time_s - self._n_written / self.fps
            due = self._n_written + 1
        frame = cv2.cvtColor(_fit(image, self._size), cv2.COLOR_RGB2BGR)
        while self._writer is not None and self._n_written < due:
            self._writer.write(frame)
            self._n_written += 1

    def _open(self, image: NDArray[np.uint8], time_s: float) -> None:
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # the format needs even sides
        self._start_s = time_s
        with utf8_path(self._temporary) as name:
            writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), self.fps, self._size)
        if not writer.isOpened():
            raise InputError(
                f"{self.path}: OpenCV cannot write MP4 files of {width} x {height} px here; leave the overlay out"
            )
        self._writer = writer


def _fit(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Put an image on a canvas of (width, height), reduced if it is larger."""
    width, height = size
    scale = min(1.0, width / image.shape[1], height / image.shape[0])
    if scale < 1:
        small = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), np.uint8)
    if image.shape[:2] == (height, width):
        return image
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas
