"""Train and distill: settings and faces in, a run folder with the detector out. What `fewmark train` and `fewmark distill` do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.json import json_value
from fewmark.core.text import count
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import cache_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import Checkpoint, StudentPart, TeacherPart, save_checkpoint
from fewmark.inference.checkpoint.metadata import RUN_MODEL
from fewmark.inference.detector import Detector
from fewmark.landmarks.calibration import ErrorCalibration
from fewmark.landmarks.metrics import Score
from fewmark.training.cascade.faces import cache_training_faces, read_training_faces
from fewmark.training.cascade.run import DEFAULT_OPTIONS, CascadeOptions, check_cascade, train_cascade
from fewmark.training.cascade.run import SYNTHETIC_SIZE as CASCADE_SYNTHETIC_SIZE
from fewmark.training.distillation import check_distillation, prepare_distillation, train_distilled
from fewmark.training.events import Event
from fewmark.training.faces import TrainingData, check_labelled, prepare_faces, render_synthetic
from fewmark.training.open_run import OpenRun, open_run
from fewmark.training.report import write_run_report
from fewmark.training.run_folder import append_line, read_lines
from fewmark.training.runner import ignore
from fewmark.training.semi.plans import check_students, make_loop, make_selection, student_plans, teacher_plan
from fewmark.training.semi.rounds import RoundRecord, run_rounds
from fewmark.training.settings import NOT_STATED, Config
from fewmark.training.start import Start, convert_start, initial_weights, same_scheme
from fewmark.training.trained import Trained
from fewmark.training.validation import find_bias, measure

LEAST_SYNTHETIC_SIZE = 128
"""Least side of a synthetic face's image for students, px; it is otherwise 1.5 crops, in which its face fills the crop."""


@dataclass(frozen=True, eq=False)
class RunResult:
    """The result of a run.

    Attributes:
        checkpoint: The model.
        scores: Its scores on the validation faces, or None where there are none.
        path: The model file.
        start_nme: NME of the landmarks of a model of another scheme from which it started, converted, on the validation faces in
            detected boxes; NaN where there is none.
    """

    checkpoint: Checkpoint
    scores: Score | None
    path: Path
    start_nme: float = math.nan


def train(
    config: Config,
    data: TrainingData,
    folder: Path,
    *,
    start: Checkpoint | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] = ignore,
    cascade_options: CascadeOptions = DEFAULT_OPTIONS,
) -> RunResult:
    """Train by the rounds of TS3, or the cascade of `cascade.stages`, and write the run folder.

    The folder holds config.toml, metrics.jsonl (one line per epoch), rounds.jsonl (one line per student and round: selection and
    validation NME; not for a cascade), detector.safetensors, report.html, and state/: the weights of every training, for `resume`.

    Args:
        config: Settings.
        data: Faces; where none is labelled, synthetic faces take the place of labelled ones.
        folder: The run folder; made.
        start: A model from whose weights the students of the same networks begin; None for random weights. Its quality network is
            kept where the run trains none and the crop is the same. Of a model of another scheme the landmarks are taken too, see
            `fewmark.training.start.convert_start`.
        resume: Go on with a run that was stopped; data, `start` and settings must be the same, but for `run_folder.FREE`.
        on_event: Receives every event, see `fewmark.training.events.Event`.
        cascade_options: Choices for experiments with a cascade that are no settings.

    Raises:
        InputError: The data cannot be used, the folder holds another run, or a setting does not fit.
    """
    check_labelled(data.labelled, "labelled")
    check_labelled(data.validation, "val")
    if not data.labelled and (config.cascade.stages or not config.synthetic.faces):
        raise InputError(
            "training: no face is labelled; give labelled faces, or the number of synthetic faces to learn from in their place "
            "(--recipe drawn, or synthetic.faces; not for a cascade)"
        )
    if config.cascade.stages:
        check_cascade(config, data.scheme, options=cascade_options)
        if start is not None:
            raise InputError("--start: a cascade begins with weights of its own; leave it out")
        with open_run(config, data, folder, [], start, resume, on_event) as run:
            return _finish_run(run, _train_cascade(run, cascade_options))
    check_students(config)
    converts = start is not None and not same_scheme(start, data.scheme)
    if converts and not data.labelled:
        raise InputError("--start: a model of another scheme is converted by labelled faces, given none; label some")
    weights = [] if converts else initial_weights(start, data.scheme, student_plans(config))
    with open_run(config, data, folder, [], start, resume, on_event) as run:
        return _finish_run(run, _train_rounds(run, weights))


def distill(
    config: Config,
    data: TrainingData,
    folder: Path,
    *,
    teachers: Sequence[Detector],
    start: Checkpoint | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] = ignore,
) -> RunResult:
    """Train students on the predictions of other models for unlabelled faces, and write the run folder; see `train`.

    Args:
        config: Settings, of which `semi`, `teacher` and `cascade` are not used.
        data: Faces; there may be no labelled ones.
        folder: The run folder; made.
        teachers: Models of the data's scheme; their predictions are averaged.
        start: See `train`.
        resume: Go on with a run that was stopped; data, models and settings must be the same, but for `run_folder.FREE`.
        on_event: Receives every event.

    Raises:
        InputError: The data or the models cannot be used, the folder holds another run, or a setting does not fit.
    """
    check_labelled(data.labelled, "labelled")
    check_labelled(data.validation, "val")
    check_distillation(config, teachers, data.scheme, len(data.unlabelled))
    check_students(config)
    weights = initial_weights(start, data.scheme, student_plans(config))
    with open_run(config, data, folder, [d.checkpoint for d in teachers], start, resume, on_event) as run:
        run.context.emit({"kind": "reading", "n_faces": data.n_faces})
        prepared = prepare_distillation(config, teachers, data, context=run.context, initial_weights=weights)
        run.begin()
        students, quality = train_distilled(config, prepared)
        trained = Trained(
            prepared.box_from_detector,
            students=students,
            teacher=quality,
            n_pseudo=prepared.n_pseudo,
            n_unlabelled=prepared.n_unlabelled,
        )
        return _finish_run(run, trained)


def _train_rounds(run: OpenRun, weights: Sequence[dict[str, Any]]) -> Trained:
    """Train students by the rounds of TS3."""
    config, data, rule, context = run.config, run.data, run.crop, run.context
    size = max(LEAST_SYNTHETIC_SIZE, round(1.5 * rule.size))

    def synthetic_faces() -> list[FaceSample]:
        return render_synthetic(config.synthetic.faces, data.scheme, size=size, context=context)

    n_labelled = len(data.labelled)
    converts = run.start is not None and not same_scheme(run.start, data.scheme)
    if data.unlabelled and not converts and not make_loop(config, n_labelled, len(data.unlabelled)).uses_unlabelled:
        context.emit(
            {
                "kind": "note",
                "text": f"{count(len(data.unlabelled), 'unlabelled face')} not used: no round is asked for",
            }
        )
        data = replace(data, unlabelled=[])
    if not n_labelled:  # synthetic faces take the place of labelled ones
        data = replace(data, labelled=synthetic_faces())
        if not data.labelled:
            raise InputError(
                f"training: no face is labelled, and none can be drawn in scheme {data.scheme.name}; label some"
            )
    context.emit({"kind": "reading", "n_faces": data.n_faces})
    faces = prepare_faces(data, rule)
    synthetic = synthetic_faces() if n_labelled else []
    run.begin()
    plans, begun = student_plans(config), Start(weights)
    if run.start is not None and converts:
        begun = convert_start(run.start, data, faces, plans, context)
    rounds = run_rounds(
        plans,
        teacher_plan(config),
        faces.labelled,
        faces.unlabelled,
        scheme=data.scheme,
        size=rule.size,
        augment=AugmentRule(**config.augment.model_dump()),
        rule=make_selection(config),
        loop=make_loop(config, n_labelled, len(faces.unlabelled)),
        context=context,
        synthetic=cache_faces(synthetic, rule, data.scheme.n_landmarks),
        converted=begun.converted,
        initial_weights=begun.weights,
        validation=faces.validation,
        truth=faces.truth,
    )
    log = run.folder / "rounds.jsonl"
    logged = {(line["round"], line["student"]) for line in read_lines(log)}
    records: list[RoundRecord] = []
    for last in rounds:
        records += last.records
        for record in last.records:
            if context.fabric.is_global_zero and (record.round, record.student) not in logged:
                append_line(log, json_value(record.to_dict()))
    teacher = None
    if last.teacher is not None:
        teacher = TeacherPart("teacher", teacher_plan(config).arguments(data.scheme), last.teacher)
    return Trained(
        faces.box_from_detector,
        students=last.students,
        teacher=teacher,
        n_pseudo=len(set(np.concatenate(last.selected).tolist())),
        n_unlabelled=len(faces.names),
        names=faces.names,
        records=records,
        truth=faces.truth,
        n_converted=len(begun.converted),
        start_nme=begun.nme,
    )


def _train_cascade(run: OpenRun, options: CascadeOptions) -> Trained:
    """Train the stages of a cascade."""
    config, data, context = run.config, run.data, run.context
    if data.unlabelled:
        text = f"a cascade learns from labels alone: {len(data.unlabelled)} unlabelled faces are not used"
        context.emit({"kind": "note", "text": text})
    context.emit({"kind": "reading", "n_faces": len(data.labelled) + len(data.validation)})
    faces, adapter = read_training_faces(data.labelled, data.scheme)
    run.begin()
    samples = render_synthetic(config.synthetic.faces, data.scheme, size=CASCADE_SYNTHETIC_SIZE, context=context)
    synthetic = cache_training_faces(samples, data.scheme, faces.mean_face) if samples else None
    cascade, nmes = train_cascade(config, faces, data.validation, context=context, synthetic=synthetic, options=options)
    return Trained(adapter, cascade=cascade, stage_nmes=nmes)


def _finish_run(run: OpenRun, trained: Trained) -> RunResult:
    """Measure the model on the validation faces, write it, and write the report."""
    checkpoint, scores, path = _make_checkpoint(run, trained), None, run.folder / RUN_MODEL
    if run.context.fabric.is_global_zero:
        measured = measure(checkpoint, run.data.validation) if run.data.validation else None
        bias, measured = find_bias(checkpoint, run.data.labelled, measured, run.teachers)
        if measured is None:
            checkpoint = replace(checkpoint, label_bias=bias)
        else:
            scores = measured.score
            stages = {"stages": trained.stage_nmes} if trained.cascade is not None else {}
            checkpoint = replace(
                checkpoint,
                label_bias=bias,
                calibration=ErrorCalibration.fit_predictions(measured.landmarks, measured.scores, measured.truth),
                accuracy=[measured.accuracy() | stages],
            )
        save_checkpoint(path, checkpoint, half=run.config.model.half)
        seconds = time.monotonic() - run.started_at
        write_run_report(
            run.folder / "report.html",
            checkpoint,
            measured,
            data=run.data,
            trained=trained,
            metrics=read_lines(run.folder / "metrics.jsonl"),
            seconds=seconds,
        )
        run.context.emit({"kind": "done", "path": str(path), "seconds": seconds})
    run.context.fabric.barrier()
    return RunResult(checkpoint, scores, path, trained.start_nme)


def _make_checkpoint(run: OpenRun, trained: Trained) -> Checkpoint:
    """The model, not yet measured."""
    config, data, start = run.config, run.data, run.start
    k = data.scheme.n_landmarks
    parts = [
        StudentPart(p.name, p.architecture, {"n_maps": p.codec.n_maps(k), **p.arguments}, p.codec, m)
        for p, m in zip(student_plans(config) if trained.students else (), trained.students, strict=True)
    ]
    teacher = trained.teacher
    counts = {"labelled": len(data.labelled), "pseudo": trained.n_pseudo, "unlabelled": trained.n_unlabelled}
    counts["pseudo"] = max(counts["pseudo"], trained.n_converted)
    if start is not None and same_scheme(start, data.scheme):
        if teacher is None and start.crop == run.crop:
            teacher = start.teacher
        # it has learned from the start's faces too; how many are the same is not known
        counts = {name: max(n, start.counts.get(name, 0)) for name, n in counts.items()}
    return Checkpoint(
        scheme=data.scheme,
        students=parts,
        crop=run.crop,
        teacher=teacher,
        cascade=trained.cascade,
        box_from_detector=trained.box_from_detector,
        flip=config.model.flip,
        counts=counts,
        seed=config.run.seed,
        config=config.model_dump(mode="json"),
        data_hash=run.data_hash,
        licence=_licence(run),
        provenance=_provenance(run),
    )


def _licence(run: OpenRun) -> str:
    """The licence of the settings; where they do not state one, that of the models from which the run learned."""
    models = [*run.teachers, *([] if run.start is None else [run.start])]
    if run.config.model.licence != NOT_STATED or not models:
        return run.config.model.licence
    return "; ".join(dict.fromkeys(m.licence or NOT_STATED for m in models))


def _other_scheme(run: OpenRun) -> str:
    """The scheme and the numbers of faces of a model of another scheme; those of one of the same scheme are in the run's counts."""
    if run.start is None or same_scheme(run.start, run.data.scheme):
        return ""
    faces = ", ".join(f"{n} {kind}" for kind, n in run.start.counts.items())
    return f" of {run.start.scheme.name} ({faces} faces)"


def _provenance(run: OpenRun) -> str:
    """The provenance of the settings; where they do not state one, that of the models from which the run learned."""
    parts = [
        ("distilled from models ", run.teachers),
        (f"started from a model{_other_scheme(run)} ", [] if run.start is None else [run.start]),
    ]
    if run.config.model.provenance != NOT_STATED or not any(models for _, models in parts):
        return run.config.model.provenance
    return "; ".join(
        text + "; ".join(dict.fromkeys(m.provenance or NOT_STATED for m in models)) for text, models in parts if models
    )
