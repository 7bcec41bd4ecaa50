"""Another structure than faces: hands, a scheme of their own, three students and a deeper teacher, with no change in the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewmark import Detector, train
from fewmark.core.errors import InputError
from fewmark.data.images import read_image
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.semi.teacher import TeacherPlan

TINY = ["n_batches=1", "n_epochs=1", "batch_size=2"]


def test_a_hand_has_its_points_in_the_image() -> None:
    from drawn_hands import draw_hand

    for seed in range(20):
        hand = draw_hand(np.random.default_rng(seed), size=96)
        assert hand.landmarks.shape == (21, 2)
        assert ((hand.landmarks > 0) & (hand.landmarks < 96)).mean() > 0.95


def test_rounds_on_hands(tmp_path: Path) -> None:
    from drawn_hands import draw_data, read_recipe

    data = draw_data(tmp_path, (4, 4, 4))
    settings = [f"students.{s}.{t}" for s in ("unet", "hourglass", "small") for t in TINY]
    config = read_recipe(
        tmp_path, [*settings, "semi.rounds=1", "teacher.steps=2", "semi.last_length=0", "semi.ratio=0.5"]
    )
    assert (config.crop.size, len(config.students), config.teacher.layers) == (128, 3, 4)
    result = train(config, data, tmp_path / "run")
    assert result.scores is not None
    assert result.scores.n_landmarks == 21
    assert result.scores.normalizer == "box-size"
    detector = Detector.load(tmp_path / "run")
    assert detector.checkpoint.teacher is not None
    sample = data.validation[0]
    assert sample.box is not None
    (found,) = detector.detect(read_image(sample.image), sample.box[None])
    assert found.landmarks.shape == (21, 2)
    assert found.quality is not None


@pytest.mark.parametrize(("size", "layers", "patches"), [(64, 3, 6), (128, 4, 6), (256, 5, 6)])
def test_the_teacher_grows_with_the_crop(size: int, layers: int, patches: int) -> None:
    import torch

    scheme = load_scheme("ibug-68")
    teacher = TeacherPlan(n_layers=layers, peaks=False).build(scheme, 0).eval()
    maps = torch.zeros(1, 68, size // 4, size // 4)
    assert teacher(torch.zeros(1, 3, size, size), maps).shape == (1, 1, patches, patches)
    with pytest.raises(InputError, match="larger crops or fewer layers"):
        TeacherPlan(n_layers=5).build(scheme, 0)(torch.zeros(1, 3, 64, 64), maps[..., :16, :16])
