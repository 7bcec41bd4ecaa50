"""Stages as folds over face states: exact ways back to the image, one warp a crop, one call a network, bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.geometry import Similarity, box_of_points
from fewmark.data import crops
from fewmark.data.crops import CropRule
from fewmark.inference.cascade import networks as parts
from fewmark.inference.cascade.angle import AngleStage, upright_crop_from_image
from fewmark.inference.cascade.coarse import CoarsePart, CoarseStage, contour_and_inner, join_parts
from fewmark.inference.cascade.component import ComponentStage, component_crop_from_image
from fewmark.inference.cascade.frames import component_from_mean, inner_components, scheme_mean_face
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.pipeline import Cascade, Truth
from fewmark.inference.cascade.point import PatchLayout, PointStage
from fewmark.inference.cascade.state import FaceState, Stage
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.models.angle import Angle

torch.set_num_threads(1)
SCHEME = load_scheme("ibug-68")
MEAN = scheme_mean_face(SCHEME)
INNER = inner_components(SCHEME)
RULE = CropRule(32, 0.1)
IMAGE = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)


class Says(nn.Module):
    """A network that answers what it was told, and counts its calls."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answer, self.calls = answer, list[int]()

    def forward(self, images: Tensor) -> Any:
        self.calls.append(len(images))
        return self.answer(images)

    def scored(self, images: Tensor) -> Tensor:
        points = self(images)
        return torch.cat([points, torch.full_like(points[..., :1], torch.nan)], -1)


class Directions(Angle):
    """An angle network that sees a face at `seen` degrees, and in its first look, with more weight, at `first` degrees."""

    def __init__(self, seen: float, first: float | None = None) -> None:
        super().__init__(widths=(4,), grid=1, n_hidden=4)
        self.seen, self.first, self.calls = seen, first, 0

    def bell(self, degrees: float) -> Tensor:
        pair = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        assert isinstance(self.directions, Tensor)
        return torch.softmax(self.directions @ pair / math.radians(6) ** 2, 0)

    def weights(self, images: Tensor) -> Tensor:
        look, self.calls = self.calls, self.calls + 1  # each look is from a quarter turn further
        weights = self.bell(self.seen - 90 * look)
        if look == 0 and self.first is not None:
            weights = 0.3 * weights + 0.7 * self.bell(self.first)
        return weights.expand(len(images), -1)


def answers(answer: Callable[[Tensor], Any]) -> NetworkPart:
    return NetworkPart("said", {}, Says(answer).eval())


def nothing(n: int) -> NetworkPart:
    return answers(lambda images: torch.zeros(len(images), n, 2))


def silent_points(layout: PatchLayout) -> NetworkPart:
    """No offset, gates that prefer the last scale."""
    p = len(layout.points)

    def answer(patches: Tensor) -> tuple[list[Tensor], Tensor]:
        gates = torch.softmax(torch.arange(3.0), 0).expand(len(patches), p, 3)
        return [torch.zeros(len(patches), p, t.shape[1], 2) for t in layout.neighbours], gates

    return answers(answer)


def face_at(angle: float = 0.0, scale: float = 50.0, x: float = 30.0, y: float = 20.0) -> FaceState:
    points = Similarity.about(np.zeros(2), np.array([x, y]), scale=scale, angle=angle)(MEAN).astype(np.float32)
    return FaceState(box_of_points(points), angle, points)


def components(networks: dict[str, NetworkPart]) -> ComponentStage:
    return ComponentStage(SCHEME, networks, MEAN, 32, 0.3)


def layout() -> PatchLayout:
    return PatchLayout.of_scheme(SCHEME, MEAN, (3, 5, 7), 16, 0.4)


def points_of(face: FaceState) -> NDArray[np.float32]:
    assert face.landmarks is not None
    return face.landmarks


@given(st.floats(-180, 180), st.floats(3, 300), st.floats(-50, 150))
@settings(max_examples=15)
def test_no_offset_of_perfect_points_gives_them_back(angle: float, scale: float, x: float) -> None:
    """Large and small faces at any angle, in the image or beyond its edge."""
    face = face_at(angle, scale, x)
    stage = components({name: nothing(len(indices)) for name, indices in INNER.items()})
    other = PointStage(SCHEME, silent_points(layout()), layout())
    for s in (stage, other):
        found = points_of(s([IMAGE], [face])[0])
        np.testing.assert_allclose(found, points_of(face), atol=1e-4 * scale + 1e-3)


def test_the_right_offset_of_any_points_gives_the_truth() -> None:
    """The networks answer where the true points are in their crops; the points that the crops are cut by are wrong."""
    rng = np.random.default_rng(1)
    truth = points_of(face_at(20)) + rng.normal(scale=2, size=(68, 2))
    wrong = replace(face_at(20), landmarks=(truth + rng.normal(scale=2, size=(68, 2))).astype(np.float32))
    networks = {}
    for name, indices in INNER.items():
        crop_from_image = component_crop_from_image(wrong, 0, MEAN, indices, 32, 0.3)
        places = component_from_mean(MEAN, indices, 32, 0.3)(MEAN[list(indices)])
        answer = torch.from_numpy(crop_from_image(truth[list(indices)]) - places)[None]
        networks[name] = answers(lambda images, answer=answer: answer)
    found = points_of(components(networks)([IMAGE], [wrong])[0])
    np.testing.assert_allclose(found[17:], truth[17:], atol=1e-3)
    np.testing.assert_array_equal(found[:17], points_of(wrong)[:17])  # the contour stays the coarse stage's

    lay = layout()
    maps = lay.patch_from_image(points_of(wrong))
    offsets = [
        torch.from_numpy(np.einsum("pij,pnj->pni", m[:, :, :2], truth[table]) + m[:, None, :, 2] - places)[None]
        for m, table, places in zip(maps, lay.neighbours, lay.places, strict=True)
    ]
    gates = torch.softmax(torch.randn(1, len(lay.points), 3), -1)
    found = points_of(PointStage(SCHEME, answers(lambda _: (offsets, gates)), lay)([IMAGE], [wrong])[0])
    np.testing.assert_allclose(found[17:], truth[17:], atol=1e-3)


@given(st.floats(-180, 180), st.floats(-180, 180))
@settings(max_examples=20)
def test_the_angle_joins_the_state(before: float, seen: float) -> None:
    stage = AngleStage(SCHEME, NetworkPart("angle", {}, Directions(seen).eval()), RULE)
    after = stage([IMAGE], [FaceState(face_at().box_xyxy, before)])[0].angle
    assert -180 < after <= 180
    assert abs((after - before - seen + 180) % 360 - 180) < 0.1


def test_a_face_upside_down_in_one_view_is_corrected_by_the_others() -> None:
    stage = AngleStage(SCHEME, NetworkPart("angle", {}, Directions(10.0, first=-170.0).eval()), RULE)
    (face,) = stage([IMAGE], [FaceState(face_at().box_xyxy)])
    assert face.angle == pytest.approx(10, abs=0.1)


@given(st.floats(-180, 180))
@settings(max_examples=15)
def test_the_coarse_crop_stands_upright_and_leads_back(angle: float) -> None:
    face = face_at(angle)
    crop_from_image = upright_crop_from_image(face, RULE)
    upright = crop_from_image(points_of(face))
    assert abs(upright[27, 0] - upright[8, 0]) < 0.5  # the nose's root above the chin
    assert upright[27, 1] < upright[8, 1]
    network = answers(lambda _: torch.from_numpy(upright)[None])
    stage = CoarseStage(SCHEME, (CoarsePart(tuple(range(68)), network),), RULE)
    found = stage([IMAGE], [replace(face, landmarks=None)])[0]
    np.testing.assert_allclose(points_of(found), points_of(face), atol=1e-3)
    assert found.angle == face.angle


def test_contour_and_inner_points_apart_are_the_whole() -> None:
    answer = torch.rand(1, 68, 2) * 32
    whole = CoarseStage(SCHEME, (CoarsePart(tuple(range(68)), answers(lambda _: answer)),), RULE)
    stages = [
        CoarseStage(SCHEME, (CoarsePart(part, answers(lambda _, part=part: answer[:, list(part)])),), RULE)
        for part in contour_and_inner(SCHEME)
    ]
    start = [FaceState(face_at().box_xyxy, 10.0)]
    both = join_parts(stages)
    np.testing.assert_allclose(points_of(both([IMAGE], start)[0]), points_of(whole([IMAGE], start)[0]))
    alone = points_of(stages[0]([IMAGE], start)[0])
    assert np.isfinite(alone[:17]).all()
    assert np.isnan(alone[17:]).all()
    with pytest.raises(InputError, match="each in one part"):
        join_parts([stages[0], stages[0]])


def test_one_warp_of_the_image_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Angle and crop are composed: every crop is one resampling of the very image."""
    seen: list[Any] = []
    real = crops.warp_image
    monkeypatch.setattr(crops, "warp_image", lambda image, *a, **k: (seen.append(image), real(image, *a, **k))[1])
    network = answers(lambda images: torch.zeros(len(images), 68, 2))
    coarse = CoarseStage(SCHEME, (CoarsePart(tuple(range(68)), network),), RULE)
    coarse([IMAGE], [FaceState(face_at().box_xyxy, 77.0)])
    assert len(seen) == 1
    components({"mouth": nothing(20), "nose": nothing(9)})([IMAGE], [face_at(77)])
    assert len(seen) == 3
    assert all(image is IMAGE for image in seen)


def test_all_faces_go_through_a_network_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    lay = layout()
    network = silent_points(lay)
    stages: list[tuple[Stage, NetworkPart]] = [(PointStage(SCHEME, network, lay), network)]
    network = nothing(20)
    stages.append((components({"mouth": network}), network))
    faces = [face_at(i) for i in range(7)]
    for stage, part in stages:
        assert isinstance(part.module, Says)
        whole = stage([IMAGE] * 7, faces)
        assert part.module.calls == [7]
        monkeypatch.setattr(parts, "CHUNK", 3)
        again = stage([IMAGE] * 7, faces)
        assert part.module.calls == [7, 3, 3, 1]
        monkeypatch.undo()
        for a, b in zip(whole, again, strict=True):
            np.testing.assert_array_equal(points_of(a), points_of(b))
        assert stage([], []) == []


def small_stages(scheme: LandmarkScheme = SCHEME) -> list[Any]:
    mean = scheme_mean_face(scheme)
    k = scheme.n_landmarks
    lay = PatchLayout.of_scheme(scheme, mean, (3, 5, 7), 16, 0.4)
    counts = [t.shape[1] for t in lay.neighbours]
    coarse = NetworkPart.make("coarse", {"n_landmarks": k, "widths": (8, 8), "n_modules": (1,), "grid": 2})
    tiny = {"widths": (4,), "n_convs": (1,), "grid": 2}
    return [
        AngleStage(scheme, NetworkPart.make("angle", {"widths": (4, 8)}), RULE),
        CoarseStage(scheme, (CoarsePart(tuple(range(k)), coarse),), RULE),
        ComponentStage(
            scheme,
            {
                n: NetworkPart.make("component", {"n_landmarks": len(i), **tiny})
                for n, i in inner_components(scheme).items()
            },
            mean,
            32,
            0.3,
        ),
        PointStage(scheme, NetworkPart.make("point", {"n_points": len(lay.points), "neighbours": counts, **tiny}), lay),
    ]


@pytest.mark.parametrize("name", ["ibug-68", "mtfl-5", "menpo-39"])
def test_stages_come_back_from_plain_data_and_weights(name: str) -> None:
    scheme = load_scheme(name)
    stages = small_stages(scheme)
    box = np.array([20, 20, 60, 60], np.float32)
    before = Cascade(tuple(stages))([IMAGE], [FaceState(box)])[0]
    loaded = []
    for stage in stages:
        data = json.loads(json.dumps(stage.to_dict()))
        assert data["n_multiply_adds"] > data["n_parameters"] > 0
        other = type(stage).from_dict(data, scheme)
        assert list(other.modules) == list(stage.modules)
        for key, module in stage.modules.items():
            for parameter in other.modules[key].parameters():
                nn.init.ones_(parameter)
            other.modules[key].load_state_dict(module.state_dict())
        loaded.append(other)
    after = Cascade(tuple(loaded))([IMAGE], [FaceState(box)])[0]
    assert after.angle == pytest.approx(before.angle)
    np.testing.assert_allclose(points_of(after), points_of(before), atol=1e-3)


def test_a_cascade_is_a_fold() -> None:
    cascade = Cascade(tuple(small_stages()))
    start = [FaceState(np.array([20, 20, 60, 60], np.float32))]
    by_hand = start
    for stage in cascade.stages:
        by_hand = stage([IMAGE], by_hand)
    np.testing.assert_array_equal(points_of(cascade([IMAGE], start)[0]), points_of(by_hand[0]))
    without = cascade.without("angle", "point")
    assert [s.name for s in without.stages] == ["coarse", "component"]
    assert without([IMAGE], start)[0].angle == 0
    with pytest.raises(InputError, match="cascade: no stage 'pose'; expected one of angle, coarse"):
        cascade.without("pose")


def test_truth_is_fed_in_a_stages_place() -> None:
    face = face_at(25)
    told = Truth(SCHEME, points_of(face)[None], MEAN, name="coarse")
    stages = small_stages()
    cascade = Cascade((stages[0], told, components({n: nothing(len(i)) for n, i in INNER.items()})))
    found = cascade([IMAGE], [FaceState(face.box_xyxy)])[0]
    np.testing.assert_allclose(points_of(found), points_of(face), atol=1e-3)
    assert found.angle == pytest.approx(25, abs=1e-3)
    only = Truth(SCHEME, points_of(face)[None], MEAN, name="angle")([IMAGE], [FaceState(face.box_xyxy)])[0]
    assert only.landmarks is None
    assert only.angle == pytest.approx(25, abs=1e-3)
    with pytest.raises(InputError, match="expected the 1 faces it knows, given 2"):
        told([IMAGE] * 2, [face, face])


@pytest.mark.parametrize(
    "box", [[1, 1, 9, 9], [-30, -30, 20, 20], [90, 70, 140, 120], [500, 500, 540, 540], [40, 40, 40.5, 40.5]]
)
def test_small_faces_and_faces_at_the_edge_are_answered(box: list[float]) -> None:
    """A face of 8 px, beyond the image's corners, out of it altogether, or of half a pixel: points near the box."""
    given_box = np.array(box, np.float32)
    found = Cascade(tuple(small_stages()))([IMAGE], [FaceState(given_box)])[0]
    side = box[2] - box[0]
    middle = (given_box[:2] + given_box[2:]) / 2
    assert np.isfinite(points_of(found)).all()
    assert np.abs(points_of(found) - middle).max() < 3 * side


def test_missing_landmarks_of_a_truth() -> None:
    """A truth that lacks points is aligned by the others, and its lacking inner points are found."""
    points = points_of(face_at(10)).copy()
    points[36:42] = np.nan
    face = replace(face_at(10), landmarks=points)
    for stage in small_stages()[2:]:
        found = points_of(stage([IMAGE], [face])[0])
        assert np.isfinite(found[17:]).all()


@pytest.mark.parametrize(
    ("face", "message"),
    [
        (FaceState(np.array([5, 5, 5, 9], np.float32)), "face 1: expected a box x0 y0 x1 y1 with an extent"),
        (FaceState(np.array([5, 5, np.nan, 9], np.float32)), "face 1: expected a box x0 y0 x1 y1 with an extent"),
        (FaceState(np.array([5, 5, 9, 9], np.float32)), "face 1 has no landmarks; put the coarse stage before it"),
        (
            FaceState(np.array([5, 5, 9, 9], np.float32), 0.0, np.zeros((5, 2), np.float32)),
            "expected the 68 landmarks of ibug-68, given an array of shape (5, 2)",
        ),
        (
            FaceState(np.array([5, 5, 9, 9], np.float32), 0.0, np.ones((68, 2), np.float32)),
            "cannot be aligned to the mean face: fit_similarity: all source points coincide",
        ),
        (
            FaceState(np.array([5, 5, 9, 9], np.float32), 0.0, np.full((68, 2), np.nan, np.float32)),
            "cannot be aligned to the mean face: fit_similarity: expected at least 2 points",
        ),
    ],
)
def test_bad_faces_are_named(face: FaceState, message: str) -> None:
    for stage in small_stages()[2:]:
        with pytest.raises(InputError) as caught:
            stage([IMAGE] * 2, [face_at(), face])
        assert message in str(caught.value)
        assert str(caught.value).startswith(stage.name)


def test_bad_cascades_are_named() -> None:
    ours, others = small_stages(), small_stages(load_scheme("mtfl-5"))
    with pytest.raises(InputError, match="stage component was trained for scheme mtfl-5, stage coarse for ibug-68"):
        Cascade((ours[1], others[2]))
    with pytest.raises(InputError, match="expected stages of different names"):
        Cascade((ours[1], ours[1]))
    with pytest.raises(InputError, match="expected stages of different names"):
        Cascade(())
    with pytest.raises(InputError, match="expected one image per face, given 1 and 0"):
        ours[0]([IMAGE], [])
    with pytest.raises(InputError, match="no component 'ear'; expected some of left_eyebrow"):
        components({"ear": nothing(1)})
    with pytest.raises(InputError, match="expected a mean face of 68 landmarks"):
        ComponentStage(SCHEME, {}, MEAN[:5], 32, 0.3)
    with pytest.raises(InputError, match="expected a component `contour`"):
        contour_and_inner(load_scheme("ibug-51"))
    bare = LandmarkScheme("bare", ("a", "b"))
    with pytest.raises(InputError, match="scheme bare has no components"):
        ComponentStage(bare, {}, np.zeros((2, 2)), 32, 0.3)
    with pytest.raises(InputError, match="scheme bare has no components"):
        PatchLayout.of_scheme(bare, np.zeros((2, 2)), (3,), 16, 0.4)
