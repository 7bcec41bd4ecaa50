"""XML files of dlib's tool imglab: images that contain boxes, which contain named parts.

Positions are 0-based. imglab and dlib only read whole pixels, so the writer rounds: a round trip moves a point by
up to half a pixel on each axis. A box covers the pixels from left to left + width - 1.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.files import atomic_path
from fewmark.core.names import escape_name, unescape_name
from fewmark.data.formats.csv import name_faces, relative_file
from fewmark.data.formats.statements import check_sizes, order_by_names, tell_other_order
from fewmark.data.formats.text import FARTHEST
from fewmark.data.image_names import clean_name, resolve_images
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme


def read_dlib_xml(
    path: str | Path, *, n_landmarks: int | None = None, scheme: LandmarkScheme | None = None, strict: bool = True
) -> list[FaceSample]:
    """Read faces from an imglab file.

    Args:
        path: XML file; image paths are relative to it.
        n_landmarks: Required number of part names, or None for any.
        scheme: Parts follow the order of its landmark names if all their names are in it; otherwise they are sorted
            by value if all names are numbers, or by name, see `order_by_names`.
        strict: See `check_sizes`.

    Returns:
        One sample per box, without boxes marked `ignore`, which a `DataWarning` tells. A box without parts is an unlabelled face; a part
        that is absent from a box but present in others is a missing landmark. An image without boxes is an
        unlabelled face.

    Raises:
        InputError: The file cannot be read, is not an imglab file, or contains an invalid number; an image has another
            size than the file says; or see `order_by_names`.
    """
    path = Path(path)
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError, ValueError: of its encoding
        raise InputError(f"{path}: not an XML file ({error})") from error
    images = root.findall("images/image")
    if root.tag != "dataset" or not images:
        raise InputError(
            f"{path}: expected dlib's XML, <dataset><images><image file=...>, given <{root.tag}> without images"
        )
    n_ignored = 0
    found: list[tuple[str, list[float] | None, dict[str, tuple[float, float]]]] = []
    for image in images:
        file = unescape_name(image.get("file", "")).strip()
        if not file:
            raise InputError(f"{path}: an <image> has no file; expected <image file='...'>")
        boxes = [box for box in image.findall("box") if box.get("ignore") not in ("1", "true")]
        n_ignored += len(image.findall("box")) - len(boxes)
        if not image.findall("box"):
            found.append((file, None, {}))
        for box in boxes:
            left, top, width, height = (_number(path, file, box, key) for key in ("left", "top", "width", "height"))
            if width <= 0 or height <= 0:
                raise InputError(
                    f"{path}: {file}: box: expected a positive width and height, given {width:g} x {height:g}"
                )
            parts: dict[str, tuple[float, float]] = {}
            for part in box.findall("part"):
                name = part.get("name", "")
                if not name or name in parts:
                    raise InputError(
                        f"{path}: {file}: part: expected one part of each name, given {name!r} twice or without name"
                    )
                parts[name] = _number(path, file, part, "x"), _number(path, file, part, "y")
            found.append((file, [left, top, left + width - 1, top + height - 1], parts))
    order = _order(path, {name for *_, parts in found for name in parts}, scheme)
    if n_landmarks is not None and order and len(order) != n_landmarks:
        raise InputError(
            f"{path}: expected {n_landmarks} named parts, given {len(order)}; choose the scheme of this file"
        )
    if n_ignored:
        warn_of_data(f"{path}: {n_ignored} box{'es' if n_ignored > 1 else ''} marked `ignore` left out")
    missing = (math.nan, math.nan)
    files = [file for file, *_ in found]
    faces, paths = name_faces([clean_name(file) for file in files]), resolve_images(files, path.parent, path)
    sizes = {(image.get("file") or "").strip(): (image.get("width"), image.get("height")) for image in images}
    check_sizes(path, {paths[f]: size for f, size in sizes.items() if f in paths}, strict=strict)
    return [
        FaceSample(
            image=paths[file],
            box=None if box is None or box[2] <= box[0] or box[3] <= box[1] else np.array(box, np.float32),
            landmarks=np.array([parts.get(name, missing) for name in order], np.float32) if parts else None,
            name=face,
        )
        for (file, box, parts), face in zip(found, faces, strict=True)
    ]


def _order(path: Path, given: set[str], scheme: LandmarkScheme | None) -> list[str]:
    if scheme is not None and given and given <= set(scheme.landmarks):
        return list(scheme.landmarks)
    if all(re.fullmatch(r"\d+", name) for name in given):
        return sorted(given, key=lambda name: (int(name), name))
    names = sorted(given)
    if scheme is None:
        tell_other_order(path, names)
    order = order_by_names(path, names, scheme) if scheme is not None and len(names) == scheme.n_landmarks else None
    return names if order is None else [names[i] for i in order]


def _number(path: Path, file: str, element: ElementTree.Element, key: str) -> float:
    text = element.get(key)
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        value = math.nan
    if not abs(value) <= FARTHEST:
        raise InputError(f"{path}: {file}: <{element.tag}> {key}: expected a number, given {text!r}")
    return value


def write_dlib_xml(path: str | Path, samples: Sequence[FaceSample], scheme: LandmarkScheme | None = None) -> None:
    """Write faces for imglab and dlib, with parts numbered 00, 01, ... as in dlib's examples.

    A face without a box gets the tight box of its landmarks, missing landmarks are omitted, and positions are
    rounded to whole pixels. Groups and occlusion cannot be stored in this format.

    Raises:
        InputError: There are no faces, the number of landmarks does not match the scheme, or the file cannot be
            written.
    """
    path = Path(path)
    if not samples:
        raise InputError(f"{path}: expected at least one face to write, given none")
    folder = Path(os.path.abspath(path)).parent
    root = ElementTree.Element("dataset")
    ElementTree.SubElement(root, "name").text = scheme.name if scheme else path.stem
    images = ElementTree.SubElement(root, "images")
    elements: dict[str, ElementTree.Element] = {}
    for s in samples:
        if scheme is not None and s.landmarks is not None and len(s.landmarks) != scheme.n_landmarks:
            raise InputError(
                f"{s.name or s.image}: expected {scheme.n_landmarks} landmarks of scheme {scheme.name}, "
                f"given {len(s.landmarks)}"
            )
        file = escape_name(relative_file(s.image, folder))
        if file not in elements:
            elements[file] = ElementTree.SubElement(images, "image", file=file)
        if s.box is None and (s.landmarks is None or np.isnan(s.landmarks).all()):
            continue
        x0, y0, x1, y1 = (round(v) for v in s.face_box().tolist())
        attributes = {"top": y0, "left": x0, "width": x1 - x0 + 1, "height": y1 - y0 + 1}
        box = ElementTree.SubElement(elements[file], "box", {k: str(v) for k, v in attributes.items()})
        landmarks = np.empty((0, 2)) if s.landmarks is None else s.landmarks
        digits = max(2, len(str(len(landmarks) - 1)))
        for i, (x, y) in enumerate(landmarks.tolist()):
            if math.isfinite(x) and math.isfinite(y):
                ElementTree.SubElement(box, "part", name=f"{i:0{digits}d}", x=str(round(x)), y=str(round(y)))
    ElementTree.indent(root)
    with atomic_path(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
