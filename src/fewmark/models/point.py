"""Point: every inner landmark from three patches around it, by its own networks, all in one call.

Source: coarse-to-fine, section 3.3 (patches of the nearest 3, 5 and 7 points, "3 small networks" that predict them, "an
attentional gate" that weighs them; 25 M FLOPs per point).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, conv_norm_relu

PAPER_SIZE = 32
"""Patch px at which the paper-size network has its 25 M multiply-adds a point."""


class _Patch(nn.Module):
    """Networks of one scale, one per point: convolutions grouped by point, so that points do not mix."""

    def __init__(
        self, n_points: int, n_predicted: int, widths: Sequence[int], n_convs: Sequence[int], grid: int
    ) -> None:
        super().__init__()
        self.n_points, self.n_predicted = n_points, n_predicted
        layers: list[nn.Module] = []
        n_in = 3
        for level, (width, n) in enumerate(zip(widths, n_convs, strict=True)):
            if level:
                layers.append(nn.MaxPool2d(2))
            for _ in range(n):
                layers += conv_norm_relu(n_points * n_in, n_points * width, groups=n_points)
                n_in = width
        self.trunk = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.points = nn.Conv2d(n_points * n_in, n_points * 2 * n_predicted, grid, groups=n_points)
        nn.init.normal_(self.points.weight, std=0.1 / (n_in * grid * grid) ** 0.5)
        nn.init.zeros_(self.points.bias)  # type: ignore[arg-type]

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, P * 3, H, W) -> offsets (B, P, n, 2) as fractions of the patch size, features (B, P * C, 1, 1)."""
        x = self.pool(self.trunk(patches))
        offsets = self.points(x).float().view(len(x), self.n_points, self.n_predicted, 2)
        return offsets, x.mean((2, 3), keepdim=True)


class Point(nn.Module):
    """Patches around P points at several scales -> predictions of each scale, and their weights.

    Args:
        n_points: P, the number of inner landmarks; each has its own networks.
        neighbours: Number of landmarks that the patch of each scale covers and predicts, the point itself first.
        widths: Channels at strides 1, 2, 4, ... of one small network, with max pooling in between; the defaults are the paper's size.
        n_convs: 3x3 convolutions at each stride.
        grid: Cells per side to which the last features are averaged.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        n_points: int,
        *,
        neighbours: Sequence[int] = (3, 5, 7),
        widths: Sequence[int] = (16, 32, 48),
        n_convs: Sequence[int] = (2, 2, 2),
        grid: int = 4,
    ) -> None:
        super().__init__()
        check_counts("point", n_points=n_points, grid=grid)
        if not widths or len(n_convs) != len(widths):
            raise InputError(
                "point: widths and n_convs: expected one number of convolutions for each width, "
                f"given {list(widths)} and {list(n_convs)}"
            )
        if not neighbours:
            raise InputError("point: neighbours: expected at least one number of neighbours, given none")
        for width, n in zip(widths, n_convs, strict=True):
            check_counts("point", widths=width, n_convs=n)
        for n in neighbours:
            check_counts("point", neighbours=n)
        self.n_points, self.neighbours = n_points, tuple(neighbours)
        self.scales = nn.ModuleList(_Patch(n_points, n, widths, n_convs, grid) for n in neighbours)
        n_scales = len(neighbours)
        # the features of a point's scales are adjacent: one group of the gate per point
        self.gate = nn.Conv2d(n_points * n_scales * widths[-1], n_points * n_scales, 1, groups=n_points)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)  # type: ignore[arg-type]

    def example_inputs(self, height: int, width: int) -> Tensor:
        """Patches of one face, for counting multiply-adds."""
        device = next(self.parameters()).device
        return torch.zeros(1, len(self.neighbours), self.n_points, 3, height, width, device=device)

    def forward(self, patches: Tensor) -> tuple[list[Tensor], Tensor]:
        """Predict from all patches of all faces.

        Args:
            patches: (B, S, P, 3, H, W) normalised; S scales in the order of `neighbours`.

        Returns:
            For each scale (B, P, n, 2): offsets of the n landmarks from their positions in the mean face, patch px of that
            scale; and the gate (B, P, S), non-negative, summing to 1 over the scales.
        """
        n, _, _, _, height, width = patches.shape
        size = torch.tensor([width, height], dtype=torch.float32, device=patches.device)
        offsets, features = [], []
        for s, scale in enumerate(self.scales):
            images = patches[:, s].flatten(1, 2).contiguous(memory_format=torch.channels_last)
            found, feature = scale(images)
            offsets.append(found * size)
            features.append(feature.view(n, self.n_points, -1))
        gathered = torch.stack(features, 2).reshape(n, -1, 1, 1)
        return offsets, torch.softmax(self.gate(gathered).float().view(n, self.n_points, -1), -1)

    def single(self, index: int) -> Point:
        """Networks of one point alone, with the weights of its group."""
        own = Point.__new__(Point)
        nn.Module.__init__(own)
        own.n_points, own.neighbours = 1, self.neighbours
        own.scales = nn.ModuleList(_single_scale(s, index) for s in self.scales)  # type: ignore[arg-type]
        own.gate = _slice_conv(self.gate, index, self.n_points)
        return own.train(self.training)


def _single_scale(scale: _Patch, index: int) -> _Patch:
    own = _Patch.__new__(_Patch)
    nn.Module.__init__(own)
    own.n_points, own.n_predicted = 1, scale.n_predicted
    layers: list[nn.Module] = []
    for layer in scale.trunk:
        if isinstance(layer, nn.Conv2d):
            layers.append(_slice_conv(layer, index, scale.n_points))
        elif isinstance(layer, nn.BatchNorm2d):
            n = layer.num_features // scale.n_points
            norm = nn.BatchNorm2d(n)
            part = slice(index * n, (index + 1) * n)
            norm.load_state_dict({k: v[part] if v.ndim else v for k, v in layer.state_dict().items()})
            layers.append(norm)
        else:
            layers.append(layer)
    own.trunk = nn.Sequential(*layers)
    own.pool = scale.pool
    own.points = _slice_conv(scale.points, index, scale.n_points)
    return own


def _slice_conv(conv: nn.Conv2d, index: int, n_points: int) -> nn.Conv2d:
    n_in, n_out = conv.in_channels // n_points, conv.out_channels // n_points
    part = slice(index * n_out, (index + 1) * n_out)
    own = nn.Conv2d(n_in, n_out, conv.kernel_size, padding=conv.padding, bias=conv.bias is not None)  # type: ignore[arg-type]
    own.load_state_dict({k: v[part] for k, v in conv.state_dict().items()})
    return own
