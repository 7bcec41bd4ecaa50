"""The training loop of every network, on lightning-fabric."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.training.captured_step import CapturedGradients, can_capture

SAVE_EVERY_S = 20.0
"""Seconds between two saved states of a training; a killed run loses at most these and the epoch under way."""


class EpochBatches(Protocol):
    """Batches by epoch; see `fewmark.data.batches.Batches`."""

    def __len__(self) -> int: ...
    def __call__(self, epoch: int) -> Any: ...


@dataclass(frozen=True)
class Epoch:
    """The result of an epoch.

    Attributes:
        index: From 0.
        n_epochs: Number of epochs of the training.
        loss: Mean over the epoch's steps and all processes.
        seconds: Time since `fit` began in this process.
    """

    index: int
    n_epochs: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class FitState:
    """The result of a training.

    Attributes:
        losses: One per epoch.
        n_steps: Number of optimizer steps.
    """

    losses: tuple[float, ...]
    n_steps: int


def cosine(warm_up: float = 0.02, final: float = 0.01) -> Callable[[float], float]:
    """Learning rate factor over progress in [0, 1]: a linear warm-up, then half a cosine down to `final`."""

    def factor(progress: float) -> float:
        if progress < warm_up:
            return (progress + 1e-3) / (warm_up + 1e-3)
        t = (progress - warm_up) / (1 - warm_up)
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, t)))

    return factor


def milestones(epochs: Sequence[int], n_epochs: int, decay: float) -> Callable[[float], float]:
    """Learning rate factor over progress: times `decay` at each of the epochs. Source: TS3, section 4.2."""

    def factor(progress: float) -> float:
        return decay ** sum(progress * n_epochs >= e - 1e-9 for e in epochs)

    return factor


def make_adamw(module: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW whose weight decay leaves out biases and norms."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in module.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in module.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def fit(
    step: Callable[[nn.Module, Any], dict[str, Tensor]],
    batches: EpochBatches,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    fabric: Fabric,
    n_epochs: int,
    learning_rate: Callable[[float], float],
    seed: int,
    clip_norm: float = 0.0,
    to_tensors: Callable[[Any], Sequence[Tensor]] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    state_path: Path | None = None,
) -> FitState:
    """Train a network.

    The same code runs on one CPU, on GPUs and, started by torchrun, on N machines, as `fabric` is set up. The result is a
    function of the arguments alone, so a killed run continues from `state_path` and ends with the same weights (on CPU, to
    the bit).

    Args:
        step: (module, batch) -> {"loss": scalar, ...}; the module is the one set up by fabric, the batch what `to_tensors` makes of it.
        batches: Epoch -> batches of this process.
        module: The network, changed in place.
        optimizer: Optimizer over the module's parameters; its learning rates are those at factor 1.
        fabric: Launched lightning-fabric.
        n_epochs: Number of epochs.
        learning_rate: Factor over progress in [0, 1].
        seed: Seed of the torch generator (dropout), by epoch.
        clip_norm: Largest norm of the gradient; 0 disables clipping.
        to_tensors: Batch -> tensors on the device, all that the step takes from it. Where it is given, steps on one GPU are captured, see
            `fewmark.training.captured_step`.
        on_epoch: Called after every epoch.
        state_path: File of the state while the training runs; the caller removes it afterwards.

    Raises:
        InputError: The loss is not finite (the learning rate is too high), or the state belongs to another training.
    """
    base = [float(group["lr"]) for group in optimizer.param_groups]
    first, losses = 0, []
    if state_path is not None and state_path.is_file():
        state = torch.load(state_path, map_location="cpu", weights_only=True)
        if state["n_epochs"] != n_epochs or state["n_batches"] != len(batches) or state["seed"] != seed:
            raise InputError(f"{state_path}: a state of another training; use the same settings or an empty folder")
        first, losses = int(state["epoch"]), [float(v) for v in state["losses"]]
    wrapped, wrapped_optimizer = fabric.setup(module, optimizer)
    if first:  # after the setup, so that the optimizer's state is on the parameters' device
        try:
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{state_path}: the state of another network; use an empty folder") from error
    began = saved = time.monotonic()
    n_batches = len(batches)
    captured = None
    if to_tensors is not None and can_capture(fabric):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        captured = CapturedGradients(lambda *t: step(wrapped, t)["loss"], fabric.backward, parameters)
    for epoch in range(first, n_epochs):
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, fabric.global_rank]).generate_state(1)[0]))
        wrapped.train()
        total, n = torch.zeros((), device=fabric.device), 0
        for index, batch in enumerate(batches(epoch)):
            factor = learning_rate((epoch + index / n_batches) / n_epochs)
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate * factor
            given = batch if to_tensors is None else to_tensors(batch)
            if captured is not None:
                loss = captured(given)
            else:
                loss = step(wrapped, given)["loss"]
                fabric.backward(loss)
            if clip_norm:
                fabric.clip_gradients(wrapped, wrapped_optimizer, max_norm=clip_norm, error_if_nonfinite=False)
            wrapped_optimizer.step()
            if captured is None:  # which keeps its gradients where they are
                wrapped_optimizer.zero_grad()
            total += loss.detach()
            n += 1
        mean = float(fabric.all_reduce(total / n, reduce_op="mean"))
        if fabric.world_size > 1:  # each process has its own batch norm statistics; keep the first one's
            for buffer in module.buffers():
                torch.distributed.broadcast(buffer, 0)
        if not math.isfinite(mean):
            raise InputError(
                f"training: the loss is {mean} in epoch {epoch + 1} of {n_epochs}; lower the learning rate"
            )
        losses.append(mean)
        now = time.monotonic()
        if state_path is not None and fabric.is_global_zero and epoch + 1 < n_epochs and now - saved > SAVE_EVERY_S:
            _save(state_path, module, optimizer, epoch + 1, n_epochs, n_batches, seed, losses)
            saved = now
        if on_epoch is not None:
            on_epoch(Epoch(epoch, n_epochs, mean, now - began))
    module.eval()
    return FitState(tuple(losses), n_epochs * n_batches)


def _save(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    n_epochs: int,
    n_batches: int,
    seed: int,
    losses: list[float],
) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        "n_epochs": n_epochs,
        "n_batches": n_batches,
        "seed": seed,
        "losses": losses,
    }
    buffer = io.BytesIO()  # and then a file: a full disk is an OSError, of which `atomic_path` makes one line
    torch.save(state, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
