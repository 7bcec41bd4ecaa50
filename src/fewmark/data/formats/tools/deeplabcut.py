"""DeepLabCut: CollectedData_NAME.csv or .h5, with a header of scorer, (individuals,) bodyparts and coords; positions are px, the first at (0, 0)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.core.install import install_hint
from fewmark.data.formats.text import read_text
from fewmark.data.formats.tools.named import NamedFace, Point, by_image, from_samples, number, structure_of, to_samples
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

SCORER = "fewmark"
LEVELS = ("scorer", "individuals", "bodyparts", "coords")


def read_deeplabcut(
    path: str | Path, *, n_landmarks: int | None = None, scheme: LandmarkScheme | None = None
) -> list[FaceSample]:
    """Read labels of one or of several individuals.

    Args:
        path: The .csv or .h5 file; images are named from the project's folder or beside it.
        n_landmarks: Required number of names, or None for any.
        scheme: Its names are expected, and decide the order.

    Raises:
        InputError: The file has another header, an .h5 file cannot be read, or see `to_samples`.
    """
    path = Path(path)
    if path.suffix.lower() == ".h5":
        rows = _rows_of_h5(path)
    else:
        text = read_text(path, "a table of DeepLabCut")
        with structure_of(path, "DeepLabCut"):
            rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if not rows:
        raise InputError(f"{path}: expected a table of DeepLabCut, given an empty file")
    with structure_of(path, "DeepLabCut"):
        faces = _faces(path, rows)
    return to_samples(path, faces, scheme, n_landmarks)


def _faces(path: Path, rows: list[list[str]]) -> list[NamedFace]:
    header = {row[0]: row for row in rows[:4] if row[0] in LEVELS}
    if not {"scorer", "bodyparts", "coords"} <= header.keys():
        raise InputError(f"{path}: expected DeepLabCut's header of scorer, bodyparts and coords, given {rows[0][:3]}")
    first = next((i for i, c in enumerate(header["coords"]) if c in ("x", "y")), len(header["coords"]))
    people = header.get("individuals", [""] * len(header["coords"]))
    faces = []
    for row in rows[len(header) :]:
        image = "/".join(part for part in row[:first] if part)
        found: dict[str, dict[str, dict[str, float]]] = {}
        for column in range(first, len(row)):
            person, name, axis = people[column], header["bodyparts"][column], header["coords"][column]
            places = found.setdefault(person, {})
            if row[column].strip() and axis in ("x", "y"):
                places.setdefault(name, {})[axis] = number(path, f"{image}: {name}", row[column])
        each = {person: _points(places) for person, places in found.items()}
        labelled = [NamedFace(image, points) for points in each.values() if points]
        faces += labelled or [NamedFace(image, {})]
    return faces


def _rows_of_h5(path: Path) -> list[list[str]]:
    pandas = _pandas()
    try:
        table = pandas.read_hdf(path)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # tables' own are RuntimeErrors
        raise InputError(
            f"{path}: expected a table of DeepLabCut, which pandas could not read; save it again as .csv"
        ) from error
    return [row for row in csv.reader(io.StringIO(table.to_csv())) if row]


def _pandas() -> Any:
    try:
        import pandas
        import tables  # noqa: F401 - pandas reads and writes .h5 by it
    except ImportError:
        raise InputError(f".h5 files need pandas and tables: {install_hint('tools')}") from None
    return pandas


def is_deeplabcut(path: Path) -> bool:
    """Whether a CSV file is DeepLabCut's."""
    with path.open("rb") as file:
        return file.read(7) == b"scorer,"


def _points(places: dict[str, dict[str, float]]) -> dict[str, Point]:
    return {n: (p["x"], p["y"]) for n, p in places.items() if len(p) == 2 and not any(map(math.isnan, p.values()))}


def write_deeplabcut(path: str | Path, samples: Sequence[FaceSample], scheme: LandmarkScheme | None) -> None:
    """Write labels, of several individuals where an image has several faces. Boxes and occlusion cannot be stored.

    Raises:
        InputError: See `from_samples`.
    """
    path = Path(path)
    images = by_image(from_samples(path, samples, scheme))
    assert scheme is not None  # `from_samples` has refused
    most = max(len(faces) for faces in images.values())
    columns = [(f"face{i + 1}", name, axis) for i in range(most) for name in scheme.landmarks for axis in "xy"]
    header = {
        "scorer": [SCORER] * len(columns),
        "individuals": [c[0] for c in columns],
        "bodyparts": [c[1] for c in columns],
        "coords": [c[2] for c in columns],
    }
    if most == 1:
        del header["individuals"]
    rows = []
    for faces in images.values():
        row: list[float | None] = []
        for i in range(most):
            points = faces[i].points if i < len(faces) else {}
            for name in scheme.landmarks:
                row += points.get(name, (None, None))
        rows.append(row)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".h5":
            pandas = _pandas()
            names = pandas.MultiIndex.from_arrays(list(header.values()), names=list(header))
            table = pandas.DataFrame(rows, index=list(images), columns=names, dtype=float)
            temporary.unlink()  # pandas opens files that are there as if they held tables
            table.to_hdf(temporary, key="df_with_missing", mode="w")
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([name, *values] for name, values in header.items())
            for image, cells in zip(images, rows, strict=True):
                writer.writerow([image, *("" if v is None else repr(v) for v in cells)])
