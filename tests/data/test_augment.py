"""Augmentation: the dot and its landmark move as one, whatever is drawn; and a draw can be replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewmark.data.augment import AugmentRule, apply_augmentation, draw_augmentation
from fewmark.data.crops import CachedFace, CropRule, cache_face, upright_crop
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

SIZE = 64
PAIR = LandmarkScheme("pair", ("left", "right"), mirror=(1, 0))
NO_MIRROR = LandmarkScheme("no-mirror", ("left", "right"))
GEOMETRY = AugmentRule(scale=0.15, rotation=45, shift=0.1, flip=0.5, colour=0, erase=0, blur=0)
EVERYTHING = AugmentRule(scale=0.15, rotation=45, shift=0.1, flip=0.5, colour=0.5, erase=1.0, blur=1.0)
NOTHING = AugmentRule(scale=0, rotation=0, shift=0, flip=0, colour=0, erase=0, blur=0)


def dotted_face(side: float, points: NDArray[np.float32]) -> CachedFace:
    """A face of `side` px in a dark image: a red dot at its first landmark, a green one at its second."""
    low = 30.0
    at = low + points * side
    extent = int(side + 2 * low)
    yy, xx = np.mgrid[:extent, :extent]
    image = np.zeros((extent, extent, 3), np.uint8)
    for channel, (x, y) in enumerate(at):
        image[..., channel] = 250 * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 2 / (side / 25) ** 2)
    box = np.array([low, low, low + side, low + side], np.float32)
    sample = FaceSample(Path("dots.png"), box, at.astype(np.float32))
    return cache_face(sample, CropRule(SIZE, 0.1), len(points), image)


def centroid(channel: NDArray[np.uint8]) -> NDArray[np.float64]:
    weights = np.maximum(channel.astype(float) - 130, 0)  # above what lies outside the window
    y, x = np.mgrid[: channel.shape[0], : channel.shape[1]]
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


inner = st.floats(0.3125, 0.6875, width=32)


@given(
    points=st.tuples(inner, inner, inner, inner),
    side=st.sampled_from([40.0, 75.0, 150.0, 400.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=120)
def test_a_dot_moves_as_its_landmark(points: tuple[float, float, float, float], side: float, seed: int) -> None:
    face = dotted_face(side, np.array(points, np.float32).reshape(2, 2))
    synthetic = draw_augmentation(GEOMETRY, np.random.default_rng(seed), can_flip=True)
    crop = apply_augmentation(face, synthetic, SIZE, PAIR)
    for i in range(2):  # in a flipped image the left landmark lies on what was the right one's dot
        dot = centroid(crop.image[..., 1 - i if synthetic.flip else i])
        assert np.linalg.norm(dot - crop.landmarks[i]) < 0.15
    # and crop_from_image is the map that did it
    image_points = face.crop_from_image.inverse()(face.landmarks)
    expected = crop.crop_from_image(image_points)[[1, 0] if synthetic.flip else [0, 1]]
    assert np.allclose(crop.landmarks, expected, atol=1e-3)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_colour_blur_and_erasing_do_not_move_landmarks(seed: int) -> None:
    face = dotted_face(75.0, np.array([[0.3, 0.4], [0.7, 0.6]], np.float32))
    synthetic = draw_augmentation(EVERYTHING, np.random.default_rng(seed), can_flip=True)
    plain = replace(
        synthetic, gain=(1.0, 1.0, 1.0), offset=0.0, gamma=1.0, grey=False, erase=None, blur=1.0
    )  # the same geometry
    a, b = apply_augmentation(face, synthetic, SIZE, PAIR), apply_augmentation(face, plain, SIZE, PAIR)
    assert np.array_equal(a.landmarks, b.landmarks)
    assert not np.array_equal(a.image, b.image)


def test_blur_alone_keeps_the_dot_in_place() -> None:
    face = dotted_face(60.0, np.array([[0.37, 0.41], [0.66, 0.58]], np.float32))
    none = draw_augmentation(NOTHING, np.random.default_rng(0), can_flip=False)
    for blur in (0.35, 0.5, 0.77):
        crop = apply_augmentation(face, replace(none, blur=blur), SIZE, PAIR)
        for i in range(2):
            channel = crop.image[8:-8, 8:-8, i].astype(float)  # without what lies outside the window
            y, x = np.mgrid[8 : SIZE - 8, 8 : SIZE - 8]
            dot = np.array([(channel * x).sum(), (channel * y).sum()]) / channel.sum()
            assert np.linalg.norm(dot - crop.landmarks[i]) < 0.25


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_same_draw_gives_the_same_crop(seed: int) -> None:
    face = dotted_face(75.0, np.array([[0.3, 0.4], [0.7, 0.6]], np.float32))
    first, second = (draw_augmentation(EVERYTHING, np.random.default_rng(seed), can_flip=True) for _ in range(2))
    assert first == second
    a, b = (apply_augmentation(face, d, SIZE, PAIR) for d in (first, second))
    assert np.array_equal(a.image, b.image)
    assert np.array_equal(a.landmarks, b.landmarks)


def test_no_augmentation_is_the_upright_crop_to_the_grey_level() -> None:
    rng = np.random.default_rng(3)
    image = np.asarray(cv2.resize(rng.integers(0, 256, (40, 40, 3), np.uint8), (160, 160)), np.uint8)
    labels = np.array([[60.0, 70.0], [95.0, np.nan]], np.float32)
    sample = FaceSample(Path("a.png"), np.array([30, 30, 120, 120], np.float32), labels)
    face = cache_face(sample, CropRule(SIZE, 0.1), 2, image)
    none = draw_augmentation(NOTHING, np.random.default_rng(0), can_flip=False)
    crop = apply_augmentation(face, none, SIZE, PAIR)
    assert np.array_equal(crop.image, upright_crop(face, SIZE))
    assert np.allclose(crop.landmarks[0], face.landmarks[0], atol=1e-5)
    assert np.isnan(crop.landmarks[1]).any()


def test_a_flip_is_the_flip_of_the_image() -> None:
    face = dotted_face(64.0, np.array([[0.3, 0.4], [0.7, 0.6]], np.float32))
    none = draw_augmentation(NOTHING, np.random.default_rng(0), can_flip=False)
    there = apply_augmentation(face, none, SIZE, PAIR)
    back = apply_augmentation(face, replace(none, flip=True), SIZE, PAIR)
    assert np.abs(back.image[:, ::-1].astype(int) - there.image).max() <= 4
    assert np.allclose(back.landmarks, PAIR.flip_landmarks(there.landmarks, SIZE), atol=1e-4)


def test_a_scheme_without_a_mirror_never_flips() -> None:
    always = replace(GEOMETRY, flip=1.0)
    face = dotted_face(75.0, np.array([[0.3, 0.4], [0.7, 0.6]], np.float32))
    for seed in range(20):
        synthetic = draw_augmentation(always, np.random.default_rng(seed), can_flip=False)
        assert not synthetic.flip
        forced = apply_augmentation(face, replace(synthetic, flip=True), SIZE, NO_MIRROR)
        plain = apply_augmentation(face, synthetic, SIZE, NO_MIRROR)
        assert np.array_equal(forced.image, plain.image)
        assert np.array_equal(forced.landmarks, plain.landmarks)


@pytest.mark.parametrize("mirror", [None, (0,)])
def test_a_scheme_of_one_landmark(mirror: tuple[int, ...] | None) -> None:
    nose = LandmarkScheme("nose", ("tip",), mirror=mirror)
    face = dotted_face(75.0, np.array([[0.6, 0.45]], np.float32))
    flips = 0
    for seed in range(12):
        synthetic = draw_augmentation(GEOMETRY, np.random.default_rng(seed), can_flip=mirror is not None)
        flips += synthetic.flip
        crop = apply_augmentation(face, synthetic, SIZE, nose)
        assert np.linalg.norm(centroid(crop.image[..., 0]) - crop.landmarks[0]) < 0.15
    assert (flips > 0) == (mirror is not None)


def test_pseudo_labels_take_the_place_of_the_faces_own() -> None:
    face = dotted_face(75.0, np.array([[0.3, 0.4], [0.7, 0.6]], np.float32))
    synthetic = draw_augmentation(GEOMETRY, np.random.default_rng(5), can_flip=True)
    own = apply_augmentation(face, synthetic, SIZE, PAIR).landmarks
    given_again = apply_augmentation(
        replace(face, landmarks=face.landmarks * np.nan), synthetic, SIZE, PAIR, face.landmarks
    )
    assert np.array_equal(given_again.landmarks, own)


def test_draws_stay_in_their_ranges_and_reach_them() -> None:
    rng = np.random.default_rng(0)
    draws = [draw_augmentation(EVERYTHING, rng, can_flip=True) for _ in range(500)]
    scales, angles = np.array([d.scale for d in draws]), np.array([d.angle for d in draws])
    shifts = np.array([d.shift for d in draws])
    for values, low, high in ((scales, 0.85, 1.15), (angles, -45, 45), (shifts, -0.1, 0.1)):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    assert 0.4 < np.mean([d.flip for d in draws]) < 0.6
    assert all(d.erase is not None and d.blur < 1 for d in draws)
