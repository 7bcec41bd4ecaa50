"""Video files by PyAV (the extra `video`): the frames' own times, turned upright as the file says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image


def open_av(path: Path, notes: list[str]) -> tuple[Iterator[tuple[float, Image]], float, int | None]:
    """Open a file.

    Args:
        path: of the video.
        notes: gets a sentence where the file breaks off.

    Returns:
        (seconds, (H, W, 3) RGB) of each frame; frames a second on average; number of frames as the file says, or None.

    Raises:
        InputError: PyAV is not installed, the file is no video, or no frame can be read.
    """
    try:
        import av
    except ImportError as error:
        raise InputError('PyAV is not installed; pip install "fewmark[video]", or read with OpenCV') from error
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path}: cannot be opened as a video ({_reason(error)}); it may be cut off") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: has no images, only sound or text; expected a video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    fps = float(stream.average_rate or stream.guessed_rate or 25)
    frames = container.decode(stream)
    try:
        first = next(frames, None)
    except av.error.FFmpegError as error:
        container.close()
        raise InputError(f"{path}: no frame can be read ({_reason(error)})") from error
    if first is None:
        container.close()
        raise InputError(f"{path}: holds no frame that can be read; it may be cut off")

    def images() -> Iterator[tuple[float, Image]]:
        frame, n_read = first, 0
        try:
            while frame is not None:
                yield float(frame.time if frame.time is not None else n_read / fps), _upright(frame)
                n_read += 1
                frame = next(frames, None)
        except av.error.FFmpegError as error:
            notes.append(f"{path}: broken after {n_read} frames ({_reason(error)}); these were read")
        finally:
            container.close()

    return images(), fps, int(stream.frames) or None


def _upright(frame: Any) -> Image:
    """The frame turned by the file's rotation: degrees counter-clockwise, in quarters."""
    image = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
