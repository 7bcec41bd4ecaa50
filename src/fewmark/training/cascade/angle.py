"""Training of stage 0: the angle of a face, over the whole circle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewmark.data.augment import (
    AugmentRule,
    augment_appearance,
    draw_augmentation,
    jittered_from_crop,
    rotated_from_image,
)
from fewmark.data.batches import Batch, MakeRow, Row
from fewmark.data.crops import CropRule, cut
from fewmark.inference.cascade.angle import AngleStage, upright_crop_from_image
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.state import move_face
from fewmark.models.angle import Angle, direction_loss
from fewmark.models.ensemble import to_tensor
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.cascade.fit_stage import Schedule, SyntheticFaces, train_network
from fewmark.training.runner import RunContext

AUGMENT = AugmentRule(scale=0.15, rotation=0.0, shift=0.06, erase=0.2)
LAPTOP = {"widths": (16, 32, 64, 96), "grid": 3, "n_hidden": 64}


def train_angle(
    faces: TrainingFaces,
    *,
    arguments: Mapping[str, Any] = LAPTOP,
    size: int = 48,
    margin: float = 0.2,
    augment: AugmentRule = AUGMENT,
    schedule: Schedule | None = None,
    context: RunContext | None = None,
    synthetic: SyntheticFaces | None = None,
) -> AngleStage:
    """Train the angle stage on faces rotated by any angle, in the box that a rotated face has.

    Args:
        faces: Labelled faces.
        arguments: Arguments of `fewmark.models.angle.Angle`.
        size: Side of the crop, px.
        margin: Margin around the box, fraction of its longer side.
        augment: Ranges of the augmentation except its rotation, which is uniform over the circle.
        schedule: None for the stage's default.
        context: What all trainings share; None for one CPU process that keeps no files.
        synthetic: Synthetic faces that come first, or None.

    Source: coarse-to-fine, section 3.1.
    """
    schedule, context = schedule or Schedule.of_stage("angle"), context or RunContext()
    rule = CropRule(size, margin)
    network = NetworkPart.make("angle", arguments, context.seed)
    rows = partial(angle_rows, rule=rule, augment=augment)
    module = network.module
    assert isinstance(module, Angle)
    step = partial(_step, network=module)
    train_network("angle", "angle", _Logits(module), step, rows, faces, schedule, context, synthetic)
    return AngleStage(faces.scheme, network, rule)


def angle_rows(faces: TrainingFaces, rule: CropRule, augment: AugmentRule) -> MakeRow:
    """Rows of crops (size, size, 3) of faces rotated by any angle, and its (cos, sin)."""
    scheme, size = faces.scheme, rule.size

    def make_row(index: int, rng: np.random.Generator) -> Row:
        rotation = float(rng.uniform(-180, 180))
        a = draw_augmentation(replace(augment, rotation=0.0), rng, can_flip=scheme.mirror is not None)
        moved_from_image = rotated_from_image(rotation, flip=a.flip)
        face = move_face(faces.faces[index], moved_from_image, scheme)
        crop_from_moved = jittered_from_crop(a, size) @ upright_crop_from_image(replace(face, angle=0.0), rule)
        image = augment_appearance(cut(faces.images[index], crop_from_moved @ moved_from_image, size), a)
        angle = math.radians(face.angle)
        return Row(image, np.array([math.cos(angle), math.sin(angle)], np.float32))

    return make_row


class _Logits(nn.Module):
    """The network as it is trained: its forward pass gives the logits of the directions."""

    def __init__(self, network: Angle) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.logits(images)


def _step(module: nn.Module, batch: Batch, device: torch.device, network: Angle) -> Tensor:
    logits = module(to_tensor(batch.images, device))
    target = torch.from_numpy(batch.targets).to(device)
    directions = network.directions
    assert isinstance(directions, Tensor)
    return direction_loss(logits.float(), target, directions.to(device))
