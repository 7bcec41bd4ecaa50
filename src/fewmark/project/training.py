"""From a project to a training and back: its labels as training data, and what the model says of its faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, box_of_points, box_size
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import adapt_box, fit_box_adapter
from fewmark.landmarks.missing import complete_landmarks
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.project.labels import OCCLUDED, Face, Labels
from fewmark.project.predictions import StoredPrediction
from fewmark.training.config import load_config
from fewmark.training.curve_runs import LEAST_TO_SPLIT
from fewmark.training.faces import TrainingData
from fewmark.training.launch import recipe_for_machine
from fewmark.training.multi_view import predict_multi_view
from fewmark.training.settings import Config
from fewmark.training.start import usual_recipe

LEAST_TO_HOLD_OUT = 100
"""Labelled faces from which some are held out, to measure on and to learn what errors to expect."""
HELD_OUT = 0.2
"""Share of them until there are `MOST_HELD_OUT`."""
MOST_HELD_OUT = 100
N_IMAGES = 32
"""Images in memory at a time."""


def to_sample(face: Face, image: Path) -> FaceSample:
    """A face as the rest of the package takes it, its name that of its number; labels of a face that is not labelled are left out."""
    labelled = face.state == "labelled" and face.landmarks is not None
    occluded = face.visibility == OCCLUDED if labelled and face.visibility is not None else None
    return FaceSample(
        image,
        None if labelled else face.box,
        face.landmarks if labelled else None,
        occluded if occluded is not None and occluded.any() else None,
        group=image.name,
        name=str(face.id),
    )


def n_to_hold_out(n_labelled: int) -> int:
    """How many labelled faces are held out.

    >>> n_to_hold_out(50), n_to_hold_out(100), n_to_hold_out(5000)
    (0, 20, 100)
    """
    return 0 if n_labelled < LEAST_TO_HOLD_OUT else min(MOST_HELD_OUT, round(n_labelled * HELD_OUT))


def training_data(
    labels: Labels, scheme: LandmarkScheme, locate: Callable[[int], Path], held: set[int]
) -> TrainingData:
    """The project's faces as training data: labelled ones, and unlabelled ones with a box.

    Args:
        labels: The project's.
        scheme: Its scheme.
        locate: Number of an image -> its file.
        held: Numbers of the labelled faces that are held out.
    """
    faces = list(labels.faces("labelled"))
    samples = {f.id: to_sample(f, locate(f.image)) for f in faces}
    pairs = [(f.box, _tight_box(f, scheme)) for f in faces]
    found = [(a, b) for a, b in pairs if a is not None and b is not None]
    adapter = fit_box_adapter([a for a, _ in found], [b for _, b in found]) if found else (0.0, 0.0, 1.0)
    unlabelled = []
    for face in labels.faces("unlabelled"):
        if face.box is not None:
            sample = to_sample(face, locate(face.image))
            unlabelled.append(
                FaceSample(sample.image, adapt_box(face.box, adapter), group=sample.group, name=sample.name)
            )
    return TrainingData(
        scheme,
        [s for n, s in samples.items() if n not in held],
        unlabelled,
        [s for n, s in samples.items() if n in held],
    )


def check_for_curve(folder: Path, data: TrainingData) -> None:
    """Refuse a learning curve of too few labels.

    Raises:
        InputError: No face is held out, and there are too few to hold out a third.
    """
    if not data.validation and len(data.labelled) < LEAST_TO_SPLIT:
        raise InputError(
            f"{folder}: a learning curve needs {LEAST_TO_SPLIT} labels, of which a third is held out, given {len(data.labelled)}"
        )


def read_recipe(recipe: str | Path | None, settings: Sequence[str], start: str) -> tuple[Config, Checkpoint | None]:
    """The settings of a training and the model from which it begins, if there is one."""
    first = load_checkpoint(start) if start else None
    chosen = recipe or (usual_recipe(first) if first is not None else None) or recipe_for_machine()[0]
    return load_config(chosen, settings), first


def _tight_box(face: Face, scheme: LandmarkScheme) -> Box | None:
    if face.landmarks is None:
        return None
    complete = complete_landmarks(face.landmarks, scheme.mean_face)
    return None if complete is None else box_of_points(complete)


@dataclass(frozen=True, eq=False)
class PredictedFaces:
    """What a model says of faces.

    Attributes:
        calibrated: See `fewmark.project.predictions.Run`.
        each: The predictions, in the order of the faces.
    """

    calibrated: bool
    each: Iterator[StoredPrediction]


def predict_faces(detector: Detector, faces: Sequence[Face], locate: Callable[[int], Path]) -> PredictedFaces:
    """What a model says of faces with a box, a few images at a time.

    Args:
        detector: The model.
        faces: The faces; those without a box are left out.
        locate: Number of an image -> its file.
    """
    with_box = [f for f in faces if f.box is not None]
    calibrated = detector.checkpoint.calibration is not None
    return PredictedFaces(calibrated, _predict(detector, with_box, locate, calibrated))


def _predict(
    detector: Detector, faces: Sequence[Face], locate: Callable[[int], Path], calibrated: bool
) -> Iterator[StoredPrediction]:
    adapter = detector.checkpoint.box_from_detector or (0.0, 0.0, 1.0)
    for start in range(0, len(faces), N_IMAGES):
        part = faces[start : start + N_IMAGES]
        boxes = [adapt_box(f.box, adapter) for f in part if f.box is not None]
        files = [locate(f.image) for f in part]
        if calibrated:
            found = detector.detect_batch(files, [box[None] for box in boxes], passes=2, on_error=_raise)
            for face, (said,) in zip(part, found, strict=True):
                assert said.expected_errors is not None
                side = box_size(box_of_points(said.landmarks)).max()
                yield StoredPrediction(face.id, said.landmarks, np.asarray(said.expected_errors / side, np.float32))
            continue
        samples = [FaceSample(file, box) for file, box in zip(files, boxes, strict=True)]
        views = predict_multi_view([detector], samples, n_views=2, seed=0)
        for face, points, error in zip(part, views.landmarks, views.disagreement, strict=True):
            yield StoredPrediction(face.id, points, np.asarray(error, np.float32))


def _raise(_: int, error: InputError) -> None:
    raise error
