"""The start from another model: its weights, and for another scheme its landmarks, converted by a transfer that L fits."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.core.geometry import Floats
from fewmark.core.procrustes import mean_shape
from fewmark.core.text import count, percent
from fewmark.data.crops import CachedFace
from fewmark.data.images import read_image
from fewmark.data.pairs import FacePairs
from fewmark.data.relabelling import fit_transfer_on_pairs
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import nearest_face
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.landmarks.transfer import SchemeTransfer
from fewmark.training.config import load_config
from fewmark.training.faces import PreparedFaces, TrainingData
from fewmark.training.launch import first_process
from fewmark.training.runner import RunContext
from fewmark.training.semi.students import StudentPlan

Weights = dict[str, Tensor]
ADAPT = ("adapt", "adapt-imagenet")
"""The recipes for a start, each with the network of other models."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a run takes from the model from which it starts.

    Attributes:
        weights: State dict from which each student begins; an empty one for a student whose network the model does not hold.
        converted: Unlabelled faces with the model's landmarks, converted to the run's scheme; none from a model of the same scheme.
        nme: NME of the converted landmarks on the validation faces in detected boxes, a fraction; NaN where it is not known.
    """

    weights: Sequence[Mapping[str, Tensor]] = ()
    converted: Sequence[CachedFace] = ()
    nme: float = math.nan


def same_scheme(start: Checkpoint, scheme: LandmarkScheme) -> bool:
    """Whether the model to start from has the landmarks of the run."""
    return start.scheme.landmarks == scheme.landmarks


def usual_recipe(start: Checkpoint) -> str | None:
    """The recipe for a start for which none is given: the one of `ADAPT` whose network the model has, or None."""
    for recipe in ADAPT:
        (student,) = load_config(recipe).students.values()
        network = (student.architecture, student.arguments)
        if any((p.architecture, _without_maps(p.arguments)) == network for p in start.students):
            return recipe
    return None


def initial_weights(start: Checkpoint | None, scheme: LandmarkScheme, plans: Sequence[StudentPlan]) -> list[Weights]:
    """The weights of a model of the same scheme from which each student begins; an empty dict for one whose network it lacks.

    Raises:
        InputError: The model is of another scheme, or holds none of the students' networks.
    """
    if start is None:
        return []
    if not same_scheme(start, scheme):
        raise InputError(f"--start: expected a model of scheme {scheme.name}, given one of {start.scheme.name}")
    held = [(p.architecture, p.arguments) for p in start.students]
    wanted = [(p.architecture, {**p.arguments, "n_maps": p.codec.n_maps(scheme.n_landmarks)}) for p in plans]
    if not any(network in held for network in wanted):
        expected, given = ("; ".join(f"{a} {b}" for a, b in networks) or "none" for networks in (wanted, held))
        raise InputError(
            f"--start: expected a model that holds one of the networks {expected}, given {given}; "
            "take the recipe by which it was trained"
        )
    return [start.students[held.index(n)].module.state_dict() if n in held else {} for n in wanted]


def convert_start(
    start: Checkpoint,
    data: TrainingData,
    faces: PreparedFaces,
    plans: Sequence[StudentPlan],
    context: RunContext,
) -> Start:
    """Start from a model of another scheme: a transfer from its landmarks is fitted on L, and converts those of U.

    A landmark's map begins as that of the nearest landmark of the model's scheme on the labelled faces.

    Args:
        start: The model.
        data: The faces of the run.
        faces: The same, prepared.
        plans: The students.
        context: Keeps the model's landmarks for a run that goes on, and receives notes.

    Raises:
        InputError: The model finds no labelled face with all its landmarks.
    """
    detector, scheme = Detector(start), data.scheme
    parts = [data.labelled, faces.unlabelled_samples, data.validation]
    landmarks = _find_landmarks(detector, [s for part in parts for s in part], context)
    of_labelled, of_unlabelled, of_validation = np.split(landmarks, np.cumsum([len(p) for p in parts])[:-1])
    source = [replace(s, landmarks=p, occluded=None) for s, p in zip(data.labelled, of_labelled, strict=True)]
    rows = np.flatnonzero(np.isfinite(of_labelled).all((1, 2))).tolist()
    pairs = FacePairs(source, list(data.labelled), len(rows), len(source)).only(rows, f"--start {start.scheme.name}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        transfer = fit_transfer_on_pairs(pairs, start.scheme, scheme)
    for warning in caught:
        context.emit({"kind": "note", "text": str(warning.message)})
    converted = _with_landmarks(faces.unlabelled, transfer.apply(of_unlabelled))
    nme = math.nan
    if data.validation:
        boxes = np.stack([s.face_box() for s in data.validation])
        found = transfer.apply(of_validation)
        nme = score(found, stack_landmarks(data.validation), scheme, boxes=boxes).nme
    text = f"start: landmarks of {start.scheme.name}, converted by {count(len(rows), 'labelled face')}"
    text += f"; expected error {percent(transfer.expected_error)}" if math.isfinite(transfer.expected_error) else ""
    text += f"; validation NME {percent(nme)}" if math.isfinite(nme) else ""
    context.emit({"kind": "note", "text": f"{text}; {count(len(converted), 'unlabelled face')} labelled so"})
    nearest = _nearest_landmarks(transfer, pairs)
    return Start([_converted_weights(start, p, nearest) for p in plans], converted, nme)


def _find_landmarks(detector: Detector, samples: Sequence[FaceSample], context: RunContext) -> NDArray[np.float32]:
    """The model's own landmarks (N, Ks, 2) of faces in whole images, image px, NaN where none is found; kept in the run folder."""
    file = context.file("start.npz")
    found: list[NDArray[np.float32]] = []

    def find() -> None:
        if file is not None and file.is_file():
            return
        context.emit({"kind": "note", "text": f"start: detecting {count(len(samples), 'face')}"})
        landmarks = np.stack([_landmarks_of(detector, s) for s in samples])
        if file is None:
            found.append(landmarks)
            return
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, landmarks=landmarks)

    problem = first_process(context.fabric, find)
    if problem is not None:
        raise InputError(problem)
    if file is None:
        return found[0]
    with np.load(file) as data:
        kept: NDArray[np.float32] = data["landmarks"]
    return kept


def _landmarks_of(detector: Detector, sample: FaceSample) -> NDArray[np.float32]:
    """(Ks, 2) image px of the detected face that overlaps the sample's box most; NaN where none does."""
    found = nearest_face(detector.find_faces([read_image(sample.image)])[0], sample.face_box())
    if found is None or not detector.is_face(found.scores):
        return np.full((detector.scheme.n_landmarks, 2), np.nan, np.float32)
    landmarks: NDArray[np.float32] = found.prediction.landmarks[0]
    return landmarks


def _with_landmarks(faces: Sequence[CachedFace], landmarks: Floats) -> list[CachedFace]:
    """The faces of which the landmarks (N, K, 2) image px are known."""
    known = np.flatnonzero(np.isfinite(landmarks).any((1, 2))).tolist()
    return [replace(faces[i], landmarks=faces[i].crop_from_image(landmarks[i]).astype(np.float32)) for i in known]


def _nearest_landmarks(transfer: SchemeTransfer, pairs: FacePairs) -> NDArray[np.int64]:
    """(K,) for each landmark of the run the nearest one of the model's scheme, on the labelled faces' mean shape."""
    mean = mean_shape(pairs.source_points)
    distances = np.linalg.norm(transfer.apply(mean)[:, None] - mean, axis=2)
    return np.asarray(np.where(np.isnan(distances), np.inf, distances).argmin(1), np.int64)


def _converted_weights(start: Checkpoint, plan: StudentPlan, nearest: NDArray[np.int64]) -> Weights:
    """A student's first weights: the trunk of the same network in the model, and each map that of the nearest landmark.

    Weights of other shapes, such as those of a stage that reads the maps of the last, stay random.
    """
    k = start.scheme.n_landmarks
    for part in start.students:
        same = part.architecture == plan.architecture and _without_maps(part.arguments) == dict(plan.arguments)
        if same and part.codec.background == plan.codec.background:
            break
    else:
        return {}
    rows = torch.from_numpy(np.append(nearest, k) if plan.codec.background else nearest)
    weights = plan.build(len(nearest), 0).state_dict()
    for name, value in part.module.state_dict().items():
        wanted = weights[name].shape
        if value.shape == wanted:
            weights[name] = value.clone()
        elif value.shape == (part.codec.n_maps(k), *wanted[1:]):
            weights[name] = value[rows].clone()
    return weights


def _without_maps(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a network but for its number of maps."""
    return {name: value for name, value in arguments.items() if name != "n_maps"}
