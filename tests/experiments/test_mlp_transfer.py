"""The network between schemes: the same frame and the same interface as least squares."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mlp_transfer import MlpTransfer, PairBatches

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats, Similarity
from fewmark.landmarks.scheme import LandmarkScheme

SOURCE, TARGET = LandmarkScheme("square-4", tuple("abcd")), LandmarkScheme("three", ("left", "right", "below"))
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
MIX = np.array([[0.7, 0.1, 0.1, 0.1], [0.0, 0.8, 0.2, 0.0], [-0.5, 0.0, 0.75, 0.75]])


def faces(seed: int, n: int) -> tuple[Floats, Floats]:
    """n pairs: squares out of shape, of any size, and three landmarks that are weighted means of theirs."""
    rng = np.random.default_rng(seed)
    x = (SQUARE + 0.15 * rng.normal(size=(n, 4, 2))) * rng.uniform(20, 90, (n, 1, 1)) + rng.uniform(0, 400, (n, 1, 2))
    return x, MIX @ x


@pytest.fixture(scope="module")
def trained() -> MlpTransfer:
    x, y = faces(0, 120)
    y[100:, 2] = np.nan
    x[0, 0] = np.nan
    return MlpTransfer.fit(SOURCE, TARGET, x, y, width=32, n_steps=400, weight_decay=0.0, learning_rate=0.01)


def test_it_learns_and_commutes_with_similarities(trained: MlpTransfer) -> None:
    x, y = faces(1, 50)
    side = np.linalg.norm(y[:, 0] - y[:, 1], axis=1)[:, None]
    error = np.linalg.norm(trained.apply(x) - y, axis=2) / side
    alone = MlpTransfer.fit(SOURCE, TARGET, *faces(0, 120), width=2, n_steps=1)
    untrained = np.linalg.norm(alone.apply(x) - y, axis=2) / side
    assert error.mean() < 0.25 * untrained.mean()
    move = Similarity.about(np.zeros(2), np.array([90.0, -20.0]), scale=3.0, angle=70.0)
    np.testing.assert_allclose(trained.apply(move(x)), move(trained.apply(x)), atol=0.01)


def test_keep_and_missing(trained: MlpTransfer) -> None:
    x, y = faces(2, 3)
    keep = np.full_like(y, np.nan)
    keep[:, 1] = 5.0
    x[2, 3] = np.nan
    answers = trained.apply(x, keep=keep)
    np.testing.assert_array_equal(answers[:, 1], 5.0)
    assert np.isfinite(answers[:2]).all()
    assert np.isnan(answers[2, [0, 2]]).all()


def test_a_training_can_be_repeated_and_leaves_the_random_numbers_alone() -> None:
    pairs = faces(0, 20)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    a, b, other = (MlpTransfer.fit(SOURCE, TARGET, *pairs, width=8, n_steps=5, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    x, _ = faces(1, 4)
    np.testing.assert_array_equal(a.apply(x), b.apply(x))
    assert (a.apply(x) != other.apply(x)).any()


def test_batches_hold_every_pair_once() -> None:
    numbers = torch.arange(10.0)[:, None]
    batches = PairBatches(numbers, numbers, numbers, 4, 0)
    seen = [torch.cat([b[0] for b in batches(e)]).ravel().tolist() for e in (0, 0, 1)]
    assert len(batches) == 3
    assert sorted(seen[0]) == list(range(10))
    assert seen[0] == seen[1] != seen[2]


def test_bad_requests() -> None:
    x, y = faces(0, 10)
    with pytest.raises(InputError, match="n_steps"):
        MlpTransfer.fit(SOURCE, TARGET, x, y, n_steps=0)
    y[:, 1] = np.nan
    with pytest.raises(InputError, match="no pair has the landmark right"):
        MlpTransfer.fit(SOURCE, TARGET, x, y)
    with pytest.raises(InputError, match="target points"):
        MlpTransfer.fit(SOURCE, TARGET, x, y[:, :2])
