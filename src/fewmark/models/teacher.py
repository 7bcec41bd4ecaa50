"""The teacher of TS3: a network that estimates the quality of heatmaps from a face and them.

Source: TS3, section 3.2 and 4.2, which takes CycleGAN's discriminator: the PatchGAN of Isola et al.,
Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, check_selection, init_xavier

NORMS = ("instance", "group", "batch", "none")
LOWEST_PEAK = 1e-4
"""Floor of the peaks before the logarithm."""
N_GROUPS = 8
"""Groups of the group norm: few, so that the maps of a group keep their relative height."""


class Teacher(nn.Module):
    """(B, 3, H, W) images and (B, n_maps, h, w) heatmaps -> (B, 1, p, q) quality of each patch, 6x6 at 64x64.

    Args:
        n_maps: Heatmaps per face.
        width: Channels of the first layer, a multiple of 8; the next ones have 2, 4 and 8 times as many.
        norm: "instance" (the paper's), "group", "batch" or "none"; the first and the last layer have none.
        n_layers: Number of convolutions of stride 2; two more of stride 1 follow.
        groups: None: every map is a channel (the paper's). Or lists of landmarks: one channel per list, the maximum of their
            maps in each cell; a hundred labelled faces suffice to learn so few channels.
        peaks: Whether the mean logarithm of the maps' peaks is added to every patch, by a learned weight and bias.
        shrink: Whole factor by which the images are averaged down first; 2 takes a quarter of the work.

    Raises:
        InputError: An argument is out of its range.

    Source: TS3, Eq. 3 and 4, section 4.2; 2.834 M parameters with 68 maps and instance norm.
    Differs: `groups`, `peaks` and `shrink`; the paper has one number, the network gives a map, of which `label_quality` is the mean.
        The default is group norm: instance norm divides every channel by its standard deviation, and so removes the height of
        the heatmaps, the plainest sign of a good label.
    """

    def __init__(
        self,
        n_maps: int,
        *,
        width: int = 64,
        norm: str = "group",
        n_layers: int = 3,
        groups: Sequence[Sequence[int]] | None = None,
        peaks: bool = False,
        shrink: int = 1,
    ) -> None:
        super().__init__()
        check_counts("teacher", n_maps=n_maps, width=width, n_layers=n_layers, shrink=shrink)
        check_selection("teacher", "norm", norm, NORMS)
        if width % 8:
            raise InputError(f"teacher: width: expected a multiple of 8, given {width}")
        self.n_maps, self.n_layers, self.shrink = n_maps, n_layers, shrink
        self.groups = None if groups is None else [list(g) for g in groups]
        n_seen = n_maps if groups is None else len(groups)
        layers: list[nn.Module] = [
            nn.Conv2d(3 + n_seen, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        n_in = width
        for i in range(1, n_layers + 1):
            n_out = width * min(2**i, 8)
            stride = 2 if i < n_layers else 1
            bias = norm in ("instance", "none")  # the other norms bring their own
            layers.append(nn.Conv2d(n_in, n_out, 4, stride=stride, padding=1, bias=bias))
            layers += [*_norm(norm, n_out), nn.LeakyReLU(0.2, inplace=True)]
            n_in = n_out
        layers.append(nn.Conv2d(n_in, 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        init_xavier(self)
        self.peaks = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)) if peaks else None
        if self.peaks is not None:  # starts as the peaks alone, which the patches then correct
            last, linear = self.layers[-1], self.peaks[1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            assert isinstance(linear, nn.Linear)
            for parameter in (last.weight, last.bias, linear.bias):
                nn.init.zeros_(parameter)
            nn.init.constant_(linear.weight, 0.5)

    def forward(self, images: Tensor, heatmaps: Tensor) -> Tensor:
        """Estimate the quality of the heatmaps of faces.

        Args:
            images: (B, 3, H, W) normalised, as the students see them.
            heatmaps: (B, n_maps, h, w) on the same crops; resized to H x W.

        Returns:
            (B, 1, p, q) quality, higher is better: it is trained on the labels' negative loss.

        Raises:
            InputError: The images are too small for the network.
        """
        if self.shrink > 1:
            images = functional.avg_pool2d(images, self.shrink)
        size = images.shape[2:]
        least = 3 * 2**self.n_layers
        if min(size) < least:
            raise InputError(
                f"teacher: expected images of at least {least}x{least} px for n_layers={self.n_layers}, "
                f"given {size[1]}x{size[0]}; take larger crops or fewer layers"
            )
        maps = heatmaps
        if self.groups is not None:
            heatmaps = of_groups(heatmaps, self.groups)
        if heatmaps.shape[2:] != size:
            heatmaps = functional.interpolate(heatmaps, size=size, mode="bilinear", align_corners=False)
        quality: Tensor = self.layers(torch.cat([images, heatmaps.to(images.dtype)], 1))
        if self.peaks is not None:
            peak = maps.amax((-2, -1)).clamp_min(LOWEST_PEAK).log().mean(1, keepdim=True)
            quality = quality + self.peaks(peak)[..., None, None]
        return quality

    def label_quality(self, images: Tensor, heatmaps: Tensor) -> Tensor:
        """(B,) mean of each face's quality map; arguments as for `forward`."""
        quality: Tensor = self(images, heatmaps)
        return quality.mean((1, 2, 3))


def of_groups(heatmaps: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """The maximum over the maps of each group, (B, K, h, w) -> (B, G, h, w).

    A first group that is the union of the others is taken from theirs, so that no map is read twice.
    """
    first, *rest = groups
    if set(first) != {k for group in rest for k in group}:
        return torch.stack([heatmaps[:, g].amax(1) for g in groups], 1)
    parts = torch.stack([heatmaps[:, g].amax(1) for g in rest], 1)
    return torch.cat([parts.amax(1, keepdim=True), parts], 1)


def _norm(norm: str, channels: int) -> list[nn.Module]:
    if norm == "instance":
        return [nn.InstanceNorm2d(channels)]
    if norm == "group":
        return [nn.GroupNorm(N_GROUPS, channels)]
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []
