"""A student as a plan: network, codec, loss and schedule; and its training on labels and pseudo labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.batches import Batch, FaceBatches
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import to_tensor
from fewmark.models.losses import heatmap_loss, integral_loss
from fewmark.training.fit import Epoch, FitState, cosine, fit, milestones
from fewmark.training.semi.training_set import TrainingSet


@dataclass(frozen=True)
class StudentPlan:
    """One student: what it is and how it is trained.

    Attributes:
        name: as it is called in logs and in the model file.
        architecture: of `fewmark.models.build`, with `arguments` (all but n_maps).
        codec: its heatmaps.
        loss: "sum" or "mean" (Eq. 2 as the authors' CPM and hourglass scale it) or "integral" (L1 of the
            map's mean).
        optimizer: "sgd" (momentum 0.9, the authors' factors for biases and stages), "rmsprop" (alpha 0.99)
            or "adamw".
        n_epochs: of one training.
        n_batches: an epoch, or None: one pass over the training set.
        batch_size: of all processes together.
        milestones: epochs at which the rate is multiplied by `decay`; none = a cosine.
        clip_norm: of the gradient, 0 = none.
        map_weight: of the map's term in the integral loss.
    """

    name: str
    architecture: str
    codec: HeatmapCodec
    arguments: Mapping[str, Any] = field(default_factory=dict)
    loss: Literal["sum", "mean", "integral"] = "integral"
    optimizer: Literal["sgd", "rmsprop", "adamw"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    n_epochs: int = 10
    n_batches: int | None = None
    batch_size: int = 16
    milestones: Sequence[int] = ()
    decay: float = 0.5
    clip_norm: float = 0.0
    map_weight: float = 1.0

    def __post_init__(self) -> None:
        if (self.loss == "integral") != self.codec.logits:
            raise InputError(
                f"student {self.name}: loss {self.loss!r} does not fit codec.logits={self.codec.logits}; "
                'expected "integral" with logits, "sum" or "mean" without'
            )

    def build(self, n_landmarks: int, seed: int) -> nn.Module:
        """The network with fresh weights, a function of the seed; channels last in memory."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_model(self.architecture, n_maps=self.codec.n_maps(n_landmarks), **self.arguments)
        if module.stride != self.codec.stride:
            raise InputError(
                f"student {self.name}: codec.stride: expected the network's, {module.stride}, given {self.codec.stride}"
            )
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        if self.optimizer == "rmsprop":
            return torch.optim.RMSprop(
                module.parameters(), lr=self.learning_rate, alpha=0.99, weight_decay=self.weight_decay
            )
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                _sgd_groups(module, self.learning_rate, self.weight_decay),
                lr=self.learning_rate,
                momentum=0.9,
                nesterov=True,
            )
        decayed = [p for p in module.parameters() if p.ndim > 1]
        rest = [p for p in module.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate, fused=True)

    def rate(self, n_epochs: int) -> Callable[[float], float]:
        return milestones(self.milestones, self.n_epochs, self.decay) if self.milestones else cosine()

    def compute_loss(self, outputs: Sequence[Tensor], landmarks: Tensor, weights: Tensor, size: int) -> Tensor:
        """The training loss of a batch; landmarks (B, K, 2) crop px, weights (B, K). Source: TS3, Eq. 2."""
        if self.loss == "integral":
            return integral_loss(
                outputs,
                landmarks,
                self.codec,
                (size, size),
                map_weight=self.map_weight,
                landmark_weights=weights,
            )
        heatmaps, present = self.codec.encode(landmarks, (size, size))
        given = weights[..., None, None]
        if self.codec.background:
            given = torch.cat([given, given.amax(1, keepdim=True)], 1)
        return heatmap_loss(outputs, heatmaps, present * given, reduction=self.loss)


def train_student(
    plan: StudentPlan,
    module: nn.Module,
    data: TrainingSet,
    *,
    scheme: LandmarkScheme,
    size: int,
    augment: AugmentRule,
    fabric: Fabric,
    seed: int,
    length: float = 1.0,
    state_path: Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    n_threads: int = 1,
) -> FitState:
    """Train one student on L or on L and pseudo labels, in place.

    Args:
        length: factor on the number of epochs.

    Source: TS3, Algorithm 1, lines 5, 11 and 16.
    """
    batches = FaceBatches(
        data.faces,
        size,
        scheme,
        augment,
        plan.batch_size,
        seed,
        landmarks=data.landmarks,
        weights=data.weights,
        shares=data.shares,
        n_batches=plan.n_batches,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        n_threads=n_threads,
    )

    def step(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        outputs = network(to_tensor(batch.images, fabric.device))
        landmarks = torch.from_numpy(batch.landmarks).to(fabric.device)
        weights = torch.from_numpy(batch.weights).to(fabric.device)
        return {"loss": plan.compute_loss(outputs, landmarks, weights, size)}

    n_epochs = max(1, round(plan.n_epochs * length))
    return fit(
        step,
        batches,
        module,
        plan.make_optimizer(module),
        fabric=fabric,
        n_epochs=n_epochs,
        learning_rate=plan.rate(n_epochs),
        seed=seed,
        clip_norm=plan.clip_norm,
        on_epoch=on_epoch,
        state_path=state_path,
    )


def _sgd_groups(module: nn.Module, rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """The authors' groups: biases at twice the rate, without decay; all after the trunk at four times.

    Source: reproduction of the authors' published training configuration for CPM.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        factor = (2.0 if parameter.ndim == 1 else 1.0) * (1.0 if name.startswith("trunk") else 4.0)
        groups.setdefault((factor, 0.0 if parameter.ndim == 1 else weight_decay), []).append(parameter)
    return [{"params": p, "lr": rate * factor, "weight_decay": wd} for (factor, wd), p in groups.items()]
