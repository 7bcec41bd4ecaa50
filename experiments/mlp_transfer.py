"""MlpTransfer: a small network between two schemes, the alternative that the paper compared with least squares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats
from fewmark.core.procrustes import mean_shape
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.landmarks.transfer import apply_in_frame
from fewmark.landmarks.transfer_fitting import in_frame, usable_pairs
from fewmark.training.fit import cosine, fit


@dataclass(frozen=True, eq=False)
class MlpTransfer:
    """Landmarks of `target` from landmarks of `source`, by a network in the mean-face frame.

    Attributes:
        source: Input scheme.
        target: Output scheme.
        mean_shape: (Ks, 2) mean-face frame, as `SchemeTransfer.mean_shape`.
        network: (N, 2 Ks) offsets from the mean shape -> (N, 2 Kt) offsets from the target's, both over `scale`.
        target_mean_shape: (Kt, 2) mean-face frame.
        scale: Root mean square of the source's offsets, mean-face frame.

    Source: Deep convolutional coarse-to-fine cascade, section 3.4; its size and training are not given there.
    """

    source: LandmarkScheme
    target: LandmarkScheme
    mean_shape: Floats
    network: nn.Module
    target_mean_shape: Floats
    scale: float

    @classmethod
    def fit(
        cls,
        source: LandmarkScheme,
        target: LandmarkScheme,
        source_points: FloatArray,
        target_points: FloatArray,
        *,
        width: int = 128,
        n_steps: int = 2000,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 1.0,
        seed: int = 0,
        fabric: Fabric | None = None,
    ) -> MlpTransfer:
        """Train a network of two hidden layers on faces that are labelled in both schemes, by squared error.

        Pairs with a missing source landmark are left out; a missing target landmark weighs nothing.

        Args:
            source: Scheme of the source points.
            target: Scheme of the target points.
            source_points: (N, Ks, 2) image px, NaN where missing.
            target_points: (N, Kt, 2) image px of the same faces, NaN where missing.
            width: Width of each hidden layer.
            n_steps: Optimizer steps, rounded up to whole passes over the pairs.
            batch_size: Pairs per step.
            learning_rate: Peak learning rate of AdamW; a cosine follows.
            weight_decay: Weight decay of AdamW.
            seed: Seed of the initial weights and of the batches.
            fabric: Device to train on; None: the CPU.

        Raises:
            InputError: See `SchemeTransfer.fit`; a target landmark is missing in every pair; or less than one step.
        """
        if n_steps < 1:
            raise InputError(f"n_steps: expected 1 or more, given {n_steps}")
        pairs = usable_pairs(source, target, source_points, target_points)
        mean = mean_shape(pairs.source, source.mean_face)
        offsets, targets = in_frame(mean, pairs.source, pairs.target)
        there = np.asarray(np.isfinite(targets).all(2))
        if not there.any(0).all():
            name = target.landmarks[int(there.any(0).argmin())]
            raise InputError(
                f"transfer {source.name} -> {target.name}: no pair has the landmark {name}; give one that has"
            )
        target_mean = np.where(there[..., None], targets, 0).sum(0) / there.sum(0)[:, None]
        scale = max(float(np.sqrt((offsets**2).mean())), 1e-6)
        aims = np.where(there[..., None], targets - target_mean, 0).reshape(len(targets), -1) / scale
        batches = PairBatches(
            torch.from_numpy(offsets / scale).float(),
            torch.from_numpy(aims).float(),
            torch.from_numpy(np.repeat(there, 2, axis=1)).float(),
            batch_size,
            seed,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Linear(offsets.shape[1], width),
                nn.GELU(),
                nn.Linear(width, width),
                nn.GELU(),
                nn.Linear(width, aims.shape[1]),
            )
            optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=weight_decay)
            fit(
                _step,
                batches,
                network,
                optimizer,
                fabric=fabric or Fabric(accelerator="cpu", devices=1),
                n_epochs=-(-n_steps // len(batches)),
                learning_rate=cosine(),
                seed=seed,
            )
        return cls(source, target, mean, network, target_mean, scale)

    def apply(self, source_points: FloatArray, *, keep: FloatArray | None = None) -> Floats:
        """The target landmarks of faces; see `SchemeTransfer.apply`."""

        @torch.inference_mode()
        def predict(offsets: Floats) -> Floats:
            given = torch.from_numpy(offsets / self.scale).float().to(next(self.network.parameters()).device)
            answers = self.network(given).cpu().numpy().astype(np.float64) * self.scale
            return np.asarray(answers + self.target_mean_shape.reshape(-1), np.float64)

        return apply_in_frame(self.source, self.target, self.mean_shape, predict, source_points, keep)


@dataclass(frozen=True, eq=False)
class PairBatches:
    """Batches of pairs for `fit`, in an order that depends on the seed and the epoch alone.

    Attributes:
        offsets: (N, 2 Ks).
        aims: (N, 2 Kt).
        weights: (N, 2 Kt) 0 where missing.
        size: Pairs per batch; the last batch of an epoch may be smaller.
        seed: Seed of the order.
    """

    offsets: Tensor
    aims: Tensor
    weights: Tensor
    size: int
    seed: int

    def __len__(self) -> int:
        return -(-len(self.offsets) // self.size)

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        order = torch.from_numpy(np.random.default_rng([self.seed, epoch]).permutation(len(self.offsets)))
        for start in range(0, len(order), self.size):
            part = order[start : start + self.size]
            yield self.offsets[part], self.aims[part], self.weights[part]


def _step(module: nn.Module, batch: Any) -> dict[str, Tensor]:
    device = next(module.parameters()).device
    offsets, aims, weights = (t.to(device) for t in batch)
    error = ((module(offsets) - aims) ** 2 * weights).sum() / weights.sum().clamp_min(1)
    return {"loss": error}
