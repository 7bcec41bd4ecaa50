"""The advice of a report: each rule speaks where its numbers say so, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fewmark.landmarks.metrics import Score
from fewmark.training.advice import Numbers, advise
from fewmark.training.semi.rounds import RoundRecord

EVEN = {"eyes": 0.03, "nose": 0.03, "mouth": 0.04}


def scored(nme: float = 0.03, n: int = 40, components: dict[str, float] | None = None, n_undetected: int = 0) -> Score:
    per_face = np.full(n, nme)
    per_face[::2] *= 1.5
    per_face[1::2] *= 0.5
    return Score(
        nme, 0.5, 0.1, "box-size", 0.08, n, n_undetected, 0, 3, 0, per_face, np.full(3, nme), components or EVEN
    )  # fmt: skip


FINE = Numbers(n_labelled=30, validation=scored(), training=scored(0.025), detected=scored())
"""Numbers that give no advice but to label more."""


def rounds(*nmes: float) -> list[RoundRecord]:
    return [RoundRecord(i, "unet", nme, nme) for i, nme in enumerate(nmes)]


def test_numbers_without_a_fault_say_only_that_the_learning_curve_is_unknown() -> None:
    (advice,) = advise(FINE)
    assert "cannot be seen from one run with 30" in advice.finding
    assert advice.action.startswith("Label 30 more faces")  # as many as there are


@pytest.mark.parametrize(
    ("numbers", "finding", "action"),
    [
        (replace(FINE, validation=None), "No face is held out", "--val"),
        (replace(FINE, validation=scored(n=8)), "8 validation faces: the NME is rough, 3.00 % ± 0.57 %", "at least 20"),
        (replace(FINE, training=scored(0.01)), "1.00 %, is much lower than that of validation faces, 3.00 %", "augment."),
        (replace(FINE, validation=scored(components={**EVEN, "mouth": 0.09})), "mouth: 9.00 %, 3.0 times", "its labels"),
        (replace(FINE, detected=scored(n_undetected=3)), "3 of 40 validation faces not found", "--tiles"),
        (replace(FINE, n_without_face=1), "1 unlabelled image left out", "boxes"),
        (replace(FINE, records=rounds(0.03, 0.04)), "3.00 % after labels only, 4.00 % after round 1", "--selection none"),
        (replace(FINE, packaged_ahead="The packaged model is better."), "packaged model is better", "--start ibug-68"),
    ],
)  # fmt: skip
def test_a_rule_speaks_where_its_number_says_so(numbers: Numbers, finding: str, action: str) -> None:
    advice = advise(numbers)
    assert len(advice) == 2
    assert finding in advice[0].finding
    assert action in advice[0].action


def test_rounds_that_help_are_not_advised_against() -> None:
    assert len(advise(replace(FINE, records=rounds(0.04, 0.05, 0.03)))) == 1


def test_a_component_that_is_hard_for_the_packaged_model_too_is_no_fault_of_the_labels() -> None:
    components = {**EVEN, "mouth": 0.09}
    advice = advise(replace(FINE, validation=scored(components=components), packaged=components))
    assert "harder by its definition" in advice[0].action


def test_the_faces_to_label_next_are_those_that_a_teacher_judges_worst() -> None:
    (advice,) = advise(replace(FINE, n_ranked=400, rank=-0.7))
    assert advice.action.startswith("Label the 30 unlabelled faces that the teacher judges worst")
    assert "badly" not in advice.action
    (advice,) = advise(replace(FINE, n_ranked=12, rank=0.1))
    assert "the 12 unlabelled faces" in advice.action
    assert "judges badly here (rank correlation +0.10)" in advice.action


@pytest.mark.parametrize(("n_labelled", "n_next"), [(3, 10), (12, 12), (107, 50)])
def test_who_has_few_labels_is_not_asked_for_fifty(n_labelled: int, n_next: int) -> None:
    assert any(f"Label {n_next} more faces" in a.action for a in advise(replace(FINE, n_labelled=n_labelled)))
