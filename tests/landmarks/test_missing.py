"""Missing landmarks estimated for a face's box: exact for moved mean faces, close for real and synthetic ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewmark.core.geometry import Floats, Similarity, box_centre, box_of_points, box_size
from fewmark.data.formats.csv import read_csv
from fewmark.data.samples import stack_landmarks
from fewmark.data.synthetic.faces import render_faces
from fewmark.landmarks.missing import complete_landmarks, full_box
from fewmark.landmarks.scheme import load_scheme

SCHEME = load_scheme("ibug-68")
MEAN = np.asarray(SCHEME.mean_face, np.float64)
INDEX = np.arange(68)
MISSING = {  # what is missing -> largest mean error of the side and of the centre on real faces, over the side
    "contour": (INDEX < 17, 0.06, 0.07),
    "image left": (MEAN[:, 0] < 0.5, 0.09, 0.07),
    "image right": (MEAN[:, 0] > 0.5, 0.09, 0.07),
    "upper half": (MEAN[:, 1] < 0.5, 0.06, 0.06),
    "lower half": (MEAN[:, 1] > 0.5, 0.03, 0.04),
    "every other": (INDEX % 2 == 0, 0.03, 0.03),
}


def without(points: Floats, missing: Floats) -> Floats:
    return np.where(missing[:, None], np.nan, points)


@pytest.mark.parametrize("name", MISSING)
def test_a_moved_mean_face_is_completed_exactly(name: str) -> None:
    moved = Similarity.about((0.5, 0.5), (300, 200), scale=120, angle=33)(MEAN)
    partly = without(moved, MISSING[name][0])
    complete = complete_landmarks(partly, SCHEME.mean_face)
    assert complete is not None
    np.testing.assert_allclose(complete, moved, atol=1e-5)
    np.testing.assert_allclose(full_box(partly, SCHEME.mean_face), box_of_points(moved), atol=1e-3)


@pytest.mark.parametrize("name", MISSING)
def test_boxes_of_partly_labelled_faces(name: str, shared_data: Callable[..., Path]) -> None:
    missing, most_side, most_centre = MISSING[name]
    faces = stack_landmarks(read_csv(shared_data("ibug68", "annotations.csv"))[::8]).astype(np.float64)
    check(faces, missing, most_side, most_centre)


@pytest.mark.parametrize("name", MISSING)
def test_boxes_of_partly_labelled_synthetic_faces(name: str) -> None:
    faces = np.stack([f.landmarks for f in render_faces(40, SCHEME, 5, size=64)]).astype(np.float64)
    check(faces, MISSING[name][0], 0.12, 0.1)  # with stronger expressions and poses


def check(faces: Floats, missing: Floats, most_side: float, most_centre: float) -> None:
    true = np.stack([box_of_points(p) for p in faces])
    found = np.stack([full_box(without(p, missing), SCHEME.mean_face) for p in faces])
    side = box_size(true).max(1)
    assert np.abs(box_size(found).max(1) / side - 1).mean() < most_side
    assert (np.linalg.norm(box_centre(found) - box_centre(true), axis=1) / side).mean() < most_centre


def test_what_cannot_be_completed() -> None:
    points = MEAN * 100
    np.testing.assert_array_equal(complete_landmarks(points, None), points)
    assert complete_landmarks(without(points, INDEX > 1), SCHEME.mean_face) is None
    assert complete_landmarks(without(points, INDEX > 20), None) is None
    assert complete_landmarks(without(points * 0, INDEX > 20), SCHEME.mean_face) is None
    np.testing.assert_array_equal(full_box(without(points, INDEX > 1), None), box_of_points(points[:2]))
    half = np.where(INDEX[:, None] == 3, [np.nan, 5.0], points)  # x alone is missing
    assert np.isfinite(complete_landmarks(half, SCHEME.mean_face)).all()
