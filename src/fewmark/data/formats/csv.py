"""fewmark's own CSV format, with one row per face.

The header names the columns: `file` (relative to the CSV), `x0,y0,x1,y1,...` (0-based px, (0, 0) is the centre
of the top-left pixel), optional `box_x0,box_y0,box_x1,box_y1`, optional `v0,v1,...` (1 visible, 0 occluded with
a position, -1 missing), optional `group`, optional `width,height` of the image, which are compared with it. Empty cells are missing values. Columns that are not read are told by a
`DataWarning`. Cells may be separated by semicolons or tabs, too, as spreadsheets do (`fewmark.data.formats.text`). Names of images that are no UTF-8
are escaped as in `fewmark.core.names`.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.files import write_text
from fewmark.core.names import escape_name, unescape_name
from fewmark.core.text import count
from fewmark.data.formats.statements import check_sizes
from fewmark.data.formats.text import FARTHEST, Table, decimal, read_table, short
from fewmark.data.image_names import clean_name, resolve_images
from fewmark.data.samples import FaceSample

_NOT_NEEDED = ("quality",)  # of faces.csv
_SIZE = ("width", "height")
BOX_COLUMNS = ("box_x0", "box_y0", "box_x1", "box_y1")


@dataclass(frozen=True)
class _Columns:
    """Positions of the columns in a row."""

    file: int
    group: int | None
    size: tuple[int, ...]  # of the image: 2 or 0 entries
    box: tuple[int, ...]  # 4 or 0 entries
    xy: tuple[int, ...]  # 2K: x0 y0 x1 y1 ...
    visibility: tuple[int, ...]  # K or 0 entries


def read_csv(path: str | Path, *, n_landmarks: int | None = None, strict: bool = True) -> list[FaceSample]:
    """Read faces from a CSV file.

    Args:
        path: CSV file.
        n_landmarks: Required number of landmarks, or None for any. Files without landmark columns (unlabelled
            faces) are always accepted.
        strict: See `check_sizes`.

    Returns:
        One sample per row, in file order. A row without any point is an unlabelled face (landmarks None). The
        name is the `file` cell, or "file#1", "file#2", ... for an image with several faces. A point with a
        position and an empty `v` cell is visible.

    Raises:
        InputError: The file cannot be read or has no rows, a column is missing, a cell is not a finite number,
            a point or box is incomplete, a box is empty, an image has another size, or the number of landmarks is not `n_landmarks`.
    """
    path = Path(path)
    table = read_table(path, "file")
    columns = _read_header(path, table.header, n_landmarks)
    if not table.rows:
        raise InputError(f"{path}: expected at least one face, given a header without rows")
    if table.n_blank:
        warn_of_data(f"{path}: {count(table.n_blank, 'blank row')} left out")
    return _samples(path, columns, table, strict)


def _read_header(path: Path, names: list[str], n_landmarks: int | None) -> _Columns:
    twice = [name for name, n in Counter(names).items() if n > 1 and name]
    if twice:
        raise InputError(f"{path}: header: column `{short(twice[0])}` is there twice")
    where = {name: i for i, name in enumerate(names)}
    counts = {letter: sum(1 for name in names if re.fullmatch(rf"{letter}\d+", name)) for letter in "xyv"}
    k = max(counts["x"], counts["y"])
    for letter, n in (("x", k), ("y", k), ("v", k if counts["v"] else 0)):
        for i in range(n):
            if f"{letter}{i}" not in where:
                raise InputError(
                    f"{path}: header: expected {letter}0 to {letter}{n - 1}, given no column `{letter}{i}`"
                )
    if counts["v"] > k:
        raise InputError(f"{path}: header: expected {k} columns v0, v1, ... as many as points, given {counts['v']}")
    if n_landmarks is not None and k not in (0, n_landmarks):
        raise InputError(
            f"{path}: header: expected {n_landmarks} landmarks (x0,y0 to "
            f"x{n_landmarks - 1},y{n_landmarks - 1}), "
            f"given {k}; choose the scheme of this file or another file"
        )
    boxed = [name for name in BOX_COLUMNS if name in where]
    if boxed and len(boxed) < 4:
        raise InputError(f"{path}: header: expected all of {', '.join(BOX_COLUMNS)} or none, given {', '.join(boxed)}")
    unread = [name for i, name in enumerate(names) if name and not _is_read(name, i, where, k)]
    if unread:
        more = f" and {len(unread) - 4} more" if len(unread) > 4 else ""
        warn_of_data(
            f"{path}: {count(len(unread), 'column')} not read: {', '.join(short(name, 20) for name in unread[:4])}{more}"
        )
    return _Columns(
        file=where["file"],
        group=where.get("group"),
        size=tuple(where[name] for name in _SIZE if set(_SIZE) <= where.keys()),
        box=tuple(where[name] for name in boxed),
        xy=tuple(where[f"{letter}{i}"] for i in range(k) for letter in "xy"),
        visibility=tuple(where[f"v{i}"] for i in range(k)) if counts["v"] else (),
    )


def _is_read(name: str, column: int, where: dict[str, int], k: int) -> bool:
    """Whether a column is read or is fewmark's own `quality`."""
    point = re.fullmatch(r"[xyv](\d+)", name)
    known = name in ("file", "group", *_NOT_NEEDED, *_SIZE, *BOX_COLUMNS) or (point is not None and int(point[1]) < k)
    return known and where[name] == column


def _numbers(path: Path, cells_of: Table, columns: tuple[int, ...], names: Sequence[str]) -> NDArray[np.float64]:
    """Parse columns into (N, len(columns)) finite numbers, NaN for cells that are empty or "nan"."""
    rows, lines = cells_of.rows, cells_of.lines
    read = decimal if cells_of.decimal_comma else float
    pick = itemgetter(*columns)
    table = np.empty((len(rows), len(columns)), np.float64)
    for i, row in enumerate(rows):
        cells = pick(row)
        try:
            table[i] = list(map(float, cells))
        except ValueError:  # a cell is empty or not a number
            for j, cell in enumerate(cells):
                try:
                    table[i, j] = read(cell) if cell.strip() else np.nan
                except ValueError:
                    raise InputError(
                        f"{path}: row {lines[i]}: {names[j]}: expected a number, given {short(cell, 40)!r}"
                    ) from None
    infinite = np.argwhere(np.isinf(table) | (np.abs(table) > FARTHEST))
    if len(infinite):
        i, j = infinite[0]
        raise InputError(
            f"{path}: row {lines[i]}: {names[j]}: expected a position in px, given {table[i, j]}; leave "
            "the cell empty if there is none"
        )
    return table


def _samples(path: Path, columns: _Columns, table: Table, strict: bool) -> list[FaceSample]:
    rows, lines = table.rows, table.lines
    n, k = len(rows), len(columns.xy) // 2
    files = [unescape_name(row[columns.file].strip()) for row in rows]
    if "" in files:
        raise InputError(
            f"{path}: row {lines[files.index('')]}: file: expected the name of an image, given an empty cell"
        )
    landmarks = np.empty((n, 0, 2), np.float32)
    occluded = np.zeros((n, 0), np.bool_)
    said = np.zeros(n, np.bool_)
    if k:
        names = [f"{letter}{i}" for i in range(k) for letter in "xy"]
        xy = _numbers(path, table, columns.xy, names).reshape(n, k, 2)
        half = np.argwhere(np.isnan(xy).sum(2) == 1)
        if len(half):
            i, j = half[0]
            there, gone = ("y", "x") if np.isnan(xy[i, j, 0]) else ("x", "y")
            raise InputError(
                f"{path}: row {lines[i]}: half a point: {there}{j} is given and {gone}{j} is empty; give both or none"
            )
        if columns.visibility:
            v = _numbers(path, table, columns.visibility * (1 if k > 1 else 2), [f"v{i}" for i in range(k)] * 2)[:, :k]
            wrong = np.argwhere(~np.isin(v, (-1, 0, 1)) & ~np.isnan(v))
            if len(wrong):
                i, j = wrong[0]
                raise InputError(
                    f"{path}: row {lines[i]}: v{j}: expected 1 (visible), 0 (occluded) or -1 (missing), "
                    f"given {v[i, j]:g}"
                )
            xy[v == -1] = np.nan
            occluded, said = np.asarray(v == 0), np.asarray(~np.isnan(v).all(axis=1))
        landmarks = xy.astype(np.float32)
    boxes = np.full((n, 4), np.nan)
    if columns.box:
        boxes = _numbers(path, table, columns.box, BOX_COLUMNS)
        empty = np.isnan(boxes).sum(1)
        bad = np.flatnonzero(((empty > 0) & (empty < 4)) | (boxes[:, 2:] <= boxes[:, :2]).any(1))
        if len(bad):
            given = ",".join("" if np.isnan(b) else f"{b:g}" for b in boxes[bad[0]])
            raise InputError(
                f"{path}: row {lines[bad[0]]}: box: expected box_x0 < box_x1 and box_y0 < box_y1, all "
                f"four or none, given {given}"
            )
    present = np.asarray(np.isfinite(landmarks).all(axis=2))
    labelled = np.asarray(present.any(axis=1))
    has_box = np.asarray(np.isfinite(boxes).all(axis=1))
    boxes32 = boxes.astype(np.float32)
    face_names = name_faces([clean_name(file) for file in files])
    images = resolve_images(files, path.parent, path)
    if columns.size:
        width, height = columns.size
        sizes = {images[file]: (row[width], row[height]) for file, row in zip(files, rows, strict=True)}
        check_sizes(path, sizes, strict=strict)
    return [
        FaceSample(
            image=images[files[i]],
            box=boxes32[i] if has_box[i] else None,
            landmarks=landmarks[i] if labelled[i] else None,
            occluded=occluded[i] & present[i] if labelled[i] and said[i] else None,
            group="" if columns.group is None else rows[i][columns.group].strip(),
            name=face_names[i],
        )
        for i in range(n)
    ]


def name_faces(files: Sequence[str]) -> list[str]:
    """Name faces after their image files, adding #1, #2, ... if an image has several faces.

    >>> name_faces(["a.jpg", "b.jpg", "a.jpg"])
    ['a.jpg#1', 'b.jpg', 'a.jpg#2']
    """
    total, seen = Counter(files), Counter[str]()
    names = []
    for file in files:
        seen[file] += 1
        names.append(file if total[file] == 1 else f"{file}#{seen[file]}")
    return names


def relative_file(image: Path, folder: Path) -> str:
    """Format the path of an image for a file in `folder`: relative if possible, with forward slashes."""
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # another drive
        return Path(os.path.abspath(image)).as_posix()


def write_csv(path: str | Path, samples: Sequence[FaceSample]) -> None:
    """Write faces to a CSV file; `read_csv` restores their float32 positions exactly.

    Columns for boxes, points, visibility and groups are written only if at least one face has them.

    Raises:
        InputError: There are no faces, faces have different numbers of landmarks, or the file cannot be
            written.
    """
    path = Path(path)
    if not samples:
        raise InputError(f"{path}: expected at least one face to write, given none")
    k = count_landmarks(samples)
    with_box = any(s.box is not None for s in samples)
    with_v = k > 0 and any(s.occluded is not None and s.landmarks is not None for s in samples)
    with_group = any(s.group for s in samples)
    header = ["file", *(BOX_COLUMNS if with_box else ()), *(f"{c}{i}" for i in range(k) for c in "xy")]
    header += [f"v{i}" for i in range(k)] if with_v else []
    header += ["group"] if with_group else []
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    folder = Path(os.path.abspath(path)).parent
    for s in samples:
        row = [escape_name(relative_file(s.image, folder))]
        if with_box:
            row += [""] * 4 if s.box is None else cells(s.box)
        if k:
            row += [""] * (2 * k) if s.landmarks is None else cells(s.landmarks)
        if with_v:
            if s.landmarks is None or s.occluded is None:
                row += [""] * k
            else:
                there = np.asarray(np.isfinite(s.landmarks).all(axis=1))
                row += [("0" if hidden else "1") if p else "-1" for p, hidden in zip(there, s.occluded, strict=True)]
        if with_group:
            row.append(s.group)
        writer.writerow(row)
    write_text(path, out.getvalue())


def count_landmarks(samples: Sequence[FaceSample]) -> int:
    """Return the number of landmarks per face, or 0 if no face is labelled.

    Raises:
        InputError: Faces have different numbers of landmarks.
    """
    labelled = [s for s in samples if s.landmarks is not None]
    counts = [len(s.landmarks) for s in labelled if s.landmarks is not None]
    other = next((i for i, count in enumerate(counts) if count != counts[0]), None)
    if other is not None:
        raise InputError(
            f"{labelled[other].name or labelled[other].image}: expected {counts[0]} landmarks as in "
            f"{labelled[0].name or labelled[0].image}, given {counts[other]}; keep the faces of one "
            "scheme in one file"
        )
    return counts[0] if counts else 0


def cells(values: NDArray[np.floating]) -> list[str]:
    """Format numbers as short texts that read back as the same float32; NaN becomes an empty text."""
    exact = np.asarray(values, np.float32).astype(np.float64).ravel()
    rounded = np.round(exact, 4)
    chosen = np.where(rounded.astype(np.float32) == exact.astype(np.float32), rounded, exact)
    return ["" if v != v else f"{v + 0.0:.9g}" for v in chosen.tolist()]
