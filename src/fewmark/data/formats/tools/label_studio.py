"""Label Studio: a JSON list of tasks with keypoints in per cent of the image; a rectangle is the parent of a face's keypoints.

0 % is the image's corner: the centre of the first pixel is at half a pixel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

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

LOCAL = "/data/local-files/?d="
"""How Label Studio names images of its local storage."""


def read_label_studio(
    path: str | Path, *, n_landmarks: int | None = None, scheme: LandmarkScheme | None = None
) -> list[FaceSample]:
    """Read an export in Label Studio's own JSON.

    Args:
        path: The .json file; images are looked for beside it.
        n_landmarks: Required number of names, or None for any.
        scheme: Its names are expected, and decide the order.

    Raises:
        InputError: The file is none of Label Studio, or see `to_samples`.
    """
    path = Path(path)
    data = read_json(path)
    if not is_label_studio(data):
        raise InputError(f"{path}: expected Label Studio's JSON, a list of tasks with data, given something else")
    with structure_of(path, "Label Studio"):
        faces = [face for task in data for face in _read_task(path, task)]
    return to_samples(path, faces, scheme, n_landmarks)


def is_label_studio(data: object) -> bool:
    """Whether a JSON document is Label Studio's."""
    return isinstance(data, list) and bool(data) and all(isinstance(t, dict) and "data" in t for t in data)


def _read_task(path: Path, task: Mapping[str, Any]) -> Iterator[NamedFace]:
    image = next((v for v in task["data"].values() if isinstance(v, str)), None)
    if image is None:
        raise InputError(f"{path}: task {task.get('id', '?')}: expected an image in its data, given none")
    file = _file_of(image)
    given = [a for a in task.get("annotations", ()) if not a.get("was_cancelled")]
    results = given[-1].get("result", ()) if given else ()  # the last annotation counts
    points: dict[str, dict[str, Point]] = {}
    occluded: dict[str, set[str]] = {}
    boxes: dict[str, tuple[float, float, float, float]] = {}
    for r in results:
        value = r.get("value", {})
        names = value.get("keypointlabels") or value.get("rectanglelabels") or [""]
        width, height = (number(path, names[0], r.get(f"original_{k}")) for k in ("width", "height"))
        x = number(path, names[0], value.get("x")) / 100 * width - CORNER
        y = number(path, names[0], value.get("y")) / 100 * height - CORNER
        if "keypointlabels" in value:
            face = r.get("parentID") or ""
            if names[0] in points.setdefault(face, {}):
                raise InputError(f"{path}: {file}: {names[0]!r} stands twice; give each face a rectangle as parent")
            points[face][names[0]] = x, y
            if "occluded" in (r.get("meta") or {}).get("text", ()):
                occluded.setdefault(face, set()).add(names[0])
        elif "rectanglelabels" in value:
            w, h = (number(path, names[0], value.get(k)) / 100 * s for k, s in (("width", width), ("height", height)))
            boxes[str(r.get("id", ""))] = x, y, x + w, y + h
    faces = list(dict.fromkeys([*points, *boxes]))
    for face in faces:
        yield NamedFace(file, points.get(face, {}), frozenset(occluded.get(face, ())), boxes.get(face))
    if not faces:
        yield NamedFace(file, {})


def _file_of(image: str) -> str:
    """The file that an address of Label Studio means; an upload's name has eight letters in front."""
    parts = urlsplit(image)
    local = parse_qs(parts.query).get("d")
    if local:
        return local[0]
    name = unquote(parts.path)
    if "/upload/" in name:
        stem = name.rpartition("/")[2]
        return stem[9:] if len(stem) > 9 and stem[8] == "-" else stem
    return name.rpartition("/")[2] if parts.scheme in ("http", "https", "s3", "gs") else name


def write_label_studio(path: str | Path, samples: Sequence[FaceSample], scheme: LandmarkScheme | None) -> None:
    """Write tasks with annotations, to be imported into a project with local storage of the file's folder.

    Raises:
        InputError: See `from_samples`; or an image cannot be read.
    """
    path = Path(path)
    tasks = []
    for number_, (file, faces) in enumerate(by_image(from_samples(path, samples, scheme)).items(), 1):
        width, height = read_size(path.parent / file)
        shared = {"original_width": width, "original_height": height, "image_rotation": 0, "to_name": "image"}
        results: list[dict[str, Any]] = []
        for face_number, face in enumerate(faces):
            parent = f"face{face_number}"
            box = face.box or _box_about(face)
            if box is not None:
                x, y = _percent(box[0], width), _percent(box[1], height)
                w, h = 100 * (box[2] - box[0]) / width, 100 * (box[3] - box[1]) / height
                value: dict[str, Any] = {
                    "x": x,
                    "y": y,
                    "width": w,
                    "height": h,
                    "rotation": 0,
                    "rectanglelabels": ["face"],
                }
                results.append({"id": parent, "type": "rectanglelabels", "from_name": "box", "value": value, **shared})
            for name, (px, py) in face.points.items():
                value = {"x": _percent(px, width), "y": _percent(py, height), "width": 0.5, "keypointlabels": [name]}
                point = {"id": f"{parent}_{len(results)}", "parentID": parent, "type": "keypointlabels"}
                meta = {"meta": {"text": ["occluded"]}} if name in face.occluded else {}
                results.append({**point, "from_name": "points", "value": value, **shared, **meta})
        tasks.append({"id": number_, "data": {"image": LOCAL + file}, "annotations": [{"result": results}]})
    write_text(path, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")


def _percent(position: float, side: int) -> float:
    return 100 * (position + CORNER) / side


def _box_about(face: NamedFace) -> tuple[float, float, float, float] | None:
    if not face.points:
        return None
    xs, ys = zip(*face.points.values(), strict=True)
    return min(xs), min(ys), max(xs), max(ys)
