"""The exceptions for bad input and output and the warnings about images and labels; their messages address the user."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A file, label or setting that cannot be used.

    The message is one line: file (row, field), what was expected, what was given, what to do.
    """


class OutputError(InputError):
    """The results of a whole run cannot be written, e.g. because the disk is full: the run ends, not just one image's part of it."""


class BadImageWarning(UserWarning):
    """An image of a batch that was skipped; the message is that of its `InputError`."""


class DataWarning(UserWarning):
    """Something in a folder or label file that was left out or is doubtful; the message is one line."""


def warn_of_data(message: str) -> None:
    """Issue a `DataWarning` at the line outside fewmark that led to it."""
    level = 1
    while (frame := _frame(level)) is not None and frame.startswith("fewmark."):
        level += 1
    warnings.warn(message, DataWarning, stacklevel=level + 1)


@contextmanager
def data_warnings() -> Iterator[list[str]]:
    """Collect the messages of each `DataWarning` once; other warnings are issued at the end."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        yield messages
    for w in caught:
        if not issubclass(w.category, DataWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
        elif str(w.message) not in messages:
            messages.append(str(w.message))


def _frame(level: int) -> str | None:
    """The module of a caller, counted from `warn_of_data` as 1; None above the first."""
    try:
        return str(sys._getframe(level + 1).f_globals.get("__name__", ""))
    except ValueError:
        return None
