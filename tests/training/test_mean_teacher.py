"""The mean teacher: averages, views of one face, and labels that move with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewmark.core.geometry import Similarity
from fewmark.data.augment import AugmentRule, apply_augmentation, draw_augmentation
from fewmark.data.crops import CachedFace, CropRule, cache_face
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import to_tensor
from fewmark.training.runner import RunContext
from fewmark.training.semi.mean_teacher import (
    DECAY,
    WEAK,
    AveragedStudents,
    label_views,
    move_points,
    strong_rule,
    train_mean_teacher,
    view_rows,
)
from fewmark.training.semi.students import StudentPlan, StudentTrainer, labels_only

torch.set_num_threads(1)
SIZE = 32
PAIR = LandmarkScheme("pair", ("left", "right"), mirror=(1, 0))
CODEC = HeatmapCodec(4, 3.0, decoding="soft-argmax", logits=True)
NARROW = {"widths": [8, 8, 8, 8, 8], "n_blocks": [1, 1, 1, 1], "decoder": 8}
PLAN = StudentPlan("a", "compact", CODEC, NARROW, n_epochs=30, n_batches=8, batch_size=8, learning_rate=5e-3)


def make_face(seed: int) -> CachedFace:
    """Noise with a red dot left of a green one."""
    rng = np.random.default_rng(seed)
    points = np.array([rng.uniform(12, 19, 2), rng.uniform(25, 32, 2)], np.float32)
    image = rng.integers(0, 90, (44, 44, 3)).astype(np.uint8)
    for channel, (x, y) in enumerate(points.round().astype(int)):
        image[y - 2 : y + 3, x - 2 : x + 3, channel] = 250
    sample = FaceSample(Path(f"{seed}.png"), np.array([5, 5, 37, 37], np.float32), points)
    return cache_face(sample, CropRule(SIZE, 0.0), 2, image)


class Dots(nn.Module):
    """Finds the dots by their colours, wherever they are: logits (B, 2, 8, 8) of the red and of the green one."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, images: Tensor) -> list[Tensor]:
        small = torch.nn.functional.avg_pool2d(images, 4)
        maps = torch.stack([small[:, 0] - small[:, 1], small[:, 1] - small[:, 0]], 1)
        return [12 * torch.roll(maps, int(self.shift), -1)]


def _still() -> AugmentRule:
    return AugmentRule(scale=0.0, rotation=0.0, shift=0.0, flip=0.0, colour=0.0, erase=0.0, blur=0.0)


def test_averages_follow_the_students() -> None:
    student = nn.Linear(1, 1, bias=False)
    nn.init.constant_(student.weight, 1.0)
    both = AveragedStudents([student])
    expected, history = 1.0, [3.0, -2.0, 7.0]
    for step, value in enumerate(history, 1):
        nn.init.constant_(student.weight, value)
        both.update()
        keep = min(DECAY, 1 - 1 / (1 + step))
        expected = keep * expected + (1 - keep) * value
    assert float(both.averages[0].weight) == pytest.approx(expected)  # type: ignore[arg-type]
    assert float(both.averages[0].weight) == pytest.approx(np.mean([1.0, *history]))  # type: ignore[arg-type]


def test_averages_predict_and_do_not_learn() -> None:
    both = AveragedStudents([nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))]).train()
    assert both.students[0].training
    assert not any(m.training for m in both.averages.modules())
    assert [n for n, p in both.named_parameters() if p.requires_grad] == [
        n for n, _ in both.named_parameters() if n.startswith("students")
    ]
    both(torch.randn(4, 3, 5, 5))
    both.update()
    assert not torch.equal(both.averages[0][1].running_mean, torch.zeros(2))  # type: ignore[index]


@pytest.mark.parametrize("seed", range(6))
def test_the_map_leads_from_the_weak_view_to_the_strong_one(seed: int) -> None:
    face, strong = make_face(seed), AugmentRule()
    row = view_rows([face], SIZE, PAIR, strong)(0, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    weak, moved = (
        apply_augmentation(face, draw_augmentation(r, rng, can_flip=True), SIZE, PAIR) for r in (WEAK, strong)
    )
    assert np.array_equal(row.image, np.stack([weak.image, moved.image]))
    points = move_points(torch.from_numpy(weak.landmarks)[None], torch.from_numpy(row.targets)[None], PAIR.mirror)
    assert points[0].numpy() == pytest.approx(moved.landmarks, abs=1e-3)


def test_landmarks_of_a_scheme_without_a_mirror_keep_their_order() -> None:
    flip = torch.from_numpy(Similarity.flip(SIZE).matrix.astype(np.float32))[None]
    points = torch.tensor([[[3.0, 4.0], [10.0, 20.0]]])
    assert move_points(points, flip, None).tolist() == [[[28.0, 4.0], [21.0, 20.0]]]
    assert move_points(points, flip, (1, 0)).tolist() == [[[21.0, 20.0], [28.0, 4.0]]]


def test_views_are_labelled_by_all_and_trusted_where_they_agree() -> None:
    faces = [make_face(i) for i in range(4)]
    crops = np.stack(
        [
            apply_augmentation(
                f, draw_augmentation(_still(), np.random.default_rng(0), can_flip=False), SIZE, PAIR
            ).image
            for f in faces
        ]
    )
    images = to_tensor(crops)
    points, trust = label_views([Dots()], [PLAN], images, (0, 1))
    truth = np.stack([f.landmarks for f in faces])
    assert np.linalg.norm(points.numpy() - truth, axis=2).max() < 2.9  # half the diagonal of a cell
    # the second network says one cell further right, and its flipped image one further left: the mean stays
    both, less = label_views([Dots(), Dots(1)], [PLAN, PLAN], images, (0, 1))
    assert both.numpy() == pytest.approx(points.numpy(), abs=1.0)
    assert less.mean() < trust.mean()
    assert ((trust > 0) & (trust <= 1)).all()


def test_strong_views_differ_more_in_appearance_alone() -> None:
    rule = AugmentRule(colour=0.2, erase=0.5, blur=0.1)
    strong = strong_rule(rule)
    assert (strong.colour, strong.erase, strong.blur) == (0.4, 0.6, 0.2)
    assert (strong.scale, strong.rotation, strong.shift, strong.flip) == (
        rule.scale,
        rule.rotation,
        rule.shift,
        rule.flip,
    )


def test_unlabelled_faces_teach() -> None:
    """From four labelled faces, an error on new faces that is lower than the students' own before."""
    context = RunContext(seed=3)
    trainer = StudentTrainer([PLAN], PAIR, SIZE, AugmentRule(rotation=10.0, erase=0.0, blur=0.0), context)
    labelled, unlabelled = [make_face(i) for i in range(4)], [make_face(100 + i) for i in range(60)]
    new = [make_face(1000 + i) for i in range(40)]
    student = trainer.new_student(0, 0)
    trainer.train("round0_a", 0, student, labels_only(labelled), 0, {"round": 0}, length=0.5)

    def error() -> float:
        found = trainer.predict([student], [0], new).landmarks
        return float(np.linalg.norm(found - np.stack([f.landmarks for f in new]), axis=2).mean())

    before = error()
    train_mean_teacher(trainer, [student], labelled, unlabelled, name="mean_teacher", round_index=1, length=1.0)
    assert error() < 0.9 * before
    assert not student.training
