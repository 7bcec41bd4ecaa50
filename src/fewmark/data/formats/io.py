"""Reading and writing of faces in any supported format: csv (fewmark's own), pts, coco, dlib, and those of labelling tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fewmark.core.errors import InputError, warn_of_data
from fewmark.data.formats.check import check_samples
from fewmark.data.formats.coco import read_coco, write_coco
from fewmark.data.formats.coco_categories import find_faces
from fewmark.data.formats.csv import read_csv, write_csv
from fewmark.data.formats.dlib import read_dlib_xml, write_dlib_xml
from fewmark.data.formats.pts import (
    find_image,
    pts_folder_files,
    read_images,
    read_pts,
    read_pts_folder,
    write_pts,
    write_pts_folder,
)
from fewmark.data.formats.results import (
    RESULT_FILES,
    is_results,
    landmark_names,
    read_result_lines,
    read_results,
    results_in,
    tell_labels_of_images,
)
from fewmark.data.formats.statements import mark_missing, plain_numbers
from fewmark.data.formats.text import read_json
from fewmark.data.formats.tools.cvat import is_cvat, read_cvat, write_cvat
from fewmark.data.formats.tools.deeplabcut import is_deeplabcut, read_deeplabcut, write_deeplabcut
from fewmark.data.formats.tools.label_studio import is_label_studio, read_label_studio, write_label_studio
from fewmark.data.formats.tools.labelme import is_labelme, labelme_files, read_labelme, write_labelme
from fewmark.data.formats.tools.sleap import read_sleap, write_sleap
from fewmark.data.images import IMAGE_SUFFIXES
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

__all__ = [
    "FORMATS",
    "check_samples",
    "files_read",
    "files_written",
    "read_coco",
    "read_csv",
    "read_dlib_xml",
    "read_faces",
    "read_images",
    "read_landmark_names",
    "read_pts",
    "read_pts_folder",
    "write_coco",
    "write_csv",
    "write_dlib_xml",
    "write_faces",
    "write_pts",
    "write_pts_folder",
]

FORMATS = ("csv", "pts", "coco", "dlib", "labelme", "label-studio", "cvat", "deeplabcut", "sleap")
_FORMAT_OF_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "coco",
    ".jsonl": "jsonl",
    ".xml": "dlib",
    ".pts": "pts",
    ".h5": "deeplabcut",
    ".slp": "sleap",
}


def read_faces(
    path: str | Path,
    fmt: str | None = None,
    *,
    scheme: LandmarkScheme | None = None,
    missing: int | None = None,
    strict: bool = True,
) -> list[FaceSample]:
    """Read faces from a folder, a label file or an image.

    Args:
        path: Folder, or .csv, .json (COCO), .xml (dlib), .pts (one face) or image file, or results of `detect`
            (.json, .jsonl). In a folder, `annotations.csv` is read if it exists, or else results (`RESULT_FILES`), or else
            the images with their .pts files. An image without a .pts file is one unlabelled face without a box.
        fmt: One of `FORMATS`, or None to detect the format.
        scheme: If given, every labelled face must have its number of landmarks, and landmark names in the file decide their order.
        missing: 0 or -1: landmarks at (0, 0) or (-1, -1) in the file are missing; None: they are told.
        strict: Refuse labels of images of another size than the file says; otherwise they are told.

    Returns:
        Faces; what is left out or doubtful is told by a `DataWarning`.

    Raises:
        InputError: The path does not exist, the format is unknown, `missing` is another value, or the data is invalid (see the reader of
            the format).
    """
    path = Path(path)
    samples, first = _read(path, fmt, scheme, strict)
    return mark_missing(path, samples, missing, first=first)


def _read(
    path: Path, fmt: str | None, scheme: LandmarkScheme | None, strict: bool
) -> tuple[list[FaceSample], Literal[0, 1]]:
    """Read faces, and the number of the first pixel in their format; see `read_faces`."""
    n = None if scheme is None else scheme.n_landmarks
    if fmt is not None and fmt not in FORMATS:
        raise InputError(f"format {fmt!r}: expected one of {', '.join(FORMATS)}")
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; expected a folder of images, or a .csv, .json, .jsonl, .xml or .pts file"
        )
    if path.is_dir():
        table = path / "annotations.csv"
        if fmt == "csv" or (fmt is None and table.is_file()):
            return read_csv(table, n_landmarks=n, strict=strict), 0
        if fmt == "labelme":
            return read_labelme(path, n_landmarks=n, scheme=scheme), 0
        if fmt in ("coco", "dlib"):
            raise InputError(
                f"{path}: is a folder; format {fmt} expects the {'.json' if fmt == 'coco' else '.xml'} file in it"
            )
        if fmt is None and (file := results_in(path)) is not None:
            samples, first = _read(file, None, scheme, strict)
            tell_labels_of_images(path, file, samples)
            return samples, first
        return (read_pts_folder if fmt == "pts" else read_images)(path, n_landmarks=n), 1
    if fmt is None and path.suffix.lower() in IMAGE_SUFFIXES:
        return [FaceSample(path, name=path.name)], 0
    data = read_json(path) if fmt in (None, "coco") and path.suffix.lower() == ".json" else None
    fmt = fmt or _tool_of(path, data) or _FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if fmt in _TOOLS:
        return _TOOLS[fmt](path, n_landmarks=n, scheme=scheme), 0
    if fmt == "csv":
        return read_csv(path, n_landmarks=n, strict=strict), 0
    if fmt == "coco":
        data = read_json(path) if data is None else data
        if is_results(data):
            return read_results(path, data, scheme=scheme, strict=strict), 0
        return read_coco(path, n_landmarks=n, scheme=scheme, strict=strict, data=data), 0
    if fmt == "jsonl":
        return read_result_lines(path, scheme=scheme, strict=strict), 0
    if fmt == "dlib":
        return read_dlib_xml(path, n_landmarks=n, scheme=scheme, strict=strict), 0
    if fmt == "pts":
        image = find_image(path)
        if image is None:
            raise InputError(f"{path}: no image with the same name in its folder; add {path.stem}.jpg or .png")
        return [FaceSample(image, landmarks=read_pts(path, n_landmarks=n), name=image.name)], 1
    raise InputError(f"{path}: cannot detect the format from {path.suffix!r}; choose one of {', '.join(FORMATS)}")


_TOOLS: dict[str, Callable[..., list[FaceSample]]] = {
    "labelme": read_labelme,
    "label-studio": read_label_studio,
    "cvat": read_cvat,
    "deeplabcut": read_deeplabcut,
    "sleap": read_sleap,
}


def _tool_of(path: Path, data: object) -> str | None:
    """The labelling tool whose file this is by its content, or None; data: of a JSON file."""
    suffix = path.suffix.lower()
    if data is not None:
        return "labelme" if is_labelme(data) else "label-studio" if is_label_studio(data) else None
    if suffix == ".xml":
        return "cvat" if is_cvat(path) else None
    return "deeplabcut" if suffix == ".csv" and is_deeplabcut(path) else None


def read_landmark_names(path: str | Path) -> tuple[str, ...]:
    """Read the names that a COCO file or results of `detect` give their landmarks; () for other files, and for plain numbers.

    Raises:
        InputError: The file cannot be read, or see `find_faces`.
    """
    path = Path(path)
    if _FORMAT_OF_SUFFIX.get(path.suffix.lower()) != "coco":
        return ()
    data = read_json(path)
    names = landmark_names(data) if is_results(data) else find_faces(path, data, None).names
    return () if plain_numbers(names) is not None else names


def write_faces(
    path: str | Path, fmt: str | None, samples: Sequence[FaceSample], scheme: LandmarkScheme | None = None
) -> None:
    """Write faces in one of `FORMATS`.

    Args:
        path: Output file. For pts, a folder that also receives copies of the images. For csv, a folder means
            `annotations.csv` in it.
        fmt: Format, or None to choose it from the suffix of `path`.
        samples: Faces to write, at least one.
        scheme: Scheme of the landmarks. Required for coco; if given, the number of landmarks is checked.

    Raises:
        InputError: The format is unknown or names landmarks and no scheme is given, or the faces cannot be written (see the writer
            of the format). What the format cannot hold is told by a `DataWarning`.
    """
    path = Path(path)
    fmt = _output_format(path, fmt)
    if scheme is not None:
        _check_count(samples, scheme)
    _tell_what_is_lost(path, fmt, samples)
    if fmt == "csv":
        (table,) = files_written(path, fmt, samples)
        write_csv(table, samples)
    elif fmt == "pts" and path.suffix.lower() == ".pts":
        if len(samples) != 1 or samples[0].landmarks is None:
            raise InputError(f"{path}: a .pts file holds one labelled face, given {len(samples)} faces; give a folder")
        write_pts(path, samples[0].landmarks)
    elif fmt == "pts":
        write_pts_folder(path, samples)
    elif fmt == "coco":
        if scheme is None:
            raise InputError(f"{path}: COCO names the landmarks; give the scheme of these faces")
        write_coco(path, samples, scheme)
    elif fmt == "dlib":
        write_dlib_xml(path, samples, scheme)
    elif fmt == "labelme":
        write_labelme(path, samples, scheme)
    elif fmt == "label-studio":
        write_label_studio(path, samples, scheme)
    elif fmt == "cvat":
        write_cvat(path, samples, scheme)
    elif fmt == "deeplabcut":
        write_deeplabcut(path, samples, scheme)
    elif fmt == "sleap":
        write_sleap(path, samples, scheme)
    else:
        raise InputError(f"{path}: format {fmt!r}: expected one of {', '.join(FORMATS)}; give --to or a known suffix")


_NO_OCCLUSION = ("pts", "dlib", "deeplabcut")
_NO_BOXES = ("pts", "deeplabcut", "sleap")


def _tell_what_is_lost(path: Path, fmt: str | None, samples: Sequence[FaceSample]) -> None:
    """Tell by a `DataWarning` what these faces have and the format does not hold."""
    lost = []
    if fmt in _NO_OCCLUSION and any(s.occluded is not None and s.occluded.any() for s in samples):
        lost.append("occlusion")
    if fmt in _NO_BOXES and any(s.box is not None for s in samples):
        lost.append("boxes")
    if fmt == "dlib" and any(s.landmarks is not None and (np.nan_to_num(s.landmarks) % 1).any() for s in samples):
        lost.append("parts of a px")
    if lost:
        warn_of_data(f"{path}: format {fmt} cannot hold {' and '.join(lost)}, which are left out")


def _output_format(path: Path, fmt: str | None) -> str | None:
    suffix = path.suffix.lower()
    by_suffix = None if suffix == ".tsv" else _FORMAT_OF_SUFFIX.get(suffix)  # tables are written with commas
    return fmt or by_suffix or ("pts" if path.is_dir() else None)


def files_written(path: str | Path, fmt: str | None, samples: Sequence[FaceSample]) -> list[Path]:
    """The label files that `write_faces` writes or replaces; it never replaces an image.

    Raises:
        InputError: See `pts_folder_files`.
    """
    path = Path(path)
    fmt = _output_format(path, fmt)
    if fmt == "csv" and path.is_dir():
        return [path / "annotations.csv"]
    if fmt == "labelme":
        return list(labelme_files(path, [s.image for s in samples]))
    if fmt == "pts" and path.suffix.lower() != ".pts":
        targets = pts_folder_files(path, samples)
        return [image.with_suffix(".pts") for image, s in targets.items() if s.landmarks is not None]
    return [path]


def files_read(path: str | Path, samples: Sequence[FaceSample]) -> Iterator[Path]:
    """The files that faces were read from by `read_faces`: images and labels; some of those in a folder may not exist."""
    path = Path(path)
    yield path
    yield from (s.image for s in samples)
    if path.is_dir():
        yield from (path / name for name in ("annotations.csv", *RESULT_FILES))
        yield from (s.image.with_suffix(suffix) for s in samples for suffix in (".pts", ".PTS"))


def _check_count(samples: Sequence[FaceSample], scheme: LandmarkScheme) -> None:
    for s in samples:
        if s.landmarks is not None and len(s.landmarks) != scheme.n_landmarks:
            raise InputError(
                f"{s.name or s.image}: expected {scheme.n_landmarks} landmarks of scheme {scheme.name}, "
                f"given {len(s.landmarks)}"
            )
