"""Train the teacher: it sees faces with the students' heatmaps and learns how good these are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule, apply_augmentation, draw_augmentation
from fewmark.data.crops import CachedFace
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import Ensemble, to_tensor
from fewmark.training.fit import FitState, cosine, fit

TeacherSource = Literal["labelled", "out-of-fold", "validation"]


@dataclass(frozen=True)
class TeacherPlan:
    """How a teacher is made and trained; a new one from scratch at every call.

    Attributes:
        source: the faces on whose predictions it learns: "labelled" (the paper's: the students have seen
            them), "out-of-fold" (predictions by students that were trained without the face) or "validation"
            (faces of their own).
        target: "heatmap" (Eq. 4: the squared error of the maps) or "landmark" (the mean distance, crop px).
        standardise: the target is the z-score of its logarithm; the ranking stays, the scale no longer
            depends on the round.
        n_copies: augmented copies of each face; their predictions are made once a call.
        width, norm, peaks, shrink: of the network, see `models.teacher`. With peaks it sees the maps of components, not of landmarks.
        n_steps, batch_size, learning_rate: Adam, a cosine.
    """

    source: TeacherSource = "out-of-fold"
    target: Literal["heatmap", "landmark"] = "landmark"
    standardise: bool = True
    n_copies: int = 16
    width: int = 16
    norm: str = "batch"
    peaks: bool = True
    shrink: int = 1
    n_steps: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3

    def arguments(self, scheme: LandmarkScheme) -> dict[str, Any]:
        """What `models.teacher.Teacher` is made with for a scheme."""
        k = scheme.n_landmarks
        groups = None
        if self.peaks:
            groups = [list(range(k)), *(list(c) for c in scheme.components.values() if c)]
        given = {"n_maps": k, "width": self.width, "norm": self.norm, "groups": groups, "peaks": self.peaks}
        return given if self.shrink == 1 else {**given, "shrink": self.shrink}

    def build(self, scheme: LandmarkScheme, seed: int) -> nn.Module:
        """The teacher's network with fresh weights, a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_model("teacher", **self.arguments(scheme))
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, eq=False)
class ScoredPredictions:
    """Predictions on faces whose truth is known.

    Attributes:
        images: (N, size, size, 3) uint8 crops.
        heatmaps: (N, K, h, w) float16, the averaged ones on the teacher's scale.
        targets: (N,) the true quality: the negative loss, or the negative z-score of its logarithm.
    """

    images: NDArray[np.uint8]
    heatmaps: NDArray[np.float16]
    targets: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Examples:
    images: NDArray[np.uint8]
    heatmaps: NDArray[np.float16]
    targets: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _ExampleBatches:
    data: ScoredPredictions
    batch_size: int
    n_batches: int
    seed: int

    def __len__(self) -> int:
        return self.n_batches

    def __call__(self, epoch: int) -> Iterator[_Examples]:
        rng = np.random.default_rng([self.seed, epoch, 2])
        order = np.resize(rng.permutation(len(self.data.targets)), self.n_batches * self.batch_size)
        for rows in order.reshape(self.n_batches, self.batch_size):
            yield _Examples(self.data.images[rows], self.data.heatmaps[rows], self.data.targets[rows])


@torch.inference_mode()
def score_predictions(
    students: Sequence[nn.Module],
    codecs: Sequence[HeatmapCodec],
    faces: Sequence[CachedFace],
    plan: TeacherPlan,
    *,
    scheme: LandmarkScheme,
    size: int,
    augment: AugmentRule,
    seed: int,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
) -> ScoredPredictions:
    """Predict augmented copies of labelled faces by Eq. 5 and measure how wrong the predictions are.

    The first copy of a face is the upright crop itself. Faces without a known landmark are left out.

    Source: TS3, Algorithm 1, lines 7-8; the target of Eq. 4 before standardisation.
    """
    ensemble = Ensemble(students, codecs, scheme.mirror).to(device).eval()
    codec = ensemble.codec
    none = AugmentRule(scale=0, rotation=0, shift=0, flip=0, colour=0, erase=0, blur=0)
    faces = [f for f in faces if np.isfinite(f.landmarks).all(1).any()]
    if not faces:
        raise InputError("teacher: expected faces with known landmarks to learn on, given none")
    jobs = [(i, c) for c in range(plan.n_copies) for i in range(len(faces))]
    images, heatmaps, losses = [], [], []
    for start in range(0, len(jobs), batch_size):
        crops = []
        for i, copy in jobs[start : start + batch_size]:
            rng = np.random.default_rng([seed, copy, i, 3])
            drawn = draw_augmentation(augment if copy else none, rng, can_flip=scheme.mirror is not None)
            crops.append(apply_augmentation(faces[i], drawn, size, scheme))
        part = np.stack([c.image for c in crops])
        truth = torch.from_numpy(np.stack([c.landmarks for c in crops])).to(device)
        maps = ensemble(to_tensor(part, device))
        if plan.target == "heatmap":
            ideal, weights = codec.encode(truth, (size, size))
            squared = (codec.heights(maps) - codec.heights(ideal)) ** 2 * weights
            loss = squared.sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(1)
        else:
            points, _ = codec.decode(maps)
            loss = torch.nanmean((points - truth).norm(dim=-1), dim=1)
        images.append(part)
        heatmaps.append(codec.heights(maps).half().cpu().numpy())
        losses.append(loss.cpu().numpy())
    loss_values = np.concatenate(losses).astype(np.float64)
    if plan.standardise:
        logs = np.log(np.maximum(loss_values, 1e-9))
        targets = -(logs - logs.mean()) / max(float(logs.std()), 1e-3)
    else:
        targets = -loss_values
    return ScoredPredictions(np.concatenate(images), np.concatenate(heatmaps), targets.astype(np.float32))


def join_scored(parts: Sequence[ScoredPredictions]) -> ScoredPredictions:
    """Several folds as one; each one's targets were standardised by themselves, so their students compare."""
    return ScoredPredictions(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.heatmaps for p in parts]),
        np.concatenate([p.targets for p in parts]),
    )


def train_teacher(
    plan: TeacherPlan, data: ScoredPredictions, *, scheme: LandmarkScheme, fabric: Fabric, seed: int
) -> tuple[nn.Module, FitState]:
    """A new teacher, trained from scratch to give the true quality by an L1 loss.

    Source: TS3, Eq. 4: |q + ||H - H*||^2|. Differs: q is the mean of the PatchGAN's map; see `TeacherPlan`
    for the target.
    """
    module = plan.build(scheme, seed)

    def step(network: nn.Module, batch: _Examples) -> dict[str, Tensor]:
        maps = torch.from_numpy(batch.heatmaps).to(fabric.device).float()
        quality = network(to_tensor(batch.images, fabric.device), maps).mean((1, 2, 3))
        return {"loss": (quality - torch.from_numpy(batch.targets).to(fabric.device)).abs().mean()}

    n_batches = 25
    state = fit(
        step,  # type: ignore[arg-type]
        _ExampleBatches(data, plan.batch_size, n_batches, seed),
        module,
        torch.optim.Adam(module.parameters(), lr=plan.learning_rate),
        fabric=fabric,
        n_epochs=max(1, plan.n_steps // n_batches),
        learning_rate=cosine(),
        seed=seed,
        clip_norm=5.0,
    )
    return module, state
