"""iBUG's .pts: one face a file, beside its image.

The file counts pixels from 1 (Matlab): the centre of the top-left pixel is (1, 1) there and (0, 0) in
memory. Usually there is a header (`version: 1`, `n_points: 68`) and braces round the points; files without
either are read too.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, write_text
from fewmark.core.geometry import FloatArray
from fewmark.data.images import IMAGE_SUFFIXES
from fewmark.data.samples import FaceSample

_HEADER = re.compile(r"([A-Za-z_]\w*)\s*[:=]\s*(.*)")


def read_pts(path: str | Path, *, n_landmarks: int | None = None) -> NDArray[np.float32]:
    """The landmarks of a .pts file.

    Args:
        path: the file.
        n_landmarks: what the scheme has; another number is refused.

    Returns:
        (K, 2) image px, 0-based; NaN rows where the file says nan.

    Raises:
        InputError: the file cannot be read, a line is no point, the number of points is not what the header
            or `n_landmarks` says.
    """
    return (read_points(path, n_landmarks=n_landmarks) - 1).astype(np.float32)


def read_points(path: str | Path, *, n_landmarks: int | None = None) -> NDArray[np.float64]:
    """The points of a text file with one "x y" a line, as the file counts them; see `read_pts`."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected a text file of points, given other bytes at {error.start}") from error
    points: list[tuple[float, float]] = []
    promised: int | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.replace("{", " ").replace("}", " ").strip()
        header = _HEADER.fullmatch(line)
        if header:
            if header.group(1).lower() == "n_points":
                if not header.group(2).strip().isdigit():
                    raise InputError(f"{path}: line {number}: n_points: expected a number, given {header.group(2)!r}")
                promised = int(header.group(2))
            continue
        cells = line.replace(",", " ").split()
        if not cells or line.startswith(("#", "//")):
            continue
        if len(cells) == 1 and not points and promised is None and cells[0].isdigit():
            promised = int(cells[0])  # LaPa and others begin with the bare number of points
            continue
        try:
            x, y = (float(cell) for cell in cells)
        except ValueError:
            raise InputError(f"{path}: line {number}: expected a point `x y`, given {line[:60]!r}") from None
        if math.isinf(x) or math.isinf(y) or math.isnan(x) != math.isnan(y):
            raise InputError(
                f"{path}: line {number}: expected a finite point, or nan nan where it is missing, given {line[:60]!r}"
            )
        points.append((x, y))
    if promised is not None and promised != len(points):
        raise InputError(
            f"{path}: expected {promised} points as its header says, given {len(points)}; the file is "
            "damaged or cut off"
        )
    if not points:
        raise InputError(f"{path}: expected points `x y`, one a line, given none")
    if n_landmarks is not None and len(points) != n_landmarks:
        raise InputError(
            f"{path}: expected {n_landmarks} points, given {len(points)}; mend the file or choose the "
            "scheme it was made for"
        )
    return np.array(points, np.float64)


def write_pts(path: str | Path, landmarks: FloatArray) -> None:
    """Write (K, 2) image px, 0-based; missing points as `nan nan`.

    Raises:
        InputError: the file cannot be written.
    """
    one_based = np.asarray(landmarks, np.float64) + 1
    lines = [f"{x:.9g} {y:.9g}" for x, y in one_based.tolist()]
    write_text(path, "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""]))


def find_image(labels: Path) -> Path | None:
    """The image beside a label file: the same name with an image's suffix."""
    for suffix in IMAGE_SUFFIXES:
        for candidate in (labels.with_suffix(suffix), labels.with_suffix(suffix.upper())):
            if candidate.is_file():
                return candidate
    return None


def read_images(folder: str | Path, *, labels: bool = True, n_landmarks: int | None = None) -> list[FaceSample]:
    """Every image in a folder and in the folders below it, sorted by path, as one face each.

    Args:
        folder: the folder; hidden files and folders are left out.
        labels: read the .pts beside an image; an image without one is an unlabelled face.
        n_landmarks: see `read_pts`.

    Returns:
        box None; the name is the image's path in the folder.

    Raises:
        InputError: the folder is missing or has no image, a .pts is bad or has no image beside it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with images; there is none")
    files = [f for f in sorted(folder.rglob("*")) if not any(p.startswith(".") for p in f.relative_to(folder).parts)]
    images = [f for f in files if f.suffix.lower() in IMAGE_SUFFIXES]
    pts = {f for f in files if f.suffix.lower() == ".pts"} if labels else set()
    samples = []
    used: set[Path] = set()
    for image in images:
        beside = next((p for p in (image.with_suffix(".pts"), image.with_suffix(".PTS")) if p in pts), None)
        if beside is not None and beside in used:
            raise InputError(f"{beside}: fits two images, {image.name} and another; rename one of them")
        if beside is not None:
            used.add(beside)
        points = None if beside is None else read_pts(beside, n_landmarks=n_landmarks)
        if points is not None and np.isnan(points).all():
            points = None
        samples.append(FaceSample(image, landmarks=points, name=image.relative_to(folder).as_posix()))
    lonely = sorted(pts - used)
    if lonely:
        raise InputError(
            f"{lonely[0]}: no image of that name is beside it ({len(lonely)} such files); put the images there"
        )
    if not samples:
        raise InputError(f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), given none")
    return samples


def read_pts_folder(folder: str | Path, *, n_landmarks: int | None = None) -> list[FaceSample]:
    """Images with .pts files beside them; see `read_images`.

    Raises:
        InputError: as `read_images`, and where the folder has no .pts at all.
    """
    samples = read_images(folder, n_landmarks=n_landmarks)
    if all(s.landmarks is None for s in samples):
        raise InputError(f"{folder}: expected .pts files beside the images, given {len(samples)} images and no .pts")
    return samples


def write_pts_folder(folder: str | Path, samples: Sequence[FaceSample]) -> None:
    """Write a folder of images with a .pts beside each.

    An image that is not there yet is copied; of an image with several faces (name#1, name#2) each face
    gets a copy, as in 300-W's AFW. Boxes, groups and occlusion have no place in this form.

    Raises:
        InputError: there is no face, two faces would have the same file, or a file cannot be read or written.
    """
    folder = Path(folder)
    if not samples:
        raise InputError(f"{folder}: expected at least one face to write, given none")
    targets: dict[Path, FaceSample] = {}
    for s in samples:
        target = folder / _place(s)
        if target.with_suffix("") in targets:
            raise InputError(
                f"{target.with_suffix('.pts')}: two faces would be written to it ({s.name or s.image}); rename an image"
            )
        targets[target.with_suffix("")] = s
    for s in targets.values():
        target = folder / _place(s)
        if s.image.is_file() and not target.exists():
            with atomic_path(target) as temporary:
                shutil.copyfile(s.image, temporary)
        if s.landmarks is not None:
            write_pts(target.with_suffix(".pts"), s.landmarks)


def _place(s: FaceSample) -> PurePosixPath:
    """Where a face's image goes, relative to the folder and never outside of it."""
    file = (s.name or s.image.name).replace("\\", "/")
    numbered = re.fullmatch(r"(.*)#(\d+)", file)
    file, number = numbered.groups() if numbered else (file, "")
    place = PurePosixPath(os.path.normpath(file).replace(os.sep, "/"))
    if place.is_absolute() or ".." in place.parts or ":" in file:
        place = PurePosixPath(place.name)
    suffix = place.suffix if place.suffix.lower() in IMAGE_SUFFIXES else s.image.suffix
    stem = place.name.removesuffix(suffix) + (f"_{number}" if number else "")
    return place.with_name(stem + suffix)
