"""Convolutional pose machine on VGG-16's trunk, the first student of TS3.

Source: Wei et al., Convolutional Pose Machines, CVPR 2016; TS3, section 3.2 and 4.2. At 64x64 with 68 maps it
has the 16.70 M parameters and 1720.98 M multiply-adds that TS3 prints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, check_selection, conv_relu, init_he, init_normal, scaled_channels

PAPER_STD = 0.01
"""Standard deviation of the initial weights (TS3's authors; the trunk then came from ImageNet)."""
TRUNK = ((64, 2), (128, 2), (256, 3), (512, 3))
"""VGG-16 up to conv4_3: channels and number of 3x3 convolutions of each block."""


class ConvolutionalPoseMachine(nn.Module):
    """(B, 3, H, W) -> (B, n_maps, H / stride, W / stride) for each network stage; the last is the best.

    Every stage after the first gets the features of the trunk and the maps of the previous stage, through 7x7
    convolutions. At width 1 and stride 8 without batch norm, the trunk's layers are numbered as in
    torchvision's VGG-16, so that `trunk.load_state_dict` takes its ImageNet weights.

    Args:
        n_maps: Number of landmarks, plus one for a background map.
        n_stages: Number of network stages.
        width: Factor on all channels but `n_maps`, each rounded to a multiple of 8.
        batch_norm: Whether all convolutions but the outputs have batch norm and He initial weights.
        stride: Image px per heatmap cell, 8 or 4 (without the third pooling).

    Raises:
        InputError: An argument is out of range.

    Source: TS3, Eq. 1 and 2; `batch_norm=False` has the paper's initial weights, N(0, 0.01) and bias 0.
    Differs: the paper's trunk starts from ImageNet weights. None are packaged here, and from N(0, 0.01) the
        signal shrinks by half or more in every layer (untrained maps are about 1e-12); `batch_norm=True`
        trains from scratch.
    """

    def __init__(
        self,
        n_maps: int,
        *,
        n_stages: int = 3,
        width: float = 1.0,
        batch_norm: bool = False,
        stride: int = 8,
    ) -> None:
        super().__init__()
        name = "convolutional_pose_machine"
        check_counts(name, n_maps=n_maps, n_stages=n_stages)
        check_selection(name, "stride", stride, (4, 8))
        if not 0 < width <= 4:
            raise InputError(f"{name}: width: expected a factor above 0 and at most 4, given {width!r}")
        self.n_maps, self.stride = n_maps, stride
        layers: list[nn.Module] = []
        n_in = 3
        for block, (channels, n_convs) in enumerate(TRUNK):
            n_out = scaled_channels(channels, width)
            for _ in range(n_convs):
                layers += conv_relu(n_in, n_out, 3, batch_norm=batch_norm)
                n_in = n_out
            if block < (3 if stride == 8 else 2):
                layers.append(nn.MaxPool2d(2))
        self.trunk = nn.Sequential(*layers)
        n_mid, n_features, n_wide = (scaled_channels(c, width) for c in (256, 128, 512))
        self.reduce = nn.Sequential(
            *conv_relu(n_in, n_mid, 3, batch_norm=batch_norm),
            *conv_relu(n_mid, n_features, 3, batch_norm=batch_norm),
        )
        shapes = [([3] * 4, n_features, n_wide)]
        shapes += [([7] * 3 + [3] * 4, n_features + n_maps, n_features)] * (n_stages - 1)
        self.stages = nn.ModuleList()
        for kernels, n_in, n_last in shapes:
            layers = []
            for kernel in kernels:
                layers += conv_relu(n_in, n_features, kernel, batch_norm=batch_norm)
                n_in = n_features
            layers += conv_relu(n_features, n_last, 1, batch_norm=batch_norm)
            layers.append(nn.Conv2d(n_last, n_maps, 1))
            self.stages.append(nn.Sequential(*layers))
        if batch_norm:
            init_he(self)
            for stage in self.stages:
                assert isinstance(stage, nn.Sequential)
                init_normal(stage[-1], PAPER_STD)  # maps start near 0, like their targets
        else:
            init_normal(self, PAPER_STD)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, H, W) normalised, H and W multiples of the stride."""
        features = self.reduce(self.trunk(images))
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(torch.cat([features, maps[-1]], 1) if maps else features))
        return maps
