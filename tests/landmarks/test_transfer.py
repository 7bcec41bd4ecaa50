"""Transfers between schemes: exact where the truth is linear, indifferent to similarities, honest where it is not."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats, Similarity
from fewmark.core.procrustes import fit_similarities, invert_each, map_each
from fewmark.landmarks.scheme import BetweenPoints, LandmarkScheme, load_scheme
from fewmark.landmarks.transfer import RIDGES, SchemeTransfer, cross_validate_ridge
from fewmark.landmarks.transfer_fitting import assign_folds, usable_pairs

SOURCE = LandmarkScheme(
    "square-4",
    ("a", "b", "c", "d"),
    mean_face=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
)
TARGET = LandmarkScheme(
    "three",
    ("left", "right", "below"),
    components={"top": (0, 1), "below": (2,)},
    normalizers={"outer-eye-corners": BetweenPoints(0, 1)},
    default_normalizer="outer-eye-corners",
)
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
MIX = np.array([[0.7, 0.1, 0.1, 0.1], [0.0, 0.8, 0.2, 0.0], [-0.5, 0.0, 0.75, 0.75]])
"""Each target landmark as a weighted mean of the source's: a linear map that moves with every similarity."""


def faces(seed: int, n: int, noise: float = 0.0) -> tuple[Floats, Floats]:
    """n pairs: squares out of shape, anywhere in an image, and their target landmarks with noise, in sides."""
    rng = np.random.default_rng(seed)
    x = SQUARE + 0.15 * rng.normal(size=(n, 4, 2))
    y = MIX @ x + noise * rng.normal(size=(n, 3, 2))
    moves = [
        Similarity.about(np.zeros(2), rng.uniform(0, 400, 2), scale=rng.uniform(20, 90), angle=rng.uniform(-180, 180))
        for _ in range(n)
    ]
    return tuple(np.stack([m(p) for m, p in zip(moves, part, strict=True)]) for part in (x, y))  # type: ignore[return-value]


def fitted(seed: int = 0, n: int = 40, noise: float = 0.0, ridge: float = 0.0) -> SchemeTransfer:
    return SchemeTransfer.fit(SOURCE, TARGET, *faces(seed, n, noise), ridge=ridge)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_linear_truth_is_found_exactly(seed: int) -> None:
    transfer = fitted(seed)
    x, y = faces(seed + 1, 10)
    np.testing.assert_allclose(transfer.apply(x), y, atol=1e-4)
    assert transfer.expected_error < 1e-5
    assert transfer.n_pairs == 40
    assert transfer.normalizer == "outer-eye-corners"


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.05, 20),
    angle=st.floats(-180, 180),
    shift=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
    ridge=st.sampled_from([0.0, 0.01, 10.0]),
)
def test_it_commutes_with_every_similarity(
    seed: int, scale: float, angle: float, shift: tuple[float, float], ridge: float
) -> None:
    transfer = fitted(7, 30, noise=0.1, ridge=ridge)
    move = Similarity.about(np.zeros(2), np.array(shift), scale=scale, angle=angle)
    x, _ = faces(seed, 5)
    np.testing.assert_allclose(transfer.apply(move(x)), move(transfer.apply(x)), rtol=0, atol=1e-6 * (1 + scale))


def test_it_learns_the_same_wherever_the_training_faces_are() -> None:
    x, y = faces(0, 30, noise=0.05)
    moves = [Similarity.about(np.zeros(2), np.full(2, 5.0 * i), scale=0.5 + i, angle=23.0 * i) for i in range(30)]
    moved = [np.stack([m(p) for m, p in zip(moves, part, strict=True)]) for part in (x, y)]
    for ridge in (0.0, 0.3):
        a = SchemeTransfer.fit(SOURCE, TARGET, x, y, ridge=ridge)
        b = SchemeTransfer.fit(SOURCE, TARGET, *moved, ridge=ridge)
        np.testing.assert_allclose(a.matrix, b.matrix, atol=1e-6)
        np.testing.assert_allclose(a.expected_error, b.expected_error, rtol=1e-6)


def test_two_landmarks_place_the_mean_face() -> None:
    """By hand: two source landmarks give place, size and turn; the third corner is where it is on average."""
    two, one = LandmarkScheme("two", ("a", "b")), LandmarkScheme("one", ("tip",))
    x = np.array(
        [[[0.0, 0.0], [2.0, 0.0]], [[10.0, 10.0], [10.0, 14.0]]]
    )  # the second turned by 90 degrees, twice as large
    y = np.array([[[1.0, 1.0]], [[8.0 - 1.0, 12.0]]])  # 0.5 and 0.75 sides off the middle
    transfer = SchemeTransfer.fit(two, one, x, y)
    np.testing.assert_allclose(transfer.apply(np.array([[0.0, 0.0], [8.0, 0.0]])), [[4.0, 8.0 * 0.625]], atol=1e-9)


def test_ridge_by_hand() -> None:
    """One direction of change in the source: the slope is s / (1 + ridge * mean variance / variance)."""
    x, _ = faces(1, 50)
    transfer = SchemeTransfer.fit(SOURCE, TARGET, *faces(1, 50))
    frame = fit_similarities(x, transfer.mean_shape)
    offsets = (map_each(frame, x) - transfer.mean_shape).reshape(50, -1)
    centred = offsets - offsets.mean(0)
    covariance = centred.T @ centred / 50
    targets = map_each(frame, faces(1, 50)[1]).reshape(50, -1)
    for ridge in (0.01, 1.0):
        penalised = covariance + ridge * np.trace(covariance) / 8 * np.eye(8)
        expected = np.linalg.solve(penalised, centred.T @ (targets - targets.mean(0)) / 50)
        found = fitted(1, 50, ridge=ridge)
        np.testing.assert_allclose(found.matrix[:-1], expected, atol=1e-9)
        np.testing.assert_allclose(found.matrix[-1], targets.mean(0) - offsets.mean(0) @ expected, atol=1e-9)
    all_bias = fitted(1, 50, ridge=1e12)
    np.testing.assert_allclose(all_bias.matrix[:-1], 0, atol=1e-9)
    np.testing.assert_allclose(all_bias.target_mean_shape.ravel(), targets.mean(0), atol=1e-9)


def test_the_same_ridge_means_the_same_for_any_number_of_pairs() -> None:
    x, y = faces(2, 30, noise=0.1)
    once = SchemeTransfer.fit(SOURCE, TARGET, x, y, ridge=0.1)
    twice = SchemeTransfer.fit(SOURCE, TARGET, np.tile(x, (2, 1, 1)), np.tile(y, (2, 1, 1)), ridge=0.1)
    np.testing.assert_allclose(once.matrix, twice.matrix, atol=1e-9)


def test_the_expected_error_is_that_of_new_faces() -> None:
    transfer = fitted(0, 300, noise=0.05)
    x, y = faces(1, 2000, noise=0.05)
    errors = np.linalg.norm(transfer.apply(x) - y, axis=2) / np.linalg.norm(y[:, :1] - y[:, 1:2], axis=2)
    assert transfer.expected_error == pytest.approx(errors.mean(), rel=0.1)
    np.testing.assert_allclose(transfer.expected_error_per_landmark, errors.mean(0), rtol=0.15)
    parts = transfer.expected_error_per_component
    assert parts["below"] == transfer.expected_error_per_landmark[2]
    assert parts["top"] == pytest.approx(transfer.expected_error_per_landmark[:2].mean())


def test_copies_of_a_face_in_one_group_do_not_flatter() -> None:
    """A hundred pairs that are ten persons ten times: without groups the held-out faces are known already."""
    x, y = (np.repeat(p, 10, axis=0) for p in faces(0, 10, noise=0.2))
    groups = [str(i // 10) for i in range(100)]
    blind = SchemeTransfer.fit(SOURCE, TARGET, x, y)
    honest = SchemeTransfer.fit(SOURCE, TARGET, x, y, groups=groups)
    assert honest.expected_error > 1.5 * blind.expected_error
    np.testing.assert_array_equal(blind.matrix, honest.matrix)


def test_folds_cut_no_group_and_are_even() -> None:
    pairs = usable_pairs(SOURCE, TARGET, *faces(0, 60))
    groups = [str(i % 13) for i in range(60)]
    folds = assign_folds(pairs, groups, 5)
    assert all(len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) == 1 for name in groups)
    assert np.bincount(folds).min() >= 9
    np.testing.assert_array_equal(folds, assign_folds(pairs, groups, 5))
    assert (folds != assign_folds(pairs, groups, 5, np.random.default_rng(5))).any()


def test_cross_validation_finds_the_ridge() -> None:
    """Few noisy pairs ask for a ridge, many clean ones for none."""
    few = cross_validate_ridge(SOURCE, TARGET, *faces(0, 9, noise=0.3))
    many = cross_validate_ridge(SOURCE, TARGET, *faces(0, 200))
    assert few.ridge >= 0.1
    assert many.ridge == RIDGES[0]
    assert few.errors.keys() == set(RIDGES)
    assert few.errors[few.ridge] == min(few.errors.values())
    auto = SchemeTransfer.fit(SOURCE, TARGET, *faces(0, 9, noise=0.3), ridge="auto")
    assert auto.ridge == few.ridge
    with pytest.warns(UserWarning, match="cannot cross-validate with a single group of pairs; ridge 1 is used"):
        SchemeTransfer.fit(SOURCE, TARGET, *faces(0, 9), ridge="auto", groups=["same"] * 9)
    x, y = faces(1, 500, noise=0.3)
    plain = SchemeTransfer.fit(SOURCE, TARGET, *faces(0, 9, noise=0.3))
    assert np.linalg.norm(auto.apply(x) - y, axis=2).mean() < np.linalg.norm(plain.apply(x) - y, axis=2).mean()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fewer_pairs_than_unknowns_warn_and_use_a_ridge(n: int) -> None:
    with pytest.warns(
        UserWarning, match=rf"square-4 -> three: {n} pairs for 5 unknowns.*singular; ridge .* instead of 0"
    ):
        transfer = SchemeTransfer.fit(SOURCE, TARGET, *faces(0, n, noise=0.02))
    assert transfer.ridge > 0
    x, y = faces(1, 50)
    assert np.isfinite(transfer.apply(x)).all()
    side = np.linalg.norm(y[:, 0] - y[:, 1], axis=1)[:, None]
    assert (np.linalg.norm(transfer.apply(x) - y, axis=2) / side).mean() < 0.6
    assert math.isnan(transfer.expected_error) == (n == 1)


def test_enough_pairs_that_are_all_alike_are_singular_too() -> None:
    x, y = (np.repeat(p, 20, axis=0) for p in faces(0, 3, noise=0.02))
    with pytest.warns(UserWarning, match="20|60 pairs"):
        assert SchemeTransfer.fit(SOURCE, TARGET, x, y).ridge > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(0, 5)  # as many pairs as unknowns
        fitted(0, 2, ridge=0.1)  # a ridge that was asked for


def test_a_missing_target_landmark_leaves_its_pair_out_for_that_landmark_alone() -> None:
    x, y = faces(0, 40, noise=0.1)
    gone = y.copy()
    gone[25:, 2] = np.nan
    whole = SchemeTransfer.fit(SOURCE, TARGET, x, y, ridge=0.01)
    found = SchemeTransfer.fit(SOURCE, TARGET, x, gone, ridge=0.01)
    np.testing.assert_array_equal(found.matrix[:, :4], whole.matrix[:, :4])
    some = np.random.default_rng(0).normal(size=(4, 2))
    frame = fit_similarities(x, found.mean_shape)
    offsets = (map_each(frame, x) - found.mean_shape).reshape(40, -1)[:25]
    centred, aim = offsets - offsets.mean(0), map_each(frame, y)[:25, 2]
    covariance = centred.T @ centred / 25
    w = np.linalg.solve(covariance + 0.01 * np.trace(covariance) / 8 * np.eye(8), centred.T @ (aim - aim.mean(0)) / 25)
    np.testing.assert_allclose(found.matrix[:-1, 4:], w, atol=1e-9)
    assert np.isfinite(found.apply(some)).all()
    assert found.n_pairs == 40


def test_a_missing_source_landmark_leaves_the_whole_pair_out() -> None:
    x, y = faces(0, 40, noise=0.1)
    holes = np.concatenate([x, x[:3]]), np.concatenate([y, y[:3] + 50])
    holes[0][40, 1] = np.nan
    holes[0][41] = np.nan
    holes[0][42] = holes[0][42, 0]  # all in one place: no similarity
    found = SchemeTransfer.fit(SOURCE, TARGET, *holes, ridge=0.01)
    np.testing.assert_array_equal(found.matrix, SchemeTransfer.fit(SOURCE, TARGET, x, y, ridge=0.01).matrix)
    assert found.n_pairs == 40
    answers = found.apply(holes[0][38:])
    assert np.isfinite(answers[:2]).all()
    assert np.isnan(answers[2:]).all()


def test_a_landmark_that_no_pair_has_stays_missing() -> None:
    x, y = faces(0, 20)
    y[:, 1] = np.nan
    with pytest.warns(UserWarning, match="no pair has the landmark right; it will be missing from every prediction"):
        transfer = SchemeTransfer.fit(SOURCE, TARGET, x, y)
    answers = transfer.apply(x)
    assert np.isnan(answers[:, 1]).all()
    np.testing.assert_allclose(answers[:, [0, 2]], y[:, [0, 2]], atol=1e-4)
    assert math.isnan(transfer.expected_error)  # the normaliser needs that landmark
    scores = transfer.apply_scores(np.ones(4))
    np.testing.assert_allclose(scores[[0, 2]], 1)
    assert np.isnan(scores[1])


def test_kept_landmarks_are_taken_as_they_are() -> None:
    transfer = fitted()
    x, y = faces(3, 6)
    keep = np.full_like(y, np.nan)
    keep[:, 2] = 7.0
    keep[5, 2] = np.nan
    answers = transfer.apply(x, keep=keep)
    np.testing.assert_array_equal(answers[:5, 2], 7.0)
    np.testing.assert_array_equal(answers[:, :2], transfer.apply(x)[:, :2])
    np.testing.assert_array_equal(answers[5], transfer.apply(x)[5])
    x[0] = np.nan
    assert np.isfinite(transfer.apply(x, keep=keep)[0]).all(1).tolist() == [False, False, True]
    with pytest.raises(InputError, match=r"keep: expected \(6, 3, 2\) as scheme three has"):
        transfer.apply(x, keep=keep[:, :2])


def test_shapes_of_one_face_of_many_and_of_none() -> None:
    transfer = fitted()
    x, _ = faces(3, 6)
    many = transfer.apply(x.reshape(2, 3, 4, 2))
    assert many.shape == (2, 3, 3, 2)
    np.testing.assert_array_equal(many[1, 0], transfer.apply(x[3]))
    assert transfer.apply(x[:0]).shape == (0, 3, 2)
    assert transfer.apply_scores(np.ones((5, 4))).shape == (5, 3)


def test_influence_is_the_derivative() -> None:
    transfer = fitted(0, 60, noise=0.05, ridge=0.05)
    mean, step = transfer.mean_shape, 1e-6
    size = np.empty((3, 4))
    for j in range(4):
        columns = []
        for axis in range(2):
            moved = mean.copy()
            moved[j, axis] += step
            columns.append((transfer.apply(moved) - transfer.apply(mean)) / step)
        size[:, j] = np.linalg.norm(np.stack(columns, -1), axis=(1, 2))
    np.testing.assert_allclose(transfer.influence, size / size.sum(1, keepdims=True), atol=1e-4)
    scores = np.array([0.2, 0.4, 0.6, 0.9])
    np.testing.assert_allclose(transfer.apply_scores(scores), transfer.influence @ scores)
    assert np.isnan(transfer.apply_scores(np.array([0.2, np.nan, 0.6, 0.9]))).all()


def test_to_the_same_landmarks_everything_stays() -> None:
    x, _ = faces(0, 40)
    other = replace(SOURCE, name="also-square")
    transfer = SchemeTransfer.fit(SOURCE, other, x, x)
    np.testing.assert_allclose(transfer.apply(x), x, atol=1e-4)
    np.testing.assert_allclose(transfer.influence, np.eye(4), atol=1e-4)
    np.testing.assert_allclose(transfer.source_box(np.array([3, 4, 9, 12])), [3, 4, 9, 12], atol=0.5)


def test_a_scheme_without_a_mean_face_is_fitted_as_well() -> None:
    x, y = faces(0, 30, noise=0.1)
    bare = replace(SOURCE, mean_face=None)
    a, b = (SchemeTransfer.fit(s, TARGET, x, y, ridge=0.1) for s in (SOURCE, bare))
    np.testing.assert_allclose(a.apply(x), b.apply(x), atol=1e-4)


def test_the_boxes_of_a_box_normaliser() -> None:
    target = replace(TARGET, normalizers={}, default_normalizer="box-size")
    x, y = faces(0, 60, noise=0.1)
    tight = SchemeTransfer.fit(SOURCE, target, x, y)
    boxes = np.concatenate([y.min(1), y.min(1) + 100], 1)
    given = SchemeTransfer.fit(SOURCE, target, x, y, boxes_xyxy=boxes)
    errors = np.linalg.norm(given.apply(x) - y, axis=2).mean() / 100
    assert given.expected_error == pytest.approx(errors, rel=0.35)
    assert given.expected_error != pytest.approx(tight.expected_error, rel=0.05)
    boxes[7] = np.nan  # then its tight box
    assert SchemeTransfer.fit(SOURCE, target, x, y, boxes_xyxy=boxes).expected_error > given.expected_error


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ridge": -0.1}, "ridge: expected a non-negative number or 'auto', given -0.1"),
        ({"ridge": math.nan}, "ridge"),
        ({"ridge": "most"}, "ridge.*'most'"),
        ({"n_folds": 1}, "n_folds: expected 2 or more"),
        ({"groups": ["a"]}, "groups: expected one for each of 20 pairs, given 1"),
        ({"boxes_xyxy": np.zeros((3, 4))}, "boxes: expected x0 y0 x1 y1 of 20 pairs"),
        ({"source_points": np.zeros((20, 5, 2))}, r"source points: expected \(N, 4, 2\), given \(20, 5, 2\)"),
        ({"target_points": np.zeros((20, 3))}, r"target points: expected \(N, 3, 2\), given \(20, 3\)"),
        ({"target_points": np.zeros((19, 3, 2))}, "as many source faces as target faces, given 20 and 19"),
        ({"source_points": np.full((20, 4, 2), np.nan)}, "every source landmark.*none among 20"),
        ({"target_points": np.full((20, 3, 2), np.nan)}, "some target landmark.*none among 20"),
        (
            {"source": LandmarkScheme("one", ("a",)), "source_points": np.zeros((20, 1, 2))},
            "2 landmarks or more.*given 1",
        ),
    ],
)
def test_bad_requests(changes: dict[str, object], says: str) -> None:
    x, y = faces(0, 20)
    arguments = {"source": SOURCE, "target": TARGET, "source_points": x, "target_points": y, **changes}
    with pytest.raises(InputError, match=says) as error:
        SchemeTransfer.fit(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_bad_points_and_nothing_to_hold_out() -> None:
    with pytest.raises(
        InputError, match=r"source points: expected \(..., 4, 2\) as scheme square-4 has, given \(5, 2\)"
    ):
        fitted().apply(np.zeros((5, 2)))
    with pytest.raises(InputError, match="2 or more groups to cross-validate, given 10 of one"):
        cross_validate_ridge(SOURCE, TARGET, *faces(0, 10), groups=["same"] * 10)
    with pytest.raises(InputError, match="ridges: expected one or more"):
        cross_validate_ridge(SOURCE, TARGET, *faces(0, 10), ridges=[])


def test_real_schemes_and_the_way_back() -> None:
    """From the drawn variation of 68 landmarks to five that are means of them, and to the box of the others."""
    dense, five = load_scheme("ibug-68"), load_scheme("mtfl-5")
    assert dense.mean_face is not None
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(6, 68, 2)) * 0.02
    x = 100 * (dense.mean_face + np.einsum("nd,dkc->nkc", rng.normal(size=(160, 6)), directions))
    y = np.stack([x[:, 36:42].mean(1), x[:, 42:48].mean(1), x[:, 30], x[:, 48], x[:, 54]], 1)
    transfer = SchemeTransfer.fit(dense, five, x, y, ridge="auto")
    assert transfer.expected_error < 0.01
    back = SchemeTransfer.fit(five, dense, y, x, ridge="auto")
    box = back.source_box(np.concatenate([x[0].min(0), x[0].max(0)]))
    np.testing.assert_allclose(box, np.concatenate([y[0].min(0), y[0].max(0)]), atol=8)


def test_it_needs_no_torch() -> None:
    code = "import sys, fewmark.landmarks.transfer, fewmark.inference.checkpoint.transfers, fewmark.data.relabelling; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_inverting_nothing() -> None:
    assert invert_each(fit_similarities(np.zeros((0, 4, 2)), SQUARE)).shape == (0, 2, 3)
