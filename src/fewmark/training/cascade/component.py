"""Training stage 2: from the truth with jitter, or with a share of the coarse stage's real output (Fig. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule, augment_appearance, draw_augmentation
from fewmark.data.crops import cut
from fewmark.inference.cascade.component import ComponentStage, component_crop_from_image
from fewmark.inference.cascade.frames import MeanFace, component_from_mean, inner_components
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.state import move_face
from fewmark.models.ensemble import to_tensor
from fewmark.models.losses import landmark_loss
from fewmark.training.cascade.batches import CropBatch, CutCrop, jitter, turn_and_flip
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.cascade.fit_stage import Run, Schedule, train_module

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
    run: Run | None = None,
) -> ComponentStage:
    """Train the component stage, one network after the other.

    Args:
        components: which ones; None for all but the contour.
        start: a stage whose other components are kept; its mean face, size and margin hold.
        arguments: of `fewmark.models.component.Component`, all but n_landmarks.
        size: crop px.
        margin: round the mean component, as a part of its longer side.
        augment: of the crop; its scale, rotation and shift are the error of the alignment that the stage must bear.
        coarse_landmarks: (N, K, 2) px of the training windows, the real output of the stage before (`predict_landmarks`).
        coarse_share: part of the training crops, 0 to 1, that are aligned by it instead of by the truth.
        augment_coarse: those are augmented too, or stay as they are.
        schedule: None for 60 epochs.
        run: what the trainings share.

    Raises:
        InputError: the scheme has no components or not these, or a share without landmarks.

    Source: coarse-to-fine, section 3.2 and 4.1, Fig. 5.
    """
    schedule, run, scheme = schedule or Schedule(n_epochs=60), run or Run(), faces.scheme
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
        networks[component] = NetworkPart.make("component", full, 100 * run.seed + number)

        def rows(some: TrainingFaces, indices: Sequence[int] = indices) -> CutCrop:
            real, share = (coarse_landmarks, coarse_share) if some is faces else (None, 0.0)
            return component_rows(
                some, mean_face, indices, size, margin, augment, real, share, augment_coarse=augment_coarse
            )

        def step(module: nn.Module, batch: CropBatch, device: torch.device) -> Tensor:
            found = module(to_tensor(batch.images, device))
            return landmark_loss(found, torch.from_numpy(batch.targets).to(device), schedule.loss)

        module = networks[component].module
        own_run = replace(run, seed=1000 * run.seed + number)
        train_module(f"component_{component}", module, step, rows, faces, schedule, own_run)
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
) -> CutCrop:
    """Crops of a component, and how far its landmarks are from their places in the mean face, crop px; see `train_component`."""
    scheme, chosen = faces.scheme, list(indices)
    places = component_from_mean(mean_face, chosen, size, margin)(mean_face[chosen])

    def cut_row(index: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        real = rng.random() < coarse_share
        a = draw_augmentation(augment, rng, can_flip=scheme.mirror is not None)
        plain = real and not augment_coarse
        moved_from_image = turn_and_flip(0.0, flip=a.flip and not plain)
        truth = move_face(faces.faces[index], moved_from_image, scheme)
        seen = truth
        if real and coarse_landmarks is not None:
            told = replace(faces.faces[index], landmarks=coarse_landmarks[index])
            seen = move_face(told, moved_from_image, scheme)
        crop_from_moved = component_crop_from_image(seen, index, mean_face, chosen, size, margin)
        if not plain:
            crop_from_moved = jitter(a, size) @ crop_from_moved
        image = cut(faces.images[index], crop_from_moved @ moved_from_image, size)
        assert truth.landmarks is not None
        targets = (crop_from_moved(truth.landmarks[chosen]) - places).astype(np.float32)
        return image if plain else augment_appearance(image, a), targets

    return cut_row
