"""Training of one network of a cascade stage: a schedule, and the synthetic faces that may come first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.batches import Batch, Batches, MakeRow
from fewmark.models.losses import LandmarkLoss
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.fit import cosine, make_adamw
from fewmark.training.runner import RunContext, Training, run_training

STAGE_EPOCHS = {"angle": 160, "coarse": 90, "component": 50, "point": 30}
"""Epochs of each stage's trainings."""
BATCH_SIZE = 32


@dataclass(frozen=True)
class Schedule:
    """Length and rate of a training.

    Attributes:
        n_epochs: Passes over the faces.
        batch_size: Batch size over all processes.
        learning_rate: Highest learning rate of AdamW: a warm-up, then half a cosine.
        weight_decay: Weight decay, none on biases and norms.
        clip_norm: Largest norm of the gradient; 0 disables clipping.
        loss: See `landmark_loss`; the paper's is "l2".

    Raises:
        InputError: A number is out of its range.
    """

    n_epochs: int
    batch_size: int = BATCH_SIZE
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    clip_norm: float = 0.0
    loss: LandmarkLoss = "smooth"

    def __post_init__(self) -> None:
        if self.n_epochs < 1 or self.batch_size < 1 or not self.learning_rate > 0:
            raise InputError(
                "Schedule: expected n_epochs and batch_size of at least 1 and a learning_rate above 0, "
                f"given {self.n_epochs}, {self.batch_size} and {self.learning_rate}"
            )

    @classmethod
    def of_stage(cls, stage: str) -> Schedule:
        """The default schedule of a stage."""
        return cls(n_epochs=STAGE_EPOCHS[stage])


@dataclass(frozen=True, eq=False)
class SyntheticFaces:
    """Synthetic faces on which every network is trained before it sees a label.

    Attributes:
        faces: With the mean face of the real ones.
        length: Faces seen in that training relative to the one that follows.
    """

    faces: TrainingFaces
    length: float = 1.0


def train_network(
    name: str,
    stage: str,
    module: nn.Module,
    step: Callable[[nn.Module, Batch, torch.device], Tensor],
    rows: Callable[[TrainingFaces], MakeRow],
    faces: TrainingFaces,
    schedule: Schedule,
    context: RunContext,
    synthetic: SyntheticFaces | None = None,
    seed: int | None = None,
) -> None:
    """Train a network in place, on synthetic faces first if there are some; or load its weights if this training has ended.

    Args:
        name: Name of the training in files and events; the one on synthetic faces is "synthetic_" and this name.
        stage: Name of the stage.
        module: The network.
        step: (module, batch, device) -> loss.
        rows: Makes the rows of batches from faces, real or synthetic.
        faces: Labelled faces.
        schedule: Length and rate.
        context: What all trainings share.
        synthetic: Synthetic faces, or None: the training begins from the weights that the module has.
        seed: Seed of shuffling and augmentation; None for the context's.

    Raises:
        InputError: The loss is not finite, or the kept files belong to another training.
    """
    seed = context.seed if seed is None else seed

    def train(name: str, faces: TrainingFaces, schedule: Schedule) -> None:
        fabric = context.fabric
        batches = Batches(
            len(faces),
            rows(faces),
            schedule.batch_size,
            seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        training = Training(
            name,
            {"stage": stage},
            lambda network, batch: step(network, batch, fabric.device),
            batches,
            lambda network: make_adamw(network, schedule.learning_rate, schedule.weight_decay),
            n_epochs=schedule.n_epochs,
            learning_rate=cosine(),
            seed=seed,
            clip_norm=schedule.clip_norm,
        )
        run_training(context, training, module)

    if synthetic is not None and not context.has_ended(name):
        n_epochs = synthetic_epochs(synthetic.length, schedule.n_epochs, len(faces), len(synthetic.faces))
        train(f"synthetic_{name}", synthetic.faces, replace(schedule, n_epochs=n_epochs))
    train(name, faces, schedule)


def synthetic_epochs(length: float, n_epochs: int, n_faces: int, n_synthetic: int) -> int:
    """Passes over the synthetic faces that show as many faces as `length` times the training that follows."""
    return max(1, round(length * n_epochs * n_faces / n_synthetic))
