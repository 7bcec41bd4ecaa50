"""Batches: a function of (seed, epoch), whatever the number of threads and processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.batches import Batch, Batches, face_rows
from fewmark.data.crops import CachedFace, CropRule, cache_face
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

PAIR = LandmarkScheme("pair", ("left", "right"), mirror=(1, 0))
SIZE = 16


def make_faces(n: int) -> list[CachedFace]:
    """Small noise images; the face's number is in its landmarks."""
    faces = []
    for i in range(n):
        image = np.random.default_rng(i).integers(0, 256, (20, 20, 3), np.uint8)
        labels = np.array([[5, 5 + i / 100], [14, 14]], np.float32)
        sample = FaceSample(Path(f"{i}.png"), np.array([2, 2, 18, 18], np.float32), labels)
        faces.append(cache_face(sample, CropRule(SIZE, 0.0), 2, image))
    return faces


FACES = make_faces(11)


def make(n: int = 11, **changes: Any) -> Batches:
    arguments: dict[str, Any] = {"batch_size": 4, "seed": 3, "n_threads": 0, **changes}
    weights = np.ones((n, 2), np.float32)
    return Batches(n, face_rows(FACES[:n], SIZE, PAIR, AugmentRule(), weights=weights), **arguments)


def same(a: Batch, b: Batch) -> bool:
    return (
        np.array_equal(a.images, b.images)
        and np.array_equal(a.targets, b.targets, equal_nan=True)
        and a.weights is not None
        and b.weights is not None
        and np.array_equal(a.weights, b.weights)
        and np.array_equal(a.indices, b.indices)
    )


def join(parts: list[Batch]) -> Batch:
    return Batch(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("images", "targets", "weights", "indices")))


def test_shapes() -> None:
    batches = list(make()(0))
    assert len(batches) == len(make()) == 3
    for batch in batches:
        assert batch.images.shape == (4, SIZE, SIZE, 3)
        assert batch.images.dtype == np.uint8
        assert batch.targets.shape == (4, 2, 2)
        assert batch.weights is not None
        assert batch.weights.shape == (4, 2)
        assert batch.indices.shape == (4,)


def test_a_function_of_seed_and_epoch() -> None:
    def epoch(seed: int, index: int) -> Batch:
        return join(list(make(seed=seed)(index)))

    assert same(epoch(3, 5), epoch(3, 5))
    assert not same(epoch(3, 5), epoch(3, 6))
    assert not same(epoch(3, 5), epoch(4, 5))
    one = make()
    list(one(0))  # what was cut before changes nothing
    assert same(join(list(one(5))), epoch(3, 5))


@given(n=st.integers(1, 11), batch_size=st.integers(1, 13), epoch=st.integers(0, 5))
@settings(max_examples=40)
def test_every_face_once_an_epoch(n: int, batch_size: int, epoch: int) -> None:
    batches = make(n, batch_size=batch_size)
    order = batches.order(epoch)
    assert len(order) == len(batches) * batch_size >= n
    assert sorted(order[:n]) == list(range(n))  # the rest fills the last batch
    assert order.dtype == np.int64


@pytest.mark.parametrize("changes", [{}, {"n_batches": 7}, {"shares": np.arange(1.0, 12.0)}])
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_slices_of_all_processes_make_the_global_batch(world_size: int, changes: dict[str, Any]) -> None:
    whole = list(make(**changes)(2))
    parts = [list(make(**changes, rank=r, world_size=world_size)(2)) for r in range(world_size)]
    for b, batch in enumerate(whole):
        assert same(join([p[b] for p in parts]), batch)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_threads_do_not_change_the_content(n_threads: int) -> None:
    for a, b in zip(make(n_threads=n_threads, n_batches=9)(1), make(n_batches=9)(1), strict=True):
        assert same(a, b)


def test_an_epoch_that_is_left_early_ends_its_threads() -> None:
    epoch = make(n_threads=2, n_batches=50)(0)
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(epoch)


@given(
    shares=st.lists(st.floats(0.01, 10), min_size=2, max_size=11),
    n_batches=st.integers(1, 6),
    epoch=st.integers(0, 9),
)
@settings(max_examples=60)
def test_shares_hold_in_every_epoch(shares: list[float], n_batches: int, epoch: int) -> None:
    values = np.array(shares)
    order = make(len(shares), shares=values, n_batches=n_batches).order(epoch)
    due = values / values.sum() * n_batches * 4
    counts = np.bincount(order, minlength=len(shares))
    assert counts.sum() == n_batches * 4
    assert (np.abs(counts - due) < 1 + 1e-6).all()  # each face has its due, rounded up or down


def test_shares_of_a_group_hold_where_most_faces_are_not_drawn() -> None:
    """3 labelled faces are due half of an epoch that draws only a few of the 8 others."""
    shares = np.array([0.5 / 3] * 3 + [0.5 / 8] * 8)
    for n_batches in (1, 2, 3):
        batches = make(shares=shares, n_batches=n_batches)
        labelled = [int((batches.order(e) < 3).sum()) for e in range(200)]
        assert max(abs(v - 2 * n_batches) for v in labelled) <= 1
        assert np.mean(labelled) == pytest.approx(2 * n_batches, abs=0.1)


def test_given_a_number_of_batches_faces_come_equally_often() -> None:
    batches = make(n_batches=2)  # 8 of 11 faces an epoch
    counts: Counter[int] = Counter()
    for epoch in range(300):
        order = batches.order(epoch).tolist()
        assert len(set(order)) == 8
        counts.update(order)
    assert max(counts.values()) / min(counts.values()) < 1.2


def test_company_changes() -> None:
    """Which faces come together is drawn anew in every epoch."""
    sets = {frozenset(make(n_batches=1).order(e).tolist()) for e in range(40)}
    assert len(sets) > 25


def test_landmarks_and_weights_in_place_of_the_faces_own() -> None:
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(2, 13, (11, 2, 2)).astype(np.float32)
    landmarks[4] = np.nan
    plain = AugmentRule(scale=0, rotation=0, shift=0, flip=0, colour=0, erase=0, blur=0)
    weights = rng.uniform(0, 1, (11, 2)).astype(np.float32)
    rows = face_rows(FACES, SIZE, PAIR, plain, landmarks=landmarks, weights=weights)
    batches = Batches(11, rows, 4, 0, n_threads=0)
    for batch in batches(0):
        assert np.allclose(batch.targets, landmarks[batch.indices], atol=1e-4, equal_nan=True)
        assert batch.weights is not None
        assert np.array_equal(batch.weights, weights[batch.indices])


def test_weights_follow_flips() -> None:
    """The left landmark weighs 1, the right one 0: in a flipped image the other way round."""
    weights = np.tile(np.array([1.0, 0.0], np.float32), (11, 1))
    rule = AugmentRule(scale=0, rotation=0, shift=0, flip=0.5, colour=0, erase=0, blur=0)
    seen = set()
    for batch in Batches(11, face_rows(FACES, SIZE, PAIR, rule, weights=weights), 4, 1, n_threads=0)(0):
        assert batch.weights is not None
        for landmarks, weight, i in zip(batch.targets, batch.weights, batch.indices, strict=True):
            flipped = not np.allclose(landmarks, FACES[i].landmarks, atol=1e-3)
            assert weight.tolist() == ([0, 1] if flipped else [1, 0])
            seen.add(flipped)
    assert seen == {False, True}


def test_bad_batches_are_refused() -> None:
    with pytest.raises(InputError, match="at least one face"):
        make(0)
    with pytest.raises(InputError, match="multiple of the 3 processes, given 4"):
        make(world_size=3)
