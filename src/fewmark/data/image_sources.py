"""Images given by the user: files, folders, globs or standard input."""

from __future__ import annotations

import codecs
import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fewmark.core.errors import InputError
from fewmark.data.decoders import FOR_VIDEOS, video_kind
from fewmark.data.heif import heif_kind
from fewmark.data.images import IMAGE_SUFFIXES
from fewmark.data.walk import files_in, files_of_glob, is_image_name, tell_left_out

STDIN = Path("-")
"""Path that means standard input."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")
_SURROGATE = re.compile("[\udc80-\udcff]")  # a byte that is no UTF-8
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")


@dataclass(frozen=True)
class ImageSource:
    """An input image.

    Attributes:
        path: Image file; `STDIN` for an image from standard input.
        place: Unique output path of its results, relative to the results folder and without a suffix.
        data: Content of an image that is not a file.
    """

    path: Path
    place: str
    data: bytes | None = None


def find_images(paths: Sequence[str | Path], stdin: BinaryIO | None = None) -> list[ImageSource]:
    """Find the images given by paths.

    A folder stands for all images in it and its subfolders, see `fewmark.data.walk`; what is left out is told by a `DataWarning`.
    A path that does not exist and contains `*`, `?` or `[` is a glob (`**` matches any number of folders) and stands for the images it
    matches. `-` is standard input: the bytes of one image, or a list of files, folders and globs, one per line or NUL-terminated as from
    `find -print0`.

    Args:
        paths: Files, folders, globs or "-".
        stdin: Stream read for "-"; None for the standard input of the process.

    Raises:
        InputError: A path does not exist, a folder or glob contains no images, standard input is empty, or there are only videos.
    """
    found: dict[Path, str] = {}
    others: list[Path] = []
    data: bytes | None = None
    for path in map(Path, paths):
        if path != STDIN:
            _add(found, path, others)
        elif data is None and STDIN not in found:
            given = (stdin or sys.stdin.buffer).read()
            if not given.strip():
                raise InputError("-: standard input is empty; expected an image, or image paths, one per line")
            if given.startswith(_MAGIC) or heif_kind(given) is not None:
                data, found[STDIN] = given, "stdin"
            elif (kind := video_kind(given[:64])) is not None:
                raise InputError(f"-: a video ({kind}), expected an image; {FOR_VIDEOS}")
            else:
                for line in _lines(given):
                    _add(found, Path(line), others)
                data = b""
        else:
            raise InputError("-: given twice; standard input can be read once")
    if all(f != STDIN and _is_video(f) for f in found):
        raise InputError(f"{next(iter(found))}: a video, expected an image; {FOR_VIDEOS}")
    tell_left_out(others)
    used: set[str] = set()
    looked_at: set[str] = set()
    images = []
    for f, place in found.items():
        real = str(f) if f == STDIN else os.path.realpath(f)
        if real in looked_at:  # through another path
            continue
        looked_at.add(real)
        unique, n = place, 2
        while unique.lower() in used:
            unique, n = f"{place}-{n}", n + 1
        used.add(unique.lower())
        images.append(ImageSource(f, unique, data if f == STDIN else None))
    return images


def _is_video(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except (OSError, ValueError):
        return False
    if video_kind(head) is not None:
        return True
    return path.suffix.lower() in VIDEO_SUFFIXES and not head.startswith(_MAGIC) and heif_kind(head) is None


def _lines(given: bytes) -> list[str]:
    text = os.fsdecode(given.removeprefix(codecs.BOM_UTF8))
    lines = text.split("\0") if "\0" in text else [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    if _SURROGATE.search(text) and not any(map(os.path.lexists, lines)):
        raise InputError("-: standard input is neither an image of a known format nor paths, one per line")
    return lines


def _add(found: dict[Path, str], path: Path, others: list[Path]) -> None:
    """Add the images of a path with their output paths; other files of folders and globs are collected."""
    if path.is_dir():
        root, files = path, files_in(path)
        nothing = f"{path}: expected images ({', '.join(IMAGE_SUFFIXES)}), given a folder without images"
    elif path.exists():
        found.setdefault(path, path.stem)
        return
    elif glob.has_magic(str(path)):
        root, files = files_of_glob(path)
        nothing = f"{path}: no image fits; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
    else:
        raise InputError(f"{path}: no such image or folder; check the path")
    images = [f for f in files if is_image_name(f)]
    if not images:
        seen = [path, *files]  # a glob may be for videos alone
        raise InputError(nothing + (f"; {FOR_VIDEOS}" if any(f.suffix.lower() in VIDEO_SUFFIXES for f in seen) else ""))
    others += [f for f in files if not is_image_name(f)]
    for f in images:
        found.setdefault(f, f.relative_to(root).with_suffix("").as_posix())
