"""Several students as one: the mean of their maps, and the flip that changes sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewmark.models.codec import HeatmapCodec, average_heatmaps
from fewmark.models.ensemble import Ensemble, to_tensor
from fewmark.models.normalization import MEAN, STD

torch.set_num_threads(1)
SIZE, STRIDE = 32, 4


class Fixed(nn.Module):
    """A student that says the same of every face."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.zeros_like(self.maps), self.maps.expand(len(images), -1, -1, -1)]


class Sees(nn.Module):
    """Map k is the k-th channel of the image, averaged down, and biased to one side."""

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = nn.functional.avg_pool2d(images, STRIDE)
        return [maps + self.bias * torch.arange(maps.shape[-1]) / maps.shape[-1]]


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def test_to_tensor_normalises_by_imagenet() -> None:
    crops = np.zeros((2, 5, 7, 3), np.uint8)
    crops[0, 1, 2] = (255, 128, 0)
    tensor = to_tensor(crops)
    assert tensor.shape == (2, 3, 5, 7)
    for channel, value in enumerate((255, 128, 0)):
        expected = (value - MEAN[channel]) / STD[channel]
        assert float(tensor[0, channel, 1, 2]) == pytest.approx(expected, rel=1e-5)
    assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_two_students_are_their_mean() -> None:
    codec = HeatmapCodec(STRIDE, 5.0)
    a, b = (torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    found = Ensemble([Fixed(a), Fixed(b)], [codec, codec]).predict(images())
    assert torch.allclose(found.heatmaps, ((a + b) / 2).expand(2, -1, -1, -1))
    mean = (codec.decode(a)[0] + codec.decode(b)[0]) / 2
    assert torch.allclose(found.landmarks, mean.expand(2, -1, -1), atol=1e-4)
    assert torch.equal(found.scores, codec.decode(found.heatmaps)[1])


def test_unlike_strides_and_backgrounds() -> None:
    points = torch.tensor([[[13.2, 17.9], [19.1, 12.4]]])
    coarse, fine = HeatmapCodec(8, 6.0, background=True), HeatmapCodec(4, 4.0)
    students = [Fixed(c.encode(points, (SIZE, SIZE))[0]) for c in (coarse, fine)]
    ensemble = Ensemble(students, [coarse, fine])
    assert ensemble.codec == fine
    found = ensemble.predict(images())
    assert found.heatmaps.shape == (2, 2, 8, 8)
    assert float((found.landmarks - points).norm(dim=-1).max()) < 0.01  # each is decoded at its own stride


def test_the_mean_of_distributions_is_the_mean_of_the_points() -> None:
    codec = HeatmapCodec(STRIDE, 3.0, logits=True, decoding="soft-argmax")
    points = torch.tensor([[[13.0, 15.0]]]), torch.tensor([[[18.0, 17.0]]])
    students = [Fixed(codec.encode(p, (SIZE, SIZE))[0].clamp_min(1e-12).log()) for p in points]
    found = Ensemble(students, [codec, codec]).predict(images())
    assert torch.allclose(found.landmarks, torch.tensor([15.5, 16.0]), atol=0.02)
    assert torch.allclose(found.heatmaps.sum((-2, -1)), torch.ones(2, 1), atol=1e-4)


@pytest.mark.parametrize("logits", [False, True])
def test_flip_averaging_changes_sides_with_the_image(logits: bool) -> None:
    """What is said of the flipped image is the flip of what is said, though the student favours a side."""
    decoding = "soft-argmax" if logits else "parabola"
    codec = HeatmapCodec(STRIDE, 5.0, logits=logits, decoding=decoding)
    mirror = [1, 0, 2]
    ensemble = Ensemble([Sees(0.4), Sees(0.0)], [codec, codec], mirror)
    there = ensemble.predict(images(), flip=True)
    flipped = images().flip(-1)
    back = ensemble.predict(flipped, flip=True)
    assert torch.allclose(back.heatmaps, there.heatmaps[:, mirror].flip(-1), atol=1e-6)
    expected = there.landmarks[:, mirror].clone()
    expected[..., 0] = SIZE - 1 - expected[..., 0]
    assert torch.allclose(back.landmarks, expected, atol=1e-3)
    once = ensemble.predict(images())
    assert not torch.allclose(once.heatmaps, there.heatmaps, atol=1e-3)


def test_without_a_mirror_nothing_is_flipped() -> None:
    codec = HeatmapCodec(STRIDE, 5.0)
    ensemble = Ensemble([Sees(0.4)], [codec])
    assert torch.equal(ensemble.predict(images(), flip=True).heatmaps, ensemble.predict(images()).heatmaps)


def test_forward_is_eq_5_and_predict_leaves_training_mode() -> None:
    codec = HeatmapCodec(STRIDE, 5.0)
    ensemble = Ensemble([Sees(0.4), Sees(0.1)], [codec, codec]).train()
    assert torch.equal(ensemble(images()), average_heatmaps(ensemble.heatmaps(images())))
    ensemble.predict(images())
    assert not any(m.training for m in ensemble.modules())


def test_one_codec_a_student() -> None:
    with pytest.raises(ValueError, match="one codec a student"):
        Ensemble([Sees()], [])
