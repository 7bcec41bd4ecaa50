"""LabelMe: a JSON file beside each image, with points, and rectangles as boxes; `group_id` tells the faces of an image apart.

Positions count from the image's corner: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.data.formats.text import read_json
from fewmark.data.formats.tools.named import (
    CORNER,
    NamedFace,
    Point,
    by_image,
    from_samples,
    number,
    structure_of,
    to_samples,
)
from fewmark.data.images import read_size
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

VERSION = "5.5.0"
"""The LabelMe whose files are written."""


def read_labelme(
    path: str | Path, *, n_landmarks: int | None = None, scheme: LandmarkScheme | None = None
) -> list[FaceSample]:
    """Read the file of an image, or all of a folder.

    Args:
        path: A .json file, or a folder of them.
        n_landmarks: Required number of names, or None for any.
        scheme: Its names are expected, and decide the order.

    Raises:
        InputError: A file is none of LabelMe, or see `to_samples`.
    """
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    faces = [face for file in files for face in _read(file)]
    return to_samples(path, faces, scheme, n_landmarks)


def is_labelme(data: object) -> bool:
    """Whether a JSON document is LabelMe's."""
    return isinstance(data, dict) and isinstance(data.get("shapes"), list) and "imagePath" in data


def _read(path: Path) -> list[NamedFace]:
    data = read_json(path)
    if not is_labelme(data):
        raise InputError(f"{path}: expected LabelMe's JSON with shapes and imagePath, given something else")
    with structure_of(path, "LabelMe"):
        return _faces(path, data)


def _faces(path: Path, data: dict[str, Any]) -> list[NamedFace]:
    points: dict[Any, dict[str, Point]] = {}
    occluded: dict[Any, set[str]] = {}
    boxes: dict[Any, tuple[float, float, float, float]] = {}
    for shape in data["shapes"]:
        group, name, kind = shape.get("group_id"), str(shape.get("label", "")), shape.get("shape_type", "polygon")
        places = [tuple(number(path, name, v) - CORNER for v in p) for p in shape.get("points", ())]
        if kind == "point" and len(places) == 1:
            of = points.setdefault(group, {})
            if name in of:
                raise InputError(
                    f"{path}: {name!r} stands twice in group {group}; give each face of the image a group_id of its own"
                )
            of[name] = places[0][0], places[0][1]
            if (shape.get("flags") or {}).get("occluded"):
                occluded.setdefault(group, set()).add(name)
        elif kind == "rectangle" and len(places) == 2:
            (xa, ya), (xb, yb) = places
            boxes[group] = min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)
    groups = list(dict.fromkeys([*points, *boxes]))
    image = str(data["imagePath"])
    return [NamedFace(image, points.get(g, {}), frozenset(occluded.get(g, ())), boxes.get(g)) for g in groups] or [
        NamedFace(image, {})
    ]


def write_labelme(path: str | Path, samples: Sequence[FaceSample], scheme: LandmarkScheme | None) -> None:
    """Write a folder of files, one for each image, named after it.

    Raises:
        InputError: See `from_samples`; or an image cannot be read, or two have one name.
    """
    folder = Path(path)
    images = by_image(from_samples(folder, samples, scheme))
    folder.mkdir(parents=True, exist_ok=True)
    targets = dict(zip(images, labelme_files(folder, [Path(file) for file in images]), strict=True))
    for file, faces in images.items():
        width, height = read_size(folder / file)
        shapes = []
        for group, face in enumerate(faces):
            if face.box is not None:
                x0, y0, x1, y1 = (v + CORNER for v in face.box)
                shapes.append(_shape("face", [[x0, y0], [x1, y1]], "rectangle", group))
            for name, (x, y) in face.points.items():
                flags = {"occluded": True} if name in face.occluded else {}
                shapes.append(_shape(name, [[x + CORNER, y + CORNER]], "point", group, flags))
        data: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": file,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_text(targets[file], json.dumps(data, ensure_ascii=False, indent=1) + "\n")


def labelme_files(folder: Path, images: Sequence[Path]) -> list[Path]:
    """The files that `write_labelme` writes, one for each different image.

    Raises:
        InputError: Two images have one name.
    """
    different = list(dict.fromkeys(images))
    files = [folder / f"{image.stem}.json" for image in different]
    if len(set(files)) < len(files):
        raise InputError(f"{folder}: two images have one name, and LabelMe's files are named after them; rename one")
    return files


def _shape(
    label: str, points: list[list[float]], kind: str, group: int, flags: dict[str, bool] | None = None
) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": flags or {}}
