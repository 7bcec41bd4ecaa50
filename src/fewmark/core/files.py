"""Atomic file writing."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fewmark.core.errors import InputError

_DISK_PROBLEMS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it: `~` is the home folder, unless there is a file of that name."""
    given = Path(path)
    if str(path).startswith("~") and not os.path.lexists(given):
        return Path(os.path.expanduser(given))
    return given


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: readers of `path` see the old content or all of the new.

    Yields the path of an empty temporary file in the same folder, with the same suffix. At the end of the block that
    file is flushed to disk and replaces `path`; if the block raises, it is deleted and `path` is left unchanged. Missing
    folders are created. If `path` is a symbolic link, its target is replaced.

    Raises:
        InputError: the folder is not writable, `path` is a folder, or the disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "a.txt").read_text()
    'whole'
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    temporary = target.with_name(f".{target.stem[:80]}.{uuid.uuid4().hex[:12]}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        try:
            if target.exists():
                os.chmod(temporary, target.stat().st_mode & 0o7777)
            _flush(temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise _cannot_write(path, error) from error
        with suppress(OSError):  # some file systems cannot flush a folder
            _flush(target.parent)
    except OSError as error:
        if error.errno in _DISK_PROBLEMS:
            raise _cannot_write(path, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically; line ends are not translated.

    Raises:
        InputError: see `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(path: str | Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be written ({error.strerror}); the old file is unchanged; free space or choose another path"
    )
