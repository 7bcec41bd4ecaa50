"""Training of stage 1: the twin training of Fig. 4, or a single network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.geometry import crop_from_box
from fewmark.data.augment import (
    AugmentRule,
    augment_appearance,
    draw_augmentation,
    jittered_from_crop,
    rotated_from_image,
)
from fewmark.data.batches import Batch, MakeRow, Row
from fewmark.data.crops import CropRule, cut
from fewmark.inference.cascade.angle import upright_crop_from_image
from fewmark.inference.cascade.coarse import CoarsePart, CoarseStage
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.state import move_face
from fewmark.models.coarse import Coarse
from fewmark.models.ensemble import to_tensor
from fewmark.models.losses import LandmarkLoss, integral_loss, landmark_loss
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.cascade.fit_stage import Schedule, SyntheticFaces, train_network
from fewmark.training.runner import RunContext

AUGMENT = AugmentRule(scale=0.12, rotation=25.0, shift=0.06)
LAPTOP = {"widths": (32, 96, 160, 256), "n_modules": (2, 3, 3), "head": "heatmaps", "decoder": 96}
ROLL_SHARE = 0.3
"""Fraction of the training crops that are cut by the box of a face rotated by any angle, which is larger and off centre."""


class Twin(nn.Module):
    """One or two identical networks that are trained side by side; the last one is kept.

    Args:
        networks: The teacher and the student, or a single network.
    """

    def __init__(self, networks: Sequence[Coarse]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each network its landmarks (B, K, 2) crop px, and its maps' logits (none: the landmarks again)."""
        found = []
        for network in self.networks:
            assert isinstance(network, Coarse)
            if network.head == "heatmaps":
                logits = network.logits(images)
                found.append((network.codec.expectation(network.codec.normalise(logits)), logits))
            else:
                points = network(images)
                found.append((points, points))
        return found


def twin_loss(
    answers: Sequence[tuple[Tensor, Tensor]],
    landmarks: Tensor,
    network: Coarse,
    size: int,
    *,
    kind: LandmarkLoss,
    twin_weight: float,
) -> Tensor:
    """Loss 1 and 2 to the truth and loss 3 between the twins, whose gradient stops before the teacher.

    Args:
        answers: Output of `Twin`.
        landmarks: (B, K, 2) crop px, NaN where missing.
        network: Any of the networks, for its head.
        size: Side of the crop, px.
        kind: Kind of the landmark loss; a head of heatmaps has `integral_loss` to the truth.
        twin_weight: Weight of loss 3.

    Source: coarse-to-fine, Fig. 4.
    """
    total = landmarks.new_zeros(())
    for points, logits in answers:
        if network.head == "heatmaps":
            total = total + integral_loss([logits], landmarks, network.codec, (size, size))
        else:
            total = total + landmark_loss(points, landmarks, kind)
    if len(answers) == 2:
        scale = network.codec.stride if network.head == "heatmaps" else 1
        between = landmark_loss(answers[1][0] / scale, answers[0][0].detach() / scale, kind)
        total = total + twin_weight * between
    return total


def train_coarse(
    faces: TrainingFaces,
    *,
    landmarks: Sequence[int] | None = None,
    arguments: Mapping[str, Any] = LAPTOP,
    size: int = 64,
    margin: float = 0.15,
    twin: bool = True,
    twin_weight: float = 1.0,
    roll_share: float = ROLL_SHARE,
    augment: AugmentRule = AUGMENT,
    schedule: Schedule | None = None,
    context: RunContext | None = None,
    synthetic: SyntheticFaces | None = None,
    name: str = "coarse",
) -> CoarseStage:
    """Train the coarse stage.

    Args:
        faces: Labelled faces.
        landmarks: Indices that the network predicts (the contour, the inner points), or None for all.
        arguments: Arguments of `fewmark.models.coarse.Coarse` except n_landmarks.
        size: Side of the crop, px.
        margin: Margin around the box, fraction of its longer side.
        twin: Whether two networks with different first weights are trained, of which the student is kept.
        twin_weight: Weight of the loss between them.
        roll_share: Fraction of the crops that are cut by the box of a rotated face, as the angle stage leaves it.
        augment: Ranges of the augmentation; its rotation is the error of the angle that the stage has to tolerate.
        schedule: None for the stage's default.
        context: What all trainings share; None for one CPU process that keeps no files.
        synthetic: Synthetic faces that come first, or None.
        name: Name of the training; two subsets in one folder need two names.

    Raises:
        InputError: A landmark is not in the scheme, or the crop's size does not fit the network.

    Source: coarse-to-fine, section 3.1, Fig. 3 and 4.
    """
    schedule, context = schedule or Schedule.of_stage("coarse"), context or RunContext()
    rule, scheme = CropRule(size, margin), faces.scheme
    indices = tuple(range(scheme.n_landmarks)) if landmarks is None else tuple(landmarks)
    if not indices or not all(0 <= i < scheme.n_landmarks for i in indices):
        raise InputError(f"coarse: landmarks: expected some of 0..{scheme.n_landmarks - 1}, given {list(indices)}")
    full = {**arguments, "n_landmarks": len(indices)}
    parts = [NetworkPart.make("coarse", full, 2 * context.seed + 1 - i) for i in range(2 if twin else 1)]
    networks = [p.module for p in parts]
    student = networks[-1]
    assert isinstance(student, Coarse)
    stride = 2 ** (1 + len(student.levels))
    if student.head == "heatmaps" and size % stride:
        raise InputError(f"coarse: size: expected a multiple of {stride} px for a head of heatmaps, given {size}")
    unit = crop_from_box(np.array([0.0, 0.0, 1.0, 1.0]), size, margin=margin)
    places = (unit(faces.mean_face[list(indices)]) - (size - 1) / 2) / size
    for network in networks:
        assert isinstance(network, Coarse)
        network.start_from(torch.from_numpy(places).float())
    pair = Twin([n for n in networks if isinstance(n, Coarse)])

    rows = partial(coarse_rows, landmarks=indices, rule=rule, augment=augment, roll_share=roll_share)

    def step(module: nn.Module, batch: Batch, device: torch.device) -> Tensor:
        answers = module(to_tensor(batch.images, device))
        target = torch.from_numpy(batch.targets).to(device)
        return twin_loss(answers, target, student, size, kind=schedule.loss, twin_weight=twin_weight)

    train_network(name, "coarse", pair, step, rows, faces, schedule, context, synthetic)
    return CoarseStage(scheme, (CoarsePart(indices, replace(parts[-1], module=student)),), rule)


def coarse_rows(
    faces: TrainingFaces, landmarks: Sequence[int], rule: CropRule, augment: AugmentRule, roll_share: float
) -> MakeRow:
    """Rows of crops (size, size, 3) of nearly upright faces, and some of their landmarks, crop px; see `train_coarse`."""
    scheme, indices, size = faces.scheme, list(landmarks), rule.size

    def make_row(index: int, rng: np.random.Generator) -> Row:
        rotation = float(rng.uniform(-180, 180)) if rng.random() < roll_share else 0.0
        a = draw_augmentation(augment, rng, can_flip=scheme.mirror is not None)
        moved_from_image = rotated_from_image(rotation, flip=a.flip)
        face = move_face(faces.faces[index], moved_from_image, scheme)
        crop_from_moved = jittered_from_crop(a, size) @ upright_crop_from_image(face, rule)
        image = augment_appearance(cut(faces.images[index], crop_from_moved @ moved_from_image, size), a)
        assert face.landmarks is not None
        return Row(image, crop_from_moved(face.landmarks[indices]).astype(np.float32))

    return make_row
