"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fewmark.core.errors import InputError

_DISK_PROBLEMS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Write a file so that whoever reads `path` sees the old content or the whole new one.

    Yields a temporary path in the same folder, with the same suffix and an empty file behind it. When the
    block ends, that file is flushed to disk and takes the place of `path`; when the block raises, it goes
    and the old file stays. Missing folders are made. A symbolic link stays one: the file that it points to
    is replaced.

    Raises:
        InputError: the folder cannot be written to, `path` is a folder, or the disk is full.

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
        with suppress(OSError):  # some file systems cannot flush a folder; the file itself is safe
            _flush(target.parent)
    except OSError as error:
        if error.errno in _DISK_PROBLEMS:
            raise _cannot_write(path, error) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8, line ends as they are) by `atomic_path`.

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
        f"{path}: cannot be written ({error.strerror}); what stood there is unchanged; free space or "
        "choose another place"
    )
