"""A run that trains a cascade: stage after stage from the labelled faces, each measured on the validation faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from fewmark.core.errors import InputError
from fewmark.core.geometry import wrap_angle
from fewmark.data.augment import AugmentRule
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.cascade.coarse import contour_and_inner, join_parts
from fewmark.inference.cascade.frames import face_angle
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.predict import run_cascade
from fewmark.inference.cascade.state import FaceState, Stage
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.component import PAPER_SIZE as PAPER_COMPONENT
from fewmark.models.point import PAPER_SIZE as PAPER_POINT
from fewmark.training.cascade import angle as training_angle
from fewmark.training.cascade import component as training_component
from fewmark.training.cascade import point as training_point
from fewmark.training.cascade.angle import train_angle
from fewmark.training.cascade.coarse import train_coarse
from fewmark.training.cascade.component import train_component
from fewmark.training.cascade.faces import TrainingFaces, cache_training_faces, predict_landmarks
from fewmark.training.cascade.fit_stage import Run, Schedule
from fewmark.training.cascade.plans import CASCADE_BATCH, cascade_trainings
from fewmark.training.cascade.point import train_point
from fewmark.training.config import Config
from fewmark.training.faces import render_training_faces
from fewmark.training.fit import Epoch

Event = dict[str, Any]

UPRIGHT = 5.0
"""Degrees within which the paper counts an angle as right (Fig. 2)."""
LAPTOP_STRIDE = 16
"""Of the laptop-size coarse network's last level, crop px; its crop is a multiple of it."""
SYNTHETIC_SIZE = 224
"""Side of a synthetic face's image, px: its face fills the window that stage 3 cuts its patches from."""
MIN_PAPER_CROP = 32
"""Px: the paper's coarse network halves its crop four times."""


def check_cascade(config: Config, scheme: LandmarkScheme, file: str | None = None) -> None:
    """See that a cascade of these settings can be trained for a scheme, before anything is read.

    Args:
        file: of the scheme, for messages.

    Raises:
        InputError: the scheme lacks its mean face or components, or the crop does not fit the coarse network.
    """
    c, size = config.cascade, config.crop.size
    try:
        cascade_trainings(config, scheme, 1)
        if scheme.mean_face is None:
            raise InputError(
                f"scheme {scheme.name} has no mean face, which the cascade aligns faces to; add `mean_face` to its file"
            )
    except InputError as error:
        where = "" if file is None else f"{file}: "
        raise InputError(f"{where}{error}") from None
    stride = LAPTOP_STRIDE
    if c.size == "laptop" and size % stride:
        raise InputError(
            f"crop.size: the cascade's coarse network needs a multiple of {stride} px, given {size}; "
            f"take {max(stride, size // stride * stride)}"
        )
    if c.size == "paper" and size < MIN_PAPER_CROP:
        raise InputError(
            f"crop.size: the paper's coarse network needs at least {MIN_PAPER_CROP} px (112 in the paper), given {size}"
        )


def train_cascade(
    config: Config,
    labelled: Sequence[FaceSample],
    validation: Sequence[FaceSample],
    scheme: LandmarkScheme,
    *,
    fabric: Fabric,
    folder: Path,
    emit: Callable[[Event], None],
    begin: Callable[[], None],
    n_threads: int,
) -> tuple[Cascade, dict[str, float]]:
    """Train the stages that `cascade.stages` names.

    Args:
        folder: keeps every training, NAME.safetensors once it has ended; one whose file is missing is trained (again).
        emit: told of trainings, epochs and stages.
        begin: called once the images could be read.
        n_threads: that cut crops.

    Returns:
        the cascade, and its NME on the validation faces after each stage that finds landmarks, a fraction.

    Raises:
        InputError: an image cannot be read, or a file belongs to another training.
    """
    faces = cache_training_faces(labelled, scheme)
    begin()
    n_synthetic, seed = config.synthetic.faces, config.run.seed
    samples = render_training_faces(
        n_synthetic, folder / "synthetic", scheme, size=SYNTHETIC_SIZE, seed=seed, fabric=fabric, emit=emit
    )
    synthetic = cache_training_faces(samples, scheme, faces.mean_face) if samples else None
    plans = cascade_trainings(config, scheme, len(faces))
    plan_of = {p.name: p for p in plans}

    def on_begin(name: str) -> None:
        plan = plan_of[name]
        emit({"kind": "training", "name": name, "stage": plan.stage, "n_faces": plan.n_faces})

    def on_epoch(name: str, epoch: Epoch) -> None:
        emit(
            {
                "kind": "epoch",
                "name": name,
                "stage": plan_of[name].stage,
                "epoch": epoch.index + 1,
                "n_epochs": epoch.n_epochs,
                "loss": epoch.loss,
                "seconds": epoch.seconds,
            }
        )

    run = Run(fabric, seed, folder, n_threads, synthetic, config.synthetic.length, on_begin, on_epoch)
    stages: list[Stage] = []
    measured: dict[str, float] = {}
    for kind in config.cascade.stages:
        n_epochs = next(p.n_epochs for p in reversed(plans) if p.stage == kind)
        schedule = Schedule(n_epochs=n_epochs, batch_size=CASCADE_BATCH)
        stages.append(_train_stage(kind, faces, config, stages, schedule, run))
        if validation and fabric.is_global_zero:
            event = _measure(Cascade(tuple(stages)), validation, faces, flip=config.model.flip)
            if "val_nme" in event:
                measured[kind] = event["val_nme"]
            emit({"kind": "stage", "stage": kind, **event})
        fabric.barrier()
    return Cascade(tuple(stages)), measured


def _train_stage(
    kind: str, faces: TrainingFaces, config: Config, before: Sequence[Stage], schedule: Schedule, run: Run
) -> Stage:
    c, paper = config.cascade, config.cascade.size == "paper"
    sizes: dict[str, Any] = {"arguments": {}} if paper else {}
    flip = config.augment.flip
    if kind == "angle":
        return train_angle(faces, augment=replace(training_angle.AUGMENT, flip=flip), schedule=schedule, run=run)
    if kind == "coarse":
        subsets = contour_and_inner(faces.scheme) if c.apart else [tuple(range(faces.scheme.n_landmarks))]
        return join_parts(
            [
                train_coarse(
                    faces,
                    landmarks=subset,
                    size=config.crop.size,
                    margin=config.crop.margin,
                    twin=c.twin,
                    augment=AugmentRule(**config.augment.model_dump()),
                    schedule=schedule,
                    run=run,
                    name=f"coarse_{i}" if c.apart else "coarse",
                    **sizes,
                )
                for i, subset in enumerate(subsets)
            ]
        )
    if kind == "component":
        real = None
        if c.coarse_share:
            coarse = [s for s in before if s.name == "coarse"]
            real = predict_landmarks(coarse, faces.images, faces.faces)
        return train_component(
            faces,
            coarse_landmarks=real,
            coarse_share=c.coarse_share,
            augment_coarse=c.augment_coarse,
            augment=replace(training_component.AUGMENT, flip=flip),
            schedule=schedule,
            run=run,
            **(sizes | {"size": PAPER_COMPONENT} if paper else {}),
        )
    return train_point(
        faces,
        augment=replace(training_point.AUGMENT, flip=flip),
        schedule=schedule,
        run=run,
        **(sizes | {"size": PAPER_POINT} if paper else {}),
    )


def _measure(cascade: Cascade, samples: Sequence[FaceSample], known: TrainingFaces, *, flip: bool) -> Event:
    """The validation faces after the last stage, from their labels' boxes: NME, or the share of angles that are right."""
    found: list[FaceState] = []
    for s in samples:  # one image in memory at a time
        found += run_cascade(cascade, [read_image(s.image)], [FaceState(s.face_box())], flip=flip)
    truth = stack_landmarks(samples)
    points = [f.landmarks for f in found if f.landmarks is not None]
    if not points:
        seen = [i for i, t in enumerate(truth) if np.isfinite(t).all(1).sum() > 1]
        apart = [abs(wrap_angle(found[i].angle - face_angle(truth[i], known.mean_face))) for i in seen]
        return {"n_faces": len(seen), "within_5_degrees": float(np.mean(np.array(apart) <= UPRIGHT))}
    boxes = np.stack([s.face_box() for s in samples])
    result = score(np.stack(points), truth, known.scheme, boxes=boxes)
    return {"n_faces": len(samples), "val_nme": float(result.nme), "normalizer": result.normalizer}
