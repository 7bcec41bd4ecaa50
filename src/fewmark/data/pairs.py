"""Matching of the same faces in two data sets, by image file and by order within a file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats
from fewmark.data.samples import FaceSample, stack_landmarks


@dataclass(frozen=True, eq=False)
class FacePairs:
    """Faces labelled in two data sets.

    Attributes:
        source: N faces of the first data set, grouped by image.
        target: The same faces in the second data set.
        n_source: Number of labelled faces in the first data set.
        n_target: Number of labelled faces in the second data set.
    """

    source: list[FaceSample]
    target: list[FaceSample]
    n_source: int
    n_target: int

    def only(self, rows: Sequence[int], why: str) -> FacePairs:
        """Select a subset of the pairs.

        Args:
            rows: Indices of the pairs.
            why: Origin of the selection, for the error message.

        Raises:
            InputError: No pairs are left.
        """
        if not rows:
            raise InputError(
                f"{why}: expected faces labelled in both data sets, given none of {len(self.source)} such faces"
            )
        return FacePairs([self.source[i] for i in rows], [self.target[i] for i in rows], self.n_source, self.n_target)

    @property
    def source_points(self) -> Floats:
        """Landmarks of the first data set, (N, Ks, 2) image px."""
        return stack_landmarks(self.source).astype(np.float64)

    @property
    def target_points(self) -> Floats:
        """Landmarks of the second data set, (N, Kt, 2) image px."""
        return stack_landmarks(self.target).astype(np.float64)

    @property
    def boxes(self) -> Floats:
        """Boxes of the second data set, or else the tight boxes of its landmarks, (N, 4) image px."""
        return np.stack([s.face_box() for s in self.target]).astype(np.float64)

    @property
    def groups(self) -> list[str]:
        """Person, scene or video of each face from either data set, or else its image (N entries)."""
        return [a.group or b.group or str(a.image) for a, b in zip(self.source, self.target, strict=True)]


def match_faces(
    source: Sequence[FaceSample], target: Sequence[FaceSample], names: tuple[str, str] = ("SRC", "DST")
) -> FacePairs:
    """Match the faces of two data sets.

    Images are matched by the first criterion that yields any match: same image on disk, same `file` name, or same name
    without folders and suffix. Faces in one image are matched by order. Faces that are in only one data set, or
    unlabelled in either, are left out.

    Args:
        source: Faces of one scheme.
        target: Faces of another scheme.
        names: Names of the two data sets in error messages.

    Raises:
        InputError: No image is in both data sets, a name matches two images, an image has different numbers of faces
            in the two data sets, or no face is labelled in both.
    """
    for key in (_image, _file, _stem):
        ours, theirs = _by_key(source, key), _by_key(target, key)
        shared = [name for name in ours if name in theirs]
        if shared:
            break
    else:
        raise InputError(
            f"{names[1]}: expected the faces of {names[0]} under the same file names, given no such face: "
            f"{_example(source)} there, {_example(target)} here"
        )
    a: list[FaceSample] = []
    b: list[FaceSample] = []
    for name in shared:
        for faces, where in ((ours[name], names[0]), (theirs[name], names[1])):
            images = sorted({_image(s) for s in faces})
            if len(images) > 1:
                raise InputError(
                    f"{where}: {name}: two images have this name ({images[0]}, {images[1]}), so that their faces cannot "
                    "be matched; use the same folders in both data sets"
                )
        if len(ours[name]) != len(theirs[name]):
            raise InputError(
                f"{names[1]}: {name}: expected {len(ours[name])} faces as in {names[0]}, given {len(theirs[name])}; faces of "
                "one image are matched by their order"
            )
        both = [p for p in zip(ours[name], theirs[name], strict=True) if all(s.is_labelled for s in p)]
        a += [p[0] for p in both]
        b += [p[1] for p in both]
    if not a:
        raise InputError(f"{names[1]}: expected faces labelled in both data sets, given none of {len(shared)} images")
    counts = [sum(s.is_labelled for s in faces) for faces in (source, target)]
    return FacePairs(a, b, *counts)


def _by_key(samples: Sequence[FaceSample], key: Callable[[FaceSample], str]) -> dict[str, list[FaceSample]]:
    found: dict[str, list[FaceSample]] = {}
    for s in samples:
        found.setdefault(key(s), []).append(s)
    return found


def _image(sample: FaceSample) -> str:
    return os.path.realpath(sample.image)


def _file(sample: FaceSample) -> str:
    name = sample.name.replace("\\", "/").removeprefix("./")
    return re.sub(r"#\d+$", "", name) or sample.image.name


def _stem(sample: FaceSample) -> str:
    return PurePosixPath(_file(sample)).stem


def _example(samples: Sequence[FaceSample]) -> str:
    return _file(samples[0]) if samples else "nothing"
