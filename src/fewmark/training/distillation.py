"""Distillation: a student learns from what one or several detectors say of unlabelled faces, and from labels where there are any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
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
from fewmark.training.config import Config
from fewmark.training.events import Event
from fewmark.training.faces import hold_out, with_boxes
from fewmark.training.launch import first_process
from fewmark.training.multi_view import MultiViewPrediction, predict_multi_view
from fewmark.training.semi.plans import student_plans, teacher_plan
from fewmark.training.semi.pseudo_labels import PseudoLabels
from fewmark.training.semi.runner import Trainings
from fewmark.training.semi.selection import quota, selection_rule
from fewmark.training.semi.teacher import train_teacher
from fewmark.training.semi.teacher_data import judge_source
from fewmark.training.semi.training_set import TrainingSet

SELECTIONS = ("teacher", "peak", "spread", "random", "none")
"""What `semi.selection` may be; "none" takes all."""
QUALITY_SHRINK = 2
"""Of the new model's quality teacher: it judges every face that the model sees and must cost little."""
QUALITY_CROP = 64
"""Px; smaller crops are not shrunk for it."""


@dataclass(frozen=True, eq=False)
class Distilled:
    """What came of a distillation.

    Attributes:
        students: the networks, trained.
        teacher: what judges their landmarks (TS3, Eq. 3), or None where it has nothing to learn from.
        n_pseudo: unlabelled faces that were learned from.
        n_unlabelled: those in which a face was found.
    """

    students: list[nn.Module]
    teacher: TeacherPart | None
    n_pseudo: int
    n_unlabelled: int


def check_distillation(config: Config, teachers: Sequence[Detector], scheme: LandmarkScheme, n_unlabelled: int) -> None:
    """See that a distillation of these settings can be, before anything is read.

    Raises:
        InputError: models of several schemes, no unlabelled faces, or settings of something else.
    """
    for d in teachers:
        if d.scheme.landmarks != scheme.landmarks:
            raise InputError(f"distill: expected models of scheme {scheme.name}, given one of {d.scheme.name}")
    if not n_unlabelled:
        raise InputError("distill: there are no unlabelled faces to learn from; give some by --unlabelled")
    if config.cascade.stages:
        raise InputError("distill: expected settings of students, given those of a cascade")
    if config.semi.selection not in SELECTIONS:
        expected = ", ".join(SELECTIONS)
        raise InputError(f"semi.selection: a distillation picks by {expected}, given {config.semi.selection}")


def distill(
    config: Config,
    teachers: Sequence[Detector],
    labelled: Sequence[FaceSample],
    unlabelled: Sequence[FaceSample],
    validation: Sequence[FaceSample],
    scheme: LandmarkScheme,
    *,
    adapter: tuple[float, float, float],
    starts: Sequence[dict[str, Tensor]] = (),
    fabric: Fabric,
    folder: Path,
    emit: Callable[[Event], None],
    begin: Callable[[], None],
    n_threads: int,
) -> Distilled:
    """Train the students of a config on what the teachers say.

    The settings mean here: `semi.views` looks of each teacher at a face; `semi.selection` who picks ("teacher": the quality
    teacher in a model's file; "peak", "spread", "random"), `semi.ratio` the part of the unlabelled faces that is
    picked; `semi.labelled_share` the least share of labelled faces among those drawn. A landmark weighs the less the
    further the looks lie apart (`landmark_weights`), and landmarks that labels leave out are the teachers'.

    Args:
        adapter: from the face detector's boxes to the labels', for unlabelled faces without a box.
        starts: the weights from which each student begins; none = random ones.
        folder: of the weights and of the labels that were written, for a run that goes on.
        begin: called when all images could be read.

    Raises:
        InputError: no unlabelled face is found, a selection that needs what the models do not have, or an image that
            cannot be read.
    """
    rule, size = CropRule(config.crop.size, config.crop.margin), config.crop.size
    emit({"kind": "reading", "n_faces": len(labelled) + len(unlabelled) + len(validation)})
    held_out = hold_out(validation, rule, scheme)
    file = folder / "looks.npz"
    problem = first_process(fabric, lambda: _write_views(file, config, teachers, labelled, unlabelled, adapter, emit))
    if problem is not None:
        raise InputError(problem)
    begin()
    with np.load(file) as data:
        pseudo = MultiViewPrediction(data["landmarks"], data["scores"], data["spread"], data["quality"])
        boxes, filled, filled_spread = data["boxes"], data["filled"], data["filled_spread"]
    found = np.flatnonzero(np.isfinite(boxes).all(1))
    taken = _select(config, pseudo)
    usual = float(np.median(pseudo.spread[taken]))
    faces = [
        replace(unlabelled[found[i]], landmarks=pseudo.landmarks[i], box=box_of_points(pseudo.landmarks[i]))
        for i in taken
    ]
    known = [complete(s, f) for s, f in zip(labelled, filled, strict=True)]
    n, m = len(known), len(faces)
    cached = cache_faces([*known, *faces], rule, scheme.n_landmarks)
    weights = np.ones((n + m, scheme.n_landmarks), np.float32)
    weights[n:] = landmark_weights(pseudo.spread[taken], usual)
    for row, (s, spread) in enumerate(zip(labelled, filled_spread, strict=True)):
        missing = _missing(s)
        weights[row, missing] = landmark_weights(spread, usual)[missing]
    shares, share = None, config.semi.labelled_share
    if n and share > n / (n + m):
        shares = np.concatenate([np.full(n, share / n), np.full(m, (1 - share) / max(1, m))])
    data_set = TrainingSet(cached, np.stack([f.landmarks for f in cached]), weights, shares)
    plans = student_plans(config)
    augment = AugmentRule(**config.augment.model_dump())
    run = Trainings(
        plans, scheme, size, augment, fabric, config.run.seed, folder, n_threads, emit, held_out, list(starts)
    )
    modules = []
    for j, plan in enumerate(plans):
        module = run.new_student(j, 0, j)
        about = {"round": 1, "n_pseudo": m}
        run.train(f"distilled_{plan.name}", j, module, data_set, run.derive_seed(1, j, 1), 1.0, about)
        modules.append(module)
    return Distilled(modules, _judge_of(run, config, modules, cached[:n]), m, len(found))


def _judge_of(
    run: Trainings,
    config: Config,
    modules: Sequence[nn.Module],
    labelled: Sequence[CachedFace],
) -> TeacherPart | None:
    """A quality teacher for the new students: it learns on labelled faces how wrong these are.

    As `teacher.source` says: on the validation faces, or on the labelled ones, which the students have seen among many others
    (out-of-fold students would be other students). None where `teacher.steps` is 0.
    """
    plan = replace(teacher_plan(config), shrink=QUALITY_SHRINK if run.size >= QUALITY_CROP else 1)
    if plan.source != "validation" or run.validation is None:
        plan = replace(plan, source="labelled")
    if not plan.n_steps or (plan.source == "labelled" and not labelled):
        return None
    module = plan.build(run.scheme, run.derive_seed(1, 0, 2))
    if run.load("judge", module):
        return TeacherPart("teacher", plan.arguments(run.scheme), module)
    for student in modules:
        student.eval()
    judged = judge_source(run, plan, modules, labelled, [], run.derive_seed(1, 0, 3))
    module, state = train_teacher(plan, judged, scheme=run.scheme, fabric=run.fabric, seed=run.derive_seed(1, 0, 4))
    run.on_event({"kind": "teacher", "round": 1, "student": run.plans[0].name, "loss": state.losses[-1]})
    run.save("judge", module)
    return TeacherPart("teacher", plan.arguments(run.scheme), module)


def landmark_weights(spread: NDArray[np.float32], usual: float) -> NDArray[np.float32]:
    """How much a pseudo label counts: 1 where all looks agree, a half at twice the usual spread.

    >>> [round(float(w), 2) for w in landmark_weights(np.array([0.0, 0.02, 0.06], np.float32), 0.01)]
    [1.0, 0.5, 0.1]
    """
    return np.asarray(1 / (1 + (spread / max(2 * usual, 1e-9)) ** 2), np.float32)


def complete(sample: FaceSample, landmarks: NDArray[np.float32]) -> FaceSample:
    """A labelled face whose missing landmarks are those given; its box stays that of its own labels."""
    own = np.asarray(sample.landmarks, np.float32)
    full = np.where(_missing(sample)[:, None], landmarks, own)
    return replace(sample, landmarks=full, box=sample.face_box())


def _missing(sample: FaceSample) -> NDArray[np.bool_]:
    """(K,) which landmarks a labelled face lacks."""
    own: NDArray[np.float32] = np.asarray(sample.landmarks, np.float32)
    return np.asarray(np.isnan(own).any(1), bool)


def _select(config: Config, looks: MultiViewPrediction) -> NDArray[np.int64]:
    """The indices of the faces that are learned from, best first."""
    s = config.semi
    n = len(looks.landmarks)
    if s.selection == "none":
        return np.arange(n, dtype=np.int64)
    rule = selection_rule(s.selection, config.run.seed)
    none = np.zeros((0, n), np.float32)
    labels = PseudoLabels(
        looks.landmarks, looks.scores, looks.spread, none[:, :, None, None], none, quality=looks.quality
    )
    return rule.select(labels, max(1, quota(1, s.ratio, n)))


def _write_views(
    file: Path,
    config: Config,
    teachers: Sequence[Detector],
    labelled: Sequence[FaceSample],
    unlabelled: Sequence[FaceSample],
    adapter: tuple[float, float, float],
    emit: Callable[[Event], None],
) -> None:
    """Find the faces, look at them, and keep what was seen; nothing is done where that has been done.

    The file holds, for U unlabelled faces, their `boxes` (U, 4), NaN where no face was found; for the F found ones
    `landmarks`, `scores`, `spread` and `quality` (F,); for L labelled ones `filled` and `filled_spread`.
    """
    if file.is_file():
        return
    k = teachers[0].scheme.n_landmarks
    boxes = np.full((len(unlabelled), 4), np.nan, np.float32)
    emit({"kind": "note", "text": f"looking for {len(unlabelled)} faces"})
    for i, s in enumerate(unlabelled):
        for with_box in with_boxes([s], adapter):
            boxes[i] = with_box.face_box()
    found = [
        replace(unlabelled[i], box=boxes[i], landmarks=None) for i in np.flatnonzero(np.isfinite(boxes).all(1)).tolist()
    ]
    if not found:
        raise InputError(f"distill: in none of {len(unlabelled)} unlabelled images a face is found; give their boxes")
    n_views, seed = config.semi.views, config.run.seed
    if config.semi.selection == "teacher" and np.isnan(
        predict_multi_view(teachers, found[:1], n_views=1, seed=seed).quality[0]
    ):
        raise InputError(
            "semi.selection teacher: none of the models carries a quality teacher; take one that was trained with "
            "`--selection teacher`, or pick by spread"
        )
    emit({"kind": "note", "text": f"{len(teachers)} models look {n_views} times at {len(found)} unlabelled faces"})
    pseudo = predict_multi_view(teachers, found, n_views=n_views, seed=seed)
    incomplete = [i for i, s in enumerate(labelled) if _missing(s).any()]
    filled = np.zeros((len(labelled), k, 2), np.float32)
    filled_spread = np.zeros((len(labelled), k), np.float32)
    if incomplete:
        rest = predict_multi_view(teachers, [labelled[i] for i in incomplete], n_views=n_views, seed=seed)
        filled[incomplete], filled_spread[incomplete] = rest.landmarks, rest.spread
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            boxes=boxes,
            landmarks=pseudo.landmarks,
            scores=pseudo.scores,
            spread=pseudo.spread,
            filled=filled,
            filled_spread=filled_spread,
            quality=pseudo.quality,
        )
