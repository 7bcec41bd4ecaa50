"""Threads of GNU OpenMP, by which torch and OpenCV compute on a CPU."""

from __future__ import annotations

import os

SPIN_COUNT = "1000"
"""Rounds for which a thread that waits for others spins before it gives its core away."""


def spin_briefly() -> None:
    """Let waiting threads give their cores away soon, unless the user has said otherwise; no effect once torch is imported.

    Where other programs run, threads spin in turn with these otherwise: an image by torch beside another program took 590 ms instead
    of 1312, alone the same (`benchmarks/busy_machine.py`).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def n_processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
