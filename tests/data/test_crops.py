"""Crops: there and back, and the cache's window gives what the image would give."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.data.crops import FILL, CropRule, cache_face, cache_faces, cut, upright_crop
from fewmark.data.samples import FaceSample

SIZE = 48


def make_image(width: int, height: int, wave: int = 12, seed: int = 0) -> NDArray[np.uint8]:
    """A random image of waves of this many px."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // wave), max(2, width // wave), 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def sample(*box: float, landmarks: NDArray[np.float32] | None = None) -> FaceSample:
    return FaceSample(Path("face.png"), np.array(box, np.float32), landmarks)


@given(
    x=st.floats(-50, 500),
    y=st.floats(-50, 500),
    side=st.floats(4, 900),
    aspect=st.floats(0.5, 2),
    margin=st.floats(0, 1),
    angle=st.floats(-180, 180),
)
@settings(max_examples=60)
def test_there_and_back(x: float, y: float, side: float, aspect: float, margin: float, angle: float) -> None:
    rule = CropRule(SIZE, margin)
    box = np.array([x, y, x + side, y + side * aspect])
    crop_from_image = rule.crop_from_image(box, angle)
    points = np.array([[x, y], [x + side / 3, y + side / 5]])
    assert np.allclose(crop_from_image.inverse()(crop_from_image(points)), points, atol=1e-6)
    centre = crop_from_image(np.array([x + side / 2, y + side * aspect / 2]))
    assert np.allclose(centre, (SIZE - 1) / 2, atol=1e-6)
    assert crop_from_image.scale == pytest.approx(SIZE / (side * max(1, aspect) * (1 + 2 * margin)))


def test_crop_by_hand() -> None:
    # a box of 24 px round (50, 40), no margin, 48 px: every px becomes 2
    crop_from_image = CropRule(48, 0.0).crop_from_image(np.array([38.0, 28.0, 62.0, 52.0]))
    assert crop_from_image(np.array([[50.0, 40.0], [51.0, 38.0]])).tolist() == [[23.5, 23.5], [25.5, 19.5]]
    wide = CropRule(48, 0.5).crop_from_image(np.array([38.0, 28.0, 62.0, 52.0]))
    assert wide.scale == pytest.approx(1)


# sides from enlarging to averaging by 2 and more; in the middle, over an edge, over a corner
@pytest.mark.parametrize("side", [20, 47, 90, 130, 200, 300, 410])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 0.5), (1.0, 1.0), (0.9, 0.0)])
def test_the_window_gives_the_crop_of_the_image(side: int, place: tuple[float, float]) -> None:
    image = make_image(500, 430, wave=max(12, side // 8))
    cx, cy = place[0] * 499, place[1] * 429
    rule = CropRule(SIZE, 0.15)
    face = cache_face(sample(cx - side / 2, cy - side / 2, cx + side / 2, cy + side / 2), rule, 1, image)
    found = upright_crop(face, SIZE).astype(int)
    expected = cut(image, face.crop_from_image, SIZE).astype(int)
    difference = np.abs(found - expected)
    # at the image's edge a half-filled cell may fall to the one or to the other side
    assert np.percentile(difference, 90) <= 4
    assert difference.mean() < 1.5
    assert face.window.nbytes <= 3 * (2 * 1.5 * SIZE + 3) ** 2


@pytest.mark.parametrize("side", [90, 130, 155, 200, 300])
def test_the_cached_crop_is_as_sharp_as_the_images(side: int) -> None:
    """Fine detail is averaged as the detector averages it: training sees nothing crisper."""
    image = np.random.default_rng(0).integers(0, 256, (430, 500, 3), np.uint8)
    box = (250 - side / 2, 215 - side / 2, 250 + side / 2, 215 + side / 2)
    face = cache_face(sample(*box), CropRule(SIZE, 0.15), 1, image)
    contrast = [
        float(crop.astype(float).std()) for crop in (upright_crop(face, SIZE), cut(image, face.crop_from_image, SIZE))
    ]
    assert contrast[0] == pytest.approx(contrast[1], rel=0.05)


def test_a_small_face_is_cached_without_resampling() -> None:
    image = make_image(300, 200)
    face = cache_face(sample(100, 50, 140, 90), CropRule(SIZE, 0.0), 1, image)
    x0, y0 = (face.crop_from_window.inverse() @ face.crop_from_image).inverse().matrix[:, 2].astype(int)
    h, w = face.window.shape[:2]
    assert np.array_equal(face.window, image[y0 : y0 + h, x0 : x0 + w])
    assert face.window.base is None  # a view would keep the whole image in memory
    assert abs(w - 1.5 * 40) <= 3


def test_a_large_face_is_averaged_and_its_dot_stays_in_place() -> None:
    image = np.zeros((800, 800, 3), np.uint8)
    yy, xx = np.mgrid[:800, :800]
    dot = np.array([313.0, 442.0])
    image[...] = (255 * np.exp(-((xx - dot[0]) ** 2 + (yy - dot[1]) ** 2) / 2 / 20**2)).astype(np.uint8)[..., None]
    labels = dot[None].astype(np.float32)
    face = cache_face(sample(100, 100, 700, 700, landmarks=labels), CropRule(SIZE, 0.0), 1, image)
    assert face.window.shape[0] == 800 // 12
    crop = upright_crop(face, SIZE)[..., 0].astype(float)
    weights = np.where(crop > 20, crop, 0)
    grid_y, grid_x = np.mgrid[:SIZE, :SIZE]
    centroid = [(weights * grid_x).sum() / weights.sum(), (weights * grid_y).sum() / weights.sum()]
    assert np.allclose(centroid, face.landmarks[0], atol=0.06)


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (-5, -5, 5, 5), (-0.4, -0.4, 0.4, 0.4), (100, 100, 140, 140)])
def test_an_image_of_one_pixel(box: tuple[float, float, float, float]) -> None:
    image = np.full((1, 1, 3), 200, np.uint8)
    face = cache_face(sample(*box), CropRule(SIZE, 0.0), 2, image)
    assert upright_crop(face, SIZE).shape == (SIZE, SIZE, 3)
    assert np.isnan(face.landmarks).all()
    if box[0] == 100:
        assert (upright_crop(face, SIZE) == FILL).all()


def test_landmarks_go_with_the_crop_and_missing_ones_stay_missing() -> None:
    labels = np.array([[50.0, 40.0], [np.nan, np.nan]], np.float32)
    face = cache_face(sample(38, 28, 62, 52, landmarks=labels), CropRule(48, 0.0), 2, make_image(100, 100))
    assert face.landmarks[0].tolist() == [23.5, 23.5]
    assert np.isnan(face.landmarks[1]).all()
    assert face.landmarks.dtype == np.float32


def test_faces_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "two.png"
    image = make_image(120, 90)
    cv2.imwrite(str(path), image[..., ::-1])
    boxes = [np.array(b, np.float32) for b in ([10, 10, 40, 40], [60, 20, 100, 60])]
    faces = cache_faces([FaceSample(path, b) for b in boxes], CropRule(32, 0.1), 3)
    for face, box in zip(faces, boxes, strict=True):
        alone = cache_face(FaceSample(path, box), CropRule(32, 0.1), 3, image)
        assert np.array_equal(face.window, alone.window)
        assert face.landmarks.shape == (3, 2)


@pytest.mark.parametrize(
    ("given_sample", "words"),
    [
        (FaceSample(Path("a.png")), "neither a box nor landmarks"),
        (sample(5, 5, 5, 5), "x0 y0 x1 y1"),
        (sample(5, 5, float("nan"), 9), "x0 y0 x1 y1"),
        (sample(0, 0, 9, 9, landmarks=np.zeros((4, 2), np.float32)), "expected 2 landmarks, given 4"),
        (FaceSample(Path("missing.png"), np.array([0, 0, 9, 9], np.float32)), "missing.png"),
    ],
)
def test_bad_faces_are_refused_in_one_line(given_sample: FaceSample, words: str) -> None:
    image = None if given_sample.image.name == "missing.png" else make_image(20, 20)
    with pytest.raises(InputError, match=words) as caught:
        cache_face(given_sample, CropRule(SIZE, 0.0), 2, image)
    assert str(given_sample.image) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("size", "margin"), [(4, 0.1), (64, 5.0), (64, -0.5)])
def test_bad_rules_are_refused(size: int, margin: float) -> None:
    with pytest.raises(InputError, match="crop: expected"):
        CropRule(size, margin)
