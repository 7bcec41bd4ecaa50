"""The images that a person names: files, folders, globs, standard input."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fewmark.core.errors import InputError
from fewmark.data.heif import heif_kind
from fewmark.data.images import IMAGE_SUFFIXES

STDIN = Path("-")
"""Stands for standard input."""

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")


@dataclass(frozen=True)
class ImageSource:
    """An image to look at.

    Attributes:
        path: the file; `STDIN` for an image that came by standard input.
        place: where its results go, relative to the results' folder, without a suffix; unique.
        data: the bytes of an image that is no file.
    """

    path: Path
    place: str
    data: bytes | None = None


def find_images(paths: Sequence[str | Path], stdin: BinaryIO | None = None) -> list[ImageSource]:
    """The images that paths name.

    A folder is all images in it and below. A path that is not there and holds `*`, `?` or `[` is a glob (`**` is any
    number of folders): the images among its matches. `-` is standard input: one image's bytes, or a list of
    paths, one a line (or each ended by a NUL, as `find -print0` writes), each a file, a folder or a glob.

    Args:
        paths: files, folders, globs, "-".
        stdin: what "-" reads; the process's own if None.

    Raises:
        InputError: a path is missing, a folder or a glob has no image, or standard input is empty.
    """
    found: dict[Path, str] = {}
    data: bytes | None = None
    for path in map(Path, paths):
        if path != STDIN:
            _add(found, path)
        elif data is None and STDIN not in found:
            given = (stdin or sys.stdin.buffer).read()
            if not given.strip():
                raise InputError("-: standard input is empty; expected an image, or paths of images one a line")
            if given.startswith(_MAGIC) or heif_kind(given) is not None:
                data, found[STDIN] = given, "stdin"
            else:
                for line in _lines(given):
                    _add(found, Path(line))
                data = b""
        else:
            raise InputError("-: given twice; standard input can be read once")
    used: set[str] = set()
    images = []
    for f, place in found.items():
        unique, n = place, 2
        while unique.lower() in used:
            unique, n = f"{place}-{n}", n + 1
        used.add(unique.lower())
        images.append(ImageSource(f, unique, data if f == STDIN else None))
    return images


def _lines(given: bytes) -> list[str]:
    try:
        text = given.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "-: standard input is neither an image of a known format nor paths in UTF-8, one a line"
        ) from error
    lines = text.split("\0") if "\0" in text else [line.strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _add(found: dict[Path, str], path: Path) -> None:
    """Add a path's images with the places of their results."""
    if path.is_dir():
        files = _visible(path.rglob("*"), path)
        if not files:
            raise InputError(f"{path}: expected images ({', '.join(IMAGE_SUFFIXES)}), given a folder without")
        for f in files:
            found.setdefault(f, f.relative_to(path).with_suffix("").as_posix())
    elif path.exists():
        found.setdefault(path, path.stem)
    elif glob.has_magic(str(path)):
        fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
        root = Path(*path.parts[:fixed])
        files = _visible(map(Path, glob.glob(str(path), recursive=True)), root)
        if not files:
            raise InputError(f"{path}: no image fits; expected files that end in {', '.join(IMAGE_SUFFIXES)}")
        for f in files:
            found.setdefault(f, f.relative_to(root).with_suffix("").as_posix())
    else:
        raise InputError(f"{path}: no such image or folder; check the path")


def _visible(files: Iterable[Path], folder: Path) -> list[Path]:
    """The images among files, sorted, without hidden ones and those in hidden folders below `folder`."""
    images = sorted(f for f in files if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    return [f for f in images if not any(p.startswith(".") for p in f.relative_to(folder).parts)]
