"""Losses: numbers computed by hand, and missing landmarks that teach nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fewmark.core.errors import InputError
from fewmark.models.codec import HeatmapCodec
from fewmark.models.losses import heatmap_loss, integral_loss, landmark_loss

torch.set_num_threads(1)
LOGITS = HeatmapCodec(stride=4, sigma=3.0, logits=True, decoding="soft-argmax")
SIZE = (64, 64)


def hand_made() -> tuple[list[Tensor], Tensor, Tensor]:
    """Two faces, two maps of 1 x 2 cells; the second lacks its second landmark. Errors 1, 2 | 3, (100)."""
    heatmaps = torch.zeros(2, 2, 1, 2)
    maps = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]], [[[3.0, 0.0]], [[100.0, 0.0]]]])
    weights = torch.tensor([[1.0, 1.0], [1.0, 0.0]])[..., None, None]
    return [maps], heatmaps, weights


def test_heatmap_loss_by_hand() -> None:
    outputs, heatmaps, weights = hand_made()
    # squares 1 + 4 + 9 = 14; sum: halved, over 2 faces; mean: over 3 maps of 2 cells
    assert float(heatmap_loss(outputs, heatmaps, weights, reduction="sum")) == pytest.approx(14 / 4)
    assert float(heatmap_loss(outputs, heatmaps, weights, reduction="mean")) == pytest.approx(14 / 6)
    assert float(heatmap_loss(outputs * 3, heatmaps, weights)) == pytest.approx(14 / 2)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=25)
def test_sum_is_the_mean_times_half_the_cells_of_a_face(b: int, k: int, h: int, w: int) -> None:
    torch.manual_seed(0)
    maps, heatmaps, weights = torch.rand(b, k, h, w), torch.rand(b, k, h, w), torch.ones(b, k, 1, 1)
    total = heatmap_loss([maps], heatmaps, weights, reduction="sum")
    mean = heatmap_loss([maps], heatmaps, weights, reduction="mean")
    assert float(total) == pytest.approx(float(mean) * k * h * w / 2, rel=1e-4)


@pytest.mark.parametrize("kind", ["sum", "mean", "integral"])
def test_missing_landmarks_carry_no_gradient(kind: str) -> None:
    codec = LOGITS if kind == "integral" else HeatmapCodec()
    landmarks = torch.tensor([[[20.0, 30.0], [math.nan, math.nan]], [[math.nan, math.nan], [40.0, 12.0]]])
    maps = torch.randn(2, 2, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    if kind == "integral":
        loss = integral_loss([maps], landmarks, codec, SIZE)
    else:
        loss = heatmap_loss([maps], *codec.encode(landmarks, SIZE), reduction="sum" if kind == "sum" else "mean")
    loss.backward()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
    for face, point in ((0, 1), (1, 0)):
        assert bool((maps.grad[face, point] == 0).all())
        assert bool((maps.grad[face, 1 - point] != 0).any())


@pytest.mark.parametrize("kind", ["mean", "integral"])
def test_a_batch_without_any_landmark_has_loss_0(kind: str) -> None:
    landmarks = torch.full((2, 3, 2), math.nan)
    maps = torch.randn(2, 3, 16, 16, requires_grad=True)
    if kind == "mean":
        loss = heatmap_loss([maps], *HeatmapCodec().encode(landmarks, SIZE))
    else:
        loss = integral_loss([maps], landmarks, LOGITS, SIZE)
    loss.backward()
    assert loss.item() == 0
    assert maps.grad is not None
    assert bool((maps.grad == 0).all())


def test_integral_loss_of_ideal_maps_is_nearly_0() -> None:
    landmarks = torch.tensor([[[20.3, 30.1], [41.7, 33.2]]])
    ideal, _ = LOGITS.encode(landmarks, SIZE)
    perfect = ideal.clamp_min(1e-12).log()
    assert float(integral_loss([perfect], landmarks, LOGITS, SIZE)) < 1e-3
    moved = integral_loss([perfect], landmarks + torch.tensor([4.0, 0.0]), LOGITS, SIZE, map_weight=0)
    assert float(moved) == pytest.approx(1, abs=1e-3)  # 4 px = 1 cell
    assert float(integral_loss([perfect], landmarks + 4, LOGITS, SIZE)) > 2


def test_integral_loss_by_hand() -> None:
    """Equal logits: the mean is the crop's centre, 31.5; KL = log 256 - entropy of the ideal map."""
    landmarks = torch.tensor([[[31.5, 23.5]]])
    ideal, _ = LOGITS.encode(landmarks, SIZE)
    divergence = float((ideal * (ideal.clamp_min(1e-12).log() + math.log(256))).sum())
    flat = torch.zeros(1, 1, 16, 16)
    assert float(integral_loss([flat], landmarks, LOGITS, SIZE)) == pytest.approx(2 + divergence, rel=1e-4)
    half = integral_loss([flat, flat], landmarks, LOGITS, SIZE, map_weight=0.5)
    assert float(half) == pytest.approx(2 + divergence / 2, rel=1e-4)


def test_a_landmark_outside_the_crop_counts_for_its_distance_alone() -> None:
    flat = torch.zeros(1, 1, 16, 16)
    outside = torch.tensor([[[-8.5, 31.5]]])
    assert float(integral_loss([flat], outside, LOGITS, SIZE)) == pytest.approx(10, rel=1e-4)


def test_landmark_weights_weigh() -> None:
    flat = torch.zeros(1, 2, 16, 16)
    landmarks = torch.tensor([[[31.5, 27.5], [31.5, 19.5]]])  # 1 and 3 cells away

    def loss(*weights: float) -> float:
        w = torch.tensor([list(weights)])
        return float(integral_loss([flat], landmarks, LOGITS, SIZE, map_weight=0, landmark_weights=w))

    assert loss(1, 1) == pytest.approx(2, rel=1e-4)
    assert loss(1, 0) == pytest.approx(1, rel=1e-4)
    assert loss(3, 1) == pytest.approx((3 * 1 + 3) / 4, rel=1e-4)


def test_landmark_loss_by_hand() -> None:
    """Errors (3, 0.5) and, missing, anything; a third landmark is right."""
    target = torch.tensor([[[0.0, 0.0], [torch.nan, torch.nan], [1.0, 1.0]]])
    found = torch.tensor([[[3.0, -0.5], [7.0, 7.0], [1.0, 1.0]]], requires_grad=True)
    assert float(landmark_loss(found, target, "l2").detach()) == pytest.approx(9.25 / 2)
    assert float(landmark_loss(found, target, "smooth").detach()) == pytest.approx((2.5 + 0.125) / 2)
    landmark_loss(found, target).backward()
    assert found.grad is not None
    assert found.grad[0, 1].tolist() == [0, 0]
    assert float(landmark_loss(found.detach(), torch.full_like(target, torch.nan))) == 0
    with pytest.raises(InputError, match="expected one of l2, smooth, given 'l3'"):
        landmark_loss(found, target, "l3")  # type: ignore[arg-type]
