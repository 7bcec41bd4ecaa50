"""Many similarities at once are those of one at a time; the mean shape does not depend on where faces are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmark.core.geometry import Floats, Similarity, fit_similarity
from fewmark.core.procrustes import fit_similarities, invert_each, map_each, mean_shape


def shapes(seed: int, n: int = 6, k: int = 5, spread: float = 0.1) -> Floats:
    """n noisy copies of one shape, each moved by a similarity of its own."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(k, 2))
    moved = []
    for _ in range(n):
        move = Similarity.about(
            np.zeros(2), rng.normal(size=2) * 50, scale=float(rng.uniform(5, 50)), angle=float(rng.uniform(-180, 180))
        )
        moved.append(move(base + spread * rng.normal(size=(k, 2))))
    return np.stack(moved)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(2, 7))
def test_each_is_the_similarity_fitted_alone(seed: int, k: int) -> None:
    faces = shapes(seed, k=k, spread=0.5)
    target = np.random.default_rng(seed + 1).normal(size=(k, 2))
    found = fit_similarities(faces, target)
    for face, matrix in zip(faces, found, strict=True):
        np.testing.assert_allclose(matrix, fit_similarity(face, target).matrix, atol=1e-9)
    aligned = map_each(found, faces)
    np.testing.assert_allclose(aligned[2], fit_similarity(faces[2], target)(faces[2]), atol=1e-9)
    np.testing.assert_allclose(map_each(invert_each(found), aligned), faces, atol=1e-6)


def test_by_hand() -> None:
    """A quarter turn counter-clockwise (y down), twice the size, and a shift."""
    source = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    target = np.array([[5.0, 7.0], [5.0, 5.0], [7.0, 7.0]])
    np.testing.assert_allclose(fit_similarities(source[None], target)[0], [[0, 2, 5], [-2, 0, 7]], atol=1e-12)


def test_what_cannot_be_aligned_is_nan_and_spoils_no_other() -> None:
    faces = shapes(0, n=4)
    alone = fit_similarities(faces[3:], faces[3])
    faces[0, 2, 1] = np.nan
    faces[1] = faces[1, :1]
    faces[2] = np.nan
    found = fit_similarities(faces, faces[3])
    assert np.isnan(found[:3]).all()
    np.testing.assert_array_equal(found[3:], alone)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_mean_forgets_place_size_and_turn(seed: int) -> None:
    faces = shapes(seed)
    first = mean_shape(faces)
    moved = np.stack(
        [
            Similarity.about(np.zeros(2), np.array([9.0, -4.0]), scale=3.0 + i, angle=40.0 * i)(f)
            for i, f in enumerate(faces)
        ]
    )
    np.testing.assert_allclose(fit_similarity(mean_shape(moved), first)(mean_shape(moved)), first, atol=1e-6)
    low, high = first.min(0), first.max(0)
    np.testing.assert_allclose([(high - low).max(), *(low + high)], [1, 1, 1], atol=1e-12)


def test_the_mean_of_one_shape_is_it_and_takes_the_place_that_is_asked_for() -> None:
    faces = shapes(3, n=5, spread=0.0)
    like = np.random.default_rng(9).normal(size=faces.shape[1:]) * 0.01 + fit_similarity(faces[0], faces[1])(faces[0])
    mean = mean_shape(faces, like)
    np.testing.assert_allclose(mean, fit_similarity(faces[0], like)(faces[0]), atol=1e-9)
    incomplete = faces.copy()
    incomplete[1:, 0] = np.nan
    np.testing.assert_allclose(mean_shape(incomplete, like), mean, atol=1e-9)
    with pytest.raises(ValueError, match="at least one shape"):
        mean_shape(incomplete[1:])
