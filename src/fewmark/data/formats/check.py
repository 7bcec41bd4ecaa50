"""Problems of faces that were read: images that are missing, and landmarks and boxes that do not fit theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fewmark.core.errors import InputError
from fewmark.data.images import read_size
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme


class Problem(NamedTuple):
    """A problem of a face: what kind it is, in words that follow a number, and one line about it."""

    kind: str
    text: str


def check_samples(samples: Sequence[FaceSample], scheme: LandmarkScheme | None = None) -> list[str]:
    """List the problems of faces, one line each; see `find_problems`."""
    return [p.text for p in find_problems(samples, scheme)]


def group_problems(problems: Sequence[Problem]) -> list[str]:
    """One line for the problems of a kind: of more than two, their number and the first two."""
    lines = []
    for kind, n in Counter(p.kind for p in problems).items():
        texts = [p.text for p in problems if p.kind == kind]
        lines += texts if n <= 2 else [f"{n} {kind}: {texts[0]} | {texts[1]} | ..."]
    return lines


def find_problems(samples: Sequence[FaceSample], scheme: LandmarkScheme | None = None) -> list[Problem]:
    """Find the problems of faces. Reads the header of every image.

    Reports missing or invalid images, numbers of landmarks that do not match the scheme, landmarks outside the
    image by more than half its size (labels may cross the border slightly), boxes entirely outside the image,
    and duplicate names.
    """
    problems = [
        Problem("names appear several times", f"{name}: the name appears {n} times; names must be unique")
        for name, n in Counter(s.name for s in samples).items()
        if n > 1 and name
    ]

    def add(kind: str, text: str) -> None:
        problems.append(Problem(kind, text))

    sizes: dict[Path, tuple[int, int] | str] = {}
    for s in samples:
        where = s.name or str(s.image)
        if scheme is not None and s.landmarks is not None and len(s.landmarks) != scheme.n_landmarks:
            add(
                "faces have another number of landmarks",
                f"{where}: expected {scheme.n_landmarks} landmarks of scheme {scheme.name}, given {len(s.landmarks)}",
            )
        if s.image not in sizes:
            try:
                sizes[s.image] = read_size(s.image)
            except InputError as error:
                sizes[s.image] = str(error)
                add("images cannot be read", str(error))
        size = sizes[s.image]
        if isinstance(size, str):
            continue
        extent = np.array(size, np.float64)
        if s.landmarks is not None:
            beyond = (s.landmarks < -0.5 - extent / 2) | (s.landmarks > extent * 1.5 - 0.5)
            far = np.flatnonzero(beyond.any(1))
            if len(far):
                x, y = s.landmarks[far[0]].tolist()
                name = scheme.landmarks[far[0]] if scheme is not None and far[0] < scheme.n_landmarks else str(far[0])
                add(
                    "faces have landmarks far outside the image",
                    f"{where}: landmark {name} at ({x:.1f}, {y:.1f}) is far outside the image of "
                    f"{size[0]}x{size[1]} px"
                    f" ({len(far)} such landmarks); check the label",
                )
        if s.box is not None and bool((s.box[2:] < -0.5).any() or (s.box[:2] > extent - 0.5).any()):
            add(
                "boxes are outside the image",
                f"{where}: the box {np.round(s.box, 1).tolist()} is outside the image of {size[0]}x{size[1]} px",
            )
    return problems
