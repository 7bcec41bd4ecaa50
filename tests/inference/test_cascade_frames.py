"""The cascade's frames: there and back, steady alignments, moved faces, and many small warps that are one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Similarity, box_of_points, warp_image, warp_patches, wrap_angle
from fewmark.core.procrustes import mirrored_mean_shape
from fewmark.inference.cascade.frames import (
    component_from_mean,
    face_angle,
    inner_components,
    inner_landmarks,
    mean_from_image,
    nearest_landmarks,
    scheme_mean_face,
)
from fewmark.inference.cascade.point import PatchLayout
from fewmark.inference.cascade.state import FaceState, move_face
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_names

SCHEME = load_scheme("ibug-68")
MEAN = scheme_mean_face(SCHEME)
angles = st.floats(-180, 180)


def laid(angle: float = 0.0, scale: float = 100.0, x: float = 40.0, y: float = 30.0) -> NDArray[np.float64]:
    """The mean face in an image, (68, 2) px."""
    return Similarity.about(np.zeros(2), np.array([x, y]), scale=scale, angle=angle)(MEAN)


def noise_image(size: int = 90) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)


@given(angles)
def test_wrap_angle(angle: float) -> None:
    wrapped = wrap_angle(angle + 720)
    assert -180 < wrapped <= 180
    assert abs((wrapped - angle + 180) % 360 - 180) < 1e-9


@given(angles, st.floats(1, 300))
@settings(max_examples=30)
def test_face_angle_is_the_rotation_of_the_face(angle: float, scale: float) -> None:
    difference = face_angle(laid(angle, scale), MEAN) - angle
    assert abs((difference + 180) % 360 - 180) < 1e-6


@pytest.mark.parametrize("component", list(inner_components(SCHEME)))
def test_an_aligned_component_lies_on_the_mean_one(component: str) -> None:
    indices = SCHEME.components[component]
    place = component_from_mean(MEAN, indices, 48, 0.3)
    crop_from_image = place @ mean_from_image(laid(33, 70), MEAN, indices)
    np.testing.assert_allclose(crop_from_image(laid(33, 70)), place(MEAN), atol=1e-6)
    inside = place(MEAN[list(indices)])
    assert inside.min() > 3
    assert inside.max() < 44
    np.testing.assert_allclose(crop_from_image.inverse()(crop_from_image(MEAN)), MEAN, atol=1e-9)


def test_an_eyebrow_is_aligned_steadily() -> None:
    """Five points in a row, each off by 3 % of the face: the rest of the face holds the crop's turn and scale."""
    indices = SCHEME.components["left_eyebrow"]
    rng = np.random.default_rng(0)
    turns: dict[float, list[float]] = {0.0: [], 0.5: []}
    for _ in range(100):
        points = MEAN.copy()
        points[list(indices)] += rng.normal(scale=0.03, size=(len(indices), 2))
        for rest, found in turns.items():
            found.append(mean_from_image(points, MEAN, indices, rest=rest).angle)
    assert np.std(turns[0.5]) < 0.35 * np.std(turns[0.0])


def test_a_component_of_one_point_has_a_crop() -> None:
    scheme = load_scheme("mtfl-5")
    mean = scheme_mean_face(scheme)
    for indices in inner_components(scheme).values():
        place = component_from_mean(mean, indices, 32, 0.3)
        aligned = mean_from_image(mean * 50 + 7, mean, indices)
        np.testing.assert_allclose((place @ aligned)(mean * 50 + 7), place(mean), atol=1e-6)


def test_mirrored_mean_shape_of_moved_copies_is_the_shape() -> None:
    rng = np.random.default_rng(0)
    symmetric = (MEAN + MEAN[list(SCHEME.mirror or ())] * [-1, 1] + [1, 0]) / 2
    shapes = np.stack(
        [Similarity.about(np.zeros(2), rng.uniform(0, 99, 2), scale=s, angle=s)(symmetric) for s in (20.0, 90.0, 160.0)]
    )
    shapes[1, 5] = np.nan
    mean = mirrored_mean_shape(shapes, MEAN, SCHEME.mirror)
    np.testing.assert_allclose(mean, symmetric, atol=2e-3)
    box = box_of_points(mean)
    assert max(box[2:] - box[:2]) == pytest.approx(1, abs=1e-6)
    shapes[:, 5] = np.nan
    with pytest.raises(InputError, match="landmark 5 is missing in all 3 faces"):
        mirrored_mean_shape(shapes, MEAN)


def test_nearest_landmarks_by_hand() -> None:
    mean = np.array([[0, 0], [1, 0], [3, 0], [7, 0], [5, 5]], np.float64)
    assert nearest_landmarks(mean, (0, 1, 2, 3), 3).tolist() == [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 2, 1]]


@pytest.mark.parametrize("name", scheme_names())
def test_every_scheme_has_a_layout(name: str) -> None:
    scheme = load_scheme(name)
    mean = scheme_mean_face(scheme)
    layout = PatchLayout.of_scheme(scheme, mean, (3, 5, 7), 16, 0.4)
    assert layout.points == inner_landmarks(scheme)
    for table, places in zip(layout.neighbours, layout.places, strict=True):
        assert table[:, 0].tolist() == list(layout.points)  # the point itself first
        assert places.min() > -0.5
        assert places.max() < 15.5
    maps = layout.patch_from_image(mean * 60 + 5)
    for s, table in enumerate(layout.neighbours):
        found = np.einsum("pij,pnj->pni", maps[s, :, :, :2], (mean * 60 + 5)[table]) + maps[s, :, None, :, 2]
        np.testing.assert_allclose(found, layout.places[s], atol=1e-6)


def test_scheme_without_mean_face_or_components() -> None:
    bare = LandmarkScheme("bare", ("a", "b"))
    with pytest.raises(InputError, match="scheme bare has no mean face"):
        scheme_mean_face(bare)
    with pytest.raises(InputError, match="scheme bare has no components but the contour"):
        inner_components(replace(bare, components={"contour": (0, 1)}))


@given(angles, angles, st.booleans())
@settings(max_examples=40)
def test_a_moved_face_is_rotated_as_its_points_are(angle: float, turn: float, flip: bool) -> None:
    points = laid(angle).astype(np.float32)
    face = FaceState(box_of_points(points), face_angle(points, MEAN), points)
    moved = Similarity.about(np.zeros(2), np.zeros(2), angle=turn, scale=1.5)
    if flip:
        moved = Similarity.flip(1.0) @ moved
    after = move_face(face, moved, SCHEME)
    assert after.landmarks is not None
    difference = after.angle - face_angle(after.landmarks, MEAN)
    assert abs((difference + 180) % 360 - 180) < 0.5  # the mean face is symmetric to about that
    np.testing.assert_allclose(after.box_xyxy, box_of_points(after.landmarks), atol=1e-3)


def test_a_moved_box_keeps_its_relation_to_the_face() -> None:
    """A box twice as large as the face, a tenth of the face's side too low, is so after a turn, round the turned face."""
    points = laid().astype(np.float32)
    tight = box_of_points(points)
    side = float((tight[2:] - tight[:2]).max())
    middle, half = (tight[:2] + tight[2:]) / 2 + [0, 0.1 * side], (tight[2:] - tight[:2])
    face = FaceState(np.concatenate([middle - half, middle + half]).astype(np.float32), 0.0, points)
    after = move_face(face, Similarity.about(np.zeros(2), np.zeros(2), angle=90), SCHEME)
    assert after.landmarks is not None
    turned = box_of_points(after.landmarks)
    np.testing.assert_allclose(after.box_xyxy[2:] - after.box_xyxy[:2], 2 * (turned[2:] - turned[:2]), rtol=1e-4)
    middle = (after.box_xyxy[:2] + after.box_xyxy[2:]) / 2 - (turned[:2] + turned[2:]) / 2
    np.testing.assert_allclose(middle, [0, 0.1 * (turned[2:] - turned[:2]).max()], atol=1e-3)


@pytest.mark.parametrize("scale", [2.0, 0.9, 0.4])
def test_many_patches_are_as_many_warps(scale: float) -> None:
    image = noise_image()
    maps = [Similarity.about(np.array([x, 40.0]), np.full(2, 7.5), scale=scale, angle=x) for x in (-3.0, 20.0, 60.0)]
    maps.append(Similarity.flip(16) @ maps[1])
    found = warp_patches(image, np.stack([m.matrix for m in maps]), 16, fill=(1, 2, 3))
    assert found.shape == (4, 16, 16, 3)
    for patch, m in zip(found, maps, strict=True):
        alone = warp_image(image, m, (16, 16), fill=(1, 2, 3))
        assert np.abs(patch.astype(int) - alone).max() <= 24  # both round the place to 1/32 px, on noise of 0 to 255
        assert np.abs(patch.astype(int) - alone).mean() < 3
