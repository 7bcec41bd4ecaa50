"""Losses of the students, of the teacher and of the cascade's stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from fewmark.core.errors import InputError
from fewmark.models.codec import HeatmapCodec

LandmarkLoss = Literal["l2", "smooth"]

_TINY = 1e-12
_SMOOTH = 1.0  # px: quadratic below, linear above


def heatmap_loss(
    outputs: Sequence[Tensor],
    heatmaps: Tensor,
    weights: Tensor,
    *,
    reduction: Literal["sum", "mean"] = "mean",
) -> Tensor:
    """Squared error of all network stages against the ideal heatmaps.

    Args:
        outputs: Heatmaps of each network stage, (B, K', h, w).
        heatmaps: (B, K', h, w) ideal heatmaps.
        weights: (B, K', 1, 1), 0 where a landmark is missing.
        reduction: "sum" over maps and cells, halved and averaged over faces (the authors' CPM); "mean" over
            cells of the present maps (the authors' hourglass). Their learning rates differ by the factor
            between the two.

    Returns:
        A scalar, summed over the network stages.

    Source: TS3, Eq. 2.
    """
    batch, _, h, w = heatmaps.shape
    total = heatmaps.new_zeros(())
    for maps in outputs:
        squared = ((maps.float() - heatmaps) ** 2 * weights).sum()
        total = total + (
            squared / (2 * batch) if reduction == "sum" else squared / (weights.sum() * h * w).clamp_min(1)
        )
    return total


def integral_loss(
    outputs: Sequence[Tensor],
    landmarks: Tensor,
    codec: HeatmapCodec,
    size: tuple[int, int],
    *,
    map_weight: float = 1.0,
    landmark_weights: Tensor | None = None,
) -> Tensor:
    """L1 distance of each map's mean from its landmark, plus the divergence of the map from the ideal one.

    Args:
        outputs: Logits of each network stage, (B, K, h, w).
        landmarks: (B, K, 2) crop px, NaN where missing; those outside the crop count for the L1 term alone.
        codec: A codec with `logits`.
        size: (H, W) of the crop, px.
        map_weight: Weight of the divergence.
        landmark_weights: (B, K) weights of the landmarks, or None.

    Returns:
        A scalar: the mean over network stages of L1 (cells) + map_weight * KL divergence (nats).

    Source: Sun et al., Integral human pose regression, ECCV 2018; Nibali et al., DSNT, 2018 (the map's
    regulariser).
    """
    present = torch.isfinite(landmarks).all(-1)
    truth = torch.where(present[..., None], landmarks, torch.zeros_like(landmarks))
    inside = present & (truth > -0.5).all(-1) & (truth[..., 0] < size[1] - 0.5) & (truth[..., 1] < size[0] - 0.5)
    weights = present.float() if landmark_weights is None else present.float() * landmark_weights
    # the ideal map is the product of its marginals: its entropy and its mean of log p need no map of it; no matrix products,
    # which mixed precision would round
    gx, gy = (g / g.sum(-1, keepdim=True).clamp_min(_TINY) for g in codec.marginals(truth, size))
    negative_entropy = sum((g * g.clamp_min(_TINY).log()).sum(-1) for g in (gx, gy))
    columns, rows = (codec.cell_centres(g.shape[-1], g.device) for g in (gx, gy))
    total = landmarks.new_zeros(())
    for maps in outputs:
        log_p = torch.log_softmax(maps.float().flatten(2), -1).view(maps.shape)
        p = log_p.exp()
        expected = torch.stack([(p.sum(-2) * columns).sum(-1), (p.sum(-1) * rows).sum(-1)], -1)
        distance = (expected - truth).abs().sum(-1) / codec.stride
        divergence = negative_entropy - ((log_p * gx[:, :, None]).sum(-1) * gy).sum(-1)
        total = total + (weights * (distance + map_weight * inside * divergence)).sum() / weights.sum().clamp_min(1e-6)
    return total / len(outputs)


def landmark_loss(predicted: Tensor, target: Tensor, kind: LandmarkLoss = "l2") -> Tensor:
    """Distance of predicted landmarks from the true ones, a mean over those that are present.

    Args:
        predicted: (..., 2) crop px.
        target: (..., 2) crop px, NaN where missing.
        kind: "l2" (squared distance, px^2) or "smooth" (Huber's, quadratic below 1 px).

    Returns:
        A scalar; 0 where no landmark is present.

    Source: coarse-to-fine, Fig. 4 (L2).
    """
    present = torch.isfinite(target).all(-1)
    difference = (predicted.float() - torch.where(present[..., None], target, predicted.detach())).abs()
    if kind == "l2":
        each = difference**2
    elif kind == "smooth":
        each = torch.where(difference < _SMOOTH, 0.5 * difference**2 / _SMOOTH, difference - 0.5 * _SMOOTH)
    else:
        raise InputError(f"landmark_loss: kind: expected one of {', '.join(get_args(LandmarkLoss))}, given {kind!r}")
    return (each.sum(-1) * present).sum() / present.sum().clamp_min(1)
