"""The teacher: its targets, their sign, and that it ranks what it has not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, CropRule, cache_face, upright_crop
from fewmark.data.samples import FaceSample
from fewmark.landmarks.metrics import spearman
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import to_tensor
from fewmark.training.semi.teacher import ScoredPredictions, TeacherPlan, join_scored, score_predictions, train_teacher

torch.set_num_threads(1)
SIZE = 32
CODEC = HeatmapCodec(4, 4.0)
NOSE = LandmarkScheme("nose", ("tip",), mirror=(0,))


class Centre(nn.Module):
    """A student that sees the landmark at (17.5, 13.5) of every crop."""

    stride = 4

    def forward(self, images: Tensor) -> list[Tensor]:
        heatmaps, _ = CODEC.encode(torch.tensor([[[17.5, 13.5]]]), (SIZE, SIZE))
        return [heatmaps.expand(len(images), -1, -1, -1)]


def faces_off_by(*distances: float) -> list[CachedFace]:
    """Faces whose landmark lies so many px to the right of (17.5, 13.5) in the upright crop."""
    found = []
    for i, d in enumerate(distances):
        image = np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8)
        labels = np.array([[17.5 + d + 16, 13.5 + 16]], np.float32)
        sample = FaceSample(Path(f"{i}.png"), np.array([15.5, 15.5, 47.5, 47.5], np.float32), labels)
        face = cache_face(sample, CropRule(SIZE, 0.0), 1, image)
        assert face.landmarks[0].tolist() == pytest.approx([17.5 + d, 13.5])
        found.append(face)
    return found


def score(faces: list[CachedFace], plan: TeacherPlan, seed: int = 0) -> ScoredPredictions:
    return score_predictions(
        [Centre()],
        [CODEC],
        faces,
        plan,
        scheme=NOSE,
        size=SIZE,
        augment=AugmentRule(),
        seed=seed,
        batch_size=4,
    )


TWO = LandmarkScheme("two", ("a", "b"))
PLAIN = TeacherPlan(n_copies=1, standardise=False, target="landmark")


def test_the_target_is_the_negative_distance() -> None:
    scored = score(faces_off_by(3.0, 0.5, 8.0, 1.0, 2.0), PLAIN)
    assert scored.targets.tolist() == pytest.approx([-3, -0.5, -8, -1, -2], abs=1e-3)


def test_the_target_of_eq_4_is_the_negative_squared_error_of_the_maps() -> None:
    faces = faces_off_by(3.0, 0.5, 8.0)
    scored = score(faces, replace(PLAIN, target="heatmap"))
    predicted = Centre()(torch.zeros(3, 3, SIZE, SIZE))[0]
    ideal, _ = CODEC.encode(torch.from_numpy(np.stack([f.landmarks for f in faces])), (SIZE, SIZE))
    expected = -(predicted - ideal).square().sum((1, 2, 3))
    assert scored.targets.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("target", ["landmark", "heatmap"])
def test_standardised_targets_keep_the_ranking_and_the_sign(target: str) -> None:
    distances = (3.0, 0.5, 8.0, 1.0, 2.0)
    plan = replace(PLAIN, standardise=True, target=target)  # type: ignore[arg-type]
    scored = score(faces_off_by(*distances), plan)
    assert scored.targets.mean() == pytest.approx(0, abs=1e-6)
    assert scored.targets.std() == pytest.approx(1, abs=1e-5)
    assert np.argsort(-scored.targets).tolist() == np.argsort(distances).tolist()


def test_copies_are_drawn_and_the_first_is_the_upright_crop() -> None:
    faces = faces_off_by(3.0, 0.5, 8.0)
    scored = score(faces, replace(PLAIN, n_copies=3))
    assert scored.images.shape == (9, SIZE, SIZE, 3)
    assert scored.heatmaps.shape == (9, 1, 8, 8)
    for i, face in enumerate(faces):
        assert np.array_equal(scored.images[i], upright_crop(face, SIZE))
    assert not np.array_equal(scored.images[3], scored.images[0])
    again = score(faces, replace(PLAIN, n_copies=3))
    assert np.array_equal(again.images, scored.images)
    assert np.array_equal(again.targets, scored.targets)
    assert not np.array_equal(score(faces, replace(PLAIN, n_copies=3), seed=1).images, scored.images)


def test_faces_without_a_landmark_teach_nothing() -> None:
    faces = faces_off_by(3.0, 0.5)
    blank = replace(faces[0], landmarks=np.full((1, 2), np.nan, np.float32))
    scored = score([faces[0], blank, faces[1]], PLAIN)
    assert scored.targets.tolist() == pytest.approx([-3, -0.5], abs=1e-3)
    with pytest.raises(InputError, match="known landmarks"):
        score([blank], PLAIN)


def test_equal_errors_give_equal_targets() -> None:
    targets = score(faces_off_by(2.0, 2.0), replace(PLAIN, standardise=True)).targets
    assert np.isfinite(targets).all()
    assert abs(float(targets[0] - targets[1])) < 0.1


def test_folds_are_joined_in_order() -> None:
    parts = [score(faces_off_by(3.0, 0.5), PLAIN), score(faces_off_by(1.0), PLAIN)]
    joined = join_scored(parts)
    assert joined.targets.tolist() == pytest.approx([-3, -0.5, -1], abs=1e-3)
    assert len(joined.images) == len(joined.heatmaps) == 3


def planted(n: int, seed: int) -> ScoredPredictions:
    """Noise images with two maps; the blunter the maps, the lower their target."""
    rng = np.random.default_rng(seed)
    bluntness = rng.uniform(2, 8, n)
    maps = []
    for sigma in bluntness:
        points = torch.from_numpy(rng.uniform(8, 24, (1, 2, 2)).astype(np.float32))
        maps.append(HeatmapCodec(4, float(sigma)).encode(points, (SIZE, SIZE))[0][0].numpy())
    logs = np.log(bluntness)
    return ScoredPredictions(
        rng.integers(90, 150, (n, SIZE, SIZE, 3)).astype(np.uint8),
        np.stack(maps).astype(np.float16),
        (-(logs - logs.mean()) / logs.std()).astype(np.float32),
    )


def test_a_teacher_ranks_what_it_has_not_seen() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    plan = TeacherPlan(width=8, n_steps=150, batch_size=16, learning_rate=4e-3)
    teacher, state = train_teacher(plan, planted(256, 0), scheme=TWO, fabric=fabric, seed=1)
    unseen = planted(48, 1)
    with torch.no_grad():
        quality = teacher.label_quality(  # type: ignore[operator]
            to_tensor(unseen.images), torch.from_numpy(unseen.heatmaps).float()
        )
    assert spearman(quality.numpy(), unseen.targets) > 0.6
    assert state.losses[-1] < state.losses[0]
    assert state.n_steps == 150
    assert not teacher.training


def test_every_teacher_is_new_and_a_function_of_the_seed() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    plan, data = TeacherPlan(width=8, n_steps=25, batch_size=4), planted(6, 0)
    a, b, c = (train_teacher(plan, data, scheme=TWO, fabric=fabric, seed=s)[0] for s in (1, 1, 2))
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (a, b, c)]
    assert a is not b
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
