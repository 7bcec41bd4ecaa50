"""Faces whose landmarks have names, as labelling tools keep them, and the way to the package's own and back."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.data.formats.csv import name_faces, relative_file
from fewmark.data.formats.statements import plain_numbers
from fewmark.data.formats.text import FARTHEST, short
from fewmark.data.image_names import clean_name, resolve_images
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

CORNER = 0.5
"""What tools that count from the image's corner, not from the centre of its first pixel, add to a position."""
Point = tuple[float, float]


@dataclass(frozen=True)
class NamedFace:
    """A face of a tool's file.

    Attributes:
        file: Image as the file names it.
        points: Name of a landmark -> x, y, image px.
        occluded: Names of those that are not seen.
        box: x0, y0, x1, y1, image px, or None.
    """

    file: str
    points: Mapping[str, Point]
    occluded: frozenset[str] = frozenset()
    box: tuple[float, float, float, float] | None = None


@contextmanager
def structure_of(path: Path, tool: str) -> Iterator[None]:
    """Read a file of a tool, whose lists and tables may be others than the tool writes.

    Raises:
        InputError: They are.
    """
    try:
        yield
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        what = f"{type(error).__name__}: {short(error)}".replace("\n", " ")
        raise InputError(
            f"{path}: expected a file as {tool} writes it, given one of another structure ({what}); export it again"
        ) from error


def to_samples(
    path: Path, faces: Sequence[NamedFace], scheme: LandmarkScheme | None, n_landmarks: int | None
) -> list[FaceSample]:
    """Faces of a tool's file as the package takes them, in the scheme's order, or else in that of the file or of names that are numbers.

    Raises:
        InputError: There is none, a name is not the scheme's, or there are not n_landmarks names.
    """
    if not faces:
        raise InputError(f"{path}: expected at least one image, given none")
    given = list(dict.fromkeys(name for f in faces for name in f.points))
    if scheme is not None:
        other = [name for name in given if name not in scheme.landmarks]
        if other:
            raise InputError(
                f"{path}: {len(other)} landmark names are not of scheme {scheme.name}, e.g. {short(other[0], 40)!r}; expected "
                f"such as {scheme.landmarks[0]!r}; rename them, or make a scheme of them by `fewmark scheme new`"
            )
        order = list(scheme.landmarks)
    else:
        numbers = plain_numbers(given)
        order = given if numbers is None else sorted(given, key=dict(zip(given, numbers, strict=True)).__getitem__)
    if n_landmarks is not None and given and len(order) != n_landmarks:
        raise InputError(f"{path}: expected {n_landmarks} landmarks, given {len(order)}")
    files = [f.file for f in faces]
    images, names = (
        resolve_images(files, path if path.is_dir() else path.parent, path),
        name_faces([clean_name(f) for f in files]),
    )
    told = any(f.occluded for f in faces)
    missing = (math.nan, math.nan)
    return [
        FaceSample(
            images[f.file],
            None if f.box is None else np.array(f.box, np.float32),
            np.array([f.points.get(n, missing) for n in order], np.float32) if f.points else None,
            np.array([n in f.occluded for n in order]) if told and f.points else None,
            name=name,
        )
        for f, name in zip(faces, names, strict=True)
    ]


def from_samples(path: Path, samples: Sequence[FaceSample], scheme: LandmarkScheme | None) -> Iterator[NamedFace]:
    """Faces with the scheme's names of their landmarks, the images named relative to the file's folder.

    Raises:
        InputError: There is no face, no scheme, or a face has another number of landmarks.
    """
    if not samples:
        raise InputError(f"{path}: expected at least one face to write, given none")
    if scheme is None:
        raise InputError(f"{path}: the format names the landmarks; give the scheme of these faces")
    folder = Path(os.path.abspath(path)) if path.suffix == "" else Path(os.path.abspath(path)).parent
    for s in samples:
        points, occluded = {}, set()
        if s.landmarks is not None:
            if len(s.landmarks) != scheme.n_landmarks:
                raise InputError(
                    f"{s.name or s.image}: expected {scheme.n_landmarks} landmarks of scheme {scheme.name}, given {len(s.landmarks)}"
                )
            for k, (name, (x, y)) in enumerate(zip(scheme.landmarks, s.landmarks.tolist(), strict=True)):
                if math.isfinite(x) and math.isfinite(y):
                    points[name] = (x, y)
                    if s.occluded is not None and s.occluded[k]:
                        occluded.add(name)
        box = None if s.box is None else tuple(float(v) for v in s.box)
        yield NamedFace(relative_file(s.image, folder), points, frozenset(occluded), box)  # type: ignore[arg-type]


def by_image(faces: Iterator[NamedFace]) -> dict[str, list[NamedFace]]:
    """Faces by the image that they are in, in their order."""
    found: dict[str, list[NamedFace]] = {}
    for face in faces:
        found.setdefault(face.file, []).append(face)
    return found


def number(path: Path, where: str, value: object) -> float:
    """A position that a file states.

    Raises:
        InputError: It is none.
    """
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not abs(found) <= FARTHEST:
        raise InputError(f"{path}: {where}: expected a number, given {value!r}")
    return found
