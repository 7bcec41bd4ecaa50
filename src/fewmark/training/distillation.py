"""Distillation: students learn the predictions of one or several detectors on unlabelled faces, and labels where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.core.geometry import box_of_points
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, CropRule, cache_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.model import TeacherPart
from fewmark.inference.detector import Detector
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.events import PlannedTraining
from fewmark.training.faces import DEFAULT_BOX_FROM_DETECTOR, TrainingData, cache_labelled, hold_out, with_boxes
from fewmark.training.launch import first_process
from fewmark.training.multi_view import MultiViewPrediction, predict_multi_view
from fewmark.training.runner import RunContext
from fewmark.training.semi.plans import steps_per_epoch, student_plans
from fewmark.training.semi.pseudo_labels import landmark_weights
from fewmark.training.semi.selection import lowest, quota
from fewmark.training.semi.students import StudentTrainer, TrainingSet, labelled_shares
from fewmark.training.semi.teacher import TeacherPlan, make_teacher_data, train_teacher
from fewmark.training.settings import Config

QUALITY_NETWORK = TeacherPlan(source="labelled", n_copies=4, width=8)
"""The quality network of a distilled model, but for its steps. It estimates every face that the model detects, and must cost little."""
QUALITY_SHRINK = 2
"""Factor by which it averages the crops down."""
QUALITY_CROP = 64
"""Least side of a crop that is averaged down, px."""


@dataclass(frozen=True, eq=False)
class TeacherPredictions:
    """The models' predictions on the faces of a distillation.

    Attributes:
        boxes: (U, 4) boxes of the unlabelled faces, image px, NaN where no face was detected.
        found: Prediction on the F faces with a box.
        filled: (N, K, 2) landmarks of labelled faces with missing ones, image px; 0 for complete faces.
        filled_disagreement: (N, K) disagreement about these.
    """

    boxes: NDArray[np.float32]
    found: MultiViewPrediction
    filled: NDArray[np.float32]
    filled_disagreement: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PreparedDistillation:
    """Everything that the students of a distillation learn from.

    Attributes:
        trainer: Trains the students.
        data: Labelled faces, then the selected unlabelled ones.
        labelled: The labelled faces.
        n_pseudo: Number of selected faces.
        n_unlabelled: Number of unlabelled faces with a box.
        box_from_detector: Adapter from the packaged face detector's boxes to the labels'.
    """

    trainer: StudentTrainer
    data: TrainingSet
    labelled: list[CachedFace]
    n_pseudo: int
    n_unlabelled: int
    box_from_detector: tuple[float, float, float]


def check_distillation(config: Config, teachers: Sequence[Detector], scheme: LandmarkScheme, n_unlabelled: int) -> None:
    """Check that models can be distilled, before any image is read.

    Raises:
        InputError: There is no model or no unlabelled face, the models' schemes differ, or the settings describe a cascade.
    """
    if not teachers:
        raise InputError("distill: expected at least one model to learn from, given none")
    for d in teachers:
        if d.scheme.landmarks != scheme.landmarks:
            raise InputError(f"distill: expected models of scheme {scheme.name}, given one of {d.scheme.name}")
    if not n_unlabelled:
        raise InputError("distill: there are no unlabelled faces to learn from; give some by --unlabelled")
    if config.cascade.stages:
        raise InputError("distill: expected settings of students, given those of a cascade")


def planned_distillation(config: Config, n_labelled: int, n_unlabelled: int) -> Iterator[PlannedTraining]:
    """The trainings of a distillation, in order."""
    n_faces = n_labelled + quota(1, config.distillation.ratio, n_unlabelled)
    for name, s in config.students.items():
        yield PlannedTraining(f"distilled_{name}", name, s.n_epochs * steps_per_epoch(s, n_faces))


def prepare_distillation(
    config: Config,
    teachers: Sequence[Detector],
    data: TrainingData,
    *,
    context: RunContext,
    initial_weights: Sequence[Mapping[str, Tensor]] = (),
) -> PreparedDistillation:
    """Read the images, predict their landmarks by the models, and select the faces that are learned from.

    A landmark weighs the less the more the views disagree about it (`landmark_weights`), and landmarks that labels leave out are
    the models'.

    Args:
        config: Settings; see `distillation`.
        teachers: Detectors of one scheme.
        data: Faces; there may be no labelled ones, and unlabelled ones without a box are detected.
        context: What all trainings share; its folder keeps the predictions.
        initial_weights: State dict from which each student begins; empty for random weights.

    Raises:
        InputError: No unlabelled face is detected, the selection needs a quality network that the models do not have, or an image
            cannot be read.
    """
    scheme, labelled, unlabelled = data.scheme, data.labelled, data.unlabelled
    rule, k = CropRule(config.crop.size, config.crop.margin), scheme.n_landmarks
    held_out = hold_out(data.validation, rule, scheme)
    cached, adapter = cache_labelled(labelled, rule, k)
    if not labelled:
        adapter = teachers[0].checkpoint.box_from_detector or DEFAULT_BOX_FROM_DETECTOR
    predictions = _predictions(config, teachers, labelled, unlabelled, adapter, context)
    pseudo = predictions.found
    found = np.flatnonzero(np.isfinite(predictions.boxes).all(1))
    selected = select_faces(config, pseudo)
    faces = [
        replace(unlabelled[found[i]], landmarks=pseudo.landmarks[i], box=box_of_points(pseudo.landmarks[i]))
        for i in selected
    ]
    complete = [
        _with_landmarks(c, complete_labels(s, filled))
        for c, s, filled in zip(cached, labelled, predictions.filled, strict=True)
    ]
    all_faces = [*complete, *cache_faces(faces, rule, k)]
    n, m = len(complete), len(faces)
    usual = float(np.median(pseudo.disagreement[selected]))
    weights = np.ones((n + m, k), np.float32)
    weights[n:] = landmark_weights(pseudo.disagreement[selected], usual)
    for row, (s, disagreement) in enumerate(zip(labelled, predictions.filled_disagreement, strict=True)):
        missing = _missing(s)
        weights[row, missing] = landmark_weights(disagreement, usual)[missing]
    landmarks = np.stack([f.landmarks for f in all_faces])
    shares = labelled_shares(n, m, config.distillation.labelled_share)
    augment = AugmentRule(**config.augment.model_dump())
    trainer = StudentTrainer(student_plans(config), scheme, rule.size, augment, context, held_out, initial_weights)
    training_set = TrainingSet(all_faces, landmarks, weights, shares)
    return PreparedDistillation(trainer, training_set, complete, m, len(found), adapter)


def train_distilled(config: Config, prepared: PreparedDistillation) -> tuple[list[nn.Module], TeacherPart | None]:
    """Train the students of a distillation, and their quality network.

    Returns:
        The students, and the quality network (TS3, Eq. 3) or None where there is none or no labelled face to train it on.
    """
    trainer, context = prepared.trainer, prepared.trainer.context
    modules = []
    for j, plan in enumerate(trainer.plans):
        module = trainer.new_student(j, context.derive_seed("weights", 0, j))
        seed = context.derive_seed("training", 1, j)
        labels = {"round": 1, "n_pseudo": prepared.n_pseudo}
        trainer.train(f"distilled_{plan.name}", j, module, prepared.data, seed, labels)
        modules.append(module)
    quality = None
    if config.distillation.quality_steps and prepared.labelled:
        quality = _train_quality_network(config.distillation.quality_steps, trainer, modules, prepared.labelled)
    return modules, quality


def select_faces(config: Config, prediction: MultiViewPrediction) -> NDArray[np.int64]:
    """Indices of the faces that are learned from, best first, by `distillation.selection` and `distillation.ratio`."""
    s, n = config.distillation, len(prediction.landmarks)
    if s.selection == "none":
        return np.arange(n, dtype=np.int64)
    n_selected = max(1, quota(1, s.ratio, n))
    if s.selection == "random":
        return np.random.default_rng([config.run.seed, 0, n_selected]).permutation(n)[:n_selected].astype(np.int64)
    measures = {
        "teacher": -prediction.quality,
        "peak": -prediction.scores.mean(1),
        "spread": prediction.disagreement.mean(1),
    }
    return lowest(measures[s.selection], n_selected)


def complete_labels(sample: FaceSample, landmarks: NDArray[np.float32]) -> FaceSample:
    """A labelled face with the given landmarks in place of its missing ones; its box stays that of its own labels."""
    own = np.asarray(sample.landmarks, np.float32)
    full = np.where(_missing(sample)[:, None], landmarks, own)
    return replace(sample, landmarks=full, box=sample.face_box())


def _with_landmarks(face: CachedFace, sample: FaceSample) -> CachedFace:
    """A cached face with the landmarks of a sample of the same box."""
    assert sample.landmarks is not None
    return replace(face, landmarks=face.crop_from_image(sample.landmarks).astype(np.float32))


def _missing(sample: FaceSample) -> NDArray[np.bool_]:
    """(K,) which landmarks a labelled face lacks."""
    own: NDArray[np.float32] = np.asarray(sample.landmarks, np.float32)
    return np.asarray(np.isnan(own).any(1), bool)


def _train_quality_network(
    n_steps: int, trainer: StudentTrainer, students: Sequence[nn.Module], labelled: Sequence[CachedFace]
) -> TeacherPart:
    """Train a network on labelled faces to estimate the students' errors.

    The students have seen these faces among many others; students trained without them would be other students.
    """
    context, scheme = trainer.context, trainer.scheme
    shrink = QUALITY_SHRINK if trainer.size >= QUALITY_CROP else 1
    plan = replace(QUALITY_NETWORK, n_steps=n_steps, shrink=shrink)
    module = plan.build(scheme, 0)
    if not context.load("quality", module):
        for student in students:
            student.eval()
        seeds = [context.derive_seed(purpose, 1) for purpose in ("quality data", "quality training")]
        examples = make_teacher_data(trainer, plan, students, labelled, [], seeds[0])
        module, state = train_teacher(plan, examples, scheme=scheme, fabric=context.fabric, seed=seeds[1])
        context.emit({"kind": "teacher", "round": 1, "student": trainer.plans[0].name, "loss": state.losses[-1]})
        context.save("quality", module)
    return TeacherPart("teacher", plan.arguments(scheme), module)


def _predictions(
    config: Config,
    teachers: Sequence[Detector],
    labelled: Sequence[FaceSample],
    unlabelled: Sequence[FaceSample],
    adapter: tuple[float, float, float],
    context: RunContext,
) -> TeacherPredictions:
    """The models' predictions, made in the first process and kept in the folder."""
    file = context.file("views.npz")
    if file is None:
        raise InputError("distill: expected a folder for the models' predictions, given none")

    def write() -> None:
        if not file.is_file():
            _write(file, _predict(config, teachers, labelled, unlabelled, adapter, context))

    problem = first_process(context.fabric, write)
    if problem is not None:
        raise InputError(problem)
    with np.load(file) as data:
        found = MultiViewPrediction(data["landmarks"], data["scores"], data["spread"], data["quality"])
        return TeacherPredictions(data["boxes"], found, data["filled"], data["filled_spread"])


def _predict(
    config: Config,
    teachers: Sequence[Detector],
    labelled: Sequence[FaceSample],
    unlabelled: Sequence[FaceSample],
    adapter: tuple[float, float, float],
    context: RunContext,
) -> TeacherPredictions:
    """Detect the faces without a box, and predict the landmarks of all and the missing ones of the labelled faces."""
    k = teachers[0].scheme.n_landmarks
    boxes = np.full((len(unlabelled), 4), np.nan, np.float32)
    context.emit({"kind": "note", "text": f"detecting {len(unlabelled)} faces"})
    for i, s in enumerate(unlabelled):
        for with_box in with_boxes([s], adapter):
            boxes[i] = with_box.face_box()
    found = [
        replace(unlabelled[i], box=boxes[i], landmarks=None) for i in np.flatnonzero(np.isfinite(boxes).all(1)).tolist()
    ]
    if not found:
        raise InputError(
            f"distill: in none of {len(unlabelled)} unlabelled images a face is detected; give their boxes"
        )
    n_views, seed = config.distillation.views, config.run.seed
    if config.distillation.selection == "teacher" and np.isnan(
        predict_multi_view(teachers, found[:1], n_views=1, seed=seed).quality[0]
    ):
        raise InputError(
            "distillation.selection teacher: none of the models has a quality network; take one that was trained with "
            "`--selection teacher`, or select by spread"
        )
    text = f"{len(teachers)} models predict {len(found)} unlabelled faces in {n_views} views each"
    context.emit({"kind": "note", "text": text})
    prediction = predict_multi_view(teachers, found, n_views=n_views, seed=seed)
    incomplete = [i for i, s in enumerate(labelled) if _missing(s).any()]
    filled = np.zeros((len(labelled), k, 2), np.float32)
    filled_disagreement = np.zeros((len(labelled), k), np.float32)
    if incomplete:
        rest = predict_multi_view(teachers, [labelled[i] for i in incomplete], n_views=n_views, seed=seed)
        filled[incomplete], filled_disagreement[incomplete] = rest.landmarks, rest.disagreement
    return TeacherPredictions(boxes, prediction, filled, filled_disagreement)


def _write(file: Path, predictions: TeacherPredictions) -> None:
    """Write predictions by the names that earlier versions gave them."""
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            boxes=predictions.boxes,
            landmarks=predictions.found.landmarks,
            scores=predictions.found.scores,
            spread=predictions.found.disagreement,
            filled=predictions.filled,
            filled_spread=predictions.filled_disagreement,
            quality=predictions.found.quality,
        )
