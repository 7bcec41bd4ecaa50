"""The teacher of TS3: it learns, on faces with labels, how good the students' heatmaps are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from fewmark.training.semi.students import StudentTrainer, TrainingSet

TeacherSource = Literal["labelled", "out-of-fold", "validation"]

TEACHER_FLIP = 0.5
"""Probability of flips in the teacher's training data, whatever the students' is. Source: TS3, section 4.2."""
N_BATCHES = 25
"""Optimizer steps per epoch of the teacher's training."""
CLIP_NORM = 5.0
"""Largest norm of the gradient in the teacher's training."""


@dataclass(frozen=True)
class TeacherPlan:
    """A teacher: its network and its training, which begins from scratch every time.

    Attributes:
        source: Faces on whose predictions it learns: "labelled" (the paper's: the students have seen them), "out-of-fold"
            (predictions by students that were trained without the face) or "validation" (held-out faces).
        target: "heatmap" (Eq. 4: squared error of the maps) or "landmark" (mean distance, crop px).
        standardise: Whether the target is the z-score of its logarithm: the ranking stays, the scale no longer depends on
            the round.
        n_copies: Augmented copies of each face; their predictions are made once per training.
        width: Channels of the first layer, see `fewmark.models.teacher`; so are the next three.
        norm: Normalisation layer.
        peaks: Whether the network sees one map per component in place of one per landmark, and the peaks' mean is added.
        shrink: Factor by which the images are averaged down.
        n_layers: Number of convolutions of stride 2: a patch sees 70 px with 3 (the paper's, at 64 px), 142 with 4, 286 with 5.
        n_steps: Optimizer steps (Adam, cosine).
        batch_size: Batch size.
        learning_rate: Highest learning rate.
    """

    source: TeacherSource = "out-of-fold"
    target: Literal["heatmap", "landmark"] = "landmark"
    standardise: bool = True
    n_copies: int = 16
    width: int = 16
    norm: str = "batch"
    peaks: bool = True
    shrink: int = 1
    n_layers: int = 3
    n_steps: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3

    def arguments(self, scheme: LandmarkScheme) -> dict[str, Any]:
        """Arguments of `fewmark.models.teacher.Teacher` for a scheme."""
        k = scheme.n_landmarks
        groups = None
        if self.peaks:
            groups = [list(range(k)), *(list(c) for c in scheme.components.values() if c)]
        given = {"n_maps": k, "width": self.width, "norm": self.norm, "groups": groups, "peaks": self.peaks}
        further = {"shrink": (self.shrink, 1), "n_layers": (self.n_layers, 3)}
        return given | {name: value for name, (value, usual) in further.items() if value != usual}

    def build(self, scheme: LandmarkScheme, seed: int) -> nn.Module:
        """The network with new weights, a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_model("teacher", **self.arguments(scheme))
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, eq=False)
class ScoredPredictions:
    """Predictions on faces whose truth is known: the teacher's training data, and a batch of them.

    Attributes:
        images: (N, size, size, 3) uint8 crops.
        heatmaps: (N, K, h, w) float16, averaged, on the teacher's scale.
        targets: (N,) true quality: the negative loss, or the negative z-score of its logarithm.
    """

    images: NDArray[np.uint8]
    heatmaps: NDArray[np.float16]
    targets: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _ScoredBatches:
    data: ScoredPredictions
    batch_size: int
    seed: int

    def __len__(self) -> int:
        return N_BATCHES

    def __call__(self, epoch: int) -> Iterator[ScoredPredictions]:
        rng = np.random.default_rng([self.seed, epoch, 2])
        order = np.resize(rng.permutation(len(self.data.targets)), N_BATCHES * self.batch_size)
        for rows in order.reshape(N_BATCHES, self.batch_size):
            yield ScoredPredictions(self.data.images[rows], self.data.heatmaps[rows], self.data.targets[rows])


@dataclass(frozen=True, eq=False)
class Fold:
    """Labelled faces that are held out, and students trained on the others, to which these are as new as U."""

    students: list[nn.Module]
    faces: list[CachedFace]


def split_folds(n_faces: int, n_folds: int, seed: int) -> list[list[int]]:
    """The indices that each fold holds out, ascending; every face is in one fold.

    >>> split_folds(6, 2, seed=0)
    [[0, 1, 4], [2, 3, 5]]
    """
    order = np.random.default_rng([seed, 5]).permutation(n_faces)
    return [sorted(order[f::n_folds].tolist()) for f in range(n_folds)]


def train_folds(
    trainer: StudentTrainer,
    labelled: Sequence[CachedFace],
    n_folds: int,
    length: float,
    *,
    round_index: int,
    before: Sequence[Fold],
    training_set: Callable[[int, Sequence[CachedFace]], TrainingSet],
) -> list[Fold]:
    """Train all students once per fold, without its faces, on what the students of the round have learned from.

    Args:
        trainer: Trains the students.
        labelled: L.
        n_folds: Number of folds.
        length: Factor on a student's number of epochs.
        round_index: i of Algorithm 1: the round whose teacher they serve.
        before: The folds of the last round, whose students go on; none: from scratch.
        training_set: Index of a student, labelled faces -> these and the student's pseudo labels.
    """
    folds, context = [], trainer.context
    suffix = "" if round_index == 1 else f"_round{round_index}"
    for f, held_out in enumerate(split_folds(len(labelled), n_folds, context.seed)):
        seen = sorted(set(range(len(labelled))) - set(held_out))
        rest = [labelled[i] for i in seen]
        students = []
        for j, plan in enumerate(trainer.plans):
            if before:
                module = before[f].students[j]
            else:
                module = trainer.new_student(j, context.derive_seed("fold weights", round_index - 1, j, f))
            seed = context.derive_seed("fold training", round_index - 1, j, f)
            labels = {"round": round_index - 1, "fold": f}
            data = training_set(j, rest)
            trainer.train(f"fold{f}{suffix}_{plan.name}", j, module, data, seed, labels, length=length)
            students.append(module)
        folds.append(Fold(students, [labelled[i] for i in held_out]))
    return folds


def make_teacher_data(
    trainer: StudentTrainer,
    plan: TeacherPlan,
    students: Sequence[nn.Module],
    labelled: Sequence[CachedFace],
    folds: Sequence[Fold],
    seed: int,
) -> ScoredPredictions:
    """The training data that `plan.source` names: predictions by the students as they are, or by those of each fold.

    Source: TS3, Algorithm 1, lines 7 and 12.
    """

    def score(modules: Sequence[nn.Module], faces: Sequence[CachedFace]) -> ScoredPredictions:
        return score_predictions(
            modules,
            [p.codec for p in trainer.plans],
            faces,
            plan,
            scheme=trainer.scheme,
            size=trainer.size,
            augment=replace(trainer.augment, flip=TEACHER_FLIP),
            seed=seed,
            device=trainer.context.fabric.device,
        )

    if plan.source == "validation" and trainer.validation is not None:
        return score(students, trainer.validation.faces)
    if plan.source == "labelled":
        return score(students, labelled)
    return join_scored([score(fold.students, fold.faces) for fold in folds])


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
    """Predict augmented copies of labelled faces by Eq. 5, and measure the predictions' errors.

    The first copy of a face is the upright crop itself. Faces without a known landmark are left out.

    Args:
        students: Networks.
        codecs: One per student.
        faces: Labelled faces.
        plan: Number of copies and kind of target.
        scheme: Scheme of the landmarks.
        size: Side of the crops, px.
        augment: Ranges of the augmentation.
        seed: Seed of the augmentation.
        device: Device of the networks.
        batch_size: Crops per forward pass.

    Raises:
        InputError: No face has a known landmark.

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
            squared = (codec.peak_normalised(maps) - codec.peak_normalised(ideal)) ** 2 * weights
            loss = squared.sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(1)
        else:
            points, _ = codec.decode(maps)
            loss = torch.nanmean((points - truth).norm(dim=-1), dim=1)
        images.append(part)
        heatmaps.append(codec.peak_normalised(maps).half().cpu().numpy())
        losses.append(loss.cpu().numpy())
    loss_values = np.concatenate(losses).astype(np.float64)
    if plan.standardise:
        logs = np.log(np.maximum(loss_values, 1e-9))
        targets = -(logs - logs.mean()) / max(float(logs.std()), 1e-3)
    else:
        targets = -loss_values
    return ScoredPredictions(np.concatenate(images), np.concatenate(heatmaps), targets.astype(np.float32))


def join_scored(parts: Sequence[ScoredPredictions]) -> ScoredPredictions:
    """Several folds as one; the targets of each were standardised alone, so that folds of unlike students compare."""
    return ScoredPredictions(
        np.concatenate([p.images for p in parts]),
        np.concatenate([p.heatmaps for p in parts]),
        np.concatenate([p.targets for p in parts]),
    )


def train_teacher(
    plan: TeacherPlan, data: ScoredPredictions, *, scheme: LandmarkScheme, fabric: Fabric, seed: int
) -> tuple[nn.Module, FitState]:
    """Train a new teacher from scratch to predict the true quality by an L1 loss.

    Source: TS3, Eq. 4: |q + ||H - H*||^2|.
    Differs: q is the mean of the PatchGAN's map; see `TeacherPlan` for the target.
    """
    module = plan.build(scheme, seed)

    def step(network: nn.Module, batch: ScoredPredictions) -> dict[str, Tensor]:
        maps = torch.from_numpy(batch.heatmaps).to(fabric.device).float()
        quality = network(to_tensor(batch.images, fabric.device), maps).mean((1, 2, 3))
        return {"loss": (quality - torch.from_numpy(batch.targets).to(fabric.device)).abs().mean()}

    state = fit(
        step,
        _ScoredBatches(data, plan.batch_size, seed),
        module,
        torch.optim.Adam(module.parameters(), lr=plan.learning_rate),
        fabric=fabric,
        n_epochs=max(1, plan.n_steps // N_BATCHES),
        learning_rate=cosine(),
        seed=seed,
        clip_norm=CLIP_NORM,
    )
    return module, state
