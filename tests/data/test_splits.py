"""Splits cut no group; few-label sets are nested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.data.samples import FaceSample
from fewmark.data.splits import few_labels, split_groups


def face(image: str, group: str = "", labelled: bool = True) -> FaceSample:
    return FaceSample(Path(image), landmarks=np.zeros((1, 2), np.float32) if labelled else None, group=group)


some_faces = st.lists(
    st.builds(face, st.sampled_from([f"{i}.jpg" for i in range(40)]), st.sampled_from(["", "", "ann", "bo", "cy"])),
    min_size=60,
    max_size=120,
)


@settings(max_examples=60)
@given(faces=some_faces, seed=st.integers(0, 2**32), parts=st.sampled_from([[1.0], [0.5, 0.5], [0.7, 0.2, 0.1]]))
def test_split_is_a_partition_that_cuts_no_group(faces: list[FaceSample], seed: int, parts: list[float]) -> None:
    if len({s.image for s in faces if not s.group}) < 3:
        return
    try:
        split = split_groups(faces, parts, np.random.default_rng(seed))
    except InputError:  # everything hangs together by images that groups share
        assert len({s.image for s in faces if not s.group} - {s.image for s in faces if s.group}) < len(parts)
        return
    assert sorted(id(s) for part in split for s in part) == sorted(id(s) for s in faces)
    assert all(split)
    for key in ("group", "image"):
        seen = [{str(getattr(s, key)) for s in part} - {""} for part in split]
        for i, a in enumerate(seen):
            for b in seen[i + 1 :]:
                assert not a & b
    for part in split:
        assert [id(s) for s in part] == [id(s) for s in faces if s in part]
    again = split_groups(faces, parts, np.random.default_rng(seed))
    assert [[id(s) for s in part] for part in again] == [[id(s) for s in part] for part in split]


def test_split_meets_its_shares() -> None:
    faces = [face(f"{i}.jpg", f"person {i // 5}") for i in range(200)]
    sizes = [len(part) for part in split_groups(faces, [0.8, 0.1, 0.1], np.random.default_rng(0))]
    assert sizes == [160, 20, 20]
    first = split_groups(faces, [0.5, 0.5], np.random.default_rng(1))[0]
    other = split_groups(faces, [0.5, 0.5], np.random.default_rng(2))[0]
    assert {s.group for s in first} != {s.group for s in other}


@pytest.mark.parametrize("fractions", [[], [0.5, 0.4], [1.5, -0.5], [1.0, 0.0]])
def test_split_refuses_fractions(fractions: list[float]) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        split_groups([face("a"), face("b")], fractions, np.random.default_rng(0))


def test_split_refuses_too_few_groups() -> None:
    with pytest.raises(InputError, match="at least 2 groups for 2 parts, given 1"):
        split_groups([face("a", "x"), face("b", "x")], [0.5, 0.5], np.random.default_rng(0))


@settings(max_examples=60)
@given(
    n=st.integers(1, 300),
    seed=st.integers(0, 1000),
    fractions=st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True),
)
def test_few_labels_are_nested(n: int, seed: int, fractions: list[float]) -> None:
    faces = [face(f"{i}.jpg") for i in range(n)]
    sets = few_labels(faces, fractions, seed)
    assert list(sets) == fractions
    previous: set[int] = set()
    for fraction in sorted(fractions):
        chosen = {id(s) for s in sets[fraction]}
        assert len(chosen) == len(sets[fraction]) == max(1, int(fraction * n + 0.5))
        assert previous <= chosen
        previous = chosen
        assert [id(s) for s in sets[fraction]] == [id(s) for s in faces if id(s) in chosen]
    again = few_labels(faces, fractions, seed)
    assert all([id(s) for s in again[f]] == [id(s) for s in sets[f]] for f in fractions)


def test_few_labels_by_hand() -> None:
    faces = [face(f"{i}.jpg", labelled=i < 1071) for i in range(1200)]
    by_seed = [few_labels(faces, [0.05, 0.1, 0.2], seed) for seed in range(3)]
    for sets in by_seed:
        assert [len(few) for few in sets.values()] == [54, 107, 214]
        assert all(s.landmarks is not None for s in sets[0.2])
    names = [{str(s.image) for s in sets[0.05]} for sets in by_seed]
    assert names[0] != names[1] != names[2]
    for wrong in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(InputError, match="above 0 and up to 1"):
            few_labels(faces, [wrong], 0)
    with pytest.raises(InputError, match="given none"):
        few_labels([face("a.jpg", labelled=False)], [0.5], 0)
