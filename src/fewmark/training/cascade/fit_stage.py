"""How every stage's network is trained: a schedule, and the project's one loop with files to go on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.models.losses import LandmarkLoss
from fewmark.training.cascade.batches import CropBatch, CropBatches, CutCrop
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.fit import Epoch, cosine, fit


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        n_epochs: passes over the faces.
        batch_size: of all processes together.
        learning_rate: of AdamW at its highest; warmed up, then half a cosine.
        weight_decay: of the weights, not of biases and norms.
        clip_norm: of the gradient; 0 = none.
        loss: see `landmark_loss`; the paper's is "l2".
    """

    n_epochs: int
    batch_size: int = 32
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


@dataclass(frozen=True, eq=False)
class Run:
    """What the trainings of all stages share.

    Attributes:
        fabric: launched; None = one CPU process in full precision.
        seed: of weights, shuffling and augmentation.
        folder: where trainings are kept: NAME.safetensors once one has ended, NAME.state while it runs; None = nowhere.
        n_threads: that cut crops.
        synthetic: synthetic faces with the mean face of the real ones, on which every network is trained first; None = random weights.
        synthetic_length: faces seen in that training relative to the one that follows.
        on_begin: told the training's name when it begins or goes on, not where it has ended before.
        on_epoch: told the training's name and its epoch.
    """

    fabric: Fabric | None = None
    seed: int = 0
    folder: Path | None = None
    n_threads: int = 1
    synthetic: TrainingFaces | None = None
    synthetic_length: float = 1.0
    on_begin: Callable[[str], None] | None = None
    on_epoch: Callable[[str, Epoch], None] | None = None


def train_module(
    name: str,
    module: nn.Module,
    step: Callable[[nn.Module, CropBatch, torch.device], Tensor],
    rows: Callable[[TrainingFaces], CutCrop],
    faces: TrainingFaces,
    schedule: Schedule,
    run: Run,
) -> None:
    """Train a network in place, on synthetic faces first where the run has some, or load it where this training has ended before.

    Args:
        name: of the training, for files and messages; of the one on synthetic faces "synthetic_" and the name.
        step: (module, batch, device) -> loss.
        rows: makes the rows of batches from faces. Drawn ones may be given as well.

    Raises:
        InputError: the loss is not finite, or the kept files belong to another training.
    """
    synthetic = run.synthetic
    if synthetic is not None and not (run.folder is not None and (run.folder / f"{name}.safetensors").is_file()):
        n_epochs = synthetic_epochs(run.synthetic_length, schedule.n_epochs, len(faces), len(synthetic))
        _train(
            f"synthetic_{name}",
            module,
            step,
            rows(synthetic),
            len(synthetic),
            replace(schedule, n_epochs=n_epochs),
            run,
        )
    _train(name, module, step, rows(faces), len(faces), schedule, run)


def _train(
    name: str,
    module: nn.Module,
    step: Callable[[nn.Module, CropBatch, torch.device], Tensor],
    cut: CutCrop,
    n_faces: int,
    schedule: Schedule,
    run: Run,
) -> None:
    fabric = run.fabric or Fabric(accelerator="cpu", devices=1)
    done = None if run.folder is None else run.folder / f"{name}.safetensors"
    state = None if run.folder is None else run.folder / f"{name}.state"
    if done is not None and done.is_file():
        try:
            module.load_state_dict(load_file(done))
        except RuntimeError as error:
            raise InputError(f"{done}: the weights of another network; use an empty folder") from error
        module.eval()
        return
    if run.on_begin is not None:
        run.on_begin(name)
    batches = CropBatches(
        n_faces,
        cut,
        schedule.batch_size,
        run.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        n_threads=run.n_threads,
    )
    on_epoch = run.on_epoch
    fit(
        lambda m, batch: {"loss": step(m, batch, fabric.device)},  # type: ignore[arg-type]
        batches,
        module,
        make_optimizer(module, schedule),
        fabric=fabric,
        n_epochs=schedule.n_epochs,
        learning_rate=cosine(),
        seed=run.seed,
        clip_norm=schedule.clip_norm,
        on_epoch=None if on_epoch is None else lambda epoch: on_epoch(name, epoch),
        state_path=state,
    )
    if done is not None and fabric.is_global_zero:
        done.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(done) as temporary:
            save_file({k: v.contiguous() for k, v in module.state_dict().items()}, temporary)
        if state is not None:
            state.unlink(missing_ok=True)
    fabric.barrier()


def synthetic_epochs(length: float, n_epochs: int, n_faces: int, n_synthetic: int) -> int:
    """Passes over the synthetic faces that show as many faces as `length` times the training that follows."""
    return max(1, round(length * n_epochs * n_faces / n_synthetic))


def make_optimizer(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW; biases and norms do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=True)
