"""iBUG's .pts format: one file per face, alongside its image.

Files count pixels from 1 (Matlab): the centre of the top-left pixel is (1, 1) in the file and (0, 0) in memory.
The usual header (`version: 1`, `n_points: 68`) and the braces around the points are optional.
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
from fewmark.data.formats.text import FARTHEST, read_text
from fewmark.data.images import IMAGE_SUFFIXES
from fewmark.data.samples import FaceSample
from fewmark.data.walk import files_in, is_image_name, tell_left_out

_HEADER = re.compile(r"([A-Za-z_]\w*)\s*[:=]\s*(.*)")


def read_pts(path: str | Path, *, n_landmarks: int | None = None) -> NDArray[np.float32]:
    """Read the landmarks in a .pts file.

    Args:
        path: .pts file.
        n_landmarks: Required number of landmarks, or None for any.

    Returns:
        (K, 2) image px, 0-based; `nan nan` lines become NaN rows.

    Raises:
        InputError: The file cannot be read, a line is not a point, or the number of points does not match the
            header or `n_landmarks`.
    """
    return (read_points(path, n_landmarks=n_landmarks) - 1).astype(np.float32)


def read_points(path: str | Path, *, n_landmarks: int | None = None) -> NDArray[np.float64]:
    """Read a text file with one "x y" point per line, without shifting positions to 0-based; see `read_pts`."""
    path = Path(path)
    text = read_text(path, "a text file of points")
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
            promised = int(cells[0])  # LaPa and others start with just the number of points
            continue
        try:
            x, y = (float(cell) for cell in cells)
        except ValueError:
            raise InputError(f"{path}: line {number}: expected a point `x y`, given {line[:60]!r}") from None
        if abs(x) > FARTHEST or abs(y) > FARTHEST or math.isnan(x) != math.isnan(y):
            raise InputError(
                f"{path}: line {number}: expected a finite point, or nan nan where it is missing, given {line[:60]!r}"
            )
        points.append((x, y))
    if promised is not None and promised != len(points):
        raise InputError(
            f"{path}: expected {promised} points according to its header, given {len(points)}; the file is "
            "damaged or cut off"
        )
    if not points:
        raise InputError(f"{path}: expected one point `x y` per line, given none")
    if n_landmarks is not None and len(points) != n_landmarks:
        raise InputError(
            f"{path}: expected {n_landmarks} points, given {len(points)}; fix the file or choose the matching scheme"
        )
    return np.array(points, np.float64)


def write_pts(path: str | Path, landmarks: FloatArray, *, replace: bool = True) -> None:
    """Write landmarks, (K, 2) image px, 0-based, to a .pts file; missing landmarks become `nan nan`.

    Raises:
        InputError: The file cannot be written, or exists and `replace` is false.
    """
    one_based = np.asarray(landmarks, np.float64) + 1
    lines = [f"{x:.9g} {y:.9g}" for x, y in one_based.tolist()]
    write_text(path, "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""]), replace=replace)


def find_image(labels: Path) -> Path | None:
    """Find the image with the same name as a label file in the same folder, or return None."""
    for suffix in IMAGE_SUFFIXES:
        for candidate in (labels.with_suffix(suffix), labels.with_suffix(suffix.upper())):
            if candidate.is_file():
                return candidate
    beside = labels.parent.iterdir() if labels.parent.is_dir() else ()
    return min((f for f in beside if f.stem == labels.stem and is_image_name(f) and f.is_file()), default=None)


def read_images(folder: str | Path, *, labels: bool = True, n_landmarks: int | None = None) -> list[FaceSample]:
    """Read all images in a folder and its subfolders, sorted by path, as one face each.

    Args:
        folder: Image folder, see `fewmark.data.walk`.
        labels: Also read the .pts file of each image; an image without one is an unlabelled face.
        n_landmarks: See `read_pts`.

    Returns:
        Faces without boxes, named by the path of the image relative to the folder.

    Raises:
        InputError: The folder is missing or has no images, or a .pts file is invalid or has no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder of images; it does not exist")
    files = files_in(folder)
    images = [f for f in files if is_image_name(f)]
    tell_left_out(files)
    pts = {f.with_suffix(".pts"): f for f in files if f.suffix.lower() == ".pts"} if labels else {}
    samples = []
    used: set[Path] = set()
    for image in images:
        beside = pts.get(image.with_suffix(".pts"))
        if beside is not None and beside in used:
            raise InputError(f"{beside}: matches two images, {image.name} and another; rename one of them")
        if beside is not None:
            used.add(beside)
        samples.append(_face_of(image, folder, beside, n_landmarks))
    lonely = [p for p in pts.values() if p not in used]
    for labels_alone in sorted(lonely):
        linked = find_image(labels_alone)  # an image that another path leads to, too
        if linked is None:
            raise InputError(
                f"{labels_alone}: no image with the same name in its folder ({len(lonely)} such files); add the images"
            )
        samples.append(_face_of(linked, folder, labels_alone, n_landmarks))
    if not samples:
        raise InputError(f"{folder}: expected images ({', '.join(IMAGE_SUFFIXES)}), given none")
    return samples


def _face_of(image: Path, folder: Path, labels: Path | None, n_landmarks: int | None) -> FaceSample:
    points = None if labels is None else read_pts(labels, n_landmarks=n_landmarks)
    if points is not None and np.isnan(points).all():
        points = None
    return FaceSample(image, landmarks=points, name=image.relative_to(folder).as_posix())


def read_pts_folder(folder: str | Path, *, n_landmarks: int | None = None) -> list[FaceSample]:
    """Read a folder of images and .pts files; see `read_images`.

    Raises:
        InputError: The folder has no .pts file; or see `read_images`.
    """
    samples = read_images(folder, n_landmarks=n_landmarks)
    if all(s.landmarks is None for s in samples):
        raise InputError(f"{folder}: expected .pts files with the images, given {len(samples)} images and no .pts")
    return samples


def write_pts_folder(folder: str | Path, samples: Sequence[FaceSample]) -> None:
    """Write a folder of images with one .pts file each.

    Images not yet in the folder are copied. An image with several faces (name#1, name#2) is copied once per
    face, as in AFW of 300-W. Boxes, groups and occlusion cannot be stored in this format.

    Raises:
        InputError: There are no faces, two faces would have the same file, or a file cannot be read or written.
    """
    for target, s in pts_folder_files(folder, samples).items():
        if s.image.is_file() and not target.exists():
            with atomic_path(target) as temporary:
                shutil.copyfile(s.image, temporary)
        if s.landmarks is not None:
            write_pts(target.with_suffix(".pts"), s.landmarks)


def pts_folder_files(folder: str | Path, samples: Sequence[FaceSample]) -> dict[Path, FaceSample]:
    """The image files of a folder that `write_pts_folder` writes, with their faces.

    Raises:
        InputError: There are no faces, or two faces would have the same file.
    """
    folder = Path(folder)
    if not samples:
        raise InputError(f"{folder}: expected at least one face to write, given none")
    targets: dict[Path, FaceSample] = {}
    taken: set[Path] = set()
    for s in samples:
        target = folder / _place(s)
        if target.with_suffix("") in taken:
            raise InputError(
                f"{target.with_suffix('.pts')}: two faces would be written to it ({s.name or s.image}); rename an image"
            )
        taken.add(target.with_suffix(""))
        targets[target] = s
    return targets


def _place(s: FaceSample) -> PurePosixPath:
    """Return the path of a face's image relative to the folder, never outside it."""
    file = (s.name or s.image.name).replace("\\", "/")
    numbered = re.fullmatch(r"(.*)#(\d+)", file)
    file, number = numbered.groups() if numbered else (file, "")
    place = PurePosixPath(os.path.normpath(file).replace(os.sep, "/"))
    if place.is_absolute() or ".." in place.parts or ":" in file:
        place = PurePosixPath(place.name)
    suffix = place.suffix if place.suffix.lower() in IMAGE_SUFFIXES else s.image.suffix
    stem = place.name.removesuffix(suffix) + (f"_{number}" if number else "")
    return place.with_name(stem + suffix)
