"""Training of stage 2: from the truth with jitter, or with a share of the coarse stage's predictions (Fig. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import (
    AugmentRule,
    augment_appearance,
    draw_augmentation,
    jittered_from_crop,
    rotated_from_image,
)
from fewmark.data.batches import Batch, MakeRow, Row
from fewmark.data.crops import cut
from fewmark.inference.cascade.component import ComponentStage, component_crop_from_image
from fewmark.inference.cascade.frames import MeanFace, component_from_mean, inner_components
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.state import move_face
from fewmark.models.ensemble import to_tensor
from fewmark.models.losses import landmark_loss
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.cascade.fit_stage import Schedule, SyntheticFaces, train_network
from fewmark.training.runner import RunContext

AUGMENT = AugmentRule(scale=0.12, rotation=10.0, shift=0.06, erase=0.15)
LAPTOP = {"widths": (16, 32, 48, 64), "n_convs": (1, 1, 1, 1), "first_stride": 2, "grid": 3}


def train_component(
    faces: TrainingFaces,
    *,
    components: Sequence[str] | None = None,
    start: ComponentStage | None = None,
    arguments: Mapping[str, Any] = LAPTOP,
    size: int = 48,
    margin: float = 0.3,
    augment: AugmentRule = AUGMENT,
    coarse_landmarks: NDArray[np.float32] | None = None,
    coarse_share: float = 0.0,
    augment_coarse: bool = True,
    schedule: Schedule | None = None,
    context: RunContext | None = None,
    synthetic: SyntheticFaces | None = None,
) -> ComponentStage:
    """Train the component stage, one network after the other.

    Args:
        faces: Labelled faces.
        components: Components to train; None for all but the contour.
        start: A stage whose other components are kept; its mean face, size and margin are used.
        arguments: Arguments of `fewmark.models.component.Component` except n_landmarks.
        size: Side of the crop, px.
        margin: Margin around the mean component, fraction of its longer side.
        augment: Ranges of the augmentation; scale, rotation and shift are the alignment error that the stage has to tolerate.
        coarse_landmarks: (N, K, 2) px of the training windows, predictions of the stage before (`predict_landmarks`).
        coarse_share: Fraction of the training crops, 0 to 1, that are aligned by these instead of by the truth.
        augment_coarse: Whether those crops are augmented.
        schedule: None for the stage's default.
        context: What all trainings share; None for one CPU process that keeps no files.
        synthetic: Synthetic faces that come first, or None.

    Raises:
        InputError: The scheme has no components or not these, or there is a share without landmarks.

    Source: coarse-to-fine, section 3.2 and 4.1, Fig. 5.
    """
    schedule, context = schedule or Schedule.of_stage("component"), context or RunContext()
    scheme = faces.scheme
    known = inner_components(scheme)
    for component in components or ():
        if component not in known:
            raise InputError(
                f"component stage: scheme {scheme.name} has no component {component!r}; "
                f"expected some of {', '.join(known)}"
            )
    if not 0 <= coarse_share <= 1 or (coarse_share > 0 and coarse_landmarks is None):
        raise InputError(
            f"component stage: coarse_share: expected 0 to 1, above 0 with coarse_landmarks, given {coarse_share}"
        )
    mean_face = faces.mean_face
    if start is not None:
        mean_face, size, margin = start.mean_face, start.size, start.margin
    networks = dict(start.networks) if start is not None else {}
    for number, component in enumerate(known):
        if components is not None and component not in components:
            continue
        indices = known[component]
        full = {**arguments, "n_landmarks": len(indices)}
        networks[component] = NetworkPart.make("component", full, 100 * context.seed + number)

        def rows(some: TrainingFaces, indices: Sequence[int] = indices) -> MakeRow:
            real, share = (coarse_landmarks, coarse_share) if some is faces else (None, 0.0)
            return component_rows(
                some, mean_face, indices, size, margin, augment, real, share, augment_coarse=augment_coarse
            )

        def step(module: nn.Module, batch: Batch, device: torch.device) -> Tensor:
            found = module(to_tensor(batch.images, device))
            return landmark_loss(found, torch.from_numpy(batch.targets).to(device), schedule.loss)

        module = networks[component].module
        seed = 1000 * context.seed + number
        name = f"component_{component}"
        train_network(name, "component", module, step, rows, faces, schedule, context, synthetic, seed)
    return ComponentStage(scheme, networks, mean_face, size, margin)


def component_rows(
    faces: TrainingFaces,
    mean_face: MeanFace,
    indices: Sequence[int],
    size: int,
    margin: float,
    augment: AugmentRule,
    coarse_landmarks: NDArray[np.float32] | None,
    coarse_share: float,
    *,
    augment_coarse: bool,
) -> MakeRow:
    """Rows of crops (size, size, 3) of a component, and its landmarks' offsets from the mean face, crop px; see `train_component`."""
    scheme, own = faces.scheme, list(indices)
    mean = component_from_mean(mean_face, own, size, margin)(mean_face[own])

    def make_row(index: int, rng: np.random.Generator) -> Row:
        real = rng.random() < coarse_share
        a = draw_augmentation(augment, rng, can_flip=scheme.mirror is not None)
        plain = real and not augment_coarse
        moved_from_image = rotated_from_image(0.0, flip=a.flip and not plain)
        truth = move_face(faces.faces[index], moved_from_image, scheme)
        start = truth
        if real and coarse_landmarks is not None:
            predicted = replace(faces.faces[index], landmarks=coarse_landmarks[index])
            start = move_face(predicted, moved_from_image, scheme)
        crop_from_moved = component_crop_from_image(start, index, mean_face, own, size, margin)
        if not plain:
            crop_from_moved = jittered_from_crop(a, size) @ crop_from_moved
        image = cut(faces.images[index], crop_from_moved @ moved_from_image, size)
        assert truth.landmarks is not None
        offsets = (crop_from_moved(truth.landmarks[own]) - mean).astype(np.float32)
        return Row(image if plain else augment_appearance(image, a), offsets)

    return make_row
