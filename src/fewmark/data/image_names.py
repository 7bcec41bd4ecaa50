"""The one way from the image name in a label file or list to an image: whatever the machine on which it was written."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.text import count
from fewmark.data.formats.text import short


def clean_name(name: str) -> str:
    """The form in which image names are compared: forward slashes, no `./` before them, composed accents.

    >>> clean_name(".\\\\anna\\\\01.jpg")
    'anna/01.jpg'
    """
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return unicodedata.normalize("NFC", name)


def resolve_images(names: Iterable[str], folder: Path, where: str | Path) -> dict[str, Path]:
    """Find the images that a label file names.

    A name is a path relative to the folder, or an absolute one. Backslashes may separate its parts, and its accents may be composed
    differently on the disk. A name in another letter case, and one whose leading folders are not there, e.g. since they are another
    machine's, is taken for the only file that fits; that is told by a `DataWarning`.

    Args:
        names: The names.
        folder: Folder of the label file.
        where: The label file, for messages.

    Returns:
        Name -> path; that of a missing image as it is named.
    """
    finder = _Finder(folder)
    found: dict[str, Path] = {}
    moved: dict[str, Path] = {}
    several: list[str] = []
    for name in dict.fromkeys(names):
        if "\0" in name:
            raise InputError(f"{where}: {short(name)!r}: a null character in the name of an image; save the file again")
        path = finder.as_named(name)
        found[name] = folder / clean_name(name) if path is None else path
        if path is None:
            fitting = finder.moved(name)
            if len(fitting) == 1:
                moved[name] = fitting[0]
            elif fitting:
                several.append(name)
    used = Counter(map(os.path.realpath, [*(found[n] for n in found if n not in moved), *moved.values()]))
    for name, path in list(moved.items()):
        if used[os.path.realpath(path)] > 1:  # e.g. anna/1.jpg and bob/1.jpg, both gone, and one 1.jpg
            several.append(name)
            del moved[name]
    found |= moved
    if moved:
        name, path = next(iter(moved.items()))
        _tell(where, len(moved), f"found under another folder than named, e.g. {short(name)} as {short(path)}")
    if several:
        _tell(where, len(several), f"not found, and several files or names fit, e.g. {short(several[0])}")
    if finder.other_case:
        name, path = finder.other_case[0]
        _tell(where, len(finder.other_case), f"found in another letter case, {short(name)} as {path.name}")
    return found


def _tell(where: str | Path, n: int, what: str) -> None:
    warn_of_data(f"{where}: {count(n, 'image')} {'is' if n == 1 else 'are'} {what}")


class _Finder:
    """Looks names up in a folder; each folder is listed once, and only if a name is not there as it is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.other_case: list[tuple[str, Path]] = []
        self._listings: dict[Path, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}

    def as_named(self, name: str) -> Path | None:
        """The file of a name; None if there is none."""
        for form in dict.fromkeys((name, name.replace("\\", "/"))):
            if os.path.isfile(self.folder / form):
                return self.folder / form
        parts = PurePosixPath(clean_name(name)).parts
        path, exact = self._look_up(self.folder, parts)
        if path is not None and not exact:
            self.other_case.append((name, path))
        return path

    def moved(self, name: str) -> list[Path]:
        """Files that the end of a name fits, where the folder that it names is not there.

        They are below the label file's folder, or below one of the two above it with a folder of the name.
        """
        clean = clean_name(name)
        if os.path.isdir((self.folder / clean).parent):
            return []
        parts = [
            p for p in PurePosixPath(clean).parts if p not in ("/", "//", "..") and not re.fullmatch("[A-Za-z]:", p)
        ]
        places = [(self.folder, parts[i:]) for i in range(len(parts))]
        above = Path(os.path.abspath(self.folder)).parents[:2]
        places += [(base, parts[i:]) for base in above for i in range(len(parts) - 1)]
        found = [path for base, rest in places if (path := self._look_up(base, rest)[0]) is not None]
        return list({os.path.realpath(path): path for path in reversed(found)}.values())

    def _look_up(self, base: Path, parts: Iterable[str]) -> tuple[Path | None, bool]:
        """The file of a path's parts below a folder, and whether letter case and all fit."""
        path, exact = base, True
        for part in parts:
            if part in ("..", "/", "//"):
                path = path / part
                continue
            composed, folded = self._listing(path)
            names = composed.get(part, [])
            if not names:
                names, exact = folded.get(part.casefold(), []), False
            if len(names) != 1:
                return None, False
            path = path / names[0]
        return (path, exact) if os.path.isfile(path) else (None, False)

    def _listing(self, folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        if folder not in self._listings:
            composed: dict[str, list[str]] = {}
            folded: dict[str, list[str]] = {}
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            for name in names:
                form = unicodedata.normalize("NFC", name)
                composed.setdefault(form, []).append(name)
                folded.setdefault(form.casefold(), []).append(name)
            self._listings[folder] = composed, folded
        return self._listings[folder]
