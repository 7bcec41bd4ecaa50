"""Processes of a run: start them by the settings, act in the first one alone, end them together."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from lightning_fabric import Fabric

from fewmark.core.errors import InputError
from fewmark.training.settings import Config


def launch(config: Config) -> Fabric:
    """Launch lightning-fabric by the settings; under torchrun with as many processes as it started."""
    r = config.run
    accelerator = r.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    precision = r.precision
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "cuda" and torch.cuda.is_bf16_supported() else "32-true"
    if r.threads:
        torch.set_num_threads(r.threads)
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def recipe_for_machine() -> tuple[str, str]:
    """The recipe of a run for which none is given, and the hardware that decides it, in words."""
    return ("strong", "a GPU") if torch.cuda.is_available() else ("laptop", "no GPU")


def leave() -> None:
    """End all processes together: one that exits while another still communicates may abort."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def first_process(fabric: Fabric, act: Callable[[], object]) -> str | None:
    """Call `act` in the first process; return in all of them the message of the InputError that it raised, or None."""
    problem: str | None = None
    if fabric.is_global_zero:
        try:
            act()
        except InputError as error:
            problem = str(error)
    problem = fabric.broadcast(problem)
    return problem
