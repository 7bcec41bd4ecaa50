"""The light decoder that compact and MobileNetV2 share: it adds finer levels back to a coarse one that sees the whole face.

After U-Net (Ronneberger et al., MICCAI 2015) and SimpleBaseline (Xiao et al., ECCV 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch.nn.functional as functional
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, check_selection, conv_norm_relu

_T = TypeVar("_T")


class UNet(nn.Module):
    """A heatmap network of an encoder, which a subclass builds and runs, and the decoder.

    Args:
        network: Name in error messages.
        n_maps: Number of heatmaps.
        stride: Stride of the heatmaps, 2 or 4.
        dropout: Rate of channel dropout at the lowest level.

    Raises:
        InputError: The stride is not 2 or 4, or a number is out of range.
    """

    def __init__(self, network: str, n_maps: int, stride: int, dropout: float) -> None:
        super().__init__()
        check_selection(network, "stride", stride, (2, 4))
        check_counts(network, n_maps=n_maps)
        if not 0 <= dropout < 1:
            raise InputError(f"{network}: dropout: expected a number from 0 to below 1, given {dropout}")
        self.network, self.stride, self.n_maps = network, stride, n_maps
        self.dropout = nn.Dropout2d(dropout)

    def add_decoder(self, widths: Sequence[int], decoder: int) -> None:
        """Build the decoder, once the encoder is built.

        Args:
            widths: Channels of the encoder at strides 2, 4, 8, 16 and 32.
            decoder: Channels of the decoder.

        Raises:
            InputError: The decoder has no channels.
        """
        check_counts(self.network, decoder=decoder)
        skips = self._skips(widths)
        self.bottom = nn.Conv2d(widths[-1], decoder, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(n, decoder, 1) for n in skips)
        self.merge = nn.ModuleList(nn.Sequential(*conv_norm_relu(decoder, decoder)) for _ in skips)
        self.head = nn.Conv2d(decoder, self.n_maps, 1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> features at strides 2, 4, 8, 16 and 32."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> [(B, n_maps, H / stride, W / stride)]."""
        features = self.encode(images)
        x = self.bottom(self.dropout(features[-1]))
        for skip, lateral, merge in zip(
            reversed(self._skips(features)), reversed(self.lateral), reversed(self.merge), strict=True
        ):
            x = merge(functional.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(skip))
        return [self.head(x)]

    def _skips(self, levels: Sequence[_T]) -> Sequence[_T]:
        """The levels, finest first, that the decoder adds to the lowest."""
        return levels[1:-1] if self.stride == 4 else levels[:-1]
