"""Captured gradients: the same training as without, or none at all. A stand-in records and runs, where CUDA would replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fewmark.training import fit as fitting
from fewmark.training.captured_step import WARM_UP, CapturedGradients, can_capture
from fewmark.training.fit import cosine, fit

torch.set_num_threads(1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1))


def batches(n: int, rows: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    xs = [torch.randn(rows, 6, generator=generator) for _ in range(n)]
    return [(x, x.sum(1, keepdim=True)) for x in xs]


class Recorder:
    """A capture that runs the function again at each replay; it knows how often."""

    def __init__(self, spoil: float = 0.0, fail: bool = False) -> None:
        self.n_captures = self.n_replays = 0
        self.spoil, self.fail = spoil, fail

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        self.n_captures += 1
        if self.fail:
            raise RuntimeError("operation not permitted when stream is capturing")

        def replay() -> None:
            self.n_replays += 1
            run()

        return replay


def learn(capture: Recorder | None, data: list[tuple[Tensor, Tensor]]) -> tuple[list[float], list[Tensor], Any]:
    module = network()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)

    def compute(x: Tensor, y: Tensor) -> Tensor:
        loss = (module(x) - y).square().mean()
        wrong = capture is not None and capture.spoil and capture.n_captures
        return loss * (1 + capture.spoil) if wrong and capture is not None else loss

    step = CapturedGradients(compute, lambda loss: loss.backward(), list(module.parameters()), capture or Recorder())
    losses = []
    for x, y in data:
        if capture is None:
            optimizer.zero_grad()
            loss = compute(x, y)
            loss.backward()
        else:
            loss = step([x, y])
        losses.append(float(loss.detach()))
        optimizer.step()
    return losses, [p.detach() for p in module.parameters()], step


def test_a_captured_training_is_the_same_training() -> None:
    data, recorder = batches(12), Recorder()
    expected, weights, _ = learn(None, data)
    losses, found, step = learn(recorder, data)
    assert losses == expected
    assert all(torch.equal(a, b) for a, b in zip(found, weights, strict=True))
    assert step.captured is True
    assert recorder.n_captures == 1
    assert recorder.n_replays == 12 - WARM_UP  # one of them was the proof, and the step that it proved ran without


def test_a_batch_of_another_shape_goes_without_the_graph() -> None:
    data = [*batches(6), *batches(1, rows=3), *batches(3)]
    recorder = Recorder()
    expected, weights, _ = learn(None, data)
    losses, found, _ = learn(recorder, data)
    assert losses == expected
    assert all(torch.equal(a, b) for a, b in zip(found, weights, strict=True))
    assert recorder.n_replays == 10 - WARM_UP - 1


@pytest.mark.parametrize("recorder", [Recorder(fail=True), Recorder(spoil=0.5)], ids=["cannot", "is wrong"])
def test_what_cannot_be_captured_or_is_wrong_is_not_used(recorder: Recorder) -> None:
    data = batches(8)
    losses, _, step = learn(recorder, data)
    assert step.captured is False
    assert recorder.n_captures == 1
    assert recorder.n_replays <= 1
    if recorder.fail:
        assert losses == learn(None, data)[0]


def test_frozen_parameters_get_no_gradient() -> None:
    module = network()
    module[0].requires_grad_(False)
    step = CapturedGradients(
        lambda x: module(x).mean(), lambda loss: loss.backward(), list(module.parameters()), Recorder()
    )
    for _ in range(WARM_UP + 3):
        step([torch.ones(2, 6)])
    assert module[0].weight.grad is None
    assert module[3].bias.grad.tolist() == [1.0]  # not added up over steps


def test_a_cpu_is_not_captured() -> None:
    assert not can_capture(Fabric(accelerator="cpu", devices=1))


@dataclass(frozen=True)
class Few:
    def __len__(self) -> int:
        return 4

    def __call__(self, epoch: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(4):
            yield torch.randn(4, 6, generator=generator)


@pytest.mark.parametrize("captures", [False, True])
def test_fit_by_captured_gradients_ends_the_same(captures: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()

    class OnCpu(CapturedGradients):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, recorder)

    monkeypatch.setattr(fitting, "CapturedGradients", OnCpu)
    monkeypatch.setattr(fitting, "can_capture", lambda fabric: captures)

    def train(to_tensors: Any) -> tuple[nn.Module, Any]:
        module = network()
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
        state = fit(
            lambda m, t: {"loss": (m(t[0]) - t[0].sum(1, keepdim=True)).square().mean()},
            Few(),
            module,
            optimizer,
            fabric=Fabric(accelerator="cpu", devices=1),
            n_epochs=3,
            learning_rate=cosine(),
            seed=1,
            clip_norm=1.0,
            to_tensors=to_tensors,
        )
        return module, state

    found, state = train(lambda batch: (batch,))
    assert bool(recorder.n_replays) is captures
    monkeypatch.setattr(fitting, "can_capture", lambda fabric: False)
    expected, plain = train(lambda batch: (batch,))
    assert state == plain
    assert all(
        torch.equal(a, b) for a, b in zip(found.state_dict().values(), expected.state_dict().values(), strict=True)
    )
