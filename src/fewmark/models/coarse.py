"""Coarse: all landmarks of an upright face from one small crop, by light residual modules.

Source: coarse-to-fine, section 3.1 and Fig. 3 and 4 (1x1 convolution, 3x3 channel-wise convolution, 1x1 convolution and a
skip connection, after Xception and ResNeXt; a fully connected layer at the end).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.codec import HeatmapCodec
from fewmark.models.layers import check_counts, check_selection, conv_norm_relu

PAPER_SIZE = 112
"""Crop px at which the paper-size network has its 500 M multiply-adds."""
_STEM_STRIDE = 2


class _Module(nn.Module):
    """Base module of the paper: 1x1, 3x3 channel-wise, 1x1, plus the input.

    Batch norm after every convolution; ReLU after the first 1x1 and after the sum, none around the 3x3; at stride 2
    the input passes a 1x1 convolution of stride 2. Source: coarse-to-fine, Fig. 3; the norms and ReLUs, which
    the paper leaves open, as Xception found them best.
    """

    def __init__(self, n_in: int, n_out: int, stride: int, group_width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.spatial = nn.Conv2d(n_out, n_out, 3, stride, 1, groups=n_out // group_width, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.expand = nn.Conv2d(n_out, n_out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(n_out)
        self.short = (
            nn.Identity()
            if stride == 1 and n_in == n_out
            else nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        )
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.reduce(x)), inplace=True)
        y = self.norm3(self.expand(self.norm2(self.spatial(y))))
        return functional.relu(y + self.short(x), inplace=True)


class Coarse(nn.Module):
    """(B, 3, H, W) -> (B, n_landmarks, 2) crop px.

    Args:
        n_landmarks: K.
        widths: Channels at strides 2 (the stem), 4, 8, 16, ...; the defaults are the paper's size.
        n_modules: Base modules at each stride from 4, the first of stride 2.
        group_width: Channels per group of the 3x3 convolution: 1 is channel-wise (Xception), more is ResNeXt.
        head: "coordinates" (one fully connected layer, as in the paper) or "heatmaps" (a light decoder up to stride 4 and
            the mean of each map as a distribution).
        grid: For "coordinates": cells per side to which the last features are averaged.
        decoder: For "heatmaps": channels of the decoder.
        sigma: For "heatmaps": standard deviation of the ideal map in training, crop px.

    Raises:
        InputError: An argument is out of range.

    Differs: the heatmap head is not the paper's. A fully connected layer learns each landmark's position separately in
        every cell, and overfits with a thousand labelled faces.
    """

    def __init__(
        self,
        n_landmarks: int,
        *,
        widths: Sequence[int] = (64, 160, 320, 512),
        n_modules: Sequence[int] = (3, 4, 5),
        group_width: int = 1,
        head: str = "coordinates",
        grid: int = 7,
        decoder: int = 64,
        sigma: float = 3.0,
    ) -> None:
        super().__init__()
        check_counts("coarse", n_landmarks=n_landmarks, group_width=group_width, grid=grid, decoder=decoder)
        check_selection("coarse", "head", head, ("coordinates", "heatmaps"))
        if len(widths) < 2 or len(n_modules) != len(widths) - 1:
            raise InputError(
                "coarse: widths and n_modules: expected at least 2 widths and a number of modules for each but the first, "
                f"given {list(widths)} and {list(n_modules)}"
            )
        for width, n in zip(widths, (1, *n_modules), strict=True):
            check_counts("coarse", widths=width, n_modules=n)
        wrong = [w for w in widths[1:] if w % group_width]
        if wrong:
            raise InputError(f"coarse: widths: expected multiples of group_width {group_width}, given {wrong[0]}")
        self.n_landmarks, self.head = n_landmarks, head
        self.stem = nn.Sequential(*conv_norm_relu(3, widths[0], stride=_STEM_STRIDE))
        self.levels = nn.ModuleList()
        for n_in, n_out, n in zip(widths, widths[1:], n_modules, strict=False):
            rest = [_Module(n_out, n_out, 1, group_width) for _ in range(n - 1)]
            self.levels.append(nn.Sequential(_Module(n_in, n_out, 2, group_width), *rest))
        self.codec = HeatmapCodec(stride=2 * _STEM_STRIDE, sigma=sigma, logits=True, decoding="soft-argmax")
        if head == "coordinates":
            self.pool = nn.AdaptiveAvgPool2d(grid)
            self.points = nn.Linear(widths[-1] * grid * grid, 2 * n_landmarks)
            nn.init.normal_(self.points.weight, std=0.1 / math.sqrt(self.points.in_features))
            nn.init.zeros_(self.points.bias)
        else:
            self.bottom = nn.Conv2d(widths[-1], decoder, 1)
            self.lateral = nn.ModuleList(nn.Conv2d(n, decoder, 1) for n in widths[1:-1])
            self.merge = nn.ModuleList(nn.Sequential(*conv_norm_relu(decoder, decoder)) for _ in widths[1:-1])
            self.maps = nn.Conv2d(decoder, n_landmarks, 1)

    def start_from(self, landmarks: Tensor) -> None:
        """Make the untrained network predict these landmarks, so that it learns the differences between faces.

        Args:
            landmarks: (K, 2) mean face in the crop, fractions of its size from its centre. No effect on heatmaps, which start flat.
        """
        if self.head == "coordinates":
            with torch.no_grad():
                self.points.bias.copy_(landmarks.flatten())

    def logits(self, images: Tensor) -> Tensor:
        """ "heatmaps": (B, 3, H, W) -> (B, K, H / 4, W / 4), a distribution over the cells before its softmax; H and W
        multiples of the last level's stride."""
        features = [self.stem(images)]
        for level in self.levels:
            features.append(level(features[-1]))
        x = self.bottom(features[-1])
        for skip, lateral, merge in zip(features[-2:0:-1], reversed(self.lateral), reversed(self.merge), strict=True):
            x = merge(functional.interpolate(x, size=skip.shape[-2:], mode="nearest") + lateral(skip))
        maps: Tensor = self.maps(x)
        return maps

    def scored(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, K, 3): crop px and a score as `HeatmapCodec.decode` gives it; NaN from a head of
        coordinates, which has none."""
        if self.head == "heatmaps":
            points, scores = self.codec.decode(self.codec.normalise(self.logits(images)))
            return torch.cat([points, scores[..., None]], -1)
        points = self(images)
        return torch.cat([points, torch.full_like(points[..., :1], torch.nan)], -1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, K, 2) crop px."""
        if self.head == "heatmaps":
            return self.codec.expectation(self.codec.normalise(self.logits(images)))
        x = self.stem(images)
        for level in self.levels:
            x = level(x)
        parts: Tensor = self.points(self.pool(x).flatten(1)).float().unflatten(1, (self.n_landmarks, 2))
        size = torch.tensor([images.shape[-1], images.shape[-2]], dtype=parts.dtype, device=parts.device)
        return parts * size + (size - 1) / 2
