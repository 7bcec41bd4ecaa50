"""What label files say besides positions, believed and checked: names of landmarks, sizes of images, numbers that mean missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.text import count
from fewmark.data.formats.text import short
from fewmark.data.images import read_size
from fewmark.data.samples import FaceSample
from fewmark.landmarks.names import find_landmarks
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_names

MISSING_VALUES = (0, -1)
"""Values of both coordinates by which some files mark a missing landmark."""


def order_by_names(where: str | Path, names: Sequence[str], scheme: LandmarkScheme) -> list[int] | None:
    """Find the order of a file's landmarks by the names that the file gives them.

    Args:
        where: The file, for messages.
        names: Names of its K landmarks, in its order.
        scheme: Scheme of K landmarks.

    Returns:
        (K,) position in the file of each landmark of the scheme; None for the file's own order: that of names that are plain numbers
        from 0 or 1, and of names that the scheme does not know, which a `DataWarning` tells.

    Raises:
        InputError: The scheme knows some of the names, at other places.
    """
    found = [_index(scheme, name) for name in names]
    if sorted(i for i in found if i is not None) == list(range(len(names))):
        return [found.index(i) for i in range(len(names))]
    numbers = plain_numbers(names)
    if numbers is not None:
        return sorted(range(len(names)), key=numbers.__getitem__)
    at = next((n for n, i in enumerate(found) if i is not None and i != n), None)
    if at is not None:
        known = sum(i is not None for i in found)
        raise InputError(
            f"{where}: {known} of its {len(names)} landmark names are of scheme {scheme.name}, in another order: {short(names[at], 40)!r} is "
            f"point {found[at]} there and point {at} here; correct its names or choose its own scheme"
        )
    other = next((n for n, i in enumerate(found) if i is None), 0)
    warn_of_data(
        f"{where}: its landmark names are not all of scheme {scheme.name}, e.g. {short(names[other], 40)!r} for "
        f"{scheme.landmarks[other]!r}: its landmarks are taken in the file's order"
    )
    return None


def tell_other_order(where: str | Path, names: Sequence[str]) -> None:
    """Tell by a `DataWarning` that a file names the landmarks of a packaged scheme in another order than the scheme."""
    if plain_numbers(names) is not None:
        return
    for name in scheme_names():
        scheme = load_scheme(name)
        if tuple(names) != scheme.landmarks and sorted(names) == sorted(scheme.landmarks):
            warn_of_data(
                f"{where}: landmarks of scheme {name} in another order; give the scheme to put them in its order"
            )


def plain_numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers of landmarks named `0`, `kp_1` and the like, each number once from 0 or 1 on; None for other names.

    >>> plain_numbers(["p2", "p1"]), plain_numbers(["nose", "p1"])
    ([2, 1], None)
    """
    parts = [re.fullmatch(r"(.*?)(\d+)", name.strip(), re.DOTALL) for name in names]
    numbers = [int(p[2]) for p in parts if p is not None]
    stems = {p[1] for p in parts if p is not None}
    counted = sorted(numbers) in (list(range(len(names))), list(range(1, len(names) + 1)))
    return numbers if counted and len(stems) == 1 else None


def _index(scheme: LandmarkScheme, name: str) -> int | None:
    """The index of a landmark, whatever its letter case and the characters between its words."""
    plain = _plain(name)
    for i, own in enumerate(scheme.landmarks):
        if plain == _plain(own):
            return i
    if not plain.startswith("subject_"):
        return None
    try:
        found = find_landmarks(scheme, plain)
    except InputError:
        return None
    return found if isinstance(found, int) else None


def _plain(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().lower())


def check_sizes(where: str | Path, stated: Mapping[Path, tuple[object, object]], *, strict: bool) -> None:
    """Compare the sizes that a file states of its images with the upright images, of which the headers are read.

    Args:
        where: The file, for messages.
        stated: Image -> width, height, px; images that are not there and values that are no size are passed over.
        strict: Refuse the first other size; otherwise all are told by one `DataWarning`.

    Raises:
        InputError: An image has another size, and `strict` is set.
    """
    wrong: list[str] = []
    for image, (width, height) in stated.items():
        given = _pixels(width), _pixels(height)
        if None in given or not image.is_file():
            continue
        try:
            true = read_size(image)
        except InputError:  # reported where the image is read
            continue
        if given == true:
            continue
        sizes = f"{image.name}: labels of {given[0]} x {given[1]} px, the upright image has {true[0]} x {true[1]}"
        if strict:
            advice = (
                "label the upright image"
                if given == true[::-1]
                else "give the image that was labelled, or its true size"
            )
            raise InputError(f"{where}: {sizes}; {advice}")
        wrong.append(sizes)
    if wrong:
        is_are = "is of another size" if len(wrong) == 1 else "are of other sizes"
        warn_of_data(f"{where}: {count(len(wrong), 'image')} {is_are} than the labels say: {'; '.join(wrong[:2])}")


def _pixels(value: object) -> int | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return int(number) if 1 <= number < math.inf and number == int(number) else None


def mark_missing(
    where: str | Path, samples: Sequence[FaceSample], missing: int | None, *, first: int = 0
) -> list[FaceSample]:
    """Make landmarks that a file puts at (0, 0) or (-1, -1) missing.

    Args:
        where: The file, for messages.
        samples: Faces as they were read.
        missing: The value of both coordinates, one of `MISSING_VALUES`; None: none, but such landmarks are told by a `DataWarning`.
        first: Number of the first pixel in the file.

    Raises:
        InputError: `missing` is another value.
    """
    if missing is not None and missing not in MISSING_VALUES:
        raise InputError(f"missing: expected 0 or -1, given {missing}")
    result = list(samples)
    for value in MISSING_VALUES:
        n_landmarks = n_faces = 0
        for i, s in enumerate(result):
            if s.landmarks is None or not (there := (s.landmarks == value - first).all(1)).any():
                continue
            n_landmarks, n_faces = n_landmarks + int(there.sum()), n_faces + 1
            if value != missing:
                continue
            points = np.where(there[:, None], np.float32(np.nan), s.landmarks)
            if np.isfinite(points).all(1).any():
                result[i] = replace(s, landmarks=points, occluded=None if s.occluded is None else s.occluded & ~there)
            else:
                result[i] = replace(s, landmarks=None, occluded=None)
        if n_landmarks and value != missing:
            is_are = "is" if n_landmarks == 1 else "are"
            warn_of_data(
                f"{where}: {count(n_landmarks, 'landmark')} of {count(n_faces, 'face')} {is_are} exactly at ({value}, {value}), as some "
                f"files mark missing ones; leave them out by --missing {value} (missing={value})"
            )
    return result
