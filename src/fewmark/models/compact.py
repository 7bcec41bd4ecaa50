"""Compact: a U-shaped heatmap network for CPUs.

A residual encoder down to 1/32 of the crop, where one cell sees the whole face, under the decoder of `fewmark.models.u_net`;
the widths give every level equal work, which suits CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as functional
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, conv_norm_relu
from fewmark.models.u_net import UNet


class _Residual(nn.Module):
    """Two 3x3 convolutions with batch norm, plus the input."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.short = (
            nn.Identity()
            if stride == 1 and n_in == n_out
            else nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        )
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.first(x)), inplace=True)
        return functional.relu(self.norm2(self.second(y)) + self.short(x), inplace=True)


class Compact(UNet):
    """A U-shaped heatmap network.

    Args:
        n_maps: Number of heatmaps.
        widths: Channels at strides 2, 4, 8, 16 and 32.
        n_blocks: Residual blocks at strides 4, 8, 16 and 32.
        decoder: Channels of the decoder.
        stride: Stride of the heatmaps, 2 or 4.
        dropout: Rate of channel dropout at the lowest level.

    Raises:
        InputError: The stride is not 2 or 4, there is not one width per level, or a number is out of range.
    """

    def __init__(
        self,
        n_maps: int,
        *,
        widths: Sequence[int] = (32, 64, 96, 160, 224),
        n_blocks: Sequence[int] = (1, 2, 2, 2),
        decoder: int = 96,
        stride: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__("compact", n_maps, stride, dropout)
        for name, values, n in (("widths", widths, 5), ("n_blocks", n_blocks, 4)):
            if len(values) != n:
                raise InputError(f"compact: {name}: expected {n} whole numbers, given {list(values)}")
            for value in values:
                check_counts("compact", **{name: value})
        self.stem = nn.Sequential(*conv_norm_relu(3, widths[0], stride=2))
        levels = []
        for level, n in enumerate(n_blocks):
            n_in, n_out = widths[level], widths[level + 1]
            levels.append(nn.Sequential(_Residual(n_in, n_out, 2), *(_Residual(n_out, n_out) for _ in range(n - 1))))
        self.levels = nn.ModuleList(levels)
        self.add_decoder(widths, decoder)

    def encode(self, images: Tensor) -> list[Tensor]:
        """See `UNet`."""
        features = [self.stem(images)]
        for level in self.levels:
            features.append(level(features[-1]))
        return features
