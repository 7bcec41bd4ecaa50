"""Resumable trainings: NAME.safetensors holds a training that has ended, NAME.state one under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.training.events import Event
from fewmark.training.fit import Epoch, EpochBatches, fit

SEED_PURPOSES: dict[str, tuple[int, ...]] = {
    "weights": (),
    "training": (1,),
    "teacher data": (2,),
    "teacher": (3,),
    "quality data": (3,),
    "quality training": (4,),
    "fold weights": (6,),
    "fold training": (7,),
    "synthetic weights": (8,),
    "synthetic training": (9,),
    "converted weights": (10,),
    "converted training": (11,),
    "last training": (12,),
    "mean teacher": (13,),
}
"""Purpose of a derived seed -> the integers that stand for it. A run that was stopped by an earlier version goes on with the
same seeds, so the integers never change. The quality teacher of a distillation shares some with the rounds, which it has none of."""


def cpu_fabric() -> Fabric:
    """One CPU process in full precision."""
    return Fabric(accelerator="cpu", devices=1)


def ignore(event: Event) -> None:
    """Report nothing."""


@dataclass(frozen=True, eq=False)
class RunContext:
    """What all trainings of a run share.

    Attributes:
        fabric: Launched lightning-fabric; default one CPU process in full precision.
        folder: Folder of weights and states, or None: nothing is kept.
        seed: Seed of the run, from which all others are derived.
        emit: Receives every event.
    """

    fabric: Fabric = field(default_factory=cpu_fabric)
    folder: Path | None = None
    seed: int = 0
    emit: Callable[[Event], None] = ignore

    def derive_seed(self, purpose: str, round_index: int = 0, student: int = 0, fold: int | None = None) -> int:
        """The seed for one purpose, see `SEED_PURPOSES`; a function of the run's seed and the arguments."""
        place = (round_index, student, *(() if fold is None else (fold,)), *SEED_PURPOSES[purpose])
        return int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])

    def file(self, name: str) -> Path | None:
        """A file in the folder, or None without one."""
        return None if self.folder is None else self.folder / name

    def has_ended(self, name: str) -> bool:
        """Whether the weights of this training are kept."""
        path = self.file(f"{name}.safetensors")
        return path is not None and path.is_file()

    def load(self, name: str, module: nn.Module) -> bool:
        """Load the weights of a training that has ended; False if it has not.

        Raises:
            InputError: The weights are those of another network.
        """
        path = self.file(f"{name}.safetensors")
        if path is None or not path.is_file():
            return False
        try:
            module.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise InputError(f"{path}: the weights of another network; use an empty folder") from error
        module.eval()
        return True

    def save(self, name: str, module: nn.Module) -> None:
        """Keep the weights of a training that has ended, and remove its state."""
        path, state = self.file(f"{name}.safetensors"), self.file(f"{name}.state")
        if path is not None and state is not None and self.fabric.is_global_zero:
            with atomic_path(path) as temporary:
                # bytes, and then a file: a full disk is an OSError, of which `atomic_path` makes one line
                temporary.write_bytes(save({k: v.contiguous() for k, v in module.state_dict().items()}))
            state.unlink(missing_ok=True)
        self.fabric.barrier()


class FaceBatches(EpochBatches, Protocol):
    """Batches by epoch, over so many faces."""

    @property
    def n_faces(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Training:
    """One training of one network.

    Attributes:
        name: Name in files and events.
        labels: Further entries of its events: the student or stage, the round.
        step: (module, what `to_tensors` makes of a batch) -> scalar loss.
        batches: Batches of this process.
        optimizer: Module -> optimizer over its parameters.
        n_epochs: Passes over the batches.
        learning_rate: Factor of the optimizer's rates over progress in [0, 1].
        seed: Seed of the torch generator (dropout).
        clip_norm: Largest norm of the gradient; 0 disables clipping.
        to_tensors: Batch -> tensors on the device, or None: the step takes the batch; see `fit`.
        validate: (module, epoch) -> validation NME, or None where it is not measured.
    """

    name: str
    labels: Mapping[str, object]
    step: Callable[[nn.Module, Any], Tensor]
    batches: FaceBatches
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    n_epochs: int
    learning_rate: Callable[[float], float]
    seed: int
    clip_norm: float = 0.0
    to_tensors: Callable[[Any], Sequence[Tensor]] | None = None
    validate: Callable[[nn.Module, Epoch], float | None] = lambda module, epoch: None


def run_training(context: RunContext, training: Training, module: nn.Module) -> None:
    """Train a network in place, from its state if it was stopped; or load its weights if it has ended.

    Raises:
        InputError: The loss is not finite, or the kept files belong to another training.
    """
    if context.load(training.name, module):
        return
    named: Event = {"name": training.name, **training.labels}
    context.emit({"kind": "training", **named, "n_faces": training.batches.n_faces})

    def report(epoch: Epoch) -> None:
        event: Event = {
            "kind": "epoch",
            **named,
            "epoch": epoch.index + 1,
            "n_epochs": epoch.n_epochs,
            "loss": epoch.loss,
            "seconds": epoch.seconds,
        }
        nme = training.validate(module, epoch)
        if nme is not None:
            event["val_nme"] = nme
        context.emit(event)

    fit(
        lambda network, batch: {"loss": training.step(network, batch)},
        training.batches,
        module,
        training.optimizer(module),
        fabric=context.fabric,
        n_epochs=training.n_epochs,
        learning_rate=training.learning_rate,
        seed=training.seed,
        clip_norm=training.clip_norm,
        to_tensors=training.to_tensors,
        on_epoch=report,
        state_path=context.file(f"{training.name}.state"),
    )
    context.save(training.name, module)
