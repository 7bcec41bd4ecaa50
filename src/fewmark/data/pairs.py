"""The same faces in two data sets: matched by their images' files and, within a file, by their order."""

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
    """Faces that are labelled in both of two data sets.

    Attributes:
        source: N faces of the first, image by image.
        target: the same faces in the second.
        n_source: labelled faces of the first.
        n_target: labelled faces of the second.
    """

    source: list[FaceSample]
    target: list[FaceSample]
    n_source: int
    n_target: int

    def only(self, rows: Sequence[int], why: str) -> FacePairs:
        """Some of the pairs.

        Args:
            rows: which.
            why: what chose them, for the message.

        Raises:
            InputError: none is left.
        """
        if not rows:
            raise InputError(
                f"{why}: expected faces labelled in both data sets, given none of {len(self.source)} such faces"
            )
        return FacePairs([self.source[i] for i in rows], [self.target[i] for i in rows], self.n_source, self.n_target)

    @property
    def source_points(self) -> Floats:
        """(N, Ks, 2) image px."""
        return stack_landmarks(self.source).astype(np.float64)

    @property
    def target_points(self) -> Floats:
        """(N, Kt, 2) image px."""
        return stack_landmarks(self.target).astype(np.float64)

    @property
    def boxes(self) -> Floats:
        """(N, 4) image px: what the second data set gives, else the tight box of its landmarks."""
        return np.stack([s.face_box() for s in self.target]).astype(np.float64)

    @property
    def groups(self) -> list[str]:
        """N persons, scenes or videos, as either data set says; else the image."""
        return [a.group or b.group or str(a.image) for a, b in zip(self.source, self.target, strict=True)]


def match_faces(
    source: Sequence[FaceSample], target: Sequence[FaceSample], names: tuple[str, str] = ("SRC", "DST")
) -> FacePairs:
    """Match two data sets' faces.

    Images are matched by the first of these by which any are: the same image on disk; the same `file` name; the same
    name without folders and suffix. Faces of one image are matched by their order. What is in one data set alone, or
    unlabelled in either, is left out.

    Args:
        source: faces of one scheme.
        target: faces of another.
        names: what to call the two in messages.

    Raises:
        InputError: no image is in both, a name fits two images, an image has other numbers of faces in the two, or no
            face is labelled in both.
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
