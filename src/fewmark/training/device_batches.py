"""Batches of augmented crops made on a GPU: the same draws and, to the rounding, the same crops as `fewmark.data.batches` makes.

The windows of all faces lie on the device in one piece. A batch then costs the CPU its draws alone: a small map, a table of colours and
a few numbers per face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmark.core.geometry import Floats, Similarity
from fewmark.data.augment import (
    Augmentation,
    AugmentRule,
    augmented_from_crop,
    blurred_side,
    colour_table,
    draw_augmentation,
    erased_part,
    move_landmarks,
)
from fewmark.data.batches import Batch, Batches
from fewmark.data.crops import FILL, CachedFace
from fewmark.landmarks.scheme import LandmarkScheme

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey image, as in OpenCV (ITU-R BT.601)."""


@dataclass(frozen=True, eq=False)
class DeviceBatch(Batch):
    """A batch whose crops are on the device.

    Attributes:
        images: (B, size, size, 3) uint8, on the device.
    """

    images: Tensor  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class _Level:
    """The windows of all faces, averaged down by one whole number.

    Attributes:
        pixels: (P, 3) uint8 on the device, window after window, row after row.
        first: (N,) where each window begins.
        sizes: (N, 2) height and width.
    """

    pixels: Tensor
    first: Tensor
    sizes: Tensor


class DeviceCrops:
    """Cuts augmented crops of faces on a device.

    Args:
        faces: N cached faces; their windows are copied to the device.
        size: Side of the crops, px.
        scheme: Gives the mirror for flips.
        augment: Ranges of the augmentation.
        device: The device.
    """

    def __init__(
        self,
        faces: Sequence[CachedFace],
        size: int,
        scheme: LandmarkScheme,
        augment: AugmentRule,
        device: torch.device | str,
    ) -> None:
        self.faces, self.size, self.scheme, self.augment, self.device = faces, size, scheme, augment, device
        least = min(f.crop_from_window.scale for f in faces) * (1 - augment.scale)
        self.levels = [self._upload(factor) for factor in range(1, max(1, _factor(least)) + 1)]
        steps = torch.arange(size, dtype=torch.float32, device=device)
        self._y, self._x = torch.meshgrid(steps, steps, indexing="ij")
        self._fill = torch.tensor(FILL, dtype=torch.float32, device=device)

    def _upload(self, factor: int) -> _Level:
        windows = [_averaged(f.window, factor) for f in self.faces]
        sizes = np.array([w.shape[:2] for w in windows])
        first = np.concatenate([[0], np.cumsum(sizes.prod(1))[:-1]])
        pixels = np.concatenate([w.reshape(-1, 3) for w in windows])
        return _Level(*(torch.from_numpy(a).to(self.device) for a in (pixels, first, sizes)))

    def __call__(
        self, indices: NDArray[np.int64], draws: Sequence[Augmentation], landmarks: Sequence[NDArray[np.float32]]
    ) -> tuple[Tensor, NDArray[np.float32]]:
        """Augmented crops (B, size, size, 3) uint8 on the device, and their landmarks (B, K, 2), crop px.

        Args:
            indices: (B,) which faces.
            draws: One augmentation for each.
            landmarks: (K, 2) px of the upright crop, for each.
        """
        maps = [augmented_from_crop(a, self.size, self.scheme) for a in draws]
        targets = [move_landmarks(a, m, p, self.scheme) for a, m, p in zip(draws, maps, landmarks, strict=True)]
        crops_from_window = [m @ self.faces[i].crop_from_window for m, i in zip(maps, indices, strict=True)]
        images = self._warp(indices, crops_from_window)
        images = self._recolour(images, draws)
        images = self._blur(images, draws)
        for row, a in enumerate(draws):
            part = None if a.erase is None else erased_part(a.erase, self.size)
            if part is not None:
                rows, columns, paint = part
                images[row, rows, columns] = torch.from_numpy(paint).to(self.device).float()
        return images.to(torch.uint8), np.stack(targets)

    def _warp(self, indices: NDArray[np.int64], crops_from_window: Sequence[Similarity]) -> Tensor:
        """(B, size, size, 3) float levels, bilinear; each from the windows that `warp_image` would average down to."""
        factors = np.array([max(1, _factor(m.scale)) for m in crops_from_window])
        images = torch.empty((len(indices), self.size, self.size, 3), device=self.device)
        for factor in np.unique(factors):
            rows = np.flatnonzero(factors == factor)
            matrices = np.stack([crops_from_window[r].inverse().matrix for r in rows.tolist()])
            matrices[..., 2] -= (factor - 1) / 2  # centre of the first of the averaged px
            level = self.levels[factor - 1]
            at = torch.from_numpy(matrices / factor).to(self.device, torch.float32)
            images[rows] = self._sample(level, torch.from_numpy(indices[rows]).to(self.device), at)
        return images

    def _sample(self, level: _Level, indices: Tensor, window_from_crop: Tensor) -> Tensor:
        m = window_from_crop[:, :, :, None, None]
        x = m[:, 0, 0] * self._x + m[:, 0, 1] * self._y + m[:, 0, 2]
        y = m[:, 1, 0] * self._x + m[:, 1, 1] * self._y + m[:, 1, 2]
        x0, y0 = x.floor(), y.floor()
        fx, fy = (x - x0)[..., None], (y - y0)[..., None]
        first = level.first[indices][:, None, None]
        height, width = (level.sizes[indices, i][:, None, None] for i in (0, 1))

        def corner(dx: int, dy: int) -> Tensor:
            column, row = x0.long() + dx, y0.long() + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = torch.where(inside, first + row * width + column, first)
            return torch.where(inside[..., None], level.pixels[place].float(), self._fill)

        top = corner(0, 0) * (1 - fx) + corner(1, 0) * fx
        bottom = corner(0, 1) * (1 - fx) + corner(1, 1) * fx
        return (top * (1 - fy) + bottom * fy).round()

    def _recolour(self, images: Tensor, draws: Sequence[Augmentation]) -> Tensor:
        """As `fewmark.data.augment.recolour`."""
        grey = torch.tensor([a.grey for a in draws], device=self.device)[:, None, None, None]
        weights = torch.tensor(GREY, device=self.device)
        images = torch.where(grey, (images * weights).sum(-1, keepdim=True).round(), images)
        tables = torch.from_numpy(np.stack([colour_table(a) for a in draws])).to(self.device).float()
        flat = images.long().reshape(len(draws), -1, 3)
        return tables.gather(1, flat).reshape(images.shape)

    def _blur(self, images: Tensor, draws: Sequence[Augmentation]) -> Tensor:
        """The loss of resolution of `fewmark.data.augment.augment_appearance`."""
        for row, a in enumerate(draws):
            small = blurred_side(a, self.size)
            if small < self.size:
                down, up = (torch.from_numpy(m).to(self.device) for m in _blurring(self.size, small))
                less = torch.einsum("yi,xj,ijc->yxc", down, down, images[row]).round()
                images[row] = torch.einsum("yi,xj,ijc->yxc", up, up, less).round()
        return images


@dataclass(frozen=True, eq=False, kw_only=True)
class DeviceBatches(Batches):
    """`Batches` whose crops are made on the device.

    Attributes:
        crops: Makes them.
        landmarks: (N, K, 2) px of the upright crops.
        weights: (N, K) weights of the landmarks in the loss.
    """

    crops: DeviceCrops
    landmarks: NDArray[np.float32]
    weights: NDArray[np.float32]

    def make(self, indices: NDArray[np.int64], epoch: int, position: int) -> Batch:
        """See `Batches.make`."""
        crops, mirror = self.crops, self.crops.scheme.mirror
        rngs = self.generators(epoch, position, len(indices))
        draws = [draw_augmentation(crops.augment, rng, can_flip=mirror is not None) for rng in rngs]
        images, targets = crops(indices, draws, [self.landmarks[i] for i in indices])
        weights = self.weights[indices]
        if mirror is not None:
            flipped = np.array([a.flip for a in draws])
            weights[flipped] = weights[flipped][:, list(mirror)]
        return DeviceBatch(images, targets, weights, indices)


def _factor(scale: float) -> int:
    """The whole number by which `warp_image` averages an image down before a map of this scale."""
    return int(1 / max(scale, 1e-6) + 1e-6)


def _averaged(window: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    h, w = window.shape[0] // factor, window.shape[1] // factor
    if factor < 2 or h < 1 or w < 1:
        return window
    return np.asarray(cv2.resize(window[: h * factor, : w * factor], (w, h), interpolation=cv2.INTER_AREA), np.uint8)


@lru_cache(maxsize=256)
def _blurring(size: int, small: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """cv2.resize as matrices on one axis: (small, size) by area, and (size, small) back by interpolation."""
    edges = np.arange(small + 1) * size / small
    px = np.arange(size)
    low, high = np.maximum(edges[:-1, None], px), np.minimum(edges[1:, None], px + 1)
    down: Floats = np.clip(high - low, 0, None)
    centre = np.clip((np.arange(size) + 0.5) * small / size - 0.5, 0, small - 1)
    up: Floats = np.clip(1 - np.abs(centre[:, None] - np.arange(small)), 0, None)
    return (down / down.sum(1, keepdims=True)).astype(np.float32), up.astype(np.float32)
