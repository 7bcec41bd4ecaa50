"""A training run: lists of faces and settings in, a run folder with the detector out. What `fewmark train` does."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.json import json_value
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CropRule, cache_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.checkpoint.io import Checkpoint, StudentPart, TeacherPart, save_checkpoint
from fewmark.inference.detector import Detector
from fewmark.landmarks.calibration import ErrorCalibration
from fewmark.landmarks.metrics import Score
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.cascade.run import check_cascade, train_cascade
from fewmark.training.config import NOT_STATED, Config
from fewmark.training.distillation import check_distillation, distill
from fewmark.training.events import Event
from fewmark.training.faces import DEFAULT_BOX_FROM_DETECTOR, fit_adapter, prepare_faces, render_training_faces
from fewmark.training.launch import first_process, launch
from fewmark.training.report import write_run_report
from fewmark.training.run_folder import append_line, check_folder, read_lines, write_settings
from fewmark.training.semi.plans import make_loop, make_selection, start_weights, student_plans, teacher_plan
from fewmark.training.semi.rounds import Round, run_rounds
from fewmark.training.validation import Measured, find_bias, measure

N_CUTTING_THREADS = 1
"""That cut crops ahead of the training step: one keeps up with a GPU, more change nothing on few cores."""
SYNTHETIC_SIZE = 128
"""Side of a synthetic face's image, px: its face fills a crop of 64 to 96 px."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The faces of a run.

    Attributes:
        scheme: of all labels.
        labelled: L.
        unlabelled: U; labels that they carry are looked at by the oracle and the report alone.
        validation: held out, measured in every round.
    """

    scheme: LandmarkScheme
    labelled: Sequence[FaceSample]
    unlabelled: Sequence[FaceSample]
    validation: Sequence[FaceSample]

    def hash(self, models: Sequence[Checkpoint] = ()) -> str:
        """A fingerprint of names, boxes and labels, and of the models that are distilled or started from, for the model file."""
        digest = hashlib.sha256()
        for model in models:
            about = model.to_metadata()
            about.pop("students")  # of an exported model they are not known
            digest.update(json.dumps(about, sort_keys=True).encode())
        for part in (self.labelled, self.unlabelled, self.validation):
            for s in part:
                digest.update(f"{s.name or s.image.name}|".encode())
                for array in (s.box, s.landmarks if part is not self.unlabelled else None):
                    digest.update(b"-" if array is None else np.asarray(array, np.float32).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run ended with.

    Attributes:
        checkpoint: the detector.
        scores: on the validation faces, or None where there are none.
        path: of the model file.
    """

    checkpoint: Checkpoint
    scores: Score | None
    path: Path


def run_training(
    config: Config,
    data: TrainingData,
    folder: Path,
    *,
    teachers: Sequence[Detector] = (),
    start: Checkpoint | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunResult:
    """Train by TS3 (or what `semi.selection` names), or the cascade of `cascade.stages`, or by distillation, and write the run
    folder.

    The folder holds config.toml, metrics.jsonl (an epoch a line), rounds.jsonl (a student and round a line: who was selected
    with what score, validation NME; not of a cascade), detector.safetensors, report.html, and state/: the weights of every
    training, for --resume.

    Args:
        teachers: models to distill, see `training_distilled.distill`; there may then be no labelled faces.
        start: a model from whose weights the students of the same networks begin (of `load_checkpoint`); None: random ones. Its quality
            teacher is kept where the run trains none and the crop is the same.
        resume: go on with a run that was stopped; the settings, the data and these models must be the same.
        on_event: told of everything, as plain dicts.

    Raises:
        InputError: the data cannot be used, the folder holds another run, or a setting does not fit.
    """
    fabric = launch(config)
    _check(data, config, teachers)
    starts = start_weights(config, data.scheme, start)
    models = [d.checkpoint for d in teachers] + ([] if start is None else [start])
    data_hash = data.hash(models)
    problem = first_process(fabric, lambda: check_folder(folder, config, data_hash, resume))
    if problem is not None:
        raise InputError(problem)
    began = time.monotonic()

    def emit(event: Event) -> None:
        if not fabric.is_global_zero:
            return
        event = json_value(event)
        if event["kind"] in ("epoch", "teacher", "stage"):
            append_line(folder / "metrics.jsonl", event)
        on_event(event)

    def begin() -> None:  # the faces could be read
        if fabric.is_global_zero and not resume:
            write_settings(folder, config, data_hash)
        fabric.barrier()

    if teachers:
        trained = _distilled(config, data, teachers, starts, folder, fabric, begin, emit)
    elif config.cascade.stages:
        trained = _cascade(config, data, folder, fabric, begin, emit)
    else:
        trained = _rounds(config, data, starts, folder, fabric, begin, emit)
    checkpoint = trained.checkpoint
    _inherit(checkpoint, [d.checkpoint for d in teachers], start)
    if checkpoint.teacher is None and start is not None and start.crop == checkpoint.crop:
        checkpoint.teacher = start.teacher
    if start is not None:  # it has learned from the start's faces too; how many are the same is not known
        checkpoint.counts = {k: max(n, start.counts.get(k, 0)) for k, n in checkpoint.counts.items()}
    checkpoint.data_hash = data_hash
    path, scores = folder / "detector.safetensors", None
    if fabric.is_global_zero:
        flip, told = config.model.flip, [d.checkpoint for d in teachers]
        measured = measure(checkpoint, data.validation, flip=flip) if data.validation else None
        checkpoint.label_bias, measured = find_bias(checkpoint, data.labelled, measured, told, flip=flip)
        if measured is not None:
            scores = measured.score
            checkpoint.calibration = ErrorCalibration.of_faces(measured.landmarks, measured.scores, measured.truth)
            checkpoint.accuracy.append(_accuracy(measured) | trained.about)
        save_checkpoint(path, checkpoint, half=config.model.half)
        write_run_report(
            folder / "report.html",
            checkpoint,
            measured,
            records=trained.records,
            metrics=read_lines(folder / "metrics.jsonl"),
            truth=trained.truth,
            seconds=time.monotonic() - began,
        )
        emit({"kind": "done", "path": str(path), "seconds": time.monotonic() - began})
    fabric.barrier()
    return RunResult(checkpoint, scores, path)


@dataclass(frozen=True, eq=False)
class _Trained:
    """What the trainings of a run came to.

    Attributes:
        checkpoint: not yet measured.
        records: of all rounds, as in rounds.jsonl.
        truth: (U, K, 2) crop px, labels that the unlabelled faces happen to carry.
        about: what its accuracy entry says beside the scores.
    """

    checkpoint: Checkpoint
    records: list[Event]
    truth: NDArray[np.float32]
    about: dict[str, object]


def _inherit(checkpoint: Checkpoint, teachers: Sequence[Checkpoint], start: Checkpoint | None) -> None:
    """Licence and provenance, where the settings do not state them: those of the models that it was made from hold."""
    models = [*teachers, *([] if start is None else [start])]
    if not models:
        return
    if checkpoint.licence == NOT_STATED:
        checkpoint.licence = "; ".join(dict.fromkeys(m.licence or NOT_STATED for m in models))
    if checkpoint.provenance == NOT_STATED:
        said = [("distilled from models ", list(teachers)), ("started from a model ", models[len(teachers) :])]
        checkpoint.provenance = "; ".join(
            text + "; ".join(dict.fromkeys(m.provenance or NOT_STATED for m in part)) for text, part in said if part
        )


def _cascade(
    config: Config,
    data: TrainingData,
    folder: Path,
    fabric: Fabric,
    begin: Callable[[], None],
    emit: Callable[[Event], None],
) -> _Trained:
    """Train the stages of a cascade."""
    if data.unlabelled:
        text = f"a cascade learns from labels alone: {len(data.unlabelled)} unlabelled faces are not used"
        emit({"kind": "note", "text": text})
    emit({"kind": "reading", "n_faces": len(data.labelled) + len(data.validation)})
    adapter = fit_adapter(data.labelled)
    cascade, nmes = train_cascade(
        config,
        data.labelled,
        data.validation,
        data.scheme,
        fabric=fabric,
        folder=folder / "state",
        emit=emit,
        begin=begin,
        n_threads=N_CUTTING_THREADS,
    )
    rule = CropRule(config.crop.size, config.crop.margin)
    checkpoint = _checkpoint(config, data, rule, adapter, cascade=cascade)
    return _Trained(checkpoint, [], np.zeros((0, data.scheme.n_landmarks, 2), np.float32), {"stages": nmes})


def _distilled(
    config: Config,
    data: TrainingData,
    teachers: Sequence[Detector],
    starts: Sequence[dict[str, Tensor]],
    folder: Path,
    fabric: Fabric,
    begin: Callable[[], None],
    emit: Callable[[Event], None],
) -> _Trained:
    """Train students on what other models say."""
    adapter = teachers[0].checkpoint.box_from_detector or DEFAULT_BOX_FROM_DETECTOR
    if data.labelled:
        adapter = fit_adapter(data.labelled)
    trained = distill(
        config,
        teachers,
        data.labelled,
        data.unlabelled,
        data.validation,
        data.scheme,
        adapter=adapter,
        starts=starts,
        fabric=fabric,
        folder=folder / "state",
        emit=emit,
        begin=begin,
        n_threads=N_CUTTING_THREADS,
    )
    rule = CropRule(config.crop.size, config.crop.margin)
    checkpoint = _checkpoint(config, data, rule, adapter, students=trained.students)
    checkpoint.teacher = trained.teacher
    checkpoint.counts |= {"pseudo": trained.n_pseudo, "unlabelled": trained.n_unlabelled}
    return _Trained(checkpoint, [], np.zeros((0, data.scheme.n_landmarks, 2), np.float32), {})


def _rounds(
    config: Config,
    data: TrainingData,
    starts: Sequence[dict[str, Tensor]],
    folder: Path,
    fabric: Fabric,
    begin: Callable[[], None],
    emit: Callable[[Event], None],
) -> _Trained:
    """Train students by the rounds of TS3."""
    emit({"kind": "reading", "n_faces": len(data.labelled) + len(data.unlabelled) + len(data.validation)})
    scheme, rule, seed = data.scheme, CropRule(config.crop.size, config.crop.margin), config.run.seed
    faces = prepare_faces(data.labelled, data.unlabelled, data.validation, rule, scheme)
    place = folder / "state/synthetic"
    synthetic = render_training_faces(
        config.synthetic.faces, place, scheme, size=SYNTHETIC_SIZE, seed=seed, fabric=fabric, emit=emit
    )
    begin()
    rounds = run_rounds(
        student_plans(config),
        teacher_plan(config),
        faces.labelled,
        faces.unlabelled,
        scheme=scheme,
        size=rule.size,
        augment=AugmentRule(**config.augment.model_dump()),
        rule=make_selection(config),
        loop=make_loop(config),
        fabric=fabric,
        seed=seed,
        synthetic=cache_faces(synthetic, rule, scheme.n_landmarks),
        starts=starts,
        folder=folder / "state",
        validation=faces.validation,
        truth=faces.truth,
        n_threads=N_CUTTING_THREADS,
        on_event=emit,
    )
    known = {(r["round"], r["student"]) for r in read_lines(folder / "rounds.jsonl")}
    records: list[Event] = []
    last: Round | None = None
    for last in rounds:
        records += last.records
        for record in last.records:
            if fabric.is_global_zero and (record["round"], record["student"]) not in known:
                append_line(folder / "rounds.jsonl", json_value(record))
    assert last is not None
    checkpoint = _checkpoint(config, data, rule, faces.box_from_detector, students=last.students)
    if last.teacher is not None:
        checkpoint.teacher = TeacherPart("teacher", teacher_plan(config).arguments(scheme), last.teacher)
    if last.selected:
        checkpoint.counts["pseudo"] = len(set(np.concatenate(last.selected).tolist()))
    return _Trained(checkpoint, records, faces.truth, {})


def _check(data: TrainingData, config: Config, teachers: Sequence[Detector] = ()) -> None:
    if teachers:
        check_distillation(config, teachers, data.scheme, len(data.unlabelled))
    elif not data.labelled:
        raise InputError("training: the labelled list is empty; at least one labelled face is needed")
    for part, samples in (("labelled", data.labelled), ("val", data.validation)):
        for s in samples:
            if s.landmarks is None or not np.isfinite(s.landmarks).any():
                raise InputError(
                    f"{part} list: {s.name or s.image}: the face has no landmarks; label it or take it out of the list"
                )
    if config.cascade.stages:
        check_cascade(config, data.scheme)
    elif config.crop.size % 32 and any(s.architecture == "compact" for s in config.students.values()):
        raise InputError(f"crop.size: the compact network needs a multiple of 32, given {config.crop.size}")


def _checkpoint(
    config: Config,
    data: TrainingData,
    rule: CropRule,
    adapter: tuple[float, float, float],
    *,
    students: Sequence[nn.Module] = (),
    cascade: Cascade | None = None,
) -> Checkpoint:
    """The detector that the students are, or the cascade, not yet measured."""
    k = data.scheme.n_landmarks
    parts = [
        StudentPart(p.name, p.architecture, {"n_maps": p.codec.n_maps(k), **p.arguments}, p.codec, m)
        for p, m in zip(student_plans(config) if students else (), students, strict=True)
    ]
    n_unlabelled = 0 if cascade is not None else len(data.unlabelled)
    return Checkpoint(
        scheme=data.scheme,
        students=parts,
        crop=rule,
        cascade=cascade,
        box_from_detector=adapter,
        flip=config.model.flip,
        counts={"labelled": len(data.labelled), "pseudo": 0, "unlabelled": n_unlabelled},
        seed=config.run.seed,
        config=config.model_dump(mode="json"),
        licence=config.model.licence,
        provenance=config.model.provenance,
    )


def _accuracy(measured: Measured) -> dict[str, object]:
    """The model file's entry."""
    names = ("nme", "auc", "failure_rate", "normalizer", "n_faces")
    found = measured.score.to_dict()
    return {"data": "validation", "box": measured.box, **{k: v for k, v in found.items() if k in names}}
