"""Hand-computed numbers and invariances of the metrics."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats, Similarity
from fewmark.landmarks.metrics import (
    auc,
    ced,
    contour_errors,
    failure_rate,
    landmark_errors,
    nme_per_component,
    nme_per_face,
    nme_per_landmark,
    normalising_lengths,
    score,
    spearman,
)
from fewmark.landmarks.scheme import BetweenMeans, BetweenPoints, LandmarkScheme

NAN = math.nan
SCHEME = LandmarkScheme(
    name="five",
    landmarks=("left_outer", "left_inner", "right_inner", "right_outer", "chin"),
    components={"eyes": (0, 1, 2, 3), "chin": (4,)},
    normalizers={"outer-eye-corners": BetweenPoints(0, 3), "pupils": BetweenMeans((0, 1), (2, 3))},
    default_normalizer="outer-eye-corners",
)
# outer corners 100 px apart, pupils (10, 0) and (90, 0) 80 px apart; tight box 100 x 75, diagonal 125
FACE = np.array([[0.0, 0.0], [20.0, 0.0], [80.0, 0.0], [100.0, 0.0], [50.0, 75.0]])
BOX = np.array([-10.0, -20.0, 110.0, 70.0])  # 120 x 90: size sqrt(10800), diagonal 150
LENGTHS = {
    "outer-eye-corners": 100.0,
    "pupils": 80.0,
    "box-size": math.sqrt(10800.0),
    "box-diagonal": 150.0,
    "points-diagonal": 125.0,
}


def moved(*offsets: tuple[float, float]) -> Floats:
    """FACE with these offsets on its first landmarks."""
    out = FACE.copy()
    out[: len(offsets)] += offsets
    return out


def test_every_normalizer_by_hand() -> None:
    assert set(LENGTHS) == set(SCHEME.normalizer_names)
    predicted = moved((3.0, 4.0), (0.0, 0.0), (0.0, -10.0))  # errors 5, 0, 10, 0, 0: mean 3 px
    for name, length in LENGTHS.items():
        result = score(predicted[None], FACE[None], SCHEME, boxes=BOX[None], normalizer=name)
        assert result.nme == pytest.approx(3.0 / length, rel=1e-12)
        assert result.normalizer == name
    assert score(predicted[None], FACE[None], SCHEME).normalizer == "outer-eye-corners"


def test_pupils_against_outer_corners_reads_as_the_ratio_of_lengths() -> None:
    predicted = moved((1.0, 2.0), (3.0, 0.0))[None]
    outer, pupils = (score(predicted, FACE[None], SCHEME, normalizer=n).nme for n in ("outer-eye-corners", "pupils"))
    assert pupils / outer == pytest.approx(100 / 80)


@given(side=st.floats(1, 1000), dx=st.floats(-500, 500))
def test_size_and_diagonal_of_a_square_box_differ_by_root_two(side: float, dx: float) -> None:
    box = np.array([[dx, 3.0, dx + side, 3.0 + side]])
    by_size, by_diagonal = (
        score(moved((1.0, 0.0))[None], FACE[None], SCHEME, boxes=box, normalizer=n).nme
        for n in ("box-size", "box-diagonal")
    )
    assert by_size / by_diagonal == pytest.approx(math.sqrt(2))


def test_missing_landmarks_are_left_out_and_counted() -> None:
    true = np.stack([FACE, FACE])
    true[0, 4] = NAN
    true[1, 1, 0] = NAN  # half a point is no point
    predicted = np.stack([moved((4.0, 0.0)), moved((0.0, 8.0))])
    predicted[0, 4] = 1e6
    result = score(predicted, true, SCHEME)
    assert result.per_face.tolist() == pytest.approx([4 / 4 / 100, 8 / 4 / 100])
    assert (result.n_missing, result.n_faces, result.n_left_out, result.n_undetected) == (2, 2, 0, 0)
    assert result.nme == pytest.approx(0.015)
    assert result.per_landmark.tolist() == pytest.approx([0.06, 0.0, 0.0, 0.0, 0.0])
    # eyes: (4/4 + ... ) face 0 has 4 of 4, face 1 has 3 of 4; chin: face 1 only
    assert dict(result.per_component) == pytest.approx({"eyes": (0.01 + 0.08 / 3) / 2, "chin": 0.0})


def test_a_face_without_its_normalizing_points_is_left_out_and_counted() -> None:
    true = np.stack([FACE, FACE, np.full((5, 2), NAN), FACE])
    true[1, 3] = NAN
    true[3, 3] = true[3, 0]  # eye corners in one place: a length of 0
    result = score(np.stack([moved((5.0, 0.0))] * 4), true, SCHEME)
    assert (result.n_faces, result.n_left_out, result.n_missing) == (1, 3, 0)
    assert result.nme == pytest.approx(0.01)
    assert np.isnan(result.per_face).tolist() == [False, True, True, True]
    by_points = score(np.stack([moved((5.0, 0.0))] * 4), true, SCHEME, normalizer="points-diagonal")
    assert (by_points.n_faces, by_points.n_left_out, by_points.n_missing) == (3, 1, 1)


def test_faces_without_a_usable_box_are_left_out_of_box_normalizers_only() -> None:
    boxes = np.array([BOX, [NAN] * 4, [0.0, 0.0, 0.0, 5.0], [9.0, 9.0, 1.0, 1.0]])
    faces = np.stack([FACE] * 4)
    for name in ("box-size", "box-diagonal"):
        lengths = normalising_lengths(faces, boxes, SCHEME.get_normalizer(name))
        assert np.isnan(lengths).tolist() == [False, True, True, True]
    assert normalising_lengths(faces, boxes, SCHEME.normalizer).tolist() == [100.0] * 4
    assert score(faces, faces, SCHEME, boxes=boxes, normalizer="box-size").n_left_out == 3


def test_an_undetected_face_fails_and_is_counted() -> None:
    predicted = np.stack([moved((10.0, 0.0)), np.full((5, 2), NAN), moved((NAN, 0.0))])
    result = score(predicted, np.stack([FACE] * 3), SCHEME, threshold=0.08)
    assert (result.n_faces, result.n_undetected, result.n_missing) == (3, 2, 0)
    assert result.nme == pytest.approx(0.02)  # of the one that was found
    assert result.failure_rate == pytest.approx(2 / 3)
    assert result.auc == pytest.approx((1 - 0.02 / 0.08) / 3)
    assert np.isinf(result.per_face).tolist() == [False, True, True]
    assert result.per_landmark.tolist() == pytest.approx([0.1, 0, 0, 0, 0])
    assert str(result) == (
        "NME 2.00 % (outer-eye-corners), AUC@0.08 25.00 %, failure rate 66.67 %; 3 faces, 2 undetected"
    )


def test_a_prediction_where_nothing_is_annotated_may_be_missing() -> None:
    true, predicted = FACE.copy(), FACE.copy()
    true[4], predicted[4] = NAN, NAN
    result = score(predicted[None], true[None], SCHEME)
    assert (result.nme, result.n_undetected, result.n_missing) == (0.0, 0, 1)
    assert math.isnan(result.per_component["chin"])


def test_nothing_detected() -> None:
    result = score(np.full((2, 5, 2), NAN), np.stack([FACE] * 2), SCHEME)
    assert (result.nme, result.auc, result.failure_rate) == (math.inf, 0.0, 1.0)
    assert result.to_dict()["nme"] is None


def test_to_dict_is_json() -> None:
    true = np.stack([FACE] * 3)
    true[:, 4] = NAN
    true[2] = NAN
    data = score(np.stack([moved((5.0, 0.0)), np.full((5, 2), NAN), FACE]), true, SCHEME).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["per_face"] == [pytest.approx(0.0125), None, None]
    assert data["per_landmark"][4] is None
    assert data["per_component"]["chin"] is None
    wanted = {"nme", "auc", "failure_rate", "normalizer", "threshold", "n_faces", "n_landmarks", "n_missing"}
    assert wanted <= set(data)
    assert (data["n_landmarks"], data["n_faces"], data["n_undetected"], data["n_left_out"]) == (5, 2, 1, 1)


def test_errors_by_hand() -> None:
    true = np.array([[[0.0, 0.0], [1.0, 1.0], [NAN, NAN], [2.0, 2.0]]], np.float32)
    predicted = np.array([[[3.0, 4.0], [1.0, 1.0], [9.0, 9.0], [math.inf, 2.0]]], np.float32)
    np.testing.assert_array_equal(landmark_errors(predicted, true), [[5.0, 0.0, NAN, math.inf]])


def test_nme_of_faces_landmarks_and_components() -> None:
    errors = np.array([[1.0, 3.0], [NAN, 8.0], [5.0, math.inf]])
    lengths = np.array([10.0, 20.0, 10.0])
    np.testing.assert_allclose(nme_per_face(errors, lengths), [0.2, 0.4, math.inf])
    np.testing.assert_allclose(nme_per_landmark(errors, lengths), [0.1, 0.35])
    parts = nme_per_component(errors, lengths, {"both": (0, 1), "first": (0,)})
    assert parts == pytest.approx({"both": 0.3, "first": 0.1})


def test_auc_and_failures_by_hand() -> None:
    nme = np.array([0.0, 0.02, 0.06, 0.08, 0.5, math.inf, NAN])
    assert auc(nme, 0.08) == pytest.approx((1 + 0.75 + 0.25) / 6)
    assert failure_rate(nme, 0.08) == pytest.approx(2 / 6)  # 0.08 itself is not above 0.08
    assert auc(nme, 0.04) == pytest.approx(1.5 / 6)


nmes = st.lists(st.floats(0, 0.3), min_size=1, max_size=40).map(np.array)


@given(nmes, st.floats(0.01, 0.2))
def test_auc_is_the_area_under_the_ced(nme: Floats, threshold: float) -> None:
    """By the exact steps, and by a fine sum of the kind that benchmarks use."""
    x, y = ced(nme)
    inside = x < threshold
    steps = np.diff(np.append(x[inside], threshold)) @ y[inside]
    assert auc(nme, threshold) == pytest.approx(steps / threshold, abs=1e-9)
    fine, heights = ced(nme, np.linspace(0, threshold, 4001))
    trapezoid = ((heights[1:] + heights[:-1]) / 2 * np.diff(fine)).sum() / threshold
    assert auc(nme, threshold) == pytest.approx(trapezoid, abs=1 / 4000)


@given(nmes, st.floats(0.01, 0.2))
def test_ced_rises_and_agrees_with_the_failure_rate(nme: Floats, threshold: float) -> None:
    x, y = ced(np.append(nme, [math.inf, NAN]))
    assert x[0] == 0
    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    assert y[-1] == pytest.approx(len(nme) / (len(nme) + 1))  # the infinite one is never reached
    assert ced(nme, np.array([threshold]))[1][0] == pytest.approx(1 - failure_rate(nme, threshold))


@given(nmes, st.floats(0.01, 0.2), st.floats(0, 0.05))
def test_worse_is_not_better(nme: Floats, threshold: float, more: float) -> None:
    assert auc(nme + more, threshold) <= auc(nme, threshold)
    assert failure_rate(nme + more, threshold) >= failure_rate(nme, threshold)
    assert 0 <= auc(nme, threshold) <= 1 - failure_rate(nme, threshold) + 1e-12


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.1, 10),
    angle=st.floats(-180, 180),
    shift=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
)
def test_point_normalizers_do_not_see_a_similarity(
    seed: int, scale: float, angle: float, shift: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    true = FACE + rng.normal(0, 3, (4, 5, 2))
    predicted = true + rng.normal(0, 3, (4, 5, 2))
    true[1, 2] = NAN
    move = Similarity.about(np.zeros(2), np.array(shift), scale=scale, angle=angle)
    for name in ("outer-eye-corners", "pupils"):
        before = score(predicted, true, SCHEME, normalizer=name)
        after = score(move(predicted), move(true), SCHEME, normalizer=name)
        np.testing.assert_allclose(after.per_face, before.per_face, rtol=1e-6)
        np.testing.assert_allclose(after.per_landmark, before.per_landmark, rtol=1e-6)
        assert (after.n_faces, after.n_left_out, after.n_missing) == (
            before.n_faces,
            before.n_left_out,
            before.n_missing,
        )


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.1, 10), shift=st.floats(-300, 300))
def test_no_normalizer_sees_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    true = FACE + rng.normal(0, 3, (3, 5, 2))
    predicted = true + rng.normal(0, 3, (3, 5, 2))
    boxes = BOX + rng.uniform(-5, 5, (3, 4))
    for name in SCHEME.normalizer_names:
        before = score(predicted, true, SCHEME, boxes=boxes, normalizer=name)
        after = score(
            predicted * scale + shift,
            true * scale + shift,
            SCHEME,
            boxes=boxes * scale + shift,
            normalizer=name,
        )
        np.testing.assert_allclose(after.per_face, before.per_face, rtol=1e-4)


@given(st.permutations(range(4)))
def test_the_order_of_the_faces_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(0)
    true = FACE + rng.normal(0, 3, (4, 5, 2))
    predicted = true + rng.normal(0, 3, (4, 5, 2))
    first, second = score(predicted, true, SCHEME), score(predicted[order], true[order], SCHEME)
    assert second.nme == pytest.approx(first.nme)
    np.testing.assert_allclose(second.per_face, first.per_face[order])
    np.testing.assert_allclose(second.per_landmark, first.per_landmark)


def test_spearman_by_hand() -> None:
    # ranks 1 2 3 4 5 against 1 2 3.5 5 3.5: 8 / sqrt(10 * 9.5)
    assert spearman(np.array([1.0, 2, 3, 4, 5]), np.array([5.0, 6, 7, 8, 7])) == pytest.approx(8 / math.sqrt(95))
    assert math.isnan(spearman(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))
    assert spearman(np.array([1.0, 2, math.inf]), np.array([-1.0, -5, -9])) == pytest.approx(-1)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30))
def test_spearman_sees_order_only(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, np.float64).T
    rho = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(rho)
        return
    assert -1 - 1e-12 <= rho <= 1 + 1e-12
    assert spearman(b, a) == pytest.approx(rho)
    assert spearman(np.exp(a / 3), 5 * b**3 + b) == pytest.approx(rho)
    assert spearman(-a, b) == pytest.approx(-rho)
    assert spearman(a, a) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: score(FACE[None], np.stack([FACE] * 2), SCHEME),
            "the same shape (N, K, 2), given (1, 5, 2) and (2, 5, 2)",
        ),
        (lambda: score(FACE, FACE, SCHEME), "the same shape (N, K, 2), given (5, 2) and (5, 2)"),
        (lambda: score(FACE[None, :4], FACE[None, :4], SCHEME), "scheme five has 5 per face, given 4"),
        (lambda: score(FACE[None], FACE[None] * math.inf, SCHEME), "true face 0 has an infinite coordinate"),
        (
            lambda: score(FACE[None], FACE[None], SCHEME, normalizer="iris"),
            "no normalizer 'iris'; expected one of outer-",
        ),
        (
            lambda: score(FACE[None], FACE[None], SCHEME, normalizer="box-size"),
            "box-size: expected a face box",
        ),
        (
            lambda: score(FACE[None], FACE[None], SCHEME, boxes=BOX),
            "x0 y0 x1 y1 of 1 faces, given an array of shape (4,)",
        ),
        (lambda: score(FACE[None], FACE[None] * NAN, SCHEME), "none of 1 faces can be scored"),
        (lambda: score(FACE[None], FACE[None], SCHEME, threshold=0), "expected a positive fraction"),
        (lambda: auc(np.array([NAN])), "no face to score"),
        (lambda: ced(np.array([])), "no face to score"),
        (lambda: spearman(np.array([1.0]), np.array([1.0])), "at least 2"),
        (lambda: spearman(np.array([1.0, NAN]), np.array([1.0, 2.0])), "without NaN"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with np.errstate(invalid="ignore"), pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_contour_errors_by_hand() -> None:
    """A contour that goes down, round a corner and to the right: tangents (0, 1), (0, 1), (1, 1) / sqrt 2, (1, 0)."""
    true = np.array([[[0.0, 0.0], [0.0, 10.0], [0.0, 20.0], [10.0, 20.0]]])
    offset = np.array([[[3.0, 4.0], [-1.0, 2.0], [2.0, 0.0], [-5.0, 6.0]]])
    tangent, normal = contour_errors(true + offset, true)
    root = math.sqrt(2)
    np.testing.assert_allclose(tangent, [[4, 2, root, 5]])
    np.testing.assert_allclose(normal, [[3, 1, root, 6]])


def test_contour_errors_beside_a_gap_are_one_sided() -> None:
    true = np.array([[[0.0, 0.0], [NAN, NAN], [10.0, 10.0], [10.0, 20.0], [NAN, NAN], [40.0, 0.0], [NAN, NAN]]])
    predicted = np.nan_to_num(true) + np.array([3.0, 4.0])
    tangent, normal = contour_errors(predicted, true)
    # alone beside a gap, 0 and 5 have no tangent; 2 -> 3 and 3 <- 2 go straight down
    np.testing.assert_allclose(tangent, [[NAN, NAN, 4, 4, NAN, NAN, NAN]])
    np.testing.assert_allclose(normal, [[NAN, NAN, 3, 3, NAN, NAN, NAN]])
    predicted[0, 2] = NAN
    predicted[0, 3] = math.inf
    tangent, normal = contour_errors(predicted, true)
    assert np.isinf(tangent[0, 2:4]).all()
    assert np.isinf(normal[0, 2:4]).all()
    assert np.isnan(contour_errors(true, np.full_like(true, NAN))[0]).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), angle=st.floats(-180, 180), scale=st.floats(0.1, 10))
def test_contour_errors_are_the_distance_and_turn_with_the_face(seed: int, angle: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    true, predicted = rng.normal(size=(2, 3, 6, 2)) * 50
    tangent, normal = contour_errors(predicted, true)
    np.testing.assert_allclose(np.hypot(tangent, normal), landmark_errors(predicted, true))
    move = Similarity.about(np.zeros(2), np.array([5.0, -3.0]), scale=scale, angle=angle)
    turned = contour_errors(move(predicted), move(true))
    np.testing.assert_allclose(turned, np.multiply((tangent, normal), scale), atol=1e-8)


def test_contour_errors_need_one_shape() -> None:
    with pytest.raises(InputError, match=r"the same shape \(N, K, 2\)"):
        contour_errors(np.zeros((2, 3, 2)), np.zeros((2, 4, 2)))
