"""Training of stage 3: the networks of all points at once, from the truth with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.geometry import Similarity, box_centre, box_size
from fewmark.data.augment import AugmentRule, draw_augmentation, recolour, rotated_from_image
from fewmark.data.batches import Batch, MakeRow, Row
from fewmark.inference.cascade.frames import inner_components
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.point import PatchLayout, PointStage, patches_to_tensor
from fewmark.inference.cascade.state import move_face
from fewmark.models.losses import LandmarkLoss, landmark_loss
from fewmark.training.cascade.faces import TrainingFaces
from fewmark.training.cascade.fit_stage import Schedule, SyntheticFaces, train_network
from fewmark.training.runner import RunContext

AUGMENT = AugmentRule(scale=0.03, rotation=3.0, shift=0.01)
LAPTOP = {"widths": (8, 16, 24), "n_convs": (1, 1, 1), "grid": 2}
NOISE = 0.015
"""Standard deviation of the points from which the stage trains, fraction of the face's box."""
SHARED = 0.7
"""Fraction of the noise's variance that the points of a component share, as they do in a stage's errors."""


def train_point(
    faces: TrainingFaces,
    *,
    neighbours: Sequence[int] = (3, 5, 7),
    arguments: Mapping[str, Any] = LAPTOP,
    size: int = 16,
    margin: float = 0.7,
    noise: float = NOISE,
    augment: AugmentRule = AUGMENT,
    schedule: Schedule | None = None,
    context: RunContext | None = None,
    synthetic: SyntheticFaces | None = None,
) -> PointStage:
    """Train the point stage.

    Args:
        faces: Labelled faces.
        neighbours: Number of points around which the patch of each scale is cut.
        arguments: Arguments of `fewmark.models.point.Point` except n_points and neighbours.
        size: Side of a patch, px.
        margin: Margin around the neighbours in the mean face, fraction of their box's longer side.
        noise: Standard deviation of the points around which patches are cut, fraction of the face's box.
        augment: Scale, rotation and shift of all points of the face together, flips and colours.
        schedule: None for the stage's default.
        context: What all trainings share; None for one CPU process that keeps no files.
        synthetic: Synthetic faces that come first, or None.

    Raises:
        InputError: The scheme has no components, or the noise is negative.

    Source: coarse-to-fine, section 3.3. Differs: without noise of the size of the stage before's errors, the middle of a
        patch gives the answer away (the paper has 1.373 from the truth and 3.827 from predictions).
    """
    schedule, context = schedule or Schedule.of_stage("point"), context or RunContext()
    scheme = faces.scheme
    if not noise >= 0:
        raise InputError(f"point stage: noise: expected a number from 0, given {noise}")
    layout = PatchLayout.of_scheme(scheme, faces.mean_face, neighbours, size, margin)
    counts = tuple(table.shape[1] for table in layout.neighbours)
    full = {**arguments, "n_points": len(layout.points), "neighbours": counts}
    network = NetworkPart.make("point", full, context.seed)
    rows = partial(point_rows, layout=layout, augment=augment, noise=noise)

    def step(module: nn.Module, batch: Batch, device: torch.device) -> Tensor:
        offsets, gates = module(patches_to_tensor(batch.images, device))
        target = torch.from_numpy(batch.targets).to(device)
        return point_loss(offsets, gates, target, torch.from_numpy(layout.sides).to(device), schedule.loss)

    train_network("point", "point", network.module, step, rows, faces, schedule, context, synthetic)
    return PointStage(scheme, replace(network), layout)


def point_rows(faces: TrainingFaces, layout: PatchLayout, augment: AugmentRule, noise: float) -> MakeRow:
    """Rows of patches (S, P, size, size, 3) around noisy points, and the offsets of each scale's true neighbours from the mean
    face, patch px, one scale after the other (P, sum of n, 2); see `train_point`."""
    scheme, size = faces.scheme, layout.size
    groups = [list(indices) for indices in inner_components(scheme).values()]

    def make_row(index: int, rng: np.random.Generator) -> Row:
        a = draw_augmentation(augment, rng, can_flip=scheme.mirror is not None)
        moved_from_image = rotated_from_image(0.0, flip=a.flip)
        truth = move_face(faces.faces[index], moved_from_image, scheme)
        assert truth.landmarks is not None
        centre, side = box_centre(truth.box_xyxy), float(box_size(truth.box_xyxy).max())
        shaken = Similarity.about(centre, centre + np.array(a.shift) * side, scale=a.scale, angle=a.angle)
        points = shaken(truth.landmarks) + _noise(len(truth.landmarks), groups, rng) * noise * side
        patch_from_moved = layout.patch_from_image(points)
        whole = np.vstack([moved_from_image.matrix, [0, 0, 1]])
        patches = layout.cut(faces.images[index], patch_from_moved @ whole)
        s, p = patches.shape[:2]
        patches = recolour(patches.reshape(-1, size, 3), a).reshape(s, p, size, size, 3)
        rows = []
        for table, places, maps in zip(layout.neighbours, layout.places, patch_from_moved, strict=True):
            true = truth.landmarks[table].astype(np.float64)  # (P, n, 2)
            rows.append(np.einsum("pij,pnj->pni", maps[:, :, :2], true) + maps[:, None, :, 2] - places)
        return Row(patches, np.concatenate(rows, 1).astype(np.float32))

    return make_row


def point_loss(offsets: Sequence[Tensor], gates: Tensor, target: Tensor, sides: Tensor, kind: LandmarkLoss) -> Tensor:
    """The error of every scale's points, plus the error of the point itself after the gate has weighted the scales.

    Args:
        offsets: For each scale (B, P, n, 2) patch px.
        gates: (B, P, S).
        target: (B, P, sum of n, 2) patch px of each scale, NaN where missing.
        sides: (S, P) sides of the patches in the mean face, in whose frame the scales' errors are compared.
        kind: Kind of the landmark loss.
    """
    total = target.new_zeros(())
    gated = target.new_zeros(target[:, :, 0].shape)
    missing = torch.zeros_like(gated, dtype=torch.bool)
    first = 0
    for s, found in enumerate(offsets):
        part = target[:, :, first : first + found.shape[2]]
        total = total + landmark_loss(found, part, kind)
        error = found[:, :, 0] - part[:, :, 0]
        missing |= torch.isnan(error)
        scale = (sides[s] / sides.mean(0)).float()[None, :, None]
        gated = gated + gates[..., s : s + 1] * torch.nan_to_num(error) * scale
        first += found.shape[2]
    return total / len(offsets) + landmark_loss(gated, torch.where(missing, torch.nan, torch.zeros_like(gated)), kind)


def _noise(n_landmarks: int, groups: Sequence[Sequence[int]], rng: np.random.Generator) -> NDArray[np.float64]:
    """(K, 2) noise of variance 1, of which the points of a component share `SHARED`."""
    noise = np.asarray(rng.normal(size=(n_landmarks, 2)) * np.sqrt(1 - SHARED))
    for group in groups:
        noise[list(group)] += rng.normal(size=2) * np.sqrt(SHARED)
    return noise
