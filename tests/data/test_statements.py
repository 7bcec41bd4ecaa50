"""What label files say of themselves: names of landmarks, categories, ids, sizes of images, numbers that mean missing."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmark.core.errors import DataWarning
from fewmark.data.formats.io import read_faces, write_pts
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme

FIVE = load_scheme("mtfl-5")
TRUE = np.arange(10, dtype=np.float32).reshape(5, 2) * 3 + 10
ORDER = [3, 0, 4, 1, 2]


def keypoints(points: np.ndarray, visibility: int = 2) -> list[float]:
    return [v for x, y in points.tolist() for v in (x, y, visibility)]


def category(names: Sequence[str], name: str = "face", number: int = 1) -> dict[str, Any]:
    return {"id": number, "name": name, "keypoints": list(names)}


def face(points: np.ndarray = TRUE, kind: int | None = 1, image: int = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "keypoints": keypoints(points)} | ({} if kind is None else {"category_id": kind}) | more


def write(path: Path, annotations: list[Any], categories: list[Any], images: list[Any] | None = None) -> Path:
    data = {"images": images or [{"id": 1, "file_name": "a.jpg"}], "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def points_of(path: Path, scheme: LandmarkScheme | None = FIVE) -> np.ndarray:
    (sample,) = read_faces(path, scheme=scheme)
    assert sample.landmarks is not None
    return sample.landmarks


@pytest.fixture
def silent() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- names of landmarks


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize(
    "change", [str, str.upper, lambda n: n.replace("_", " "), lambda n: f" {n.replace('_', '-')} "]
)
def test_names_decide_the_order(change: Callable[[str], str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [face(TRUE[ORDER])], [category([change(FIVE.landmarks[i]) for i in ORDER])])
    np.testing.assert_array_equal(points_of(path), TRUE)


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("name", ["{}", "kp_{}", "p{:02d}"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_decide_the_order(name: str, first: int, tmp_path: Path) -> None:
    names = [name.format(i + first) for i in ORDER]
    np.testing.assert_array_equal(points_of(write(tmp_path / "a.json", [face(TRUE[ORDER])], [category(names)])), TRUE)


@pytest.mark.usefixtures("silent")
def test_occlusion_follows_the_names(tmp_path: Path) -> None:
    annotation = face(TRUE[ORDER])
    annotation["keypoints"][2] = 1
    path = write(tmp_path / "a.json", [annotation], [category([FIVE.landmarks[i] for i in ORDER])])
    (sample,) = read_faces(path, scheme=FIVE)
    assert sample.occluded is not None
    assert np.flatnonzero(sample.occluded).tolist() == ORDER[:1]


def test_other_words_are_told(tmp_path: Path) -> None:
    names = [FIVE.landmarks[0], "auge_rechts", "nase", "mund_l", "mund_r"]
    path = write(tmp_path / "a.json", [face()], [category(names)])
    with pytest.warns(DataWarning, match=r"names are not all of scheme mtfl-5, e\.g\. 'auge_rechts'.*file's order"):
        np.testing.assert_array_equal(points_of(path), TRUE)


def test_names_that_contradict_the_scheme_are_refused(refused: Callable[..., None], tmp_path: Path) -> None:
    names = [FIVE.landmarks[1], FIVE.landmarks[0], "nase", "mund_l", "mund_r"]
    path = write(tmp_path / "a.json", [face()], [category(names)])
    refused(
        lambda: read_faces(path, scheme=FIVE), "a.json", "2 of its 5 landmark names", "is point 1 there and point 0"
    )
    path = write(tmp_path / "b.json", [face(TRUE[:4])], [category(FIVE.landmarks)])
    refused(lambda: read_faces(path), "annotations[0]", "expected 5 points as its category names, given 4")


def test_an_order_that_no_one_asked_for_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [face(TRUE[ORDER])], [category([FIVE.landmarks[i] for i in ORDER])])
    with pytest.warns(DataWarning, match="landmarks of scheme mtfl-5 in another order; give the scheme"):
        np.testing.assert_array_equal(points_of(path, None), TRUE[ORDER])


def dlib(path: Path, names: Sequence[str], points: np.ndarray = TRUE, size: str = "") -> Path:
    parts = "".join(f'<part name="{n}" x="{x:g}" y="{y:g}"/>' for n, (x, y) in zip(names, points.tolist(), strict=True))
    box = f'<box top="1" left="1" width="90" height="90">{parts}</box>'
    path.write_text(f'<dataset><images><image file="a.jpg" {size}>{box}</image></images></dataset>', encoding="utf-8")
    return path


def test_names_of_dlib(refused: Callable[..., None], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [FIVE.landmarks[i].upper() for i in ORDER]
        np.testing.assert_array_equal(points_of(dlib(tmp_path / "a.xml", names, TRUE[ORDER])), TRUE)
    with pytest.warns(DataWarning, match="names are not all of scheme mtfl-5"):
        np.testing.assert_array_equal(points_of(dlib(tmp_path / "b.xml", list("abcde"))), TRUE)
    mixed = dlib(tmp_path / "c.xml", ["a", "b", "c", "d", FIVE.landmarks[0]])
    refused(lambda: read_faces(mixed, scheme=FIVE), "c.xml", "1 of its 5 landmark names")


# ---- categories and ids


def test_other_categories_are_left_out_and_counted(tmp_path: Path) -> None:
    kinds = [category(FIVE.landmarks), {"id": 2, "name": "car"}, {"id": 3, "name": "unused"}]
    car = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 40]}
    path = write(tmp_path / "a.json", [face(), car, car, face(kind=None)], kinds)
    with pytest.warns(DataWarning, match=r"2 annotations left out, of other categories than face: car \(2\)"):
        assert [s.is_labelled for s in read_faces(path, scheme=FIVE)] == [True, True]
    path = write(tmp_path / "b.json", [face(), car], [{"id": 1, "name": "Face"}, {"id": 2, "name": "car"}])
    with pytest.warns(DataWarning, match="1 annotation left out"):
        assert len(read_faces(path)) == 1


def test_two_categories_with_landmarks(refused: Callable[..., None], tmp_path: Path) -> None:
    body, head = category(["hip", "knee"], "body", 1), category(FIVE.landmarks, "head", 2)
    path = write(tmp_path / "a.json", [face(TRUE[:2]), face(kind=2)], [body, head])
    with pytest.warns(DataWarning, match=r"1 annotation left out, of other categories than head: body \(1\)"):
        np.testing.assert_array_equal(points_of(path), TRUE)
    refused(lambda: read_faces(path), "a.json", "different landmarks: body (2), head (5)", "choose the scheme")
    both = [category(FIVE.landmarks, "man", 1), category(FIVE.landmarks, "woman", 2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_faces(write(tmp_path / "b.json", [face(), face(kind=2)], both), scheme=FIVE)) == 2


def test_ids_that_are_used_twice(refused: Callable[..., None], tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": n} for n in ("a.jpg", "b.jpg")]
    path = write(tmp_path / "a.json", [face()], [], images)
    refused(lambda: read_faces(path), "images[0] and images[1]", "same id 1", "a.jpg, b.jpg")
    path = write(tmp_path / "b.json", [face(id=7), face(id=8), face(id=7)], [])
    refused(lambda: read_faces(path), "annotations[0] and annotations[2]", "same id 7")
    path = write(tmp_path / "c.json", [face()], [], [{"id": [1], "file_name": "a.jpg"}])
    refused(lambda: read_faces(path), "images[0]", "id")
    path = write(tmp_path / "d.json", [face(), {"image_id": [1]}], [])
    refused(lambda: read_faces(path), "annotations[1]", "image_id")


# ---- sizes of images


def sized(path: Path, width: object, height: object) -> list[Path]:
    coco = write(
        path / "l.json", [face(kind=None)], [], [{"id": 1, "file_name": "a.jpg", "width": width, "height": height}]
    )
    (path / "l.csv").write_text(f"file,x0,y0,width,height\na.jpg,1,2,{width},{height}\n", encoding="utf-8")
    return [coco, path / "l.csv", dlib(path / "l.xml", list("01234"), size=f'width="{width}" height="{height}"')]


@pytest.mark.parametrize(
    ("orientation", "size", "advice"),
    [(6, (60, 100), "label the upright image"), (1, (120, 200), "give the image that was labelled")],
)
def test_sizes_that_contradict_the_image(
    orientation: int, size: tuple[int, int], advice: str, refused: Callable[..., None], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.new("RGB", (60, 100)).save(tmp_path / "a.jpg", exif=exif)
    for file in sized(tmp_path, *size):
        refused(lambda file=file: read_faces(file), file.name, f"labels of {size[0]} x {size[1]} px", advice)
        with pytest.warns(DataWarning, match="1 image is of another size than the labels say: a.jpg"):
            assert len(read_faces(file, strict=False)) == 1


@pytest.mark.usefixtures("silent")
def test_sizes_that_say_nothing(tmp_path: Path) -> None:
    for values in ((60, 100), (0, 0), ("", ""), (-1, "?"), (61, 100)):
        if values != (61, 100):
            Image.new("RGB", (60, 100)).save(tmp_path / "a.jpg")
        else:
            (tmp_path / "a.jpg").unlink()
        for file in sized(tmp_path, *values):
            assert len(read_faces(file)) == 1


# ---- numbers that mean missing


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("kind", ["csv", "coco", "dlib", "pts", "folder"])
def test_numbers_that_mean_missing(value: int, kind: str, tmp_path: Path) -> None:
    points = TRUE.copy()
    points[[1, 3]] = value
    Image.new("RGB", (60, 100)).save(tmp_path / "a.jpg")
    if kind == "csv":
        path = tmp_path / "l.csv"
        header = ",".join(f"x{i},y{i}" for i in range(5))
        path.write_text(f"file,{header}\na.jpg,{','.join(map(str, points.ravel()))}\n", encoding="utf-8")
    elif kind == "coco":
        path = write(tmp_path / "l.json", [face(points)], [])
    elif kind == "dlib":
        path = dlib(tmp_path / "l.xml", list("01234"), points)
    else:
        write_pts(tmp_path / "a.pts", points - 1)
        path = tmp_path / "a.pts" if kind == "pts" else tmp_path
    first = 1 if kind in ("pts", "folder") else 0
    with pytest.warns(
        DataWarning, match=rf"2 landmarks of 1 face are exactly at \({value}, {value}\).*missing={value}\)"
    ):
        np.testing.assert_array_equal(points_of(path), points - first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (sample,) = read_faces(path, missing=value)
    assert sample.landmarks is not None
    assert np.flatnonzero(np.isnan(sample.landmarks).all(1)).tolist() == [1, 3]
    np.testing.assert_array_equal(sample.landmarks[[0, 2, 4]], points[[0, 2, 4]] - first)


def test_a_face_without_any_landmark_is_unlabelled(refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,x0,y0,x1,y1\na.jpg,-1,-1,-1,-1\nb.jpg,-1,0,5,-1\n", encoding="utf-8")
    a, b = read_faces(tmp_path / "l.csv", missing=-1)
    assert a.landmarks is None
    assert b.landmarks is not None
    assert b.landmarks.tolist() == [[-1, 0], [5, -1]]
    refused(lambda: read_faces(tmp_path / "l.csv", missing=7), "missing", "expected 0 or -1")
    assert isinstance(a, FaceSample)
