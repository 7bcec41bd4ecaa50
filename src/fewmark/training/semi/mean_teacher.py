"""A mean teacher between the students: running averages of their weights label all of U, face by face, while the students learn.

Each step, every unlabelled face is cut twice: a weak view, which the averages of all students label together, and a strong view,
in which the students have to find the same landmarks. A landmark counts the less the more the averages disagree about it. The two
views differ by a known map, so the students also learn to move their landmarks as the face moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule, apply_augmentation, draw_augmentation
from fewmark.data.batches import Batch, Batches, MakeRow, Row
from fewmark.data.crops import CachedFace
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.ensemble import to_tensor
from fewmark.training.fit import Epoch
from fewmark.training.runner import Training, run_training
from fewmark.training.semi.students import StudentPlan, StudentTrainer, labels_only

WEAK = AugmentRule(scale=0.05, rotation=10.0, shift=0.03, flip=0.5, colour=0.1, erase=0.0, blur=0.0)
"""Views that are labelled."""
STRONGER = 2.0
"""Factor on the students' colour, erasing and blur in strong views."""
MOST = 0.6
"""Largest strength and probability of these."""
DECAY = 0.995
"""Share of the former average that a step keeps, once it is older than as many steps as that."""
USUAL_SHARE = 0.5
"""Share of labelled faces in a batch where the settings name none."""


class AveragedStudents(nn.Module):
    """Students and the running average of each one's weights.

    Args:
        students: The networks; the averages begin as copies of them.

    Source: Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017.
    """

    n_steps: Tensor

    def __init__(self, students: Sequence[nn.Module]) -> None:
        super().__init__()
        self.students = nn.ModuleList(students)
        self.averages = nn.ModuleList(deepcopy(s) for s in students).requires_grad_(False)
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """The outputs of each student for images (B, 3, H, W)."""
        return [student(images) for student in self.students]

    def train(self, mode: bool = True) -> AveragedStudents:
        """Set the students' mode; the averages always predict."""
        super().train(mode)
        self.averages.eval()
        return self

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the students."""
        self.n_steps += 1
        keep = min(DECAY, 1 - 1 / (1 + float(self.n_steps)))
        for old, new in zip(self.averages.state_dict().values(), self.students.state_dict().values(), strict=True):
            if old.is_floating_point():
                old.lerp_(new, 1 - keep)
            else:
                old.copy_(new)


@dataclass(frozen=True, eq=False)
class PairedBatches:
    """Batches of L and, beside each, one of U.

    Attributes:
        labelled: Batches of L, augmented crops with their landmarks.
        unlabelled: Batches of U: images (B, 2, size, size, 3), the weak and the strong view; targets (B, 2, 3), the map from the one
            to the other, px.
    """

    labelled: Batches
    unlabelled: Batches

    @property
    def n_faces(self) -> int:
        """Number of faces of both."""
        return self.labelled.n_faces + self.unlabelled.n_faces

    def __len__(self) -> int:
        return len(self.labelled)

    def __call__(self, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """The batches of an epoch."""
        yield from zip(self.labelled(epoch), self.unlabelled(epoch), strict=True)


def train_mean_teacher(
    trainer: StudentTrainer,
    students: Sequence[nn.Module],
    labelled: Sequence[CachedFace],
    unlabelled: Sequence[CachedFace],
    *,
    name: str,
    round_index: int,
    length: float,
    labelled_share: float = 0.0,
    weight: float = 1.0,
) -> None:
    """Train all students together, in place, on labels of L and on what their averages say of U; they end as their averages.

    The schedule is the first student's: epochs, batches an epoch, size of a batch, learning rate's course and clipping; each keeps its
    own loss and rates.

    Args:
        trainer: Plans, crop and augmentation.
        students: The networks, in the order of the plans.
        labelled: L.
        unlabelled: U; their landmarks are not used.
        name: Name of the training in files and events.
        round_index: The round in its events.
        length: Factor on the number of epochs.
        labelled_share: Share of labelled faces in a batch; 0 is `USUAL_SHARE`.
        weight: Weight of a landmark of U in the loss where all averages agree; a label's is 1.

    Raises:
        InputError: The students have optimizers of different kinds, or a batch is too small to be shared.
    """
    plans, fabric, first = trainer.plans, trainer.context.fabric, trainer.plans[0]
    together = AveragedStudents(students)
    size, mirror = trainer.size, trainer.scheme.mirror

    def step(network: nn.Module, both: tuple[Batch, Batch]) -> Tensor:
        with_labels, without = both
        together.update()
        weak, strong = (to_tensor(np.ascontiguousarray(without.images[:, view]), fabric.device) for view in (0, 1))
        with fabric.autocast():
            points, trust = label_views(list(together.averages), plans, weak, mirror)
        pseudo = move_points(points, torch.from_numpy(without.targets).to(fabric.device), mirror)
        outputs = network(torch.cat([to_tensor(with_labels.images, fabric.device), strong]))
        assert with_labels.weights is not None
        landmarks = torch.cat([torch.from_numpy(with_labels.targets).to(fabric.device), pseudo])
        weights = torch.cat([torch.from_numpy(with_labels.weights).to(fabric.device), weight * trust])
        losses = [p.compute_loss(o, landmarks, weights, size) for p, o in zip(plans, outputs, strict=True)]
        return torch.stack(losses).sum()

    def validate(network: nn.Module, epoch: Epoch) -> float | None:
        return trainer.validate(list(together.averages), range(len(plans)), epoch)

    training = Training(
        name,
        {"student": " + ".join(p.name for p in plans), "round": round_index, "mean_teacher": True},
        step,
        _make_batches(trainer, labelled, unlabelled, labelled_share, trainer.context.derive_seed("mean teacher")),
        lambda module: _joint_optimizer(plans, students),
        n_epochs=max(1, round(first.n_epochs * length)),
        learning_rate=first.rate(),
        seed=trainer.context.derive_seed("mean teacher"),
        clip_norm=first.clip_norm,
        validate=validate,
    )
    run_training(trainer.context, training, together)
    for student, average in zip(students, together.averages, strict=True):
        student.load_state_dict(average.state_dict())
        student.eval()


@torch.no_grad()
def label_views(
    networks: Sequence[nn.Module], plans: Sequence[StudentPlan], images: Tensor, mirror: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    """Landmarks of B images by all networks together, and how far each can be trusted.

    Each network sees the image and, where the scheme has a mirror, the flipped one. A landmark's trust is 1 where they all
    agree, and a half where they disagree twice as much as in the median.

    Args:
        networks: The networks, in the order of the plans.
        plans: Give the codecs.
        images: (B, 3, H, W).
        mirror: (K,) permutation of the scheme, or None.

    Returns:
        (B, K, 2) image px, and (B, K) weights in [0, 1].
    """
    found = []
    for network, plan in zip(networks, plans, strict=True):
        found.append(plan.codec.decode(plan.codec.normalise(network(images)[-1].float()))[0])
        if mirror is not None:
            flipped = plan.codec.decode(plan.codec.normalise(network(images.flip(-1))[-1].float()))[0]
            flipped = flipped[:, list(mirror)]
            found.append(torch.stack([images.shape[-1] - 1 - flipped[..., 0], flipped[..., 1]], -1))
    stack = torch.stack(found)
    mean = stack.mean(0)
    spread = (stack - mean).norm(dim=-1).pow(2).mean(0).sqrt()
    return mean, 1 / (1 + (spread / (2 * spread.median()).clamp_min(1e-6)) ** 2)


def move_points(points: Tensor, maps: Tensor, mirror: Sequence[int] | None) -> Tensor:
    """Landmarks (B, K, 2) moved by maps (B, 2, 3), in the scheme's order also where a map mirrors the face."""
    moved = points @ maps[:, :, :2].transpose(1, 2) + maps[:, None, :, 2]
    if mirror is None:
        return moved
    mirrored = torch.linalg.det(maps[:, :, :2].float()) < 0
    return torch.where(mirrored[:, None, None], moved[:, list(mirror)], moved)


def view_rows(faces: Sequence[CachedFace], size: int, scheme: LandmarkScheme, strong: AugmentRule) -> MakeRow:
    """Rows of a weak and a strong view (2, size, size, 3) of a face, with the map (2, 3) from the one to the other, px."""
    nowhere = np.full((scheme.n_landmarks, 2), np.nan, np.float32)

    def make_row(index: int, rng: np.random.Generator) -> Row:
        draws = [draw_augmentation(rule, rng, can_flip=scheme.mirror is not None) for rule in (WEAK, strong)]
        views = [apply_augmentation(faces[index], drawn, size, scheme, nowhere) for drawn in draws]
        across = views[1].crop_from_image @ views[0].crop_from_image.inverse()
        return Row(np.stack([v.image for v in views]), across.matrix.astype(np.float32))

    return make_row


def strong_rule(augment: AugmentRule) -> AugmentRule:
    """The students' augmentation with more changes of appearance."""
    return replace(augment, **{k: min(MOST, STRONGER * getattr(augment, k)) for k in ("colour", "erase", "blur")})


def _make_batches(
    trainer: StudentTrainer,
    labelled: Sequence[CachedFace],
    unlabelled: Sequence[CachedFace],
    labelled_share: float,
    seed: int,
) -> PairedBatches:
    plan, fabric = trainer.plans[0], trainer.context.fabric
    n_labelled = round(plan.batch_size * (labelled_share or USUAL_SHARE))
    if not 0 < n_labelled < plan.batch_size:
        raise InputError(
            f"semi.mean_teacher: a batch of {plan.batch_size} cannot be shared with semi.labelled_share={labelled_share}"
        )
    n_batches = plan.n_batches or -(-(len(labelled) + len(unlabelled)) // plan.batch_size)
    of_labels = trainer.batches(plan, labels_only(labelled), seed, batch_size=n_labelled, n_batches=n_batches)
    rows = view_rows(unlabelled, trainer.size, trainer.scheme, strong_rule(trainer.augment))
    of_views = Batches(
        len(unlabelled),
        rows,
        plan.batch_size - n_labelled,
        seed + 1,
        n_batches=n_batches,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    return PairedBatches(of_labels, of_views)


def _joint_optimizer(plans: Sequence[StudentPlan], students: Sequence[nn.Module]) -> torch.optim.Optimizer:
    """One optimizer over all students, each with its own rates."""
    each = [plan.make_optimizer(student) for plan, student in zip(plans, students, strict=True)]
    if len({p.optimizer for p in plans}) > 1:
        raise InputError(
            "semi.mean_teacher: expected students with one kind of optimizer, given "
            + ", ".join(f"{p.name}: {p.optimizer}" for p in plans)
        )
    kind: type = type(each[0])
    joint = kind([group for one in each for group in one.param_groups])
    assert isinstance(joint, torch.optim.Optimizer)
    return joint
