"""The one way to the files of a folder or glob, for images that are detected, read with their labels or trained on.

Hidden files and folders are left out. Linked folders are followed, each once, so links in a circle do no harm, and a file that several
paths lead to is found once: by its own path if that is among them.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from fewmark.core.errors import warn_of_data
from fewmark.core.text import count
from fewmark.data.images import IMAGE_SUFFIXES

_NO_IMAGES = {
    *(".pts", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".txt", ".md", ".toml", ".yaml", ".yml", ".mat", ".npz", ".npy"),
    *(".html", ".pdf", ".log", ".py", ".sh", ".ini", ".db", ".zip", ".safetensors", ".onnx"),
}  # fmt: skip
"""Suffixes of labels, texts and models, which nobody takes for images."""


def files_in(folder: Path) -> list[Path]:
    """Find all files of a folder and its subfolders, sorted.

    A folder that cannot be listed and a link to nothing are told by a `DataWarning`.
    """
    found: dict[str, Path] = {}
    seen: set[object] = set()
    unread: list[Path] = []
    waiting = deque([folder])  # the folder, then the links in it, then the links in these
    while waiting:
        links: list[Path] = []
        for top in waiting:
            if top.is_dir():
                _walk(top, found, seen, links, unread)
            elif top.is_file():
                found.setdefault(os.path.realpath(top), top)
            elif is_image_name(top):
                unread.append(top)
        waiting = deque(sorted(links))
    if unread:
        rest = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        warn_of_data(f"{unread[0]}{rest}: left out; a folder that may not be read or a link to nothing")
    return sorted(found.values())


def _walk(top: Path, found: dict[str, Path], seen: set[object], links: list[Path], unread: list[Path]) -> None:
    """Add the files of a folder and its real subfolders; its links are collected."""
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            status = folder.stat()
            identity = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)
            if identity in seen:
                continue
            seen.add(identity)
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError:
            unread.append(folder)
            continue
        real = os.path.realpath(folder)
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                links.append(path)
            elif entry.is_dir():
                folders.append(path)
            elif entry.is_file():
                found.setdefault(os.path.join(real, entry.name), path)


def files_of_glob(pattern: Path) -> tuple[Path, list[Path]]:
    """Find the files that a glob matches; `**` matches any number of folders.

    Returns:
        The folder before the first part with a wildcard, and the files, sorted.
    """
    parts = pattern.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    if "**" not in parts:
        return root, _each_once([f for f in map(Path, glob.glob(str(pattern))) if f.is_file()], root)
    deep = parts.index("**")
    folders = [root] if deep == fixed else sorted(map(Path, glob.glob(str(Path(*parts[:deep])))))
    found = [
        file
        for folder in folders
        if folder.is_dir()
        for file in files_in(folder)
        if _fits(file.relative_to(folder).parts, parts[deep:])
    ]
    return root, _each_once(found, root)


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[i:], parts[1:]) for i in range(len(names) + 1)) or (len(parts) == 1 and bool(names))
    return bool(names) and fnmatch.fnmatch(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _each_once(files: Iterable[Path], root: Path) -> list[Path]:
    """Sort files, leaving out hidden ones and second paths to a file."""
    top = os.path.realpath(root)
    found: dict[str, Path] = {}
    for file in sorted(files):
        inside = file.relative_to(root)
        if any(part.startswith(".") for part in inside.parts):
            continue
        real = os.path.realpath(file)
        if real not in found or real == os.path.join(top, inside):
            found[real] = file
    return sorted(found.values())


def is_image_name(path: Path) -> bool:
    """Whether a file is an image by its suffix, in any letter case."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def tell_left_out(files: Iterable[Path]) -> None:
    """Tell by one `DataWarning` which files of folders and globs were no images by their suffix."""
    kinds = Counter(suffix for f in files if (suffix := f.suffix.lower()) not in _NO_IMAGES and not is_image_name(f))
    if not kinds:
        return
    n = sum(kinds.values())
    named = ", ".join(f"{suffix or 'no suffix'} ({many})" for suffix, many in kinds.most_common(5))
    more = ", ..." if len(kinds) > 5 else ""
    warn_of_data(f"{count(n, 'file')} left out, no image{'s' if n > 1 else ''} by the suffix: {named}{more}")
