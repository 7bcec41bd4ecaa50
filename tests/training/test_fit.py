"""fit: the rates it walks through, runs that are killed and go on, two processes that do the work of one."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.training import fit as fitting
from fewmark.training.fit import Epoch, FitState, cosine, fit, milestones

torch.set_num_threads(1)


def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


@dataclass(frozen=True)
class Noise:
    """Three batches an epoch, drawn from the epoch's number."""

    n: int = 3

    def __len__(self) -> int:
        return self.n

    def __call__(self, epoch: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(self.n):
            yield torch.randn(4, 6, generator=generator)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, alpha=0.99),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
}


def step(module: nn.Module, batch: Any) -> dict[str, Tensor]:
    return {"loss": (module(batch) - batch.sum(1, keepdim=True)).square().mean()}


def train(module: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], **changes: Any) -> FitState:
    arguments: dict[str, Any] = {
        "fabric": fabric(),
        "n_epochs": 5,
        "learning_rate": cosine(),
        "seed": 7,
        "clip_norm": 1.0,
        **changes,
    }
    batches = arguments.pop("batches", Noise())
    return fit(step, batches, module, make_optimizer(module), **arguments)


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_cosine_by_hand() -> None:
    factor = cosine(warm_up=0.02, final=0.01)
    assert factor(0) == pytest.approx(1 / 21)
    assert factor(0.01) == pytest.approx(11 / 21)
    assert factor(0.02) == 1
    assert factor(0.51) == pytest.approx(0.505)
    assert factor(1) == pytest.approx(0.01)
    assert cosine(warm_up=0)(0) == 1


@given(st.floats(0.02, 1), st.floats(0.02, 1))
def test_cosine_only_falls_after_the_warm_up(a: float, b: float) -> None:
    assert cosine()(max(a, b)) <= cosine()(min(a, b)) <= 1


def test_milestones_by_hand() -> None:
    factor = milestones([20, 25, 30, 40], 50, 0.5)
    assert [factor(e / 50) for e in (0, 19.99, 20, 24, 25, 30, 39, 40, 49)] == [
        1, 1, 0.5, 0.5, 0.25, 0.125, 0.125, 0.0625, 0.0625
    ]  # fmt: skip


@given(n_epochs=st.integers(1, 200), data=st.data())
@settings(max_examples=50)
def test_milestones_fall_on_the_epochs_first_step(n_epochs: int, data: st.DataObject) -> None:
    epochs = data.draw(st.lists(st.integers(0, n_epochs), max_size=4))
    epoch, index = data.draw(st.integers(0, n_epochs - 1)), data.draw(st.integers(0, 9))
    factor = milestones(epochs, n_epochs, 0.5)((epoch + index / 10) / n_epochs)
    assert factor == 0.5 ** sum(epoch >= e for e in epochs)


class Slope(nn.Module):
    """Two numbers whose gradients are 1 and 3."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, batch: Tensor) -> Tensor:
        return self.a + 3 * self.b


def slide(module: Slope, rates: tuple[float, float], n_batches: int, **arguments: Any) -> FitState:
    """Train by plain SGD, one rate a number; the loss is what the module gives."""
    groups = [{"params": [p], "lr": rate} for p, rate in zip((module.a, module.b), rates, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=1)
    return fit(
        lambda m, batch: {"loss": m(batch)},
        Noise(n_batches),
        module,
        optimizer,
        fabric=fabric(),
        seed=0,
        **arguments,
    )


def test_rates_follow_the_factor_and_keep_their_proportion() -> None:
    module, seen = Slope(), list[float]()

    def rate(progress: float) -> float:
        seen.append(progress)
        return 1 - progress

    state = slide(module, (0.1, 0.4), 2, n_epochs=2, learning_rate=rate)
    assert seen == [0, 0.25, 0.5, 0.75]
    total = 1 + 0.75 + 0.5 + 0.25
    assert module.a.item() == pytest.approx(-0.1 * total)
    assert module.b.item() == pytest.approx(-0.4 * 3 * total)
    assert state.n_steps == 4
    # the loss before each step: 0, then a + 3 b falls by 0.1 + 3.6 a unit of rate
    assert state.losses == pytest.approx([-3.7 * 0.5, -3.7 * (1.75 + 2.25) / 2])


def test_the_gradient_is_clipped() -> None:
    module = Slope()
    slide(module, (1.0, 1.0), 1, n_epochs=1, learning_rate=lambda progress: 1.0, clip_norm=0.5)
    assert math.hypot(module.a.item(), module.b.item()) == pytest.approx(0.5, rel=1e-4)
    assert module.b.item() == pytest.approx(3 * module.a.item(), rel=1e-4)


def test_it_learns_and_reports_every_epoch() -> None:
    module, reported = nn.Linear(6, 1), list[Epoch]()
    state = train(module, OPTIMIZERS["sgd"], n_epochs=40, on_epoch=reported.append)
    assert [e.index for e in reported] == list(range(40))
    assert [e.loss for e in reported] == list(state.losses)
    assert state.losses[-1] < 0.1 * state.losses[0]
    assert not module.training


def test_nothing_but_the_arguments_decides() -> None:
    results = []
    for before in (1, 2):
        module = network()
        torch.manual_seed(before)
        train(module, OPTIMIZERS["adamw"])
        results.append(module)
    assert equal(*results)
    other = network()
    train(other, OPTIMIZERS["adamw"], seed=8)  # another dropout
    assert not equal(results[0], other)


class KilledError(RuntimeError):
    pass


@pytest.mark.parametrize("name", list(OPTIMIZERS))
@pytest.mark.parametrize("last", [0, 2, 3])
def test_a_killed_run_goes_on_to_the_same_weights(
    name: str, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", -1.0)
    path = tmp_path / "run" / "a.state"
    whole = network()
    expected = train(whole, OPTIMIZERS[name])

    def kill(epoch: Epoch) -> None:
        if epoch.index == last:
            raise KilledError

    with pytest.raises(KilledError):
        train(network(), OPTIMIZERS[name], on_epoch=kill, state_path=path)
    assert path.is_file()
    resumed, reported = network(), list[int]()
    state = train(resumed, OPTIMIZERS[name], on_epoch=lambda e: reported.append(e.index), state_path=path)
    assert reported == list(range(last + 1, 5))
    assert state == expected
    assert equal(resumed, whole)


def test_a_run_killed_in_an_epoch_goes_on_from_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", -1.0)
    path, whole, resumed = tmp_path / "a.state", network(), network()
    train(whole, OPTIMIZERS["adamw"])

    class Broken(Noise):
        def __call__(self, epoch: int) -> Iterator[Tensor]:
            for index, batch in enumerate(super().__call__(epoch)):
                if (epoch, index) == (3, 1):
                    raise KilledError
                yield batch

    with pytest.raises(KilledError):
        train(network(), OPTIMIZERS["adamw"], batches=Broken(), state_path=path)
    train(resumed, OPTIMIZERS["adamw"], state_path=path)
    assert equal(resumed, whole)


def test_states_are_saved_at_intervals(tmp_path: Path) -> None:
    path = tmp_path / "a.state"
    train(network(), OPTIMIZERS["sgd"], state_path=path)
    assert not path.exists()  # shorter than the interval


@pytest.mark.parametrize("changes", [{"n_epochs": 6}, {"seed": 8}, {"batches": Noise(2)}, {"network": nn.Linear(6, 1)}])
def test_the_state_of_another_training_is_refused(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", -1.0)
    path = tmp_path / "a.state"
    train(network(), OPTIMIZERS["adamw"], state_path=path)
    module = changes.pop("network", None) or network()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(InputError, match=r"a\.state") as caught:
        train(module, OPTIMIZERS["adamw"], state_path=path, **changes)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(value: float) -> None:
    def bad(module: nn.Module, batch: Any) -> dict[str, Tensor]:
        return {"loss": module(batch).mean() * value}

    module = network()
    with pytest.raises(InputError, match="in epoch 1 of 3; lower the learning rate"):
        fit(
            bad,
            Noise(),
            module,
            OPTIMIZERS["sgd"](module),
            fabric=fabric(),
            n_epochs=3,
            learning_rate=cosine(),
            seed=0,
        )


SCRIPT = """
import json, os, sys
import numpy as np, torch
from pathlib import Path
from torch import nn
from lightning_fabric import Fabric
from fewmark.data.augment import AugmentRule
from fewmark.data.batches import Batches, face_rows
from fewmark.data.crops import CropRule, cache_face
from fewmark.data.samples import FaceSample
from fewmark.models.ensemble import to_tensor
from fewmark.training.fit import cosine, fit
from fewmark.landmarks.scheme import LandmarkScheme

torch.set_num_threads(1)
world = int(os.environ.get("WORLD_SIZE", 1))
fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto")
fabric.launch()
scheme = LandmarkScheme("pair", ("left", "right"), mirror=(1, 0))
faces = []
for i in range(10):
    image = np.random.default_rng(i).integers(0, 256, (24, 24, 3), np.uint8)
    labels, box = np.array([[6, 9], [15, 9]], np.float32), np.array([2, 2, 20, 20], np.float32)
    faces.append(cache_face(FaceSample(Path("a.png"), box, labels), CropRule(16, 0.0), 2, image))
rank = fabric.global_rank
rows = face_rows(faces, 16, scheme, AugmentRule())
batches = Batches(10, rows, 4, 0, rank=rank, world_size=world, n_batches=3)
torch.manual_seed(0)
module = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(196, 4)).double()

def step(network, batch):
    found = network(to_tensor(batch.images).double()).view(-1, 2, 2)
    return {"loss": (found - torch.from_numpy(batch.targets).double() / 16).square().mean()}

state = fit(step, batches, module, torch.optim.AdamW(module.parameters(), lr=0.01), fabric=fabric, n_epochs=3,
            learning_rate=cosine(), seed=0, clip_norm=1.0)
if fabric.is_global_zero:
    weights = [float(p.detach().double().sum()) for p in module.parameters()]
    Path(sys.argv[1]).write_text(json.dumps({"losses": state.losses, "weights": weights}))
if torch.distributed.is_initialized():  # else a process may abort while the other one leaves
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def test_two_processes_do_the_work_of_one(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    results = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]):
        out = tmp_path / f"{len(results)}.json"
        command = [sys.executable, *launcher, str(script), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(json.loads(out.read_text()))
    one, two = results
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-5, abs=1e-6)
