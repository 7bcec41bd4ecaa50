"""Selection: the quota, and the faces selected by each rule from hand-made pseudo labels."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewmark.training.semi.pseudo_labels import PseudoLabels
from fewmark.training.semi.selection import SELECTION_NAMES, SPACO_GAMMA, lowest, quota, selection_rule


def hand_made(**changes: Any) -> PseudoLabels:
    """Five faces of two landmarks and two students, on which every measure has an order of its own."""
    labels = PseudoLabels(
        landmarks=np.zeros((5, 2, 2), np.float32),
        scores=np.array([[0.1, 0.3], [0.5, 0.5], [0.9, 0.9], [0.0, 0.2], [0.4, 0.4]], np.float32),
        disagreement=np.array([[5, 1], [1, 1], [2, 2], [9, 9], [0, 1]], np.float32),
        own_landmarks=np.zeros((2, 5, 2, 2), np.float32),
        own_losses=np.array([[3, 1, 2, 5, 4], [1, 2, 3, 4, 5]], np.float32),
        student=0,
        quality=np.array([-1, -3, -2, 0, -9], np.float32),
        last_selected=np.zeros((2, 5), bool),
        true_error=np.array([2, np.nan, 1, 4, 3], np.float32),
    )
    return replace(labels, **changes)


ORDERS = {
    "teacher": [3, 0, 2, 1, 4],
    "spl": [1, 2, 0, 4, 3],
    "spaco": [1, 2, 0, 4, 3],
    "peak": [2, 1, 4, 0, 3],
    "spread": [4, 1, 2, 0, 3],
    "oracle": [2, 0, 4, 3, 1],  # the unknown one last
}


def test_quota_by_hand() -> None:
    # TS3, section 4.2: r = 0.1, S = 6; 964 unlabelled faces are 1071 - 107
    assert [quota(i, 0.1, 964) for i in range(1, 7)] == [96, 192, 289, 385, 482, 578]
    assert [quota(i, 0.25, 10) for i in (1, 2, 3, 4, 5)] == [2, 5, 7, 10, 10]
    assert quota(3, 0.1, 10) == 3  # 0.1 * 3 is a little more than 0.3
    assert quota(3, 0.1, 1_000_000) == 300_000
    assert quota(1, 0.1, 9) == 0
    assert quota(1, 0.5, 0) == 0


@given(i=st.integers(1, 50), hundredths=st.integers(0, 100), n=st.integers(0, 10**6))
def test_quota_is_the_floor_of_the_exact_product(i: int, hundredths: int, n: int) -> None:
    assert quota(i, hundredths / 100, n) == min(n, int(Fraction(hundredths, 100) * i * n))


@pytest.mark.parametrize("wrong", [(0, 0.1, 5), (1, -0.1, 5), (1, 0.1, -5)])
def test_quota_refuses_nonsense(wrong: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match="quota"):
        quota(*wrong)


@pytest.mark.parametrize("name", list(ORDERS))
@pytest.mark.parametrize("n", [0, 1, 3, 5])
def test_who_is_selected(name: str, n: int) -> None:
    selected = selection_rule(name).select(hand_made(), n)
    assert selected.tolist() == ORDERS[name][:n]
    assert selected.dtype == np.int64


def test_spl_and_spaco_use_the_updated_student() -> None:
    for name in ("spl", "spaco"):
        assert selection_rule(name).select(hand_made(student=1), 3).tolist() == [0, 1, 2]


def test_spaco_prefers_the_other_students_selection() -> None:
    """Losses over their median, 3: 1, 1/3, 2/3, 5/3, 4/3. The other student's choice takes 0.3 off."""
    assert SPACO_GAMMA == 0.3
    select = selection_rule("spaco").select
    last_selected = np.zeros((2, 5), bool)
    last_selected[1, 0] = True  # face 0: 1 - 0.3 = 0.7, still after face 2
    assert select(hand_made(last_selected=last_selected), 5).tolist() == [1, 2, 0, 4, 3]
    three = np.concatenate([last_selected, last_selected[1:]])  # two other students: 1 - 0.6 = 0.4
    labels = hand_made(last_selected=three, own_losses=np.array([[3, 1, 2, 5, 4]] * 3, np.float32))
    assert select(labels, 5).tolist() == [1, 0, 2, 4, 3]
    own = np.zeros((2, 5), bool)
    own[0, 3] = True  # its own choice counts for nothing
    assert select(hand_made(last_selected=own), 5).tolist() == [1, 2, 0, 4, 3]


@given(scale=st.floats(1e-3, 1e3))
@settings(max_examples=20)
def test_spaco_does_not_depend_on_the_scale_of_the_loss(scale: float) -> None:
    last_selected = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 1, 1]], bool)
    labels = hand_made(last_selected=last_selected)
    scaled = replace(labels, own_losses=labels.own_losses * np.float32(scale))
    select = selection_rule("spaco").select
    assert select(scaled, 5).tolist() == select(labels, 5).tolist()


def test_random_is_a_function_of_seed_student_and_number() -> None:
    labels = PseudoLabels(
        np.zeros((40, 1, 2), np.float32),
        np.zeros((40, 1), np.float32),
        np.zeros((40, 1), np.float32),
        np.zeros((2, 40, 1, 2), np.float32),
        np.zeros((2, 40), np.float32),
        student=0,
    )

    def selected(seed: int, student: int, n: int) -> list[int]:
        return selection_rule("random", seed).select(replace(labels, student=student), n).tolist()

    assert selected(1, 0, 10) == selected(1, 0, 10)
    assert len(set(selected(1, 0, 10))) == 10
    assert selected(1, 0, 10) != selected(2, 0, 10)
    assert selected(1, 0, 10) != selected(1, 1, 10)
    assert sorted(selected(1, 0, 40)) == list(range(40))


@given(
    st.lists(st.floats(-10, 10) | st.just(float("nan")) | st.just(float("inf")), max_size=12),
    st.integers(0, 12),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_lowest(values: list[float], n: int) -> None:
    selected = lowest(np.array(values), n).tolist()
    assert len(set(selected)) == len(selected) == min(n, len(values))
    kept = [np.inf if np.isnan(values[i]) else values[i] for i in selected]
    assert kept == sorted(np.inf if np.isnan(v) else v for v in values)[: len(selected)]
    for a, b in pairwise(selected):
        assert values[a] != values[b] or a < b


def test_every_rule_has_a_name_and_what_it_needs() -> None:
    rules = {name: selection_rule(name) for name in SELECTION_NAMES}
    assert all(rule.name == name for name, rule in rules.items())
    assert [n for n in SELECTION_NAMES if rules[n].needs_teacher] == ["teacher"]
    assert [n for n in SELECTION_NAMES if rules[n].own_labels] == ["spl"]


def test_what_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of teacher"):
        selection_rule("best")
    with pytest.raises(ValueError, match="no teacher's quality"):
        selection_rule("teacher").select(hand_made(quality=None), 1)
    for nothing in (None, np.full(5, np.nan, np.float32)):
        with pytest.raises(ValueError, match="oracle"):
            selection_rule("oracle").select(hand_made(true_error=nothing), 1)
