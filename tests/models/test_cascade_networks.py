"""Contracts over the cascade's networks, their sizes as the paper gives them, and grouped networks that are separate ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models import coarse, component, point
from fewmark.models.angle import Angle, direction_loss
from fewmark.models.build import build_model, count_multiply_adds
from fewmark.models.coarse import Coarse
from fewmark.models.point import Point

torch.set_num_threads(1)
K = 5
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("angle", {"widths": (8, 8, 16)}),
    ("coarse", {"n_landmarks": K, "widths": (8, 16, 24), "n_modules": (1, 2), "grid": 3}),
    ("coarse", {"n_landmarks": K, "widths": (8, 16, 24), "n_modules": (2, 1), "group_width": 4, "head": "heatmaps"}),
    ("component", {"n_landmarks": K, "widths": (8, 16), "n_convs": (1, 2)}),
    ("component", {"n_landmarks": K, "widths": (8,), "n_convs": (1,), "first_stride": 2}),
    ("point", {"n_points": K, "neighbours": (1, 3), "widths": (4, 6), "n_convs": (1, 1), "grid": 2}),
]
each = pytest.mark.parametrize(("name", "arguments"), SMALL)


def make(name: str, arguments: dict[str, Any], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, **arguments)


def inputs(name: str, n: int, size: int = 32, seed: int = 0) -> Tensor:
    shape = (n, 2, K, 3, size, size) if name == "point" else (n, 3, size, size)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    found = model(images)
    if isinstance(model, Point):
        return [*found[0], found[1]]
    return [found]


@each
def test_shapes(name: str, arguments: dict[str, Any]) -> None:
    model = make(name, arguments).eval()
    for n, size in ((1, 32), (3, 64)):
        with torch.no_grad():
            shapes = [tuple(o.shape) for o in outputs(model, inputs(name, n, size))]
        expected = {"angle": [(n, 2)], "point": [(n, K, 1, 2), (n, K, 3, 2), (n, K, 2)]}
        assert shapes == expected.get(name, [(n, K, 2)])


@each
def test_gradients_reach_every_weight(name: str, arguments: dict[str, Any]) -> None:
    model = make(name, arguments).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # a residual starts at 0, and then holds back its first gradient
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)  # so does a gate
    weights = torch.linspace(0.5, 2, 2 * K)
    total = torch.zeros(())
    for o in outputs(model, inputs(name, 4)):
        flat = o.flatten(1)
        total = total + (flat * weights.repeat(flat.shape[1])[: flat.shape[1]]).square().sum()
    total.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if parameter.ndim > 1:
            assert float(parameter.grad.abs().max()) > 0, parameter_name


@each
def test_faces_do_not_mix_and_channels_last_is_the_same(name: str, arguments: dict[str, Any]) -> None:
    model = make(name, arguments).eval()
    images = inputs(name, 3)
    with torch.no_grad():
        whole, alone = outputs(model, images), outputs(model, images[1:2])
        last = outputs(model.to(memory_format=torch.channels_last), images)  # type: ignore[call-overload]
        other = outputs(model, inputs(name, 3, seed=1))
    changed = False
    for a, b, c, d in zip(whole, alone, last, other, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-4)
        changed |= not torch.equal(a, d)
    assert changed


@each
def test_state_dict_round_trip(name: str, arguments: dict[str, Any]) -> None:
    model, other = make(name, arguments).eval(), make(name, arguments, seed=1).eval()
    images = inputs(name, 1)
    with torch.no_grad():
        before = outputs(model, images)
        other.load_state_dict(model.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(before, outputs(other, images), strict=True))


def test_multiply_adds_of_the_paper() -> None:
    """Coarse-to-fine, sections 3.2 and 3.3: 500 M, 100 M and, for each point, 25 M, counted as multiply-adds."""
    whole = build_model("coarse", n_landmarks=81)
    assert count_multiply_adds(whole, coarse.PAPER_SIZE) / 1e6 == pytest.approx(500, rel=0.03)
    for n_landmarks in (8, 18):  # an eyebrow and the mouth of the 81 points
        part = build_model("component", n_landmarks=n_landmarks)
        assert count_multiply_adds(part, component.PAPER_SIZE) / 1e6 == pytest.approx(100, rel=0.03)
    three = build_model("point", n_points=2)
    assert count_multiply_adds(three, point.PAPER_SIZE) / 2 / 1e6 == pytest.approx(25, rel=0.03)


def test_base_module_by_hand() -> None:
    """Fig. 3 at stride 2 on 8x8 cells of 4 channels -> 6: 1x1, 3x3 channel-wise, 1x1, and the 1x1 of the skip connection."""
    module = Coarse(1, widths=(4, 6), n_modules=(1,), grid=1).levels[0]
    expected = 8 * 8 * 4 * 6 + 4 * 4 * 6 * 9 + 4 * 4 * 6 * 6 + 4 * 4 * 4 * 6
    total = 0

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += output[0].numel() * math.prod(layer.weight.shape[1:])

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    module(torch.randn(2, 4, 8, 8))
    assert total == expected


def test_angle_is_on_the_circle() -> None:
    model = Angle(widths=(8, 8)).eval()
    with torch.no_grad():
        lengths = model(inputs("angle", 4)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(4))


def test_coordinates_start_from_the_mean_face() -> None:
    model = Coarse(K, widths=(8, 16), n_modules=(1,), grid=2).eval()
    mean = torch.linspace(-0.3, 0.4, 2 * K).view(K, 2)
    model.start_from(mean)
    with torch.no_grad():
        model.points.weight.zero_()
        found = model(inputs("coarse", 2, 64))
    torch.testing.assert_close(found, (mean * 64 + 31.5).expand(2, K, 2))


def test_grouped_networks_are_separate_ones() -> None:
    """In one call the networks of every point compute what each would alone, in training (batch norm) and afterwards."""
    model = make("point", SMALL[-1][1])
    assert isinstance(model, Point)
    nn.init.normal_(model.gate.weight)
    model.train()(inputs("point", 6, seed=3))  # running means that are not 0
    patches = inputs("point", 4, seed=2)
    for training in (False, True):
        model.train(training)
        apart = [model.single(i) for i in range(K)]
        with torch.no_grad():
            offsets, gate = model(patches)
            for i, own in enumerate(apart):
                assert all(m.groups == 1 for m in own.modules() if isinstance(m, nn.Conv2d))
                own_offsets, own_gate = own(patches[:, :, i : i + 1])
                for a, b in zip(offsets, own_offsets, strict=True):
                    torch.testing.assert_close(a[:, i : i + 1], b, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(gate[:, i : i + 1], own_gate, rtol=1e-4, atol=1e-5)


def test_the_gate_starts_even_and_sums_to_one() -> None:
    model = make("point", SMALL[-1][1]).eval()
    with torch.no_grad():
        _, gate = model(inputs("point", 2))
        torch.testing.assert_close(gate, torch.full_like(gate, 0.5))
        nn.init.normal_(model.gate.weight, std=3)  # type: ignore[arg-type, union-attr]
        _, gate = model(inputs("point", 2))
    assert float(gate.std()) > 0.01
    torch.testing.assert_close(gate.sum(-1), torch.ones(2, K))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("angle", {"widths": ()}, "angle: widths: expected at least one"),
        ("angle", {"grid": 0}, "angle: grid: expected a whole number of at least 1, given 0"),
        ("coarse", {"n_landmarks": 0}, "coarse: n_landmarks: expected a whole number"),
        ("coarse", {"n_landmarks": 5, "head": "map"}, "head: expected one of coordinates, heatmaps, given 'map'"),
        ("coarse", {"n_landmarks": 5, "widths": (8, 8)}, "expected at least 2 widths and a number of modules"),
        ("coarse", {"n_landmarks": 5, "group_width": 7}, "widths: expected multiples of group_width 7, given 160"),
        ("component", {"n_landmarks": 5, "n_convs": (1,)}, "component: widths and n_convs: expected one number"),
        ("component", {"n_landmarks": 5, "first_stride": 3}, "first_stride: expected 1 or 2, given 3"),
        ("point", {"n_points": 5, "neighbours": ()}, "point: neighbours: expected at least one"),
        ("point", {"n_points": 5, "widths": (8,)}, "point: widths and n_convs: expected one number"),
    ],
)
def test_bad_arguments_are_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build_model(name, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("degrees", [-180.0, -177.5, -90.0, 0.0, 33.0, 179.0])
def test_a_bell_of_directions_is_read_to_a_tenth_of_a_degree(degrees: float) -> None:
    network = Angle(widths=(8,), grid=1, n_hidden=8)
    pair = torch.tensor([[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]])
    directions = network.directions
    assert isinstance(directions, torch.Tensor)
    logits = pair @ directions.T / math.radians(6) ** 2
    found = network.direction(torch.softmax(logits, 1))[0]
    assert math.degrees(math.acos(min(1.0, float(found @ pair[0])))) < 0.1
    # the loss is lowest for the bell itself
    best = float(direction_loss(logits, pair, directions))
    assert best < float(direction_loss(logits * 0.8, pair, directions))
    assert best < float(direction_loss(logits.roll(1, dims=1), pair, directions))
