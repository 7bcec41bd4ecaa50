"""The boxes of labelled faces that predictions, reports and trainings crop around."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewmark import TrainingData
from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, box_of_points
from fewmark.data.crops import CropRule
from fewmark.data.samples import FaceSample
from fewmark.inference.labelled import labelled_box
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.faces import prepare_faces

SCHEME = load_scheme("ibug-68")
NO_MEAN = replace(SCHEME, mean_face=None)
POINTS = (np.asarray(SCHEME.mean_face) * 200 + 30).astype(np.float32)
COLUMN = np.array([1, 2, 300, 310], np.float32)


def face(n_labelled: int, box: Box | None = None) -> FaceSample:
    return FaceSample(
        Path("a.jpg"), box, np.where(np.arange(68)[:, None] >= 68 - n_labelled, POINTS, np.nan).astype("f")
    )


def test_the_true_box_of_a_partly_labelled_face_is_that_of_its_full_labels() -> None:
    true = box_of_points(POINTS)
    np.testing.assert_array_equal(labelled_box(face(68), SCHEME), true)
    np.testing.assert_allclose(labelled_box(face(51), SCHEME), true, atol=0.01)
    np.testing.assert_allclose(labelled_box(face(51, COLUMN), SCHEME), true, atol=0.01)
    np.testing.assert_array_equal(labelled_box(face(51, COLUMN), SCHEME, "column"), COLUMN)


def test_too_few_labels_take_the_column_or_say_so() -> None:
    for scheme, n, why in ((SCHEME, 2, "at least 3"), (NO_MEAN, 51, "no mean_face")):
        np.testing.assert_array_equal(labelled_box(face(n, COLUMN), scheme), COLUMN)
        np.testing.assert_array_equal(labelled_box(face(n), scheme, "detect"), box_of_points(face(n).landmarks))
        with pytest.raises(InputError, match=rf"a\.jpg: {n} of 68 landmarks are labelled.*{why}.*box_x0"):
            labelled_box(face(n), scheme)


def test_training_crops_partly_labelled_faces_as_full_ones(tiny_data: TrainingData) -> None:
    full = [replace(s, box=None) for s in (*tiny_data.labelled, *tiny_data.validation)]
    partly = [replace(s, landmarks=np.where(np.arange(68)[:, None] < 17, np.nan, s.landmarks)) for s in full]
    rule = CropRule(64, 0.15)
    crops = [prepare_faces(TrainingData(SCHEME, faces[:4], faces[4:6], faces[6:]), rule) for faces in (full, partly)]
    tight = [box_of_points(s.landmarks) for s in partly[:4] if s.landmarks is not None]
    true, found = (np.array([f.crop_from_image.scale for f in c.labelled]) for c in crops)
    shrunk = np.array([rule.crop_from_image(box).scale for box in tight])
    assert np.abs(found / true - 1).mean() < np.abs(shrunk / true - 1).mean() / 2
    np.testing.assert_allclose(found / true, 1, atol=0.2)
    for part in ("labelled", "validation"):
        assert all(s.box is not None for s in getattr(TrainingData(SCHEME, partly, partly, partly), part))


def test_training_without_a_mean_face_takes_that_of_full_labels() -> None:
    data = TrainingData(NO_MEAN, [face(68), face(30)], [face(30), face(2)], [])
    np.testing.assert_allclose(data.labelled[1].face_box(), box_of_points(POINTS), atol=0.01)
    assert all(s.box is None for s in data.unlabelled)  # they will be detected
    with pytest.raises(InputError, match=r"a\.jpg: 30 of 68"):
        TrainingData(NO_MEAN, [face(30)], [], [])
    full = [face(68)]
    assert TrainingData(SCHEME, full, full, full).labelled is full
