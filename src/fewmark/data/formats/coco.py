"""COCO keypoints: one JSON file with images, annotations and categories.

Visibility is 0 for missing, 1 for occluded with a position and 2 for visible. Boxes are x, y, width, height.
Positions are 0-based and used unchanged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.files import write_text
from fewmark.core.text import count
from fewmark.data.formats.coco_categories import Faces, entry_ids, find_faces
from fewmark.data.formats.csv import count_landmarks, name_faces, relative_file
from fewmark.data.formats.statements import check_sizes
from fewmark.data.formats.text import FARTHEST, read_json, short
from fewmark.data.image_names import clean_name, resolve_images
from fewmark.data.images import read_size
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme


def read_coco(
    path: str | Path,
    image_root: str | Path | None = None,
    *,
    n_landmarks: int | None = None,
    scheme: LandmarkScheme | None = None,
    strict: bool = True,
    data: Any = None,
) -> list[FaceSample]:
    """Read faces from a COCO keypoints file.

    Args:
        path: JSON file.
        image_root: Folder that `file_name` is relative to; None for the folder of the JSON file.
        n_landmarks: Required number of keypoints per annotation, or None for any.
        scheme: The file's landmark names, if they are this scheme's, decide the order of the landmarks; see `order_by_names`.
        strict: See `check_sizes`.
        data: Content of the file, if it is read already.

    Returns:
        Faces grouped by image, in file order. Crowd annotations and those of other categories than the faces' are
        left out (see `find_faces`), which a `DataWarning` tells. An image without annotations is an unlabelled face without a box.
        If visibility 2 never occurs (many face data sets write 1 for every point), 1 only means that the point is present, and
        `occluded` is None.

    Raises:
        InputError: The file cannot be read, is not a COCO file, or has an invalid field; an id is used twice; an image has another
            size than the file says; or see `find_faces`.
    """
    path = Path(path)
    data = read_json(path) if data is None else data
    if not isinstance(data, dict) or not all(isinstance(data.get(k), list) for k in ("images", "annotations")):
        raise InputError(f"{path}: expected a COCO file, an object with the lists `images` and `annotations`")
    ids = entry_ids(path, data["images"], "images", required=True)
    files: dict[Any, str] = {}
    for i, (image_id, image) in enumerate(zip(ids, data["images"], strict=True)):
        if not isinstance(image.get("file_name"), str) or not image["file_name"]:
            raise InputError(f"{path}: images[{i}]: expected `id` and `file_name`, given {short(image)}")
        files[image_id] = image["file_name"]
    by_image: dict[Any, list[tuple[int, dict[str, Any]]]] = {i: [] for i in files}
    for i, annotation in enumerate(data["annotations"]):
        given = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not isinstance(given, str | int | float) or given not in files:
            raise InputError(
                f"{path}: annotations[{i}]: image_id: expected the id of one of the images, given {short(annotation)}"
            )
    entry_ids(path, data["annotations"], "annotations", required=False)
    faces, n_crowds = find_faces(path, data, scheme), 0
    for i, annotation in enumerate(data["annotations"]):
        if annotation.get("iscrowd"):
            n_crowds += 1
        elif not isinstance(kind := annotation.get("category_id"), Hashable) or kind not in faces.left_out:
            by_image[annotation["image_id"]].append((i, annotation))
    if n_crowds:
        warn_of_data(f"{path}: {count(n_crowds, 'crowd annotation')} left out")
    root = path.parent if image_root is None else Path(image_root)
    found: list[tuple[str, FaceSample]] = []
    levels: set[float] = set()
    paths = resolve_images(files.values(), root, path)
    stated = {paths[image["file_name"]]: (image.get("width"), image.get("height")) for image in data["images"]}
    check_sizes(path, stated, strict=strict)
    for image_id, file in files.items():
        for i, annotation in by_image[image_id] or [(-1, {})]:
            sample, visibility = _sample(f"{path}: annotations[{i}]", paths[file], annotation, n_landmarks, faces)
            levels |= visibility
            found.append((file, sample))
    if not found:
        raise InputError(f"{path}: expected at least one image, given none")
    count_landmarks([s for _, s in found])
    info = data.get("info")
    flagged = {1.0, 2.0} <= levels or (isinstance(info, dict) and info.get("occlusion") == "annotated")
    names = name_faces([clean_name(file) for file, _ in found])
    return [
        FaceSample(s.image, s.box, s.landmarks, s.occluded if flagged else None, s.group, name)
        for (_, s), name in zip(found, names, strict=True)
    ]


def _sample(
    where: str, image: Path, annotation: Mapping[str, Any], n_landmarks: int | None, faces: Faces
) -> tuple[FaceSample, set[float]]:
    """Read one face and the visibility values it uses."""
    landmarks = occluded = box = None
    levels: set[float] = set()
    keypoints = annotation.get("keypoints") or []
    if keypoints:
        try:
            table = np.asarray(keypoints, np.float64).reshape(-1, 3)
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"{where}: keypoints: expected x, y, visibility for every point, given {short(keypoints)}"
            ) from None
        if n_landmarks is not None and len(table) != n_landmarks:
            raise InputError(
                f"{where}: keypoints: expected {n_landmarks} points, given {len(table)}; choose the scheme of this file"
            )
        if faces.names and len(table) != len(faces.names):
            raise InputError(
                f"{where}: keypoints: expected {len(faces.names)} points as its category names, given {len(table)}"
            )
        if faces.order is not None:
            table = table[faces.order]
        if not np.isin(table[:, 2], (0, 1, 2)).all():
            raise InputError(
                f"{where}: keypoints: expected visibility 0, 1 or 2, given {short(sorted(set(table[:, 2].tolist())))}"
            )
        there = table[:, 2] > 0
        near = np.asarray((np.abs(table[:, :2]) <= FARTHEST).all(1))  # NaN is not
        if not near[there].all():
            k = int(np.flatnonzero(there & ~near)[0])
            raise InputError(
                f"{where}: keypoints: point {k}: expected a finite position, given {table[k, :2].tolist()}"
            )
        if there.any():
            landmarks = np.where(there[:, None], table[:, :2], np.nan).astype(np.float32)
            occluded = table[:, 2] == 1
            levels = set(table[there, 2].tolist())
    bbox = annotation.get("bbox")
    if bbox:
        try:
            x, y, w, h = (float(v) for v in bbox)
        except (TypeError, ValueError, OverflowError):
            raise InputError(f"{where}: bbox: expected x, y, width, height, given {short(bbox)}") from None
        if not all(abs(v) <= FARTHEST for v in (x, y, w, h)) or w < 0 or h < 0:
            raise InputError(
                f"{where}: bbox: expected finite x, y and a positive width and height, given {short(bbox)}"
            )
        if w > 0 and h > 0:
            box = np.array([x, y, x + w, y + h], np.float32)
    group = annotation.get("group", "")
    return FaceSample(image, box, landmarks, occluded, group if isinstance(group, str) else ""), levels


def write_coco(path: str | Path, samples: Sequence[FaceSample], scheme: LandmarkScheme) -> None:
    """Write faces as COCO keypoints, with the landmark names and edges of the scheme in the category.

    A face without a box gets the tight box of its landmarks; `group` becomes a field of the annotation.

    Raises:
        InputError: There are no faces, the number of landmarks does not match the scheme, or the file cannot be
            written.
    """
    path = Path(path)
    if not samples:
        raise InputError(f"{path}: expected at least one face to write, given none")
    data = coco_data(samples, scheme, Path(os.path.abspath(path)).parent)
    write_text(path, json.dumps(data, allow_nan=False) + "\n")


def coco_data(
    samples: Sequence[FaceSample],
    scheme: LandmarkScheme,
    folder: Path,
    *,
    sizes: Mapping[Path, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Build a COCO document; see `write_coco`.

    Args:
        samples: Faces; one without a box and landmarks adds its image but no annotation.
        scheme: Scheme of the landmarks.
        folder: Folder that the image file names are relative to.
        sizes: Known widths and heights of images, px; other sizes are read from the image headers.

    Raises:
        InputError: The number of landmarks does not match the scheme, or an image size cannot be read.
    """
    ids: dict[str, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for s in samples:
        file = relative_file(s.image, folder)
        if file not in ids:
            ids[file] = len(ids) + 1
            image: dict[str, Any] = {"id": ids[file], "file_name": file}
            if sizes is not None and s.image in sizes:
                image["width"], image["height"] = sizes[s.image]
            elif s.image.is_file():
                image["width"], image["height"] = read_size(s.image)
            images.append(image)
        if s.landmarks is not None and len(s.landmarks) != scheme.n_landmarks:
            raise InputError(
                f"{s.name or s.image}: expected {scheme.n_landmarks} landmarks of scheme {scheme.name}, "
                f"given {len(s.landmarks)}"
            )
        if s.landmarks is None and s.box is None:
            continue
        annotation: dict[str, Any] = {
            "id": len(annotations) + 1,
            "image_id": ids[file],
            "category_id": 1,
            "iscrowd": 0,
        }
        keypoints = np.zeros((scheme.n_landmarks, 3))
        if s.landmarks is not None:
            there = np.isfinite(s.landmarks).all(1)
            keypoints[there, :2] = s.landmarks[there]
            keypoints[there, 2] = 2 if s.occluded is None else np.where(s.occluded[there], 1, 2)
        annotation["keypoints"] = [int(v) if i % 3 == 2 else v for i, v in enumerate(keypoints.ravel().tolist())]
        annotation["num_keypoints"] = int((keypoints[:, 2] > 0).sum())
        if s.box is not None or annotation["num_keypoints"]:
            x0, y0, x1, y1 = s.face_box().astype(np.float64).tolist()
            annotation["bbox"], annotation["area"] = [x0, y0, x1 - x0, y1 - y0], (x1 - x0) * (y1 - y0)
        if s.group:
            annotation["group"] = s.group
        annotations.append(annotation)
    said = {"occlusion": "annotated"} if any(s.occluded is not None for s in samples) else {}
    return {
        "info": {"description": f"landmarks of scheme {scheme.name}", **said},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": 1, "name": "face", "supercategory": "person", "keypoints": list(scheme.landmarks),
             "skeleton": [[a + 1, b + 1] for a, b in scheme.edges]}
        ],
    }  # fmt: skip
