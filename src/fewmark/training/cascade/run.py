"""Training of a cascade: stage after stage from the labelled faces, each measured on the validation faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

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
from fewmark.training.cascade.faces import TrainingFaces, predict_landmarks
from fewmark.training.cascade.fit_stage import BATCH_SIZE, Schedule, SyntheticFaces
from fewmark.training.cascade.plans import cascade_trainings, stage_epochs
from fewmark.training.cascade.point import train_point
from fewmark.training.events import Event
from fewmark.training.runner import RunContext
from fewmark.training.settings import Config

UPRIGHT = 5.0
"""Largest error of an angle that the paper counts as right, degrees (Fig. 2)."""
LAPTOP_STRIDE = 16
"""Stride of the laptop-size coarse network's last level, crop px; its crop is a multiple of it."""
SYNTHETIC_SIZE = 224
"""Side of a synthetic face's image, px: its face fills the window from which stage 3 cuts its patches."""
MIN_PAPER_CROP = 32
"""Least side of the paper's coarse network's crop, px: it halves it four times."""


@dataclass(frozen=True)
class CascadeOptions:
    """Choices of the paper's experiments that are no settings.

    Attributes:
        size: "laptop", or "paper" for the paper's networks (with crop.size=112).
        twin: Whether two coarse networks are trained side by side, of which one is kept (Fig. 4).
        separate_contour: Whether the contour has a coarse network of its own.
        coarse_share: Fraction of stage 2's training crops that are aligned by the coarse stage's predictions (Fig. 5).
        augment_coarse: Whether those crops are augmented.
    """

    size: Literal["laptop", "paper"] = "laptop"
    twin: bool = True
    separate_contour: bool = False
    coarse_share: float = 0.0
    augment_coarse: bool = True


DEFAULT_OPTIONS = CascadeOptions()


def check_cascade(
    config: Config, scheme: LandmarkScheme, file: str | None = None, options: CascadeOptions = DEFAULT_OPTIONS
) -> None:
    """Check that a cascade can be trained for a scheme, before any image is read.

    Args:
        config: Settings.
        scheme: Scheme of the landmarks.
        file: The scheme's file, for messages.
        options: Choices that are no settings.

    Raises:
        InputError: The scheme lacks its mean face or components, or the crop does not fit the coarse network.
    """
    size = config.crop.size
    try:
        cascade_trainings(config, scheme, 1, separate_contour=options.separate_contour)
        if scheme.mean_face is None:
            raise InputError(
                f"scheme {scheme.name} has no mean face, which the cascade aligns faces to; add `mean_face` to its file"
            )
    except InputError as error:
        where = "" if file is None else f"{file}: "
        raise InputError(f"{where}{error}") from None
    stride = LAPTOP_STRIDE
    if options.size == "laptop" and size % stride:
        raise InputError(
            f"crop.size: the cascade's coarse network needs a multiple of {stride} px, given {size}; "
            f"take {max(stride, size // stride * stride)}"
        )
    if options.size == "paper" and size < MIN_PAPER_CROP:
        raise InputError(
            f"crop.size: the paper's coarse network needs at least {MIN_PAPER_CROP} px (112 in the paper), given {size}"
        )


def train_cascade(
    config: Config,
    faces: TrainingFaces,
    validation: Sequence[FaceSample],
    *,
    context: RunContext,
    synthetic: TrainingFaces | None = None,
    options: CascadeOptions = DEFAULT_OPTIONS,
) -> tuple[Cascade, dict[str, float]]:
    """Train the stages that `cascade.stages` names.

    Args:
        config: Settings.
        faces: Labelled faces.
        validation: Faces to measure on after every stage; they train nothing.
        context: What all trainings share; its events are training, epoch and stage.
        synthetic: Faces on which every network is trained first, or None.
        options: Choices that are no settings.

    Returns:
        The cascade, and its NME on the validation faces after each stage that finds landmarks, a fraction.

    Raises:
        InputError: A file belongs to another training, or a loss is not finite.
    """
    first = None if synthetic is None else SyntheticFaces(synthetic, config.synthetic.length)
    stages: list[Stage] = []
    nmes: dict[str, float] = {}
    for kind in config.cascade.stages:
        n_epochs = stage_epochs(kind, len(faces), config.cascade.length)
        schedule = Schedule(n_epochs=n_epochs, batch_size=BATCH_SIZE)
        stages.append(_train_stage(kind, faces, config, stages, schedule, context, first, options))
        if validation and context.fabric.is_global_zero:
            event = _measure(Cascade(tuple(stages)), validation, faces, flip=config.model.flip)
            if "val_nme" in event:
                nmes[kind] = event["val_nme"]
            context.emit({"kind": "stage", "stage": kind, **event})
        context.fabric.barrier()
    return Cascade(tuple(stages)), nmes


def _train_stage(
    kind: str,
    faces: TrainingFaces,
    config: Config,
    before: Sequence[Stage],
    schedule: Schedule,
    context: RunContext,
    synthetic: SyntheticFaces | None,
    options: CascadeOptions,
) -> Stage:
    paper = options.size == "paper"
    sizes: dict[str, Any] = {"arguments": {}} if paper else {}
    flip = config.augment.flip
    shared: dict[str, Any] = {"schedule": schedule, "context": context, "synthetic": synthetic}
    if kind == "angle":
        return train_angle(faces, augment=replace(training_angle.AUGMENT, flip=flip), **shared)
    if kind == "coarse":
        separate = options.separate_contour
        subsets = contour_and_inner(faces.scheme) if separate else [tuple(range(faces.scheme.n_landmarks))]
        return join_parts(
            [
                train_coarse(
                    faces,
                    landmarks=subset,
                    size=config.crop.size,
                    margin=config.crop.margin,
                    twin=options.twin,
                    augment=AugmentRule(**config.augment.model_dump()),
                    name=f"coarse_{i}" if separate else "coarse",
                    **shared,
                    **sizes,
                )
                for i, subset in enumerate(subsets)
            ]
        )
    if kind == "component":
        predicted = None
        if options.coarse_share:
            coarse = [s for s in before if s.name == "coarse"]
            predicted = predict_landmarks(coarse, faces.images, faces.faces)
        return train_component(
            faces,
            coarse_landmarks=predicted,
            coarse_share=options.coarse_share,
            augment_coarse=options.augment_coarse,
            augment=replace(training_component.AUGMENT, flip=flip),
            **shared,
            **(sizes | {"size": PAPER_COMPONENT} if paper else {}),
        )
    return train_point(
        faces,
        augment=replace(training_point.AUGMENT, flip=flip),
        **shared,
        **(sizes | {"size": PAPER_POINT} if paper else {}),
    )


def _measure(cascade: Cascade, samples: Sequence[FaceSample], known: TrainingFaces, *, flip: bool) -> Event:
    """Measure the last stage from the labels' boxes: NME, or the fraction of angles that are right."""
    found: list[FaceState] = []
    for s in samples:  # one image in memory at a time
        found += run_cascade(cascade, [read_image(s.image)], [FaceState(s.face_box())], flip=flip)
    truth = stack_landmarks(samples)
    points = [f.landmarks for f in found if f.landmarks is not None]
    if not points:
        rows = [i for i, t in enumerate(truth) if np.isfinite(t).all(1).sum() > 1]
        errors = [abs(wrap_angle(found[i].angle - face_angle(truth[i], known.mean_face))) for i in rows]
        return {"n_faces": len(rows), "within_5_degrees": float(np.mean(np.array(errors) <= UPRIGHT))}
    boxes = np.stack([s.face_box() for s in samples])
    result = score(np.stack(points), truth, known.scheme, boxes=boxes)
    return {"n_faces": len(samples), "val_nme": float(result.nme), "normalizer": result.normalizer}
