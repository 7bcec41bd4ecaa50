"""A stage's network with what is needed to build it again, and its run over many crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.models.build import build_model, count_multiply_adds, count_parameters
from fewmark.models.ensemble import to_tensor

CHUNK = 64
"""Crops per call of a network."""


@dataclass(frozen=True, eq=False)
class NetworkPart:
    """One network.

    Attributes:
        architecture: Name for `build_model`.
        arguments: Arguments of its constructor, plain data.
        module: The network, in evaluation mode when a stage runs it.
    """

    architecture: str
    arguments: Mapping[str, Any]
    module: nn.Module = field(repr=False)

    @classmethod
    def make(cls, architecture: str, arguments: Mapping[str, Any], seed: int = 0) -> NetworkPart:
        """Build a network with new weights, a function of the seed; channels last in memory."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_model(architecture, **arguments)
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(architecture, dict(arguments), module.eval())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the weights."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.arguments.items()}
        return {"architecture": self.architecture, "arguments": plain}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkPart:
        """The network with new weights; load a state dict into `module`."""
        return cls.make(str(data["architecture"]), dict(data["arguments"]))

    def __call__(self, crops: NDArray[np.uint8], method: str = "__call__") -> NDArray[np.float64]:
        """Run the network, or another of its methods that takes images: (N, H, W, 3) uint8 -> (N, ...)."""
        device, run = next(self.module.parameters()).device, getattr(self.module, method)
        return run_in_chunks(lambda part: run(to_tensor(part, device)), crops).double().cpu().numpy()


def run_in_chunks(run: Callable[[NDArray[np.uint8]], Tensor], crops: NDArray[np.uint8]) -> Tensor:
    """Run a network without gradients, `CHUNK` faces at a time; the first axis of `crops` counts the faces."""
    with torch.inference_mode():
        return torch.cat([run(crops[i : i + CHUNK]).float() for i in range(0, len(crops), CHUNK)])


def sizes_of(modules: Mapping[str, nn.Module], size: int) -> dict[str, int]:
    """Cost of a stage's networks together: multiply-adds per face, and parameters."""
    return {
        "n_multiply_adds": sum(count_multiply_adds(m, size) for m in modules.values()),
        "n_parameters": sum(count_parameters(m) for m in modules.values()),
    }
