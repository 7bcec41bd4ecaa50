"""Angle: which way a face is turned in the plane of the picture, as a point on the unit circle.

Source: coarse-to-fine, section 3.1 ("an angle regression network is trained and rotate the face to the vertical
direction"); the paper gives no layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as functional
from torch import Tensor, nn

from fewmark.errors import InputError
from fewmark.models.layers import check_counts, conv_norm_relu


class Angle(nn.Module):
    """A crop -> (cos, sin) of the rotation of the face in it, degrees counter-clockwise.

    A pair on the circle has no jump at 180 degrees, as the angle itself would have: -179 and 179 are neighbours.

    Args:
        widths: channels at strides 2, 4, 8, ...; each level is one 3x3 convolution of stride 2 and one of stride 1.
        grid: cells to each side that the last features are averaged to before the linear layer.
        n_hidden: units between the features and the pair.

    Raises:
        InputError: a number is no whole number of at least 1, or there is no level.
    """

    def __init__(self, *, widths: Sequence[int] = (16, 32, 64, 96), grid: int = 3, n_hidden: int = 64) -> None:
        super().__init__()
        if not widths:
            raise InputError("angle: widths: expected at least one number of channels, given none")
        for value in widths:
            check_counts("angle", widths=value)
        check_counts("angle", grid=grid, n_hidden=n_hidden)
        layers: list[nn.Module] = []
        n_in = 3
        for n_out in widths:
            layers += [*conv_norm_relu(n_in, n_out, stride=2), *conv_norm_relu(n_out, n_out)]
            n_in = n_out
        self.trunk = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.hidden = nn.Linear(n_in * grid * grid, n_hidden)
        self.head = nn.Linear(n_hidden, 2)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, 2) of length 1."""
        x = functional.relu(self.hidden(self.pool(self.trunk(images)).flatten(1)))
        return functional.normalize(self.head(x).float(), dim=-1)
