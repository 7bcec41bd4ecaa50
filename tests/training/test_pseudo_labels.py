"""Pseudo labels: every view is mapped back to the upright crop, and every measure is the one it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewmark.data.crops import CachedFace, CropRule, cache_face, upright_crop
from fewmark.data.samples import FaceSample
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import to_tensor
from fewmark.models.normalization import MEAN, STD
from fewmark.training.semi.pseudo_labels import make_views, own_loss, write_pseudo_labels

torch.set_num_threads(1)
SIZE = 64
DOTS = HeatmapCodec(1, 3.0, decoding="soft-argmax")  # of heights: the centroid of what is bright


def dotted_faces(n: int, n_dots: int = 2) -> list[CachedFace]:
    """Dark images with a bright dot at each landmark; the left one in the left half."""
    faces = []
    for i in range(n):
        rng = np.random.default_rng(i)
        points = np.array([rng.uniform(35, 45, 2), rng.uniform(75, 85, 2)], np.float32)[:n_dots]
        yy, xx = np.mgrid[:120, :120]
        light = sum(np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 2 / 3**2) for x, y in points)
        image = np.repeat((250 * np.asarray(light)).astype(np.uint8)[..., None], 3, 2)
        sample = FaceSample(Path(f"{i}.png"), np.array([20, 20, 100, 100], np.float32), points)
        faces.append(cache_face(sample, CropRule(SIZE, 0.0), n_dots, image))
    return faces


class DotFinder(nn.Module):
    """Marks the bright dots: the first map those in the left half, the second those in the right."""

    def __init__(self, n_dots: int = 2, shift: int = 0) -> None:
        super().__init__()
        self.n_dots, self.shift = n_dots, shift

    def forward(self, images: Tensor) -> list[Tensor]:
        light = (images[:, 0] * STD[0] + MEAN[0] - 130).clamp_min(0)
        light = light.roll(self.shift, -1)
        halves = [light.clone(), light.clone()]
        halves[0][..., SIZE // 2 :] = 0
        halves[1][..., : SIZE // 2] = 0
        return [torch.stack(halves if self.n_dots == 2 else [light], 1)]


@pytest.mark.parametrize("n_views", [1, 2, 4, 7])
def test_all_views_agree_on_a_dot(n_views: int) -> None:
    faces = dotted_faces(5)
    labels = write_pseudo_labels([DotFinder()], [DOTS], faces, size=SIZE, mirror=[1, 0], n_views=n_views, batch_size=2)
    truth = np.stack([f.landmarks for f in faces])
    assert labels.landmarks.shape == (len(labels), 2, 2) == (5, 2, 2)
    assert np.linalg.norm(labels.landmarks - truth, axis=-1).max() < 0.15
    assert labels.disagreement.max() < 0.15
    assert (labels.disagreement.max() > 0) == (n_views > 1)
    assert np.allclose(labels.own_landmarks[0], labels.landmarks, atol=1e-4)


@pytest.mark.parametrize("mirror", [None, [0]])
def test_a_scheme_of_one_landmark_with_and_without_a_mirror(mirror: list[int] | None) -> None:
    faces = dotted_faces(3, n_dots=1)
    labels = write_pseudo_labels([DotFinder(1)], [DOTS], faces, size=SIZE, mirror=mirror, n_views=4)
    assert np.linalg.norm(labels.landmarks - np.stack([f.landmarks for f in faces]), axis=-1).max() < 0.15


def test_a_mirror_that_is_forgotten_would_be_seen() -> None:
    labels = write_pseudo_labels(
        [DotFinder()], [DOTS], dotted_faces(2), size=SIZE, mirror=[0, 1], n_views=2
    )  # wrong: left and right are not exchanged
    assert labels.disagreement.min() > 5


def test_views() -> None:
    views = make_views(5, SIZE, seed=3)
    assert np.array_equal(views[0].matrix, np.eye(2, 3))
    assert [bool(np.linalg.det(v.matrix[:, :2]) < 0) for v in views] == [False, True, False, True, False]
    turned = [bool(np.linalg.det(v.matrix[:, :2]) < 0) for v in make_views(4, SIZE, seed=3, flips=False)]
    assert turned == [False] * 4
    for view in views:  # all turn about the crop's centre, and a little only
        assert np.allclose(view(np.array([31.5, 31.5])), 31.5)
        assert 0.92 <= view.scale <= 1.08
    again = make_views(5, SIZE, seed=3)
    assert all(np.array_equal(a.matrix, b.matrix) for a, b in zip(views, again, strict=True))
    assert not np.array_equal(make_views(5, SIZE, seed=4)[2].matrix, views[2].matrix)


def test_identical_students_agree_and_unlike_ones_disagree_by_half_their_distance() -> None:
    faces = dotted_faces(4)
    same = write_pseudo_labels([DotFinder(), DotFinder()], [DOTS] * 2, faces, size=SIZE, mirror=[1, 0])
    assert same.disagreement.max() < 1e-5
    unlike = write_pseudo_labels([DotFinder(), DotFinder(shift=2)], [DOTS] * 2, faces, size=SIZE, mirror=[1, 0])
    assert np.allclose(unlike.disagreement, 1.0, atol=1e-3)
    assert np.allclose(unlike.landmarks - same.landmarks, [1.0, 0.0], atol=1e-3)
    assert np.allclose(unlike.own_landmarks[1] - unlike.own_landmarks[0], [2.0, 0.0], atol=1e-3)
    assert unlike.own_landmarks.shape == (2, 4, 2, 2)
    assert unlike.last_selected.shape == (2, 4)
    assert not unlike.last_selected.any()


def test_faces_do_not_depend_on_their_company() -> None:
    faces = dotted_faces(5)
    whole = write_pseudo_labels([DotFinder()], [DOTS], faces, size=SIZE, mirror=[1, 0], n_views=3)
    for i in range(5):
        alone = write_pseudo_labels([DotFinder()], [DOTS], faces[i : i + 1], size=SIZE, mirror=[1, 0], n_views=3)
        assert np.allclose(alone.landmarks[0], whole.landmarks[i], atol=1e-4)
        assert np.allclose(alone.own_losses[:, 0], whole.own_losses[:, i], rtol=1e-4)


def test_own_loss_by_hand() -> None:
    codec = HeatmapCodec(4, 5.0, background=True)
    ideal, _ = codec.encode(torch.tensor([[[29.5, 33.5]], [[33.5, 29.5]]]), (SIZE, SIZE))
    assert own_loss([ideal], codec, (SIZE, SIZE)).tolist() == pytest.approx([0, 0], abs=1e-6)
    worse = ideal.clone()
    worse[1, 0] *= 0.5  # the same landmark, at half the height
    expected = float((ideal[1, 0] * 0.5).square().sum())
    assert own_loss([worse], codec, (SIZE, SIZE)).tolist() == pytest.approx([0, expected], rel=1e-4)
    stages = own_loss([torch.zeros_like(ideal), ideal], codec, (SIZE, SIZE))
    assert stages[0].item() == pytest.approx(float(ideal[0].square().sum()), rel=1e-4)


def test_own_loss_of_logits_compares_distributions() -> None:
    codec = HeatmapCodec(4, 5.0, decoding="soft-argmax", logits=True)
    ideal, _ = codec.encode(torch.tensor([[[29.5, 33.5]]]), (SIZE, SIZE))
    logits = ideal.clamp_min(1e-12).log() + 3.0  # a constant changes nothing
    assert own_loss([logits], codec, (SIZE, SIZE)).item() < 1e-6
    assert own_loss([logits * 4], codec, (SIZE, SIZE)).item() > 0.01


class Brightness(nn.Module):
    """A teacher whose quality is how bright the image and the maps are."""

    def label_quality(self, images: Tensor, heatmaps: Tensor) -> Tensor:
        assert images.shape[-1] == SIZE
        return images.mean((1, 2, 3)) + 100 * heatmaps.mean((1, 2, 3))


def test_the_teacher_sees_the_upright_crop_and_the_averaged_maps() -> None:
    faces = dotted_faces(3)
    students = [DotFinder(), DotFinder(shift=4)]
    labels = write_pseudo_labels(
        students, [DOTS] * 2, faces, size=SIZE, mirror=[1, 0], n_views=2, teacher=Brightness(), batch_size=2
    )
    images = to_tensor(np.stack([upright_crop(f, SIZE) for f in faces]))
    average = (students[0](images)[0] + students[1](images)[0]) / 2
    assert labels.quality is not None
    assert np.allclose(labels.quality, Brightness().label_quality(images, average).numpy(), rtol=1e-4)
    assert np.allclose(labels.scores, average.amax((2, 3)).numpy(), rtol=1e-4)
    plain = write_pseudo_labels(students, [DOTS] * 2, faces, size=SIZE, mirror=[1, 0])
    assert plain.quality is None
