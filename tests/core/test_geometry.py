"""geometry: maps compose and invert, fits recover, and a warp moves a drawn dot exactly as its landmark."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewmark.core.geometry import (
    Similarity,
    box_centre,
    box_of_points,
    box_size,
    crop_from_box,
    fit_similarity,
    warp_image,
)

coordinates = st.floats(-500, 500, allow_nan=False)
places = st.tuples(coordinates, coordinates).map(np.array)
angles = st.floats(-179, 179)
scales = st.floats(0.05, 20)


@st.composite
def similarities(draw: st.DrawFn) -> Similarity:
    turned = Similarity.about(draw(places), draw(places), scale=draw(scales), angle=draw(angles))
    return turned @ Similarity.flip(draw(st.floats(1, 400))) if draw(st.booleans()) else turned


@st.composite
def point_sets(draw: st.DrawFn, least: int = 3) -> NDArray[np.float64]:
    seed, count = draw(st.integers(0, 2**16)), draw(st.integers(least, 12))
    return np.random.default_rng(seed).uniform(-100, 100, (count, 2))


@given(similarities(), similarities(), point_sets())
def test_maps_compose(c_from_b: Similarity, b_from_a: Similarity, points: NDArray[np.float64]) -> None:
    np.testing.assert_allclose((c_from_b @ b_from_a)(points), c_from_b(b_from_a(points)), atol=1e-6)
    assert (c_from_b @ b_from_a).scale == pytest.approx(c_from_b.scale * b_from_a.scale)


@given(similarities(), point_sets())
def test_inverse_leads_back(b_from_a: Similarity, points: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(b_from_a.inverse()(b_from_a(points)), points, atol=1e-6)
    np.testing.assert_allclose((b_from_a @ b_from_a.inverse()).matrix, np.eye(2, 3), atol=1e-6)


@given(similarities(), point_sets())
def test_a_similarity_multiplies_every_distance_by_its_scale(b_from_a: Similarity, points: NDArray[np.float64]) -> None:
    before = np.linalg.norm(points[1:] - points[:-1], axis=1)
    after = np.linalg.norm(np.diff(b_from_a(points), axis=0), axis=1)
    np.testing.assert_allclose(after, before * b_from_a.scale, rtol=1e-6, atol=1e-6)


@given(places, places, scales, angles)
def test_about_keeps_what_it_was_given(
    source: NDArray[np.float64], target: NDArray[np.float64], scale: float, angle: float
) -> None:
    found = Similarity.about(source, target, scale=scale, angle=angle)
    np.testing.assert_allclose(found(source), target, atol=1e-6)
    assert found.scale == pytest.approx(scale)
    assert found.angle == pytest.approx(angle, abs=1e-6)


def test_angle_is_counter_clockwise_as_seen() -> None:
    """With y down, a point to the right of the centre moves up."""
    turned = Similarity.about(np.zeros(2), np.zeros(2), angle=90)(np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(turned, [[0.0, -1.0]], atol=1e-12)


def test_nan_rows_stay_nan_and_leave_the_others_alone() -> None:
    points = np.array([[1.0, 2.0], [np.nan, np.nan]])
    mapped = Similarity.translation(1, 1)(points)
    assert mapped[0].tolist() == [2.0, 3.0]
    assert np.isnan(mapped[1]).all()


@pytest.mark.parametrize("matrix", [np.eye(3), np.full((2, 3), np.nan), np.zeros((2, 2))])
def test_a_similarity_refuses_other_arrays(matrix: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=r"expected a finite \(2, 3\) array"):
        Similarity(matrix)


@given(st.integers(1, 2000), point_sets())
def test_flip_is_an_involution_and_swaps_the_outer_columns(width: int, points: NDArray[np.float64]) -> None:
    flip = Similarity.flip(width)
    np.testing.assert_allclose(flip(flip(points)), points, atol=1e-9)
    np.testing.assert_allclose(flip(np.array([[0.0, 3.0]])), [[width - 1, 3.0]])


def test_flip_agrees_with_a_flipped_array() -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(warp_image(image, Similarity.flip(7), (5, 7)), image[:, ::-1])


@given(places, places, scales, angles, point_sets())
def test_fit_recovers_the_map(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    scale: float,
    angle: float,
    points: NDArray[np.float64],
) -> None:
    true = Similarity.about(source, target, scale=scale, angle=angle)
    np.testing.assert_allclose(fit_similarity(points, true(points)).matrix, true.matrix, atol=1e-5)


@given(point_sets(least=4), st.integers(0, 2**16))
def test_fit_leaves_out_missing_points_and_those_without_weight(points: NDArray[np.float64], seed: int) -> None:
    true = Similarity.about(np.zeros(2), np.array([3.0, -4.0]), scale=1.7, angle=33)
    target = true(points)
    spoiled, spoiled_target, weights = points.copy(), target.copy(), np.ones(len(points))
    spoiled[0] = np.nan
    spoiled_target[1] += 1000 + seed
    weights[1] = 0
    np.testing.assert_allclose(
        fit_similarity(spoiled, spoiled_target, weights).matrix,
        fit_similarity(points[2:], target[2:]).matrix,
        atol=1e-6,
    )


def test_fit_by_hand() -> None:
    """A unit square with one corner pulled out."""
    source = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    target = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 3.0], [0.0, 1.0]])
    found = fit_similarity(source, target)
    # centred: sum of a . b = 1 + 0.5 + 2 + 0.5 = 4, sum of a x b = 0 - 0.5 + 0 + 0.5 = 0, sum of a . a = 2,
    # so scale 2 and no turn; the centre (0.5, 0.5) goes to (1, 1)
    np.testing.assert_allclose(found.matrix, [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], atol=1e-12)


@given(point_sets(least=4), st.integers(0, 2**16), angles, scales, places)
def test_fit_is_the_best_similarity(
    points: NDArray[np.float64], seed: int, angle: float, scale: float, target_centre: NDArray[np.float64]
) -> None:
    rng = np.random.default_rng(seed)
    target = Similarity.about(points.mean(0), target_centre, scale=scale, angle=angle)(points)
    target += rng.normal(0, 5, target.shape)

    def error(found: Similarity) -> float:
        return float(((found(points) - target) ** 2).sum())

    best = fit_similarity(points, target)
    other = best @ Similarity.about(points.mean(0), points.mean(0) + rng.normal(0, 0.1, 2), scale=1.01, angle=0.5)
    assert error(best) < error(other)


def test_fit_never_reflects() -> None:
    points = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 1.0]])
    assert np.linalg.det(fit_similarity(points, points * (-1, 1)).matrix[:, :2]) > 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.array([[1.0, 1.0], [np.nan, 0.0]]), "at least 2 points"),
        (np.array([[1.0, 1.0], [1.0, 1.0]]), "coincide"),
    ],
)
def test_fit_refuses_too_little(source: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_similarity(source, np.array([[0.0, 0.0], [5.0, 5.0]]))


def test_boxes_by_hand() -> None:
    points = np.array([[3.0, 8.0], [np.nan, np.nan], [-1.0, 9.5]])
    box = box_of_points(points)
    assert box.dtype == np.float32
    assert box.tolist() == [-1.0, 8.0, 3.0, 9.5]
    assert box_centre(box).tolist() == [1.0, 8.75]
    assert box_size(box).tolist() == [4.0, 1.5]
    assert box_size(np.stack([box, box])).shape == (2, 2)
    with pytest.raises(ValueError, match="no landmark is present"):
        box_of_points(np.full((3, 2), np.nan))


@given(places, st.floats(1, 300), st.floats(1, 300), st.integers(16, 256), st.floats(0, 1), angles)
def test_crop_from_box_puts_the_box_in_the_middle(
    corner: NDArray[np.float64], width: float, height: float, size: int, margin: float, angle: float
) -> None:
    box = np.array([*corner, corner[0] + width, corner[1] + height])
    crop_from_image = crop_from_box(box, size, margin=margin, angle=angle)
    np.testing.assert_allclose(crop_from_image(box_centre(box)), [(size - 1) / 2] * 2, atol=1e-6)
    assert crop_from_image.scale == pytest.approx(size / (max(width, height) * (1 + 2 * margin)))
    assert crop_from_image.angle == pytest.approx(angle, abs=1e-6)


def test_crop_from_box_by_hand() -> None:
    crop_from_image = crop_from_box(np.array([10.0, 20.0, 30.0, 30.0]), 64, margin=0.1)
    # the longer side 20 widened to 24, centre (20, 25) to (31.5, 31.5)
    np.testing.assert_allclose(crop_from_image(np.array([[8.0, 25.0]])), [[31.5 - 12 * 64 / 24, 31.5]])


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.0, 5.0], [np.nan] * 4])
def test_crop_from_box_refuses_a_box_without_extent(box: list[float]) -> None:
    with pytest.raises(ValueError, match="expected a box x0 y0 x1 y1 with an extent"):
        crop_from_box(np.array(box), 64)


def draw_dot(size: tuple[int, int], at: NDArray[np.float64], sigma: float) -> NDArray[np.uint8]:
    y, x = np.mgrid[: size[0], : size[1]]
    dot = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(dot)[..., None], 3, axis=2).astype(np.uint8)


def centroid(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    mass = image[..., 0].astype(np.float64)
    y, x = np.mgrid[: mass.shape[0], : mass.shape[1]]
    return np.array([(mass * x).sum(), (mass * y).sum()]) / mass.sum()


@settings(max_examples=60)
@given(st.floats(0.15, 3.0), angles, st.floats(-1, 1), st.floats(-1, 1), st.booleans())
def test_warp_moves_a_dot_exactly_as_its_landmark(
    scale: float, angle: float, dx: float, dy: float, flipped: bool
) -> None:
    """Every scale: enlarged, shrunk a little, and averaged down by 2 to 6 first."""
    at = np.array([100 + 30 * dx, 80 + 20 * dy])
    image = draw_dot((181, 203), at, sigma=max(1.5, 2 / scale))
    target_from_image = Similarity.about(at, np.array([40 + dx, 40 - dy]), scale=scale, angle=angle)
    if flipped:
        target_from_image = Similarity.flip(80) @ target_from_image
    warped = warp_image(image, target_from_image, (81, 81))
    np.testing.assert_allclose(
        centroid(warped), target_from_image(at), atol=0.04
    )  # cv2 interpolates at steps of 1/32 px


@pytest.mark.parametrize("shrink", [2.0, 2.5, 2.9, 3.5, 4.4])
def test_warp_does_not_alias(shrink: float) -> None:
    """Columns of 0 and 255 in turn are finer than the result can show: two thirds of them must go."""
    image = np.zeros((120, 120), np.uint8)
    image[:, ::2] = 255
    inner = warp_image(image, Similarity.scaling(1 / shrink), (24, 24))[2:-2, 2:-2]
    assert np.abs(inner.astype(int) - 127.5).max() <= 127.5 / 3 + 1


def test_warp_fills_outside_and_keeps_grey_images_grey() -> None:
    image = np.full((4, 4, 3), 200, np.uint8)
    warped = warp_image(image, Similarity.translation(4, 0), (4, 8), fill=(1, 2, 3))
    assert (warped[:, :4] == (1, 2, 3)).all()
    assert (warped[:, 4:] == 200).all()
    assert warp_image(image[..., 0], Similarity.identity(), (4, 4)).shape == (4, 4)


def test_warp_of_one_pixel() -> None:
    """Nothing to average down: the image is smaller than the factor."""
    assert warp_image(np.full((1, 1, 3), 9, np.uint8), Similarity.scaling(0.1), (2, 2)).shape == (2, 2, 3)


def test_scale_and_angle_by_hand() -> None:
    found = Similarity(np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 0.0]]))
    assert found.scale == 2
    assert found.angle == 90
    assert math.isclose(Similarity.identity().angle, 0)
