"""Checks shared by the benchmark readers: published counts, optional libraries, required folders."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError
from fewmark.core.install import install_hint


def check_count(what: str, expected: int, given: int, strict: bool) -> None:
    """Check that a data set has the published number of faces.

    Raises:
        InputError: The count is wrong and `strict` is set.
    """
    if strict and expected != given:
        raise InputError(
            f"{what}: expected {expected} as published, given {given}; complete the data, or read it with strict=False (--incomplete)"
        )


def check_subset(what: str, subset: str, known: tuple[str, ...]) -> None:
    """Check that the name of a subset is known.

    Raises:
        InputError: The name is unknown.
    """
    if subset not in known:
        raise InputError(f"{what}: subset {subset!r}: expected one of {', '.join(known)}")


def need_folder(path: Path, what: str) -> Path:
    """Return an existing folder.

    Raises:
        InputError: The folder does not exist.
    """
    if not path.is_dir():
        raise InputError(f"{path}: expected the folder of {what}; it does not exist")
    return path


def need_library(name: str, what: str) -> Any:
    """Import an optional library.

    Raises:
        InputError: The library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{what}: reading it needs {name.split('.')[0]}; run: {install_hint('formats')}") from error


def read_matlab(path: Path, what: str) -> dict[str, Any]:
    """Read a Matlab file of version 7 or older as plain arrays, lists and dicts.

    Raises:
        InputError: The file is missing or damaged, or scipy is not installed.
    """
    io = need_library("scipy.io", what)
    try:
        return dict(io.loadmat(str(path), simplify_cells=True))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); expected {what}") from error
    except (ValueError, TypeError, NotImplementedError, io.matlab.MatReadError) as error:
        raise InputError(f"{path}: not a Matlab file, or damaged ({error}); expected {what}") from error
