"""Stacked hourglass, the second student of TS3.

Source: Newell, Yang and Deng, Stacked Hourglass Networks, ECCV 2016; TS3, section 3.2 and 4.2. At 64x64 with
68 maps it has the 24.97 M parameters and 1600.85 M multiply-adds that TS3 prints.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, check_selection


class Residual(nn.Module):
    """Pre-activation bottleneck; the shortcut is a 1x1 convolution if the number of channels changes.

    Source: Newell et al., section 3; He et al., Identity Mappings in Deep Residual Networks, ECCV 2016.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        half = n_out // 2
        self.branch = nn.Sequential(
            nn.BatchNorm2d(n_in), nn.ReLU(), nn.Conv2d(n_in, half, 1),
            nn.BatchNorm2d(half), nn.ReLU(inplace=True), nn.Conv2d(half, half, 3, padding=1),
            nn.BatchNorm2d(half), nn.ReLU(inplace=True), nn.Conv2d(half, n_out, 1),
        )  # fmt: skip
        self.shortcut = (
            nn.Identity()
            if n_in == n_out
            else nn.Sequential(nn.BatchNorm2d(n_in), nn.ReLU(), nn.Conv2d(n_in, n_out, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.branch(x) + self.shortcut(x)
        return total


def residuals(n_modules: int, n_features: int) -> nn.Sequential:
    """Sequence of `n_modules` residuals."""
    return nn.Sequential(*(Residual(n_features, n_features) for _ in range(n_modules)))


class Hourglass(nn.Module):
    """Halve `depth` times and go up again, with residuals and a skip connection on every level.

    An odd side is rounded up when halved, so any size works.
    """

    def __init__(self, depth: int, n_modules: int, n_features: int) -> None:
        super().__init__()
        self.skip = residuals(n_modules, n_features)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.down = residuals(n_modules, n_features)
        self.inner: nn.Module = (
            Hourglass(depth - 1, n_modules, n_features) if depth > 1 else residuals(n_modules, n_features)
        )
        self.up = residuals(n_modules, n_features)

    def forward(self, x: Tensor) -> Tensor:
        skip: Tensor = self.skip(x)
        low = self.up(self.inner(self.down(self.pool(x))))
        return skip + functional.interpolate(low, size=skip.shape[2:], mode="nearest")


class StackedHourglass(nn.Module):
    """(B, 3, H, W) -> (B, n_maps, H / stride, W / stride) for each stack; the last is the best.

    Args:
        n_maps: Number of landmarks, plus one for a background map.
        n_stacks: Number of hourglasses in sequence.
        n_modules: Residuals on every level.
        depth: Number of times an hourglass halves its maps.
        n_features: Channels, a multiple of 8.
        stride: Image px per heatmap cell, 4 or 2 (without the pooling of the stem).

    Raises:
        InputError: An argument is out of range.

    Source: Newell et al., section 3; TS3, section 4.2.
    """

    def __init__(
        self,
        n_maps: int,
        *,
        n_stacks: int = 4,
        n_modules: int = 2,
        depth: int = 4,
        n_features: int = 256,
        stride: int = 4,
    ) -> None:
        super().__init__()
        name = "stacked_hourglass"
        check_counts(name, n_maps=n_maps, n_stacks=n_stacks, n_modules=n_modules, depth=depth, n_features=n_features)
        check_selection(name, "stride", stride, (2, 4))
        if n_features % 8:
            raise InputError(f"{name}: n_features: expected a multiple of 8, given {n_features}")
        self.n_maps, self.stride = n_maps, stride
        quarter, half = n_features // 4, n_features // 2
        pool: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if stride == 4 else []
        self.stem = nn.Sequential(
            nn.Conv2d(3, quarter, 7, stride=2, padding=3),
            nn.BatchNorm2d(quarter),
            nn.ReLU(inplace=True),
            Residual(quarter, half),
            *pool,
            Residual(half, half),
            Residual(half, n_features),
        )
        self.hourglasses = nn.ModuleList(
            nn.Sequential(
                Hourglass(depth, n_modules, n_features),
                residuals(n_modules, n_features),
                nn.Conv2d(n_features, n_features, 1),
                nn.BatchNorm2d(n_features),
                nn.ReLU(inplace=True),
            )
            for _ in range(n_stacks)
        )
        self.outputs = nn.ModuleList(nn.Conv2d(n_features, n_maps, 1) for _ in range(n_stacks))
        self.features_back = nn.ModuleList(nn.Conv2d(n_features, n_features, 1) for _ in range(n_stacks - 1))
        self.maps_back = nn.ModuleList(nn.Conv2d(n_maps, n_features, 1) for _ in range(n_stacks - 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, H, W) normalised, H and W multiples of the stride."""
        x: Tensor = self.stem(images)
        maps: list[Tensor] = []
        for i, (hourglass, output) in enumerate(zip(self.hourglasses, self.outputs, strict=True)):
            features = hourglass(x)
            maps.append(output(features))
            if i < len(self.features_back):
                x = x + self.features_back[i](features) + self.maps_back[i](maps[-1])
        return maps
