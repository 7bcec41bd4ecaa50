"""Networks by name and arguments, as recipes and checkpoints give them, and their cost."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.point import Point
from fewmark.models.teacher import Teacher

MODELS = {
    "angle": "Angle",
    "coarse": "Coarse",
    "compact": "Compact",
    "component": "Component",
    "convolutional_pose_machine": "ConvolutionalPoseMachine",
    "mobilenet_v2": "MobileNetV2",
    "point": "Point",
    "stacked_hourglass": "StackedHourglass",
    "teacher": "Teacher",
}
"""The file of each network in this package -> its class."""


def build_model(name: str, **arguments: Any) -> nn.Module:
    """Build a network with random weights from torch's default generator.

    Args:
        name: Key of `MODELS`.
        arguments: Arguments of its constructor.

    Raises:
        InputError: The network or an argument does not exist, or a value is out of range.

    >>> build_model("stacked_hourglass", n_maps=5, n_features=32, n_stacks=2).stride
    4
    """
    if name not in MODELS:
        raise InputError(f"model {name!r}: expected one of {', '.join(MODELS)}")
    network = getattr(import_module(f"fewmark.models.{name}"), MODELS[name])
    parameters = inspect.signature(network).parameters
    for argument in arguments:
        if argument not in parameters:
            raise InputError(f"{name}: no argument {argument!r}; expected some of {', '.join(parameters)}")
    for argument, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and argument not in arguments:
            raise InputError(f"{name}: argument {argument!r} is missing")
    model = network(**arguments)
    assert isinstance(model, nn.Module)
    return model


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], part: str) -> nn.Module:
    """Load one part of a model file into its network, and switch it to evaluation mode.

    Args:
        tensors: Tensors of the whole file; those of the part begin with its name and a dot.

    Raises:
        InputError: A tensor is missing, has another shape, or does not belong to the network.
    """
    own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
    wanted = {n: tuple(t.shape) for n, t in module.state_dict().items()}
    given = {n: tuple(t.shape) for n, t in own.items()}
    wrong = sorted(n for n in wanted.keys() | given.keys() if wanted.get(n) != given.get(n))
    if wrong:
        n = wrong[0]
        raise InputError(
            f"tensor {part}.{n}: expected {wanted.get(n, 'none')}, given {given.get(n, 'none')} "
            f"({len(wrong)} of {len(wanted)} tensors do not fit); the file does not hold the network it names"
        )
    module.load_state_dict(own)
    return module.eval()


def count_parameters(module: nn.Module) -> int:
    """Number of learned parameters."""
    return sum(p.numel() for p in module.parameters())


def count_multiply_adds(module: nn.Module, size: int | tuple[int, int]) -> int:
    """Multiply-adds of the forward pass of one image; a bias counts one per output, a norm nothing.

    Args:
        module: Network, not changed. A teacher gets heatmaps of a quarter of the size, the point networks get the patches
            of one face (the count is that of all points).
        size: (H, W) px, or one number for a square.

    Source: this rule gives the 1720.98 M and 1600.85 M that TS3 prints in section 4.2.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):
            total += inputs[0][0].numel() * math.prod(layer.weight.shape[1:])
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            total += output[0].numel() * math.prod(layer.weight.shape[1:])
        if isinstance(layer.bias, Tensor):
            total += output[0].numel()

    counted = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    _run_hooked(module, size, counted, count)
    return total


def count_outputs(module: nn.Module, size: int | tuple[int, int]) -> int:
    """Values that the layers of a network write in the forward pass of one image, see `count_multiply_adds`.

    >>> count_outputs(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), 10)
    800
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output[0].numel()

    _run_hooked(module, size, [m for m in module.modules() if not list(m.children())], count)
    return total


def _run_hooked(
    module: nn.Module,
    size: int | tuple[int, int],
    layers: Sequence[nn.Module],
    hook: Callable[[nn.Module, tuple[Tensor, ...], Tensor], None],
) -> None:
    """Run a network on one empty image, with a hook on layers of it."""
    height, width = (size, size) if isinstance(size, int) else size
    device = next(module.parameters()).device
    inputs = [torch.zeros(1, 3, height, width, device=device)]
    if isinstance(module, Point):
        inputs = [module.example_inputs(height, width)]
    if isinstance(module, Teacher):
        inputs.append(torch.zeros(1, module.n_maps, max(1, height // 4), max(1, width // 4), device=device))
    hooks = [m.register_forward_hook(hook) for m in layers]
    was_training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
        for m in was_training:
            m.training = True
