"""The categories of a COCO file: which one holds the faces, and the names of its landmarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.text import count
from fewmark.data.formats.statements import order_by_names, tell_other_order
from fewmark.data.formats.text import short
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True)
class Faces:
    """What is read of a file.

    Attributes:
        left_out: Ids of the categories that hold no faces; an annotation without a known category is a face.
        names: Names of the landmarks, () if the file does not state them.
        order: Position in the file of each landmark of the scheme, or None for the file's order.
    """

    left_out: frozenset[Hashable]
    names: tuple[str, ...]
    order: list[int] | None


@dataclass(frozen=True)
class _Category:
    id: Hashable
    name: str
    names: tuple[str, ...]


def entry_ids(path: Path, entries: Sequence[Any], what: str, *, required: bool) -> list[Hashable]:
    """Read the ids of entries, each used once.

    Args:
        path: The file, for messages.
        entries: The entries, objects.
        what: Name of their list.
        required: Whether each needs an id; otherwise that of an entry without one is None.

    Raises:
        InputError: An id is missing, is neither number nor text, or is used twice.
    """
    ids: list[Hashable] = []
    first: dict[Hashable, int] = {}
    for i, entry in enumerate(entries):
        given = entry.get("id") if isinstance(entry, dict) else None
        if given is None and not required:
            ids.append(None)
            continue
        if not isinstance(given, str | int | float):
            raise InputError(f"{path}: {what}[{i}]: expected an `id`, a number or text, given {short(entry)}")
        if given in first:
            a, b = (short(entries[j].get("file_name", f"{what}[{j}]"), 40) for j in (first[given], i))
            raise InputError(
                f"{path}: {what}[{first[given]}] and {what}[{i}] have the same id {short(given, 20)} ({a}, {b}); give each its own"
            )
        first[given] = i
        ids.append(given)
    return ids


def find_faces(path: Path, data: Mapping[str, Any], scheme: LandmarkScheme | None) -> Faces:
    """Find the categories of the faces: those with named landmarks, of the scheme's names or number if there are several.

    Annotations of other categories are told by a `DataWarning`.

    Raises:
        InputError: Categories have different landmarks and the scheme does not choose one, or see `order_by_names`.
    """
    listed = data.get("categories")
    entries = [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []
    ids = entry_ids(path, entries, "categories", required=False)
    every = [_Category(i, str(c.get("name", i)), _names(c)) for i, c in zip(ids, entries, strict=True) if i is not None]
    with_points: Counter[Hashable] = Counter()
    used: Counter[Hashable] = Counter()
    for annotation in data["annotations"]:
        given = annotation.get("category_id")
        if isinstance(given, str | int | float) and not annotation.get("iscrowd"):
            used[given] += 1
            with_points[given] += bool(annotation.get("keypoints"))
    there = [c for c in every if used[c.id]]
    chosen = _choose(path, there, with_points, scheme)
    names = next((c.names for c in chosen if c.names), ())
    others = [c for c in there if c not in chosen]
    if others:
        n = sum(used[c.id] for c in others)
        kinds = ", ".join(f"{short(c.name, 20)} ({used[c.id]})" for c in others[:4])
        of = " or ".join(dict.fromkeys(short(c.name, 20) for c in chosen))
        warn_of_data(f"{path}: {count(n, 'annotation')} left out, of other categories than {of}: {kinds}")
    if scheme is None:
        tell_other_order(path, names)
    fits = scheme is not None and len(names) == scheme.n_landmarks
    order = order_by_names(path, names, scheme) if scheme is not None and fits else None
    return Faces(frozenset(c.id for c in others), names, order)


def _names(category: Mapping[str, Any]) -> tuple[str, ...]:
    given = category.get("keypoints")
    return tuple(map(str, given)) if isinstance(given, list) else ()


def _choose(
    path: Path, there: list[_Category], with_points: Mapping[Hashable, int], scheme: LandmarkScheme | None
) -> list[_Category]:
    named = [c for c in there if c.names]
    faces = [c for c in there if c.name.strip().lower() in ("face", "faces")]
    if not named:
        pointed = [c for c in there if with_points.get(c.id)]
        return faces or pointed or there
    if len({c.names for c in named}) == 1:
        return named
    fitting = []
    if scheme is not None:
        fitting = [c for c in named if sorted(c.names) == sorted(scheme.landmarks)]
        fitting = fitting or [c for c in named if len(c.names) == scheme.n_landmarks]
    if len({c.names for c in fitting}) == 1:
        return fitting
    kinds = ", ".join(f"{short(c.name, 20)} ({len(c.names)})" for c in named[:4])
    advice = "choose the scheme of one of them" if scheme is None else f"expected one of scheme {scheme.name}"
    raise InputError(f"{path}: categories with different landmarks: {kinds}; {advice}, or keep one in the file")
