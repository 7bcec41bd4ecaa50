"""A run folder after a fault: what was cut is set aside, and made again by the run."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fewmark.training.run_folder import keep_whole_lines

LOGS = ("metrics.jsonl", "rounds.jsonl")


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
