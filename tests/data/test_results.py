"""Results of `detect` are labels, too: faces.json, faces.jsonl, one face beside its image, and folders of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmark.core.errors import DataWarning
from fewmark.data.formats.io import read_faces
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme

FIVE = load_scheme("mtfl-5")
POINTS = [[1.5, 2.0], None, [5.0, 6.0], [7.0, 8.0], [9.0, 10.25]]
FACE = {
    "scheme": "mtfl-5",
    "box_xyxy": [0, 1, 20, 30.5],
    "landmarks": POINTS,
    "scores": [1, None, 1, 1, 1],
    "quality": 0.5,
}
ENTRIES: list[dict[str, Any]] = [{"file": "a.png", "faces": [FACE, FACE]}, {"file": "sub/b.png", "faces": []}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    return tmp_path


def document(path: Path, entries: list[dict[str, Any]], **more: Any) -> Path:
    head = {"scheme": "mtfl-5", "landmarks": list(FIVE.landmarks), "failed": []}
    path.write_text(json.dumps({**head, "pictures": entries, **more}), encoding="utf-8")
    return path


def lines(path: Path, entries: list[dict[str, Any]]) -> Path:
    sized = [{**e, "width": 40, "height": 30, "scheme": "mtfl-5"} for e in entries]
    path.write_text("".join(json.dumps(e) + "\n" for e in sized), encoding="utf-8")
    return path


@pytest.mark.parametrize("write", [document, lines])
def test_faces_of_results(write: Callable[..., Path], folder: Path) -> None:
    path = write(folder / f"x.{'json' if write is document else 'jsonl'}", ENTRIES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second, none = read_faces(path, scheme=FIVE)
    assert [s.name for s in (first, second, none)] == ["a.png#1", "a.png#2", "sub/b.png"]
    assert first.image == folder / "a.png"
    assert first.landmarks is not None
    assert np.isnan(first.landmarks[1]).all()
    assert first.landmarks[[0, 4]].tolist() == [[1.5, 2], [9, 10.25]]
    assert first.box is not None
    assert first.box.tolist() == [0, 1, 20, 30.5]
    assert (none.box, none.landmarks, none.occluded) == (None, None, None)
    if write is document:
        path.write_text(path.read_text().replace('"pictures"', '"images"'))
        assert len(read_faces(path, scheme=FIVE)) == 3
    order = [4, 2, 0, 1, 3]
    other = LandmarkScheme("other", tuple(FIVE.landmarks[i] for i in order))
    turned = read_faces(path, scheme=other)[0].landmarks
    np.testing.assert_array_equal(turned, first.landmarks[order])


def test_what_is_left_out_of_results(folder: Path) -> None:
    entries = [*ENTRIES, {"file": "-", "faces": [FACE]}]
    failed = [{"file": "gone.jpg", "error": "gone.jpg: cannot be read"}]
    with pytest.warns(DataWarning) as told:
        assert len(read_faces(document(folder / "x.json", entries, failed=failed))) == 3
    texts = [str(w.message).partition("x.json: ")[2] for w in told]
    assert texts == ["1 image left out that could not be read", "1 image of standard input left out"]
    path = lines(folder / "x.jsonl", ENTRIES)
    path.write_text(path.read_text() + '{"file": "c.j', encoding="utf-8")
    with pytest.warns(DataWarning, match="line 3, the last, is cut off"):
        assert len(read_faces(path)) == 3


def test_results_that_cannot_be_read(refused: Callable[..., None], folder: Path) -> None:
    def say(path: Path, *words: str, scheme: LandmarkScheme | None = None) -> None:
        refused(lambda: read_faces(path, scheme=scheme), path.name, *words)

    say(document(folder / "a.json", ENTRIES), "expected 68 landmarks, given 5", scheme=load_scheme("ibug-68"))
    say(document(folder / "b.json", []), "at least one image")
    say(document(folder / "c.json", [{"faces": []}]), "entry 1", "`file`")
    say(document(folder / "d.json", [{"file": "a.png"}]), "a.png", "`faces`")
    for key, value in (
        ("landmarks", [[1, 2, 3]]),
        ("landmarks", [["x", 2]]),
        ("box_xyxy", [1, 2]),
        ("box_xyxy", [5, 5, 1, 9]),
    ):
        say(document(folder / "e.json", [{"file": "a.png", "faces": [{**FACE, key: value}]}]), "a.png", key)
    say(lines(folder / "f.jsonl", [{"frame": 0, "file": "a.png"}]), "video")
    (folder / "g.jsonl").write_text('{"file"\n{}\n')
    say(folder / "g.jsonl", "line 1", "not JSON")
    wrong = [{"file": "a.png", "faces": [FACE], "width": 30, "height": 40}]
    (folder / "h.jsonl").write_text(json.dumps(wrong[0]))
    say(folder / "h.jsonl", "labels of 30 x 40 px")
    say(document(folder / "alone.json", [], pictures=None, **FACE), "its image beside it")


def test_one_face_beside_its_image(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps(FACE))
    (face,) = read_faces(folder / "a.json", scheme=FIVE)
    assert (face.image, face.name) == (folder / "a.png", "a.png")
    assert face.landmarks is not None


def test_a_folder_with_several_results(folder: Path) -> None:
    results = folder / "results"
    results.mkdir()
    entries = [{**e, "file": f"../{e['file']}"} for e in ENTRIES]
    document(results / "faces.json", entries)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_faces(results)) == 3
    lines(results / "faces.jsonl", entries)
    Image.new("RGB", (40, 30)).save(results / "a_landmarks.jpg")
    with pytest.warns(DataWarning, match=r"faces\.json: read alone, not faces\.jsonl beside it"):
        assert len(read_faces(results)) == 3
    document(folder / "faces.json", ENTRIES[:1])
    with pytest.warns(DataWarning, match=r"read as the labels of its folder; 1 of its 2 images not named there"):
        assert len(read_faces(folder)) == 2
    (folder / "annotations.csv").write_text("file\na.png\n")
    assert len(read_faces(folder)) == 1


def test_results_that_were_moved_with_their_images(folder: Path) -> None:
    (folder / "photos/found").mkdir(parents=True)
    (folder / "a.png").rename(folder / "photos/a.png")
    document(folder / "photos/found/faces.json", [{"file": "/old/photos/a.png", "faces": [FACE]}])
    document(folder / "faces.json", [{"file": "/old/photos/a.png", "faces": [FACE]}])
    for path in (folder / "photos/found", folder / "faces.json"):
        with pytest.warns(
            DataWarning, match=r"1 image is found under another folder than named, e\.g\. /old/photos/a\.png"
        ):
            assert read_faces(path)[0].image.samefile(folder / "photos/a.png")
