"""The gradient of a training step as one CUDA graph: a small network's step is hundreds of short kernels, and starting them takes longer than they do.

Captured are forward pass, loss and backward pass. The optimizer stays outside, so its rates may change from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

WARM_UP = 3
"""Steps without a graph, in which libraries choose their kernels and allocate their memory."""
TOLERANCE = 0.02
"""Largest relative difference between the loss of a replayed step and that of the same step without a graph: bf16 rounds, a bug does more."""

Compute = Callable[..., Tensor]
"""Tensors of a batch -> scalar loss, with a graph of gradients."""
Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function does on the device, without running it; gives a function that runs the record."""


def can_capture(fabric: Fabric) -> bool:
    """Whether gradients can be captured: one process on a CUDA device, and no scaling of the loss that a step decides about."""
    return bool(fabric.device.type == "cuda" and fabric.world_size == 1 and fabric._precision.precision != "16-mixed")


def capture_on_cuda(run: Callable[[], None]) -> Callable[[], None]:
    """Capture by `torch.cuda.graph`."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], None] = graph.replay
    return replay


class CapturedGradients:
    """Loss and gradients of batches of one shape; after `WARM_UP` batches by a graph, unless that fails or is wrong.

    Gradients are kept in the same memory from step to step: do not set them to None between two calls.

    Args:
        compute: See `Compute`. It must not read a value back from the device.
        backward: Loss -> None, adds to the gradients.
        parameters: What gets gradients.
        capture: See `Capture`.

    Attributes:
        captured: True once a graph is used, False once it is known that none will be, None before.
    """

    def __init__(
        self,
        compute: Compute,
        backward: Callable[[Tensor], None],
        parameters: Sequence[Tensor],
        capture: Capture = capture_on_cuda,
    ) -> None:
        self._compute, self._backward, self._capture = compute, backward, capture
        self._parameters = [p for p in parameters if p.requires_grad]
        self._n_steps = 0
        self._inputs: list[Tensor] = []
        self._loss: Tensor | None = None
        self._replay: Callable[[], None] | None = None
        self.captured: bool | None = None

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        """The loss of a batch, detached; the gradients are left with the parameters."""
        if self._replay is not None and self._fits(inputs):
            for kept, given in zip(self._inputs, inputs, strict=True):
                kept.copy_(given)
            self._replay()
            assert self._loss is not None
            return self._loss.detach().clone()
        self._n_steps += 1
        if self.captured is None and self._n_steps > WARM_UP:
            self._try_to_capture(inputs)
        return self._eager(inputs)

    def _eager(self, inputs: Sequence[Tensor]) -> Tensor:
        self._zero()
        loss = self._compute(*inputs)
        self._backward(loss)
        return loss.detach()

    def _try_to_capture(self, inputs: Sequence[Tensor]) -> None:
        """Capture a step, and believe it if it says what the step without a graph says."""
        expected = float(self._eager(inputs))
        self._inputs = [t.clone() for t in inputs]

        def run() -> None:
            self._zero()
            loss = self._compute(*self._inputs)
            self._backward(loss)
            self._loss = loss.detach()

        try:
            replay = self._capture(run)
            replay()
        except RuntimeError:  # an operation that cannot be captured
            self.captured = False
            return
        assert self._loss is not None
        self.captured = abs(float(self._loss) - expected) <= TOLERANCE * abs(expected)
        self._replay = replay if self.captured else None

    def _fits(self, inputs: Sequence[Tensor]) -> bool:
        return [t.shape for t in inputs] == [t.shape for t in self._inputs]

    def _zero(self) -> None:
        """Set the gradients to zero in place; the first time, there are none."""
        grads = [p.grad for p in self._parameters if p.grad is not None]
        if grads:
            torch._foreach_zero_(grads)
