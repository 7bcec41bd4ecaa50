"""HeatmapCodec: landmarks <-> heatmaps.

The only home of stride, sigma, the half-pixel offset and the background map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as functional
from torch import Tensor

from fewmark.core.errors import InputError

Decoding = Literal["argmax", "quarter", "centroid", "parabola", "soft-argmax"]

_CENTROID_RADIUS = 2  # cells; 4, as in the authors' code, spans most of a 16 x 16 map
_TINY = 1e-12
_MIN_VARIANCE = 1 / 12  # of one cell: the resolution of a map


@dataclass(frozen=True)
class HeatmapCodec:
    """Conversion of K landmarks to K (or K + 1) heatmaps and back.

    Cell i of a heatmap axis is centred at crop px i * stride + (stride - 1) / 2.

    Attributes:
        stride: Crop px per cell.
        sigma: Standard deviation of the Gaussian, crop px.
        background: Whether a last map, 1 - max of the others, is added.
        decoding: "argmax" (the paper's), "quarter" (argmax and a quarter of a cell towards the higher
            neighbour), "centroid" (of the map around its peak), "parabola" (through the logarithm of the peak
            and its neighbours: exact for a Gaussian), "soft-argmax" (the mean of the map as a distribution).
        logits: Whether the network outputs logits of a distribution over cells (softmax) instead of map values; the
            heatmap is then that distribution.

    Source: TS3, section 3.2 (p(y), sigma 3, argmax); Differs: sub-pixel decoding by default, since argmax
    alone has an NME of 5.9 % (stride 4) or 11 % (stride 8) on perfect maps of a 64 px crop.
    """

    stride: int = 4
    sigma: float = 3.0
    background: bool = False
    decoding: Decoding = "parabola"
    logits: bool = False

    def __post_init__(self) -> None:
        if self.stride < 1 or not self.sigma > 0:
            raise InputError(f"HeatmapCodec: expected stride >= 1 and sigma > 0, given {self.stride} and {self.sigma}")
        if self.decoding not in get_args(Decoding):
            expected = ", ".join(get_args(Decoding))
            raise InputError(f"HeatmapCodec.decoding: expected one of {expected}, given {self.decoding!r}")
        if self.logits and self.background:
            raise InputError("HeatmapCodec: a map of logits is a distribution and has no background map")

    def n_maps(self, n_landmarks: int) -> int:
        """Number of maps for this number of landmarks."""
        return n_landmarks + int(self.background)

    def cell_centres(self, n_cells: int, device: torch.device | None = None) -> Tensor:
        """(n_cells,) crop px along one axis."""
        return torch.arange(n_cells, device=device, dtype=torch.float32) * self.stride + (self.stride - 1) / 2

    def encode(self, landmarks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Ideal heatmaps H* = p(y).

        Args:
            landmarks: (B, K, 2) crop px, NaN where not annotated.
            size: crop (H, W), px.

        Returns:
            heatmaps (B, K', h, w) and weights (B, K', 1, 1): 0 for a missing landmark, whose map is empty,
            and 1 for the rest and for the background.
        """
        present = torch.isfinite(landmarks).all(-1)
        gx, gy = self.marginals(torch.where(present[..., None], landmarks, torch.zeros_like(landmarks)), size)
        weights = present.float()[..., None, None]
        heatmaps = gy[..., :, None] * gx[..., None, :] * weights
        if self.logits:
            heatmaps = heatmaps / heatmaps.sum((-2, -1), keepdim=True).clamp_min(_TINY)
        if self.background:
            heatmaps = torch.cat([heatmaps, 1 - heatmaps.amax(1, keepdim=True)], 1)
            weights = torch.cat([weights, torch.ones_like(weights[:, :1])], 1)
        return heatmaps, weights

    def marginals(self, landmarks: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Gaussians along x and y whose product is an ideal map before normalisation.

        Args:
            landmarks: (B, K, 2) crop px, all present.
            size: crop (H, W), px.

        Returns:
            (B, K, w) and (B, K, h), 1 at the landmark.
        """
        h, w = size[0] // self.stride, size[1] // self.stride
        x = self.cell_centres(w, landmarks.device) - landmarks[..., 0:1].float()
        y = self.cell_centres(h, landmarks.device) - landmarks[..., 1:2].float()
        return torch.exp(-(x**2) / (2 * self.sigma**2)), torch.exp(-(y**2) / (2 * self.sigma**2))

    def normalise(self, maps: Tensor) -> Tensor:
        """Convert network output to heatmaps: logits become a distribution over the cells, map values stay.

        Args:
            maps: (B, K', h, w).
        """
        if not self.logits:
            return maps
        return _unflat(torch.softmax(_flat(maps.float()), -1), maps)

    def peak_normalised(self, heatmaps: Tensor) -> Tensor:
        """Scale heatmaps so that an ideal one has a peak of 1, as the teacher gets them.

        Args:
            heatmaps: (B, K, h, w) normalised.
        """
        if not self.logits:
            return heatmaps
        return heatmaps * (2 * torch.pi * self.sigma**2 / self.stride**2)

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Decode normalised heatmaps to landmarks.

        Args:
            heatmaps: (B, K', h, w); a background map is ignored.

        Returns:
            landmarks (B, K, 2) crop px and confidences (B, K): the peak value, or for distributions the mass in 3 x 3 cells of
            a Gaussian of the same variance.
        """
        maps = heatmaps.detach().float() if not heatmaps.requires_grad else heatmaps.float()
        if self.background:
            maps = maps[:, :-1]
        flat = _flat(maps)
        if self.logits:
            mean, variance = self._moments(maps)
            scores = self._concentration(variance)
            if self.decoding == "soft-argmax":
                return mean, scores
        else:
            scores = flat.amax(-1)
            if self.decoding == "soft-argmax":
                return self.expectation(maps), scores
        h, w = _sizes(maps)
        peak, index = flat.max(-1)
        ix, iy = index % w, index // w
        cells = torch.stack([ix, iy], -1).float()
        if self.decoding == "centroid":
            cells = _centroid(maps, ix, iy, _CENTROID_RADIUS)
        elif self.decoding in ("quarter", "parabola"):

            def at(x: Tensor, y: Tensor) -> Tensor:
                return flat.gather(-1, (y.clamp(0, h - 1) * w + x.clamp(0, w - 1))[..., None])[..., 0]

            shift = _quarter if self.decoding == "quarter" else _parabola
            dx = shift(at(ix - 1, iy), peak, at(ix + 1, iy)) * ((ix > 0) & (ix < w - 1))
            dy = shift(at(ix, iy - 1), peak, at(ix, iy + 1)) * ((iy > 0) & (iy < h - 1))
            cells = cells + torch.stack([dx, dy], -1)
        return cells * self.stride + (self.stride - 1) / 2, scores

    def expectation(self, heatmaps: Tensor) -> Tensor:
        """Mean of each map as a distribution over cells, differentiable.

        Args:
            heatmaps: (B, K, h, w); negative values count as 0.

        Returns:
            (B, K, 2) crop px.
        """
        p = heatmaps.clamp_min(0)
        return self._moments(p / p.sum((-2, -1), keepdim=True).clamp_min(_TINY))[0]

    def _moments(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance along x and y of maps that are distributions: (B, K, 2) crop px, (B, K, 2) crop px^2."""
        means, variances = [], []
        for sums in (p.sum(-2), p.sum(-1)):
            n = int(sums.shape[-1])
            middle = (
                n * self.stride - 1
            ) / 2  # origin of the squares: keeps the variance exact to 1e-3 px^2 in float32
            x = self.cell_centres(n, p.device) - middle
            first = sums * x  # no matrix product: autocast would compute it in half precision
            mean = first.sum(-1)
            means.append(mean + middle)
            variances.append((first * x).sum(-1) - mean * mean)
        return torch.stack(means, -1), torch.stack(variances, -1)

    def _concentration(self, variance: Tensor) -> Tensor:
        """Mass (B, K) of Gaussians of this variance (B, K, 2), crop px^2, in the 3 x 3 cells around their mean."""
        deviation = variance.clamp_min(_MIN_VARIANCE * self.stride**2).sqrt()
        return torch.erf(1.5 * self.stride / 2**0.5 / deviation).prod(-1)


def average_heatmaps(heatmaps: Sequence[Tensor]) -> Tensor:
    """Mean of the heatmaps of several students, at the finest of their strides.

    Coarser maps are resized bilinearly, aligned by cell centres.

    Args:
        heatmaps: each (B, K', h_s, w_s), normalised.

    Source: TS3, Eq. 5; Differs: the paper leaves open how an 8 x 8 and a 16 x 16 map are averaged, and what
    happens to stage m = 4, which only one student has. Here the last stages are averaged.
    """
    if len(heatmaps) == 1:
        return heatmaps[0]
    size = max((m.shape[-2:] for m in heatmaps), key=lambda s: s[0])
    total = torch.zeros(())
    for maps in heatmaps:
        if maps.shape[-2:] != size:
            area = maps.shape[-1] * maps.shape[-2] / (size[0] * size[1])
            resized = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
            sums = maps.sum((-2, -1), keepdim=True)
            is_distribution = ((sums - 1).abs() < 1e-3).all()
            maps = torch.where(is_distribution, resized * area, resized)
        total = total + maps
    return total / len(heatmaps)


def _sizes(maps: Tensor) -> tuple[int, int]:
    """(h, w) of maps, as constants in an exported graph too."""
    return int(maps.shape[-2]), int(maps.shape[-1])


def _flat(maps: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, K, h * w)."""
    h, w = _sizes(maps)
    return maps.reshape(-1, int(maps.shape[1]), h * w)


def _unflat(values: Tensor, maps: Tensor) -> Tensor:
    """(B, K, h * w) -> (B, K, h, w), the shape of `maps`."""
    return values.reshape(-1, int(maps.shape[1]), *_sizes(maps))


def _quarter(left: Tensor, peak: Tensor, right: Tensor) -> Tensor:
    return 0.25 * torch.sign(right - left)


def _parabola(left: Tensor, peak: Tensor, right: Tensor) -> Tensor:
    """Vertex of the parabola through three logarithms, within half a cell; exact for a sampled Gaussian."""
    smallest = torch.finfo(peak.dtype).tiny
    a, b, c = (v.clamp_min(smallest).log() for v in (left, peak, right))
    curvature = a + c - 2 * b
    shift = 0.5 * (a - c) / torch.where(curvature < -1e-8, curvature, torch.full_like(curvature, -1e8))
    return shift.clamp(-0.5, 0.5)


def _centroid(maps: Tensor, ix: Tensor, iy: Tensor, radius: int) -> Tensor:
    """Centroid of the positive part within `radius` cells of the peak: (B, K, 2) in cells."""
    h, w = maps.shape[-2:]
    x, y = torch.arange(w, device=maps.device), torch.arange(h, device=maps.device)
    near_x = (x - ix[..., None]).abs() <= radius
    near_y = (y - iy[..., None]).abs() <= radius
    p = maps.clamp_min(0) * near_y[..., :, None] * near_x[..., None, :]
    total = p.sum((-2, -1)).clamp_min(_TINY)
    return torch.stack([(p.sum(-2) * x).sum(-1) / total, (p.sum(-1) * y).sum(-1) / total], -1)
