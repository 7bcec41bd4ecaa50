"""Crops made on a device, here the CPU: the same draws, and crops within one grey level of those that OpenCV makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fewmark import TrainingData
from fewmark.data.augment import AugmentRule, apply_augmentation, draw_augmentation
from fewmark.data.batches import Batches, face_rows
from fewmark.data.crops import CachedFace, CropRule, cache_faces
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.device_batches import DeviceBatch, DeviceBatches, DeviceCrops
from fewmark.training.semi.students import labels_only

STRONG = AugmentRule(scale=0.2, rotation=40, shift=0.1, flip=0.5, colour=0.4, erase=0.5, blur=0.5)
PLAIN = AugmentRule(scale=0.2, rotation=40, shift=0.1, flip=0.5, colour=0, erase=0, blur=0)


@pytest.fixture(scope="module", params=[24, 48, 64])
def faces(request: pytest.FixtureRequest, tiny_data: TrainingData) -> tuple[int, list[CachedFace]]:
    """Drawn faces in crops that are smaller than their windows, and larger."""
    size: int = request.param
    return size, cache_faces([*tiny_data.labelled, *tiny_data.validation], CropRule(size, 0.1), 68)


@pytest.mark.parametrize("rule", [PLAIN, STRONG])
def test_crops_are_those_of_the_cpu(
    rule: AugmentRule, faces: tuple[int, list[CachedFace]], tiny_data: TrainingData
) -> None:
    size, cached = faces
    crops = DeviceCrops(cached, size, tiny_data.scheme, rule, "cpu")
    rng = np.random.default_rng(0)
    indices = rng.integers(0, len(cached), 40)
    draws = [draw_augmentation(rule, rng, can_flip=True) for _ in indices]
    images, targets = crops(indices, draws, [cached[i].landmarks for i in indices])
    assert images.shape == (40, size, size, 3)
    assert images.dtype == torch.uint8
    for row, (i, a) in enumerate(zip(indices, draws, strict=True)):
        expected = apply_augmentation(cached[i], a, size, tiny_data.scheme)
        np.testing.assert_array_equal(targets[row], expected.landmarks)
        off = np.abs(images[row].numpy().astype(int) - expected.image)
        # a level that is rounded the other way can be a few levels apart once contrast and gamma have stretched it
        assert off.mean() < 0.25, (row, a)
        assert np.quantile(off, 0.999) <= (1 if rule is PLAIN else 2), (row, a)
        assert off.max() <= (1 if rule is PLAIN else 8), (row, a)


def test_batches_are_those_of_the_cpu(faces: tuple[int, list[CachedFace]], tiny_data: TrainingData) -> None:
    size, cached = faces
    data = labels_only(cached)
    data = replace(data, weights=np.random.default_rng(1).uniform(size=data.weights.shape).astype(np.float32))
    rows = face_rows(cached, size, tiny_data.scheme, STRONG, landmarks=data.landmarks, weights=data.weights)
    crops = DeviceCrops(cached, size, tiny_data.scheme, STRONG, "cpu")
    plain = Batches(len(cached), rows, 4, 7, n_batches=3)
    ours = DeviceBatches(
        len(cached), rows, 4, 7, n_batches=3, crops=crops, landmarks=data.landmarks, weights=data.weights
    )
    kept = data.weights.copy()
    for a, b in zip(plain(2), ours(2), strict=True):
        assert isinstance(b, DeviceBatch)
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.targets, b.targets)
        np.testing.assert_array_equal(a.weights, b.weights)
        assert np.abs(a.images.astype(int) - b.images.numpy()).mean() < 0.25
    np.testing.assert_array_equal(data.weights, kept)


def test_nothing_is_flipped_without_a_mirror(faces: tuple[int, list[CachedFace]], tiny_data: TrainingData) -> None:
    size, cached = faces
    scheme: LandmarkScheme = replace(tiny_data.scheme, mirror=None)
    flips = replace(PLAIN, flip=1.0)
    crops = DeviceCrops(cached, size, scheme, flips, "cpu")
    drawn = draw_augmentation(flips, np.random.default_rng(0), can_flip=True)
    assert drawn.flip
    _, targets = crops(np.array([0]), [drawn], [cached[0].landmarks])
    np.testing.assert_array_equal(targets[0], apply_augmentation(cached[0], drawn, size, scheme).landmarks)


def test_windows_that_are_much_finer_than_the_crop(tiny_data: TrainingData, tmp_path: Path) -> None:
    cached = cache_faces(tiny_data.labelled, CropRule(16, 0.1), 68)
    rule = AugmentRule(scale=0.7, rotation=0, shift=0, flip=0, colour=0, erase=0, blur=0)
    crops = DeviceCrops(cached, 16, tiny_data.scheme, rule, "cpu")
    assert len(crops.levels) > 2
    rng = np.random.default_rng(3)
    for _ in range(20):
        a = draw_augmentation(rule, rng, can_flip=False)
        images, _ = crops(np.array([1]), [a], [cached[1].landmarks])
        expected = apply_augmentation(cached[1], a, 16, tiny_data.scheme).image
        assert np.abs(images[0].numpy().astype(int) - expected).max() <= 1
