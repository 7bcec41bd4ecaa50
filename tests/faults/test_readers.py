"""Changed files of every kind that is read: only fewmark's own error, in one line, at once, and never an infinite coordinate.

`FEWMARK_FUZZ=100000 python -m pytest tests/faults/test_readers.py` tries as many changes of each file.
"""

from __future__ import annotations

import copy
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark import FaceSample, read_faces, write_faces
from fewmark.core.errors import InputError
from fewmark.data.images import write_image
from fewmark.data.lists import read_list
from fewmark.inference.checkpoint.metadata import read_metadata, resolve_model
from fewmark.inference.face_detection.base import boxes_from_file
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_to_toml
from fewmark.training.config import load_config

N = int(os.environ.get("FEWMARK_FUZZ", "300"))
SLOW_S = 5.0
TRIPLE = LandmarkScheme("triple", ("left_eye", "right_eye", "nose"), mirror=(1, 0, 2))
POINTS = np.array([[10.25, 11], [20.5, 11], [15, 20.75]], np.float32)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e400, 1e39, 10**400, float("nan"), 10**30, 2**63, 1.5, "", "x", "1e999", "-5", "\0", "../../etc/passwd",
    [], {}, [1], [None], [[1, 2], [3]], {"a": 1},
)  # fmt: skip
TOKENS = (
    b"nan", b"inf", b"1e39", b"9" * 60, b"-inf", b"1e999", b"-1", b"", b"\0", b"\xff\xfe", b"9" * 400, b"[", b"]", b"{", b'"', b"=", b"\n",
    b",", b"<", b">", b"&x;", b"true", b"0x10", b"\xef\xbb\xbf", b"\r", b"''", b"[[]]", b"1_0", b"1979-05-27",
)  # fmt: skip
_WORD = re.compile(rb"[A-Za-z_]+|-?\d+\.?\d*|\[[^\[\]]*\]|\"[^\"]*\"")


def mutate(data: bytes, rng: random.Random, *, as_json: bool) -> bytes:
    """A file with some changes."""
    return _change_values(data, rng) if as_json and rng.random() < 0.7 else _change_bytes(data, rng)


def _change_values(data: bytes, rng: random.Random) -> bytes:
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [p for p in _places(document) if p]
        if not places:
            break
        *path, last = rng.choice(places)
        holder = document
        for key in path:
            holder = holder[key]
        act = rng.random()
        if act < 0.6:
            holder[last] = copy.deepcopy(rng.choice(VALUES))
        elif act < 0.8 and isinstance(holder, dict):
            del holder[last]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(rng.choice(VALUES)))
        else:
            holder["more"] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(document).encode()


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _places(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _places(value, (*path, index))


def _change_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        act, at = rng.random(), rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.randrange(1, 40))
        if act < 0.25 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
        elif act < 0.4:
            changed[at:at] = rng.choice(TOKENS)
        elif act < 0.5:
            del changed[at:end]
        elif act < 0.6:
            changed[at:at] = changed[at:end]
        elif act < 0.65:
            del changed[at:]
        elif words := list(_WORD.finditer(bytes(changed))):
            word = rng.choice(words)
            changed[word.start() : word.end()] = rng.choice(TOKENS)
    return bytes(changed)


def read_with_names(path: Path) -> list[FaceSample]:
    return read_faces(path, scheme=TRIPLE)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "csv": ("x.csv", read_with_names),
    "coco": ("x.json", read_with_names),
    "dlib": ("x.xml", read_with_names),
    "label-studio": ("tasks.json", read_with_names),
    "cvat": ("cvat.xml", read_with_names),
    "deeplabcut": ("CollectedData_anna.csv", read_with_names),
    "labelme": ("a.json", read_with_names),
    "pts": ("a.pts", read_faces),
    "boxes": ("boxes.csv", boxes_from_file),
    "list": ("few.txt", read_list),
    "scheme": ("scheme.toml", load_scheme),
    "config": ("recipe.toml", load_config),
    "model": ("m.safetensors", read_metadata),
    "export": ("m.onnx", read_metadata),
}
"""Kind -> the name of its file, and its reader."""
TEXTS = {
    "boxes": b"file,box_x0,box_y0,box_x1,box_y1\na.png,1,2,30,40\nb.png,3,4,50,51.5\n",
    "list": b"# few\na.png\nb.png#2\n",
    "scheme": scheme_to_toml(load_scheme("mtfl-5")).encode(),
    "config": b'[crop]\nsize = 128\n[students.a]\narchitecture = "compact"\nlearning_rate = 1e-3\nmilestones = [1]\n'
    b'arguments = { decoder = 48 }\n[semi]\nselection = "none"\nrounds = 0\n',
}


def seed_of(kind: str, folder: Path) -> bytes:
    """A whole file of a kind."""
    for name in ("a.png", "b.png"):
        write_image(folder / name, np.full((60, 80, 3), 99, np.uint8))
    faces = [
        FaceSample(folder / "a.png", np.array([1, 2, 30, 40], np.float32), POINTS),
        FaceSample(folder / "b.png", None, POINTS + 5, np.array([True, False, False])),
    ]
    if kind in TEXTS:
        return TEXTS[kind]
    if kind == "model":
        return resolve_model("ibug-68-nano").read_bytes()[:60_000]
    if kind == "export":
        return resolve_model("ibug-68-nano").with_suffix(".onnx").read_bytes()
    path = folder / READERS[kind][0]
    write_faces(folder if kind == "labelme" else path, kind, faces[:1] if kind in ("pts", "labelme") else faces, TRIPLE)
    return path.read_bytes()


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.filterwarnings("ignore")
def test_changed_files(kind: str, tmp_path: Path) -> None:
    whole, rng = seed_of(kind, tmp_path), random.Random(kind)
    name, read = READERS[kind]
    path = tmp_path / name
    path.write_bytes(whole)
    if kind != "model":  # which is cut
        read(path)
    n_refused = 0
    for _ in range(N):
        changed = mutate(whole, rng, as_json=name.endswith(".json"))
        path.write_bytes(changed)
        began, refusal = time.monotonic(), ""
        try:
            found = read(path)
        except InputError as error:
            n_refused, refusal = n_refused + 1, str(error)
        except Exception as error:
            raise AssertionError(f"{kind}: {error!r} from {changed!r}") from error
        else:
            for face in found if isinstance(found, list) else ():
                for array in (face.landmarks, face.box) if isinstance(face, FaceSample) else ():
                    assert array is None or not np.isinf(array).any(), changed
        assert "\n" not in refusal, changed
        assert time.monotonic() - began < SLOW_S, changed
    assert n_refused > N // 20


KEPT = [
    ("pts", b"version: 1\nn_points: 1\n{\n1e39 2\n}\n"),
    (
        "coco",
        b'{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"id": 1, "image_id": 1, "bbox": [1, 2, 1'
        + b"0" * 400
        + b', 4]}], "categories": []}',
    ),
    ("cvat", b"<?xml version='1.0' encoding='utf1979'?><annotations><image name='a.png'/></annotations>"),
    ("dlib", b"<?xml version='1.0' encoding='nan'?><dataset><images/></dataset>"),
    ("csv", b"file,x0,y0,x1,y1,x2,y2\na\0.png,1,2,3,4,5,6\n"),
    ("deeplabcut", b"scorer,anna,anna\nbodyparts,nose\ncoords,x,y\na.png,1,2\n"),
    ("deeplabcut", b"scorer,\xb5\n"),
    ("labelme", b'{"imagePath": "a.png", "shapes": [null]}'),
    ("labelme", b'{"imagePath": "a.png", "shapes": [{"points": [[1, 2, 3]], "shape_type": "point", "group_id": [1]}]}'),
    ("label-studio", b'[{"data": {"image": "a.png"}, "annotations": ["x"]}]'),
    ("label-studio", b'[{"data": [1], "annotations": []}]'),
    ("config", b"[students.a]\narchitecture = {}\n"),
    ("config", b"\xff\xfe"),
    ("boxes", b'"a\nb",box_x0\n'),
]
"""Files that ended in an error of another library, or in several lines, before they were found by changing files."""


@pytest.mark.parametrize(("kind", "content"), KEPT)
@pytest.mark.filterwarnings("ignore")
def test_files_that_were_found_so(kind: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / READERS[kind][0]
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        READERS[kind][1](path)
    assert "\n" not in str(raised.value)
