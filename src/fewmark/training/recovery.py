"""A run folder after a fault: one process in it at a time, and files that were cut are made again."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file

from fewmark.core.errors import InputError
from fewmark.training.run_folder import keep_whole_lines

LOCK = "run.lock"
LOGS = ("metrics.jsonl", "rounds.jsonl")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; a killed process leaves it open. A folder that stays empty is removed.

    Raises:
        InputError: Another process is in it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); give another --out") from error
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{folder}: another process trains in this folder; wait for its end, stop it, or give another --out"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --out") from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            folder.rmdir()


def recover(folder: Path, tell: Callable[[str], None]) -> None:
    """Set aside the files of a run that cannot be read, as NAME.damaged: their part of the run is done again, with the same result.

    Args:
        folder: The run folder.
        tell: Receives a sentence for each of them.
    """
    for name in LOGS:
        keep_whole_lines(folder / name)
    state = folder / "state"
    for path in sorted(state.iterdir()) if state.is_dir() else []:
        if path.is_file() and not _is_whole(path):
            path.replace(path.with_name(f"{path.name}.damaged"))
            if path.suffix == ".npy":  # one part of a selection
                path.with_suffix(".json").unlink(missing_ok=True)
            tell(
                f"{path.relative_to(folder)} was damaged and is made again; the old file is kept as {path.name}.damaged"
            )


def _is_whole(path: Path) -> bool:
    """Whether a file of a kind that runs keep can be read."""
    try:
        if path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".state":
            state = torch.load(path, map_location="cpu", weights_only=True)
            return isinstance(state, dict)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".npy":
            np.load(path)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                for name in arrays:
                    arrays[name]
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, EOFError, KeyError):
        return False
    return True
