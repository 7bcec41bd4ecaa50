"""Atomic file writing, and the check that results replace no input."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from fewmark.core.errors import InputError, OutputError

_DISK_PROBLEMS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_ADVICE = {
    errno.ENAMETOOLONG: "shorten the name",
    errno.EACCES: "check the permissions or choose another path",
    errno.ENOTDIR: "a file has the name of a folder; choose another path",
    errno.EEXIST: "a file has the name of a folder; choose another path",
}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL}


def check_outputs(
    outputs: Iterable[str | Path], inputs: Iterable[str | Path], *, force: bool = False, instead: str = "--out"
) -> None:
    """Refuse outputs that would replace an input or, without `force`, any file that is there already.

    Files are compared by what they are, not by their names: links and other spellings of a path make no difference.

    Args:
        outputs: Files that are to be written.
        inputs: Files that are read; names of other things are passed over.
        force: Existing files that are no inputs may be replaced.
        instead: What the user changes to write elsewhere.

    Raises:
        InputError: An output is an input, exists already, or is a folder.
    """
    there = [(Path(p), s) for p in outputs if (s := _status(p)) is not None]
    if not there:
        return
    given = {_identity(p, s) for p in inputs if (s := _status(p)) is not None}
    for path, status in there:
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path}: is a folder, expected the name of a file to write; choose another {instead}")
        if _identity(path, status) in given:
            raise InputError(
                f"{path}: an input of this command, which a result would replace; choose another {instead}"
            )
    if not force:
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0][0]}: exists already{more}; choose another {instead}, or replace it by --force")


def choose_folder(
    folder: Path, plan: Callable[[Path], Iterable[Path]], inputs: Sequence[str | Path], *, force: bool = False
) -> Path:
    """The folder for the results of a run: the given one, or a new one in it where earlier results stand in the way.

    Args:
        folder: The folder that was asked for.
        plan: Folder -> the files that will be written in it.
        inputs: Files that are read.
        force: Replace earlier results.

    Raises:
        InputError: A result would replace an input or, without `force`, a file beside the inputs, which may be a label.
    """
    there = [p for p in plan(folder) if os.path.lexists(p)]
    read_from = {os.path.realpath(Path(p).parent) for p in inputs if os.path.lexists(p)}
    beside = any(os.path.realpath(p.parent) in read_from for p in there)
    check_outputs(there, inputs, force=force or not beside)
    if force or not there:
        return folder
    return next(f for n in itertools.count(2) if not os.path.lexists(f := folder / f"results-{n}"))


def _status(path: str | Path) -> os.stat_result | None:
    """The status of what a path leads to, of the link itself if it leads nowhere; None if there is nothing."""
    for look in (os.stat, os.lstat):
        with suppress(OSError, ValueError):
            return look(path)
    return None


def _identity(path: str | Path, status: os.stat_result) -> object:
    if status.st_ino:
        return status.st_dev, status.st_ino
    return os.path.realpath(path).casefold()  # a file system without numbers for files


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it: `~` is the home folder, unless there is a file of that name."""
    given = Path(path)
    if str(path).startswith("~") and not os.path.lexists(given):
        return Path(os.path.expanduser(given))
    return given


@contextmanager
def atomic_path(path: str | Path, *, replace: bool = True) -> Iterator[Path]:
    """Write a file atomically: readers of `path` see the old content or all of the new.

    Yields the path of an empty temporary file in the same folder, with the same suffix. At the end of the block that
    file is flushed to disk and replaces `path`; if the block raises, it is deleted and `path` is left unchanged. Missing
    folders are created. If `path` is a symbolic link, its target is replaced.

    Args:
        path: The file to write.
        replace: Replace a file that is there; otherwise that is an error.

    Raises:
        InputError: the folder is not writable, `path` is a folder, or it exists and may not be replaced.
        OutputError: the disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder) / "a.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "a.txt").read_text()
    'whole'
    """
    target = Path(os.path.realpath(path))
    if os.path.isdir(target):
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    if not replace and os.path.lexists(target):
        raise _exists(path)
    suffix = target.suffix if len(target.suffix) < 20 else ""
    # never longer than names may be
    temporary = target.with_name(f".{target.stem[:20]}.{uuid.uuid4().hex[:12]}{suffix}")
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
            if replace:
                os.replace(temporary, target)
            else:
                _move_to_new(temporary, target)
        except FileExistsError as error:
            raise _exists(path) from error
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


def write_text(path: str | Path, text: str, *, replace: bool = True) -> None:
    """Write a UTF-8 text file atomically; line ends are not translated.

    Raises:
        InputError: see `atomic_path`.
    """
    with atomic_path(path, replace=replace) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextmanager
def utf8_path(path: str | Path) -> Iterator[str]:
    """A path to the same file for a library that crashes at names that are no UTF-8; it is good until the end of the block.

    Raises:
        OSError: The name is no UTF-8, and no link to the file can be made.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with TemporaryDirectory() as folder:
            link = Path(folder) / f"file{Path(path).suffix.encode(errors='ignore').decode()}"
            link.symlink_to(os.path.abspath(path))
            yield str(link)
    else:
        yield str(path)


def _move_to_new(source: Path, target: Path) -> None:
    """Rename a file; FileExistsError if the target exists, also if another process has just made it."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(source, target)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: str | Path) -> InputError:
    return InputError(f"{path}: exists already; write elsewhere, or replace it by --force")


def _cannot_write(path: str | Path, error: OSError) -> InputError:
    kind = OutputError if error.errno in _DISK_FULL else InputError
    unchanged = "; the old file is unchanged" if os.path.lexists(path) else ""
    advice = _ADVICE.get(error.errno or 0, "free space or choose another path")
    return kind(f"{path}: cannot be written ({error.strerror}){unchanged}; {advice}")
