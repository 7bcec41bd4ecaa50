"""Results of `fewmark detect` as labels: faces.json, faces.jsonl, and a single face that was saved beside its image."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.text import count
from fewmark.data.formats.csv import count_landmarks, name_faces
from fewmark.data.formats.pts import find_image
from fewmark.data.formats.statements import check_sizes, order_by_names
from fewmark.data.formats.text import FARTHEST, read_text, short
from fewmark.data.image_names import clean_name, resolve_images
from fewmark.data.samples import FaceSample
from fewmark.data.walk import files_in, is_image_name
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_names

RESULT_FILES = ("faces.json", "faces.jsonl", "faces.coco.json", "faces.csv")
"""Files of results in a folder, of which the first that is there is read."""


def results_in(folder: Path) -> Path | None:
    """The file of results in a folder; None if there is none. Others beside it are told by a `DataWarning`."""
    there = [folder / name for name in RESULT_FILES if (folder / name).is_file()]
    if len(there) > 1:
        warn_of_data(f"{there[0]}: read alone, not {', '.join(f.name for f in there[1:])} beside it")
    return there[0] if there else None


def tell_labels_of_images(folder: Path, file: Path, samples: Sequence[FaceSample]) -> None:
    """Tell by a `DataWarning` that a folder of images was read by the results in it, and how many images these do not name."""
    named = {s.image.resolve() for s in samples}
    images = [f for f in files_in(folder) if is_image_name(f) and not f.stem.endswith("_landmarks")]
    if images:
        n = sum(f.resolve() not in named for f in images)
        left_out = f"; {n} of its {count(len(images), 'image')} not named there, left out" if n else ""
        warn_of_data(f"{file}: read as the labels of its folder{left_out}")


def is_results(data: object) -> bool:
    """Whether a JSON document holds results of `detect`, or one face."""
    return isinstance(data, dict) and (_entries(data) is not None or "box_xyxy" in data)


def _entries(data: Mapping[str, Any]) -> list[Any] | None:
    """The images of results; None for other documents."""
    found = data.get("pictures", None if "annotations" in data else data.get("images"))
    return found if isinstance(found, list) else None


def read_results(
    path: Path, data: Mapping[str, Any], *, scheme: LandmarkScheme | None = None, strict: bool = True
) -> list[FaceSample]:
    """Read the faces of a JSON document for which `is_results`.

    Args:
        path: The file.
        data: Its content.
        scheme: If given, the faces must have its number of landmarks; their names decide the order, see `order_by_names`.
        strict: See `check_sizes`.

    Returns:
        One face for each of an image, with its box and landmarks; an image without faces is an unlabelled face without a box.

    Raises:
        InputError: An entry is invalid, or the landmarks are not of the scheme.
    """
    entries = _entries(data)
    if entries is not None:
        failed = data.get("failed")
        return _faces(path, [*entries, *(failed if isinstance(failed, list) else [])], data, scheme, strict)
    image = find_image(path)
    if image is None:
        raise InputError(f"{path}: one face, expected its image beside it; add {path.stem}.jpg or .png")
    return _faces(path, [{"file": image.name, "faces": [data]}], data, scheme, strict)


def read_result_lines(path: Path, *, scheme: LandmarkScheme | None = None, strict: bool = True) -> list[FaceSample]:
    """Read faces.jsonl, one image a line; a last line that was cut off is told by a `DataWarning`. See `read_results`.

    Raises:
        InputError: The file cannot be read, or a line is invalid; or see `read_results`.
    """
    lines = [(n, line) for n, line in enumerate(read_text(path, "JSON lines").split("\n"), 1) if line.strip()]
    entries: list[Any] = []
    for n, line in lines:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            if n == lines[-1][0] and len(lines) > 1:
                warn_of_data(f"{path}: line {n}, the last, is cut off and left out")
                continue
            raise InputError(f"{path}: line {n}: not JSON ({error}); expected one image a line") from error
        if isinstance(entries[-1], dict) and "frame" in entries[-1]:
            raise InputError(
                f"{path}: faces of a video's frames, which are no image files; expected results of `detect`"
            )
    head = next((e for e in entries if isinstance(e, dict) and "scheme" in e), {})
    return _faces(path, entries, head, scheme, strict)


def _faces(
    path: Path, entries: Sequence[Any], head: Mapping[str, Any], scheme: LandmarkScheme | None, strict: bool
) -> list[FaceSample]:
    n_failed = n_unnamed = 0
    images: list[tuple[str, list[Any]]] = []
    stated: dict[str, tuple[object, object]] = {}
    for i, entry in enumerate(entries):
        file = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not file:
            raise InputError(f"{path}: entry {i + 1}: expected the `file` of an image, given {short(entry)}")
        if "error" in entry:
            n_failed += 1
        elif file == "-":
            n_unnamed += 1
        elif not isinstance(entry.get("faces"), list):
            raise InputError(f"{path}: {short(file)}: expected a list of `faces`, given {short(entry.get('faces'))}")
        else:
            images.append((file, entry["faces"]))
            stated[file] = entry.get("width"), entry.get("height")
    if n_failed:
        warn_of_data(f"{path}: {count(n_failed, 'image')} left out that could not be read")
    if n_unnamed:
        warn_of_data(f"{path}: {count(n_unnamed, 'image')} of standard input left out")
    if not images:
        raise InputError(f"{path}: expected at least one image, given none")
    paths = resolve_images([file for file, _ in images], path.parent, path)
    check_sizes(path, {paths[file]: size for file, size in stated.items()}, strict=strict)
    found: list[tuple[str, FaceSample]] = []
    for file, faces in images:
        where = f"{path}: {short(file)}"
        found += [(file, _face(where, paths[file], face)) for face in faces] or [(file, FaceSample(paths[file]))]
    samples = [s for _, s in found]
    k = count_landmarks(samples)
    if scheme is not None and k not in (0, scheme.n_landmarks):
        raise InputError(f"{path}: expected {scheme.n_landmarks} landmarks, given {k}; choose the scheme of this file")
    names = landmark_names(head)
    if scheme is not None and len(names) == k == scheme.n_landmarks:
        order = order_by_names(path, names, scheme)
        if order is not None:
            samples = [replace(s, landmarks=None if s.landmarks is None else s.landmarks[order]) for s in samples]
    face_names = name_faces([clean_name(file) for file, _ in found])
    return [replace(s, name=name) for s, name in zip(samples, face_names, strict=True)]


def landmark_names(head: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the landmarks: those in the file, or those of the packaged scheme that it names."""
    given, scheme = head.get("landmarks"), head.get("scheme")
    if isinstance(given, list) and all(isinstance(n, str) for n in given):
        return tuple(given)
    return load_scheme(scheme).landmarks if scheme in scheme_names() else ()


def _face(where: str, image: Path, face: Any) -> FaceSample:
    if not isinstance(face, dict):
        raise InputError(f"{where}: expected a face, given {short(face)}")
    box, landmarks = face.get("box_xyxy"), face.get("landmarks")
    corners = None if box is None else _numbers(f"{where}: box_xyxy", [box], 4)[0]
    if corners is not None and not (np.isfinite(corners).all() and (corners[2:] > corners[:2]).all()):
        raise InputError(f"{where}: box_xyxy: expected x0 < x1 and y0 < y1, given {short(box)}")
    points = None
    if landmarks:
        rows = landmarks if isinstance(landmarks, list) else [landmarks]
        points = _numbers(f"{where}: landmarks", [[None, None] if p is None else p for p in rows], 2)
    labelled = points is not None and bool(np.isfinite(points).all(1).any())
    return FaceSample(image, corners, points if labelled else None)


def _numbers(where: str, rows: Sequence[Any], n: int) -> NDArray[np.float32]:
    """(N, n) numbers, NaN for null."""
    try:
        table = np.array(rows, np.float64).reshape(len(rows), n)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where}: expected {n} numbers each, given {short(rows)}") from None
    if (np.abs(table) > FARTHEST).any():
        raise InputError(f"{where}: expected finite numbers, given {short(rows)}")
    return table.astype(np.float32)
