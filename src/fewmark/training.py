"""A training run: lists of faces and settings in, a run folder with the detector out. What `fewmark train` does."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from fewmark import __version__
from fewmark.atomic import write_text
from fewmark.checkpoint import Checkpoint, StudentPart, TeacherPart, save_checkpoint
from fewmark.codec import HeatmapCodec
from fewmark.config import Config, StudentSettings, to_toml
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, CropRule, cache_faces
from fewmark.data.formats_csv import read_csv
from fewmark.data.samples import FaceSample, read_image
from fewmark.data.synthetic import draw_dataset
from fewmark.detector import Detector, evaluate_samples
from fewmark.draw import face_tile
from fewmark.errors import InputError
from fewmark.faces import SlimeFaceFinder, adapt_box, box_overlap, fit_box_adapter
from fewmark.geometry import box_of_points
from fewmark.metrics import Score, score
from fewmark.report import write_report
from fewmark.scheme import BoxDiagonal, BoxSize, LandmarkScheme
from fewmark.semi.rounds import Event, Loop, Round, Validation, run_rounds
from fewmark.semi.selection import selection_rule
from fewmark.semi.students import StudentPlan
from fewmark.semi.teaching import TeacherPlan

N_BOX_FACES = 200
"""Labelled faces on which the face detector's boxes are compared with the true ones."""
DRAWN_SIZE = 128
"""Side of a drawn face's picture, px: its face fills a crop of 64 to 96 px."""
DEFAULT_BOX_FROM_DETECTOR = (0.0, 0.0, 1.0)


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

    def hash(self) -> str:
        """A fingerprint of names, boxes and labels, for the model file."""
        digest = hashlib.sha256()
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


def student_plans(config: Config) -> list[StudentPlan]:
    """The students that a config describes."""
    return [_plan(name, s) for name, s in config.students.items()]


def _plan(name: str, s: StudentSettings) -> StudentPlan:
    return StudentPlan(
        name=name,
        architecture=s.architecture,
        codec=HeatmapCodec(**s.codec.model_dump()),
        arguments=s.arguments,
        loss=s.loss,
        optimizer=s.optimizer,
        learning_rate=s.learning_rate,
        weight_decay=s.weight_decay,
        n_epochs=s.n_epochs,
        n_batches=s.n_batches or None,
        batch_size=s.batch_size,
        milestones=tuple(s.milestones),
        decay=s.decay,
        clip_norm=s.clip_norm,
        map_weight=s.map_weight,
    )


def make_loop(config: Config) -> Loop:
    """The rounds that a config describes. Selection "none" trains on L alone, as many steps as the rounds would take."""
    s = config.semi
    first, rounds = s.first_length, s.rounds
    if s.selection == "none":
        first, rounds = first + rounds, 0
    return Loop(
        n_rounds=rounds,
        ratio=s.ratio,
        restart=s.restart,
        n_views=s.views,
        labelled_share=s.labelled_share,
        pseudo_weight=s.pseudo_weight,
        n_folds=s.folds,
        fold_length=s.fold_length,
        first_length=first,
        drawn_length=s.drawn_length,
    )


def launch(config: Config) -> Fabric:
    """lightning-fabric as the settings say; under torchrun with as many processes as it started."""
    r = config.run
    accelerator = r.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    precision = r.precision
    if precision == "auto":
        precision = "bf16-mixed" if accelerator == "cuda" and torch.cuda.is_bf16_supported() else "32-true"
    if r.threads:
        torch.set_num_threads(r.threads)
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


def run_training(
    config: Config,
    data: TrainingData,
    folder: Path,
    *,
    resume: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> RunResult:
    """Train by TS3 (or what `semi.selection` names) and write the run folder.

    The folder holds config.toml, metrics.jsonl (an epoch a line), rounds.jsonl (a student and round a line: who was selected
    with what score, validation NME), detector.safetensors, report.html, and state/: the weights of every training, for --resume.

    Args:
        resume: go on with a run that was stopped; the settings and the data must be the same.
        on_event: told of everything, as plain dicts.

    Raises:
        InputError: the data cannot be used, the folder holds another run, or a setting does not fit.
    """
    fabric = launch(config)
    _check(data, config)
    _together(fabric, lambda: _check_folder(folder, config, data, resume))
    scheme, rule = data.scheme, CropRule(config.crop.size, config.crop.margin)
    began = time.monotonic()

    def log(file: str, event: Mapping[str, Any]) -> None:
        if fabric.is_global_zero:
            with (folder / file).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(event, allow_nan=False, default=float) + "\n")

    def tell(event: Event) -> None:
        event = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in event.items()}
        if event["kind"] in ("epoch", "teacher"):
            log("metrics.jsonl", event)
        if fabric.is_global_zero:
            on_event(event)

    tell({"kind": "reading", "n_faces": len(data.labelled) + len(data.unlabelled) + len(data.validation)})
    adapter = fit_adapter(data.labelled)
    labelled = cache_faces(data.labelled, rule, scheme.n_landmarks)
    unlabelled_samples = with_boxes(data.unlabelled, adapter)
    truth, unlabelled = _hidden_labels(cache_faces(unlabelled_samples, rule, scheme.n_landmarks), scheme.n_landmarks)
    held_out = cache_faces(data.validation, rule, scheme.n_landmarks)
    drawn = _drawn_faces(config, scheme, rule, folder / "state/drawn", fabric, tell)
    validation = None
    if held_out:
        validation = Validation(held_out, _crop_lengths(data.validation, held_out, scheme))
    if fabric.is_global_zero and not resume:
        write_text(folder / "config.toml", _settings_text(config, data))  # the faces could be read: the run begins
    fabric.barrier()
    plans = student_plans(config)
    selection = "random" if config.semi.selection == "none" else config.semi.selection
    loop = make_loop(config)
    rounds = run_rounds(
        plans,
        _teacher_plan(config),
        labelled,
        unlabelled,
        scheme=scheme,
        size=rule.size,
        augment=AugmentRule(**config.augment.model_dump()),
        rule=selection_rule(selection, config.run.seed),
        loop=loop,
        fabric=fabric,
        seed=config.run.seed,
        drawn=drawn,
        folder=folder / "state",
        validation=validation,
        truth=truth,
        n_threads=config.run.augment_threads,
        on_event=tell,
    )
    known = _known_rounds(folder / "rounds.jsonl")
    history: list[Event] = []
    last: Round | None = None
    for round_ in rounds:
        for record in round_.records:
            history.append(record)
            if (record["round"], record["student"]) not in known:
                log("rounds.jsonl", _finite(record))
        last = round_
    assert last is not None
    checkpoint = _checkpoint(config, data, last, plans, rule, adapter)
    path = folder / "detector.safetensors"
    result = RunResult(checkpoint, None, path)
    if fabric.is_global_zero:
        lengths = _truth_lengths(truth, scheme)
        result = _finish(config, data, checkpoint, folder, history, lengths, time.monotonic() - began)
        tell({"kind": "done", "path": str(path), "seconds": time.monotonic() - began})
    fabric.barrier()
    return result


def fit_adapter(samples: Sequence[FaceSample]) -> tuple[float, float, float]:
    """How the packaged face detector's boxes relate to the boxes of these labelled faces; the identity if it finds none."""
    finder = SlimeFaceFinder()
    found, true = [], []
    for s in list(samples)[:N_BOX_FACES]:
        box = s.face_box()
        best = max(finder(read_image(s.image)), key=lambda f: box_overlap(f.box_xyxy, box), default=None)
        if best is not None and box_overlap(best.box_xyxy, box) > 0.3:
            found.append(best.box_xyxy)
            true.append(box)
    return fit_box_adapter(np.stack(found), np.stack(true)) if found else DEFAULT_BOX_FROM_DETECTOR


def with_boxes(samples: Sequence[FaceSample], adapter: tuple[float, float, float]) -> list[FaceSample]:
    """Faces that have neither box nor landmarks get the box of the largest face that is found, adapted.

    A picture in which no face is found is left out: it cannot be cropped.
    """
    finder = SlimeFaceFinder()
    result = []
    for s in samples:
        if s.box is None and s.landmarks is None:
            faces = finder(read_image(s.image))
            if not faces:
                continue
            s = replace(s, box=adapt_box(faces[0].box_xyxy, adapter))
        result.append(s)
    return result


def _teacher_plan(config: Config) -> TeacherPlan:
    t = config.teacher
    return TeacherPlan(
        source=t.source,
        target=t.target,
        standardise=t.standardise,
        n_copies=t.copies,
        width=t.width,
        norm=t.norm,
        peaks=t.peaks,
        n_steps=t.steps,
        batch_size=t.batch_size,
        learning_rate=t.learning_rate,
    )


def _check(data: TrainingData, config: Config) -> None:
    if not data.labelled:
        raise InputError("training: the labelled list is empty; at least one labelled face is needed")
    for part, samples in (("labelled", data.labelled), ("val", data.validation)):
        for s in samples:
            if s.landmarks is None or not np.isfinite(s.landmarks).any():
                raise InputError(
                    f"{part} list: {s.name or s.image}: the face has no landmarks; label it or take it out of the list"
                )
    if config.crop.size % 32 and any(s.architecture == "compact" for s in config.students.values()):
        raise InputError(f"crop.size: the compact network needs a multiple of 32, given {config.crop.size}")


def _settings_text(config: Config, data: TrainingData) -> str:
    return f"# fewmark {__version__}, data {data.hash()}\n{to_toml(config)}"


def _check_folder(folder: Path, config: Config, data: TrainingData, resume: bool) -> None:
    """See that the run folder is free, or holds the run that is to go on."""
    text, settings = _settings_text(config, data), folder / "config.toml"
    if settings.is_file():
        if not resume:
            raise InputError(f"{folder}: there is a run already; add --resume to go on with it, or give another --out")
        if settings.read_text(encoding="utf-8").split("\n", 1)[-1] != text.split("\n", 1)[-1]:
            raise InputError(
                f"{settings}: the run was started with other settings; give the same ones, or another --out"
            )
        if data.hash() not in settings.read_text(encoding="utf-8").split("\n", 1)[0]:
            raise InputError(f"{settings}: the run was started on other data; give the same lists, or another --out")
        return
    if resume:
        raise InputError(f"{folder}: there is no run to go on with; leave --resume away to start one")


def _together(fabric: Fabric, check: Callable[[], None]) -> None:
    """Check in the first process; what it finds wrong is raised in all."""
    problem: str | None = None
    if fabric.is_global_zero:
        try:
            check()
        except InputError as error:
            problem = str(error)
    problem = fabric.broadcast(problem)
    if problem is not None:
        raise InputError(problem)


def _drawn_faces(
    config: Config,
    scheme: LandmarkScheme,
    rule: CropRule,
    folder: Path,
    fabric: Fabric,
    tell: Callable[[Event], None],
) -> list[CachedFace]:
    """Faces drawn in the scheme, kept in the run folder: drawing them takes longer than reading them.

    None where the scheme cannot be drawn (it has no mean face, or is one of profiles): the students then start from random
    weights, and the run says so.
    """
    if not config.semi.drawn_faces:
        return []
    labels = folder / "annotations.csv"
    problem: str | None = None
    if fabric.is_global_zero and not labels.is_file():
        try:
            draw_dataset(folder, config.semi.drawn_faces, scheme=scheme, seed=config.run.seed, size=DRAWN_SIZE)
        except InputError as error:
            problem = str(error)
    problem = fabric.broadcast(problem)
    if problem is not None:
        tell({"kind": "note", "text": f"no drawn faces ({problem}); students start from random weights"})
        return []
    return cache_faces(read_csv(labels), rule, scheme.n_landmarks)


def _hidden_labels(faces: Sequence[CachedFace], k: int) -> tuple[NDArray[np.float32], list[CachedFace]]:
    """Labels that unlabelled faces happen to carry, apart from the faces, which lose them."""
    truth = np.stack([f.landmarks for f in faces]) if faces else np.zeros((0, k, 2), np.float32)
    blank = np.full((k, 2), np.nan, np.float32)
    return truth, [replace(f, landmarks=blank) for f in faces]


def _crop_lengths(
    samples: Sequence[FaceSample], faces: Sequence[CachedFace], scheme: LandmarkScheme
) -> NDArray[np.float64]:
    """(V,) normalising lengths, px of the upright crops."""
    normalizer = scheme.normalizer
    lengths = []
    for s, f in zip(samples, faces, strict=True):
        box = s.face_box() if isinstance(normalizer, BoxSize | BoxDiagonal) else None
        assert s.landmarks is not None
        lengths.append(normalizer(s.landmarks, box) * f.crop_from_image.scale)
    values = np.asarray(lengths, np.float64)
    return np.where(values > 0, values, np.nan)


def _checkpoint(
    config: Config,
    data: TrainingData,
    last: Round,
    plans: Sequence[StudentPlan],
    rule: CropRule,
    adapter: tuple[float, float, float],
) -> Checkpoint:
    k = data.scheme.n_landmarks
    students = [
        StudentPart(p.name, p.architecture, {"n_maps": p.codec.n_maps(k), **p.arguments}, p.codec, m)
        for p, m in zip(plans, last.students, strict=True)
    ]
    teacher = None
    if last.teacher is not None:
        arguments = _teacher_plan(config).arguments(data.scheme)
        teacher = TeacherPart("teacher", arguments, last.teacher)
    pseudo = len(set(np.concatenate(last.selected).tolist())) if last.selected else 0
    return Checkpoint(
        scheme=data.scheme,
        students=students,
        crop=rule,
        teacher=teacher,
        box_from_detector=adapter,
        counts={"labelled": len(data.labelled), "pseudo": pseudo, "unlabelled": len(data.unlabelled)},
        seed=config.run.seed,
        config=config.model_dump(mode="json"),
        data_hash=data.hash(),
        licence=config.model.licence,
        provenance=config.model.provenance,
    )


def _finish(
    config: Config,
    data: TrainingData,
    checkpoint: Checkpoint,
    folder: Path,
    history: Sequence[Event],
    lengths: NDArray[np.float64],
    seconds: float,
) -> RunResult:
    """Measure on the validation faces, write model and report."""
    result = None
    faces: list[tuple[FaceSample, NDArray[np.float32], float]] = []
    if data.validation:
        detector = Detector(checkpoint)
        found = evaluate_samples(
            detector,
            data.validation,
            "column" if _all_boxes(data.validation) else "gt",
            flip=config.model.flip,
        )
        truth = np.stack([s.landmarks for s in data.validation if s.landmarks is not None])
        boxes = np.stack([s.face_box() for s in data.validation])
        result = score(found, truth, data.scheme, boxes=boxes)
        entry = {
            k: v for k, v in result.to_dict().items() if k in ("nme", "auc", "failure_rate", "normalizer", "n_faces")
        }
        checkpoint.accuracy.append({"data": "validation", "box": "gt", **entry})
        order = np.argsort(np.nan_to_num(result.per_face, nan=np.inf))
        faces = [(data.validation[i], found[i], float(result.per_face[i])) for i in order]
    path = folder / "detector.safetensors"
    save_checkpoint(path, checkpoint, half=config.model.half)
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [e for e in map(json.loads, lines) if e["kind"] == "epoch"]
    facts = {"labelled faces": str(len(data.labelled)), "unlabelled faces": str(len(data.unlabelled))}
    if result is not None:
        facts = {
            f"validation NME ({result.normalizer})": f"{100 * result.nme:.2f} %",
            f"AUC at {result.threshold:g}": f"{100 * result.auc:.1f}",
            "failures": f"{100 * result.failure_rate:.1f} %",
            **facts,
        }
    write_report(
        folder / "report.html",
        title=f"{checkpoint.scheme.name}: {len(data.labelled)} labelled, {len(data.unlabelled)} unlabelled faces",
        config=config.model_dump(mode="json"),
        rounds=_rounds_for_report(history),
        metrics=[{**e, "part": e["student"]} for e in epochs],
        ced={} if result is None else {"validation": result.per_face},
        best=[_tile(checkpoint, *f) for f in faces[:5]],
        worst=[_tile(checkpoint, *f) for f in faces[::-1][:5]],
        quality=_quality_for_report(history, lengths),
        facts={**facts, "minutes": f"{seconds / 60:.1f}"},
        normalizer=checkpoint.scheme.default_normalizer,
    )
    return RunResult(checkpoint, result, path)


def _all_boxes(samples: Sequence[FaceSample]) -> bool:
    return all(s.box is not None for s in samples)


def _tile(
    checkpoint: Checkpoint, sample: FaceSample, found: NDArray[np.float32], nme: float
) -> tuple[NDArray[np.uint8], str]:
    tile = face_tile(read_image(sample.image), found, checkpoint.scheme, truth=sample.landmarks)
    return tile, f"{sample.name or sample.image.name}: {100 * nme:.1f} %"


def _rounds_for_report(history: Sequence[Event]) -> list[dict[str, Any]]:
    rounds: dict[int, dict[str, Any]] = {}
    for record in history:
        row = rounds.setdefault(record["round"], {"round": record["round"], "n_selected": 0, "val_nme": {}})
        row["n_selected"] = max(row["n_selected"], record.get("n_selected", 0))
        if "val_nme" in record:
            row["val_nme"][record["student"]] = record["val_nme"]
            row["val_nme"]["ensemble"] = record["ensemble_val_nme"]
    return [rounds[i] for i in sorted(rounds)]


def _truth_lengths(truth: NDArray[np.float32], scheme: LandmarkScheme) -> NDArray[np.float64]:
    """(U,) normalising lengths of the unlabelled faces whose labels are known, crop px; boxes are the points' own."""
    normalizer = scheme.normalizer
    lengths = [normalizer(t, box_of_points(t)) if np.isfinite(t).any() else np.nan for t in truth]
    return np.asarray([n if n > 0 else np.nan for n in lengths], np.float64)


def _quality_for_report(history: Sequence[Event], lengths: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The teacher's quality against the true NME, for the first student of every round."""
    found: dict[int, dict[str, Any]] = {}
    for record in history:
        if record.get("quality") is None or record.get("true_error") is None or record["round"] in found:
            continue
        error = np.asarray([np.nan if e is None else e for e in record["true_error"]], np.float64) / lengths
        seen = np.isfinite(error)
        found[record["round"]] = {
            "round": record["round"],
            "quality": np.asarray(record["quality"], np.float64)[seen],
            "error": error[seen],
            "spearman": record["rank_correlation"]["quality"],
        }
    return [found[i] for i in sorted(found)]


def _known_rounds(path: Path) -> set[tuple[int, str]]:
    if not path.is_file():
        return set()
    return {(r["round"], r["student"]) for r in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def _finite(record: Event) -> Event:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in record.items()}
