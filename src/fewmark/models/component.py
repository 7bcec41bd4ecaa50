"""Component: one facial component's landmarks from a crop aligned to the mean face; a straight VGG-style network.

Source: coarse-to-fine, section 3.2 ("straight-through VGG style network", normal 3x3 convolutions, 100 M FLOPs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, conv_norm_relu

PAPER_SIZE = 64
"""Crop px at which the paper-size network has its 100 M multiply-adds."""


class Component(nn.Module):
    """(B, 3, H, W) -> (B, n_landmarks, 2): offset of each landmark from its position in the mean face, crop px.

    An untrained network predicts nearly 0, i.e. the mean component.

    Args:
        n_landmarks: Landmarks of the component.
        widths: Channels at strides 1, 2, 4, ... (2, 4, 8, ... with `first_stride` 2), with max pooling in between; the
            defaults are the paper's size.
        n_convs: 3x3 convolutions at each stride.
        first_stride: Stride of the first convolution, 1 or 2.
        grid: Cells per side to which the last features are averaged before the fully connected layer.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        n_landmarks: int,
        *,
        widths: Sequence[int] = (24, 48, 96, 112),
        n_convs: Sequence[int] = (2, 2, 2, 2),
        first_stride: int = 1,
        grid: int = 4,
    ) -> None:
        super().__init__()
        check_counts("component", n_landmarks=n_landmarks, grid=grid)
        if not widths or len(n_convs) != len(widths):
            raise InputError(
                "component: widths and n_convs: expected one number of convolutions for each width, "
                f"given {list(widths)} and {list(n_convs)}"
            )
        for width, n in zip(widths, n_convs, strict=True):
            check_counts("component", widths=width, n_convs=n)
        if first_stride not in (1, 2):
            raise InputError(f"component: first_stride: expected 1 or 2, given {first_stride!r}")
        self.n_landmarks = n_landmarks
        layers: list[nn.Module] = []
        n_in = 3
        for level, (width, n) in enumerate(zip(widths, n_convs, strict=True)):
            if level:
                layers.append(nn.MaxPool2d(2))
            for i in range(n):
                layers += conv_norm_relu(n_in, width, stride=first_stride if level == i == 0 else 1)
                n_in = width
        self.trunk = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.points = nn.Linear(n_in * grid * grid, 2 * n_landmarks)
        nn.init.normal_(self.points.weight, std=0.1 / math.sqrt(self.points.in_features))
        nn.init.zeros_(self.points.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, K, 2) crop px."""
        parts: Tensor = (
            self.points(self.pool(self.trunk(images)).flatten(1)).float().unflatten(1, (self.n_landmarks, 2))
        )
        size = torch.tensor([images.shape[-1], images.shape[-2]], dtype=parts.dtype, device=parts.device)
        return parts * size
