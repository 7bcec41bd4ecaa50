"""Angle: in-plane rotation of a face, as a point on the unit circle.

Source: coarse-to-fine, section 3.1 ("an angle regression network is trained and rotate the face to the vertical
direction"); the paper gives no layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.layers import check_counts, conv_norm_relu


class Angle(nn.Module):
    """A crop -> (cos, sin) of the rotation of the face in it, degrees counter-clockwise.

    The network weighs directions around the circle, and the pair is their mean. So there is no jump at 180 degrees.

    Args:
        widths: Channels at strides 2, 4, 8, ...; each level is one 3x3 convolution of stride 2 and one of stride 1.
        grid: Cells per side to which the last features are averaged before the linear layer.
        n_hidden: Units between the features and the directions.
        n_directions: Directions on the circle.

    Raises:
        InputError: A number is not an integer of at least 1, there is no level, or `n_directions` is not a multiple of 4 of at least 8.

    Source: coarse-to-fine, section 3.1, which leaves the network open. Differs: a distribution over directions learns in
        far fewer steps than the pair itself, as heatmaps do compared with coordinates.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (16, 32, 64, 96),
        grid: int = 3,
        n_hidden: int = 64,
        n_directions: int = 72,
    ) -> None:
        super().__init__()
        if not widths:
            raise InputError("angle: widths: expected at least one number of channels, given none")
        for value in widths:
            check_counts("angle", widths=value)
        check_counts("angle", grid=grid, n_hidden=n_hidden, n_directions=n_directions)
        if n_directions < 8 or n_directions % 4:
            raise InputError(f"angle: n_directions: expected a multiple of 4 from 8, given {n_directions}")
        layers: list[nn.Module] = []
        n_in = 3
        for n_out in widths:
            layers += [*conv_norm_relu(n_in, n_out, stride=2), *conv_norm_relu(n_out, n_out)]
            n_in = n_out
        self.trunk = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(grid)
        self.hidden = nn.Linear(n_in * grid * grid, n_hidden)
        self.head = nn.Linear(n_hidden, n_directions)
        angles = torch.arange(n_directions) * (2 * math.pi / n_directions)
        self.register_buffer("directions", torch.stack([angles.cos(), angles.sin()], 1), persistent=False)

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, n_directions), for the angles 0, 360 / n_directions, ... degrees."""
        x = functional.relu(self.hidden(self.pool(self.trunk(images)).flatten(1)))
        weighed: Tensor = self.head(x)
        return weighed.float()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, 2) of length 1."""
        return self.direction(self.weights(images))

    def weights(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, n_directions), each summing to 1; see `logits`."""
        return torch.softmax(self.logits(images), 1)

    def direction(self, weights: Tensor) -> Tensor:
        """(B, n_directions) -> (B, 2): mean direction within 90 degrees of the most likely one, of length 1."""
        directions = self.directions
        assert isinstance(directions, Tensor)
        near = directions[weights.argmax(1)] @ directions.T > 1e-6
        return functional.normalize((weights * near) @ directions, dim=-1)


def direction_loss(logits: Tensor, pairs: Tensor, directions: Tensor, *, width: float = 6.0) -> Tensor:
    """Cross-entropy with a bell around the true direction.

    Args:
        logits: (B, D).
        pairs: (B, 2) true (cos, sin).
        directions: (D, 2).
        width: Standard deviation of the bell, degrees (von Mises).
    """
    sharpness = 1 / math.radians(width) ** 2
    target = torch.softmax(sharpness * (pairs @ directions.T), 1)
    return -(target * functional.log_softmax(logits, 1)).sum(1).mean()
