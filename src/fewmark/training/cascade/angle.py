"""Training stage 0, over all angles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.data.augment import AugmentRule, augment_appearance, draw_augmentation
from fewmark.data.crops import CropRule, cut
from fewmark.inference.cascade.angle import AngleStage, upright_crop_from_image
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.state import move_face
from fewmark.models.angle import Angle, direction_loss
from fewmark.models.ensemble import to_tensor
from fewmark.training.cascade.batches import CropBatch, CutCrop, jitter, turn_and_flip
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.cascade.fit_stage import Run, Schedule, train_module

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
    run: Run | None = None,
) -> AngleStage:
    """Train the angle stage: faces turned by all of 360 degrees, in the box that a turned face has.

    Args:
        arguments: of `fewmark.models.angle.Angle`.
        size: crop px.
        margin: round the box, as a part of its longer side.
        augment: all but its rotation, which is uniform over the circle.
        schedule: None for 160 epochs.
        run: what the trainings share.

    Source: coarse-to-fine, section 3.1.
    """
    schedule, run = schedule or Schedule(n_epochs=160), run or Run()
    rule = CropRule(size, margin)
    network = NetworkPart.make("angle", arguments, run.seed)
    rows = partial(angle_rows, rule=rule, augment=augment)
    module = network.module
    assert isinstance(module, Angle)
    train_module("angle", _Logits(module), partial(_step, network=module), rows, faces, schedule, run)
    return AngleStage(faces.scheme, network, rule)


def angle_rows(faces: TrainingFaces, rule: CropRule, augment: AugmentRule) -> CutCrop:
    """Crops of faces turned by any angle, and the (cos, sin) of it."""
    scheme, size = faces.scheme, rule.size

    def cut_row(index: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        turn = float(rng.uniform(-180, 180))
        a = draw_augmentation(replace(augment, rotation=0.0), rng, can_flip=scheme.mirror is not None)
        moved_from_image = turn_and_flip(turn, flip=a.flip)
        face = move_face(faces.faces[index], moved_from_image, scheme)
        crop_from_moved = jitter(a, size) @ upright_crop_from_image(replace(face, angle=0.0), rule)
        image = augment_appearance(cut(faces.images[index], crop_from_moved @ moved_from_image, size), a)
        angle = math.radians(face.angle)
        return image, np.array([math.cos(angle), math.sin(angle)], np.float32)

    return cut_row


class _Logits(nn.Module):
    """The network as it is trained: its forward gives the weights of the directions."""

    def __init__(self, network: Angle) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.logits(images)


def _step(module: nn.Module, batch: CropBatch, device: torch.device, network: Angle) -> Tensor:
    logits = module(to_tensor(batch.images, device))
    target = torch.from_numpy(batch.targets).to(device)
    directions = network.directions
    assert isinstance(directions, Tensor)
    return direction_loss(logits.float(), target, directions.to(device))
