"""Prediction by several students together (TS3, Eq. 5), averaged over the flipped image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.models.codec import HeatmapCodec, average_heatmaps
from fewmark.models.normalization import MEAN, STD


@dataclass(frozen=True, eq=False)
class EnsemblePrediction:
    """Output of the students for B crops.

    Attributes:
        heatmaps: (B, K, h, w) averaged, at the finest stride, without background.
        landmarks: (B, K, 2) crop px.
        scores: (B, K) confidence.
        quality: (B,) quality predicted by the teacher (TS3, Eq. 3), higher is better; None without a teacher.
    """

    heatmaps: Tensor
    landmarks: Tensor
    scores: Tensor
    quality: Tensor | None = None


def to_tensor(crops: NDArray[np.uint8] | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Normalise crops by ImageNet's mean and deviation: (B, H, W, 3) uint8 RGB -> (B, 3, H, W) float, channels last."""
    images = torch.as_tensor(crops).to(device).permute(0, 3, 1, 2).float()
    mean = torch.tensor(MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def average_with_flipped(maps: Tensor, flipped: Tensor, mirror: Tensor) -> Tensor:
    """The mean of heatmaps and those of the flipped images.

    Every average over flips of heatmaps is this one. A cascade averages landmarks instead, see `fewmark.inference.cascade.predict`.

    Args:
        maps: (B, K, h, w), without background.
        flipped: (B, K, h, w) of the flipped images, as the network gives them.
        mirror: (K,) int64, the scheme's mirror.
    """
    return (maps + flipped.index_select(1, mirror).flip(-1)) / 2


class Ensemble(nn.Module):
    """Any number of students as one predictor.

    Args:
        students: Networks, each (B, 3, H, W) -> network stages of (B, K', h, w).
        codecs: One per student.
        mirror: (K,) permutation of the landmarks in a flipped image; None: never flip.
        teacher: Estimates quality from the averaged maps, see `models.teacher.Teacher`, or None.
        bias: (K, 2) crop px, added to the landmarks, see `label_bias`, or None.

    Source: TS3, Eq. 5. Differs: averaged heatmaps (of the last network stages) give the scores and the teacher's input. Landmarks are
    the mean of each student's own decoded landmarks, which different strides do not blur (1.6 % NME on perfect maps at strides 8 and
    4, see docs/papers/ts3.md). For distributions of one stride both are the same.
    """

    bias: Tensor | None

    def __init__(
        self,
        students: Sequence[nn.Module],
        codecs: Sequence[HeatmapCodec],
        mirror: Sequence[int] | None = None,
        teacher: nn.Module | None = None,
        bias: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__()
        if not students or len(students) != len(codecs):
            raise ValueError(f"Ensemble: expected one codec a student, given {len(students)} and {len(codecs)}")
        self.students = nn.ModuleList(students)
        self.codecs = tuple(codecs)
        self.mirror = None if mirror is None else list(mirror)
        self.teacher = teacher
        self.register_buffer("bias", None if bias is None else torch.from_numpy(bias).float())

    @property
    def codec(self) -> HeatmapCodec:
        """The codec of the averaged maps: the finest stride, no background."""
        return replace(min(self.codecs, key=lambda c: c.stride), background=False)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode each student's heatmaps (B, K, h_s, w_s) to landmarks (B, K, 2) crop px, and average them."""
        each = [replace(c, background=False).decode(m)[0] for m, c in zip(maps, self.codecs, strict=True)]
        landmarks = each[0] if len(each) == 1 else torch.stack(each).mean(0)
        return landmarks if self.bias is None else landmarks + self.bias

    def heatmaps(self, images: Tensor) -> list[Tensor]:
        """Each student's own last heatmaps (B, K, h_s, w_s), normalised, without background."""
        found = []
        for student, codec in zip(self.students, self.codecs, strict=True):
            maps = codec.normalise(student(images)[-1].float())
            found.append(maps[:, :-1] if codec.background else maps)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the averaged heatmaps (B, K, h, w)."""
        return average_heatmaps(self.heatmaps(images))

    def predict_quality(self, images: Tensor, heatmaps: Tensor) -> Tensor | None:
        """Quality (B,) of averaged heatmaps by the teacher, or None.

        Args:
            images: (B, 3, H, W), not flipped.
            heatmaps: (B, K, h, w), see `EnsemblePrediction`.
        """
        if self.teacher is None:
            return None
        quality: Tensor = self.teacher.label_quality(images, self.codec.peak_normalised(heatmaps))  # type: ignore[operator]
        return quality.float()

    @torch.inference_mode()
    def predict(self, images: Tensor, *, flip: bool = False) -> EnsemblePrediction:
        """Predict the landmarks of B crops.

        Args:
            images: (B, 3, H, W) normalised, see `to_tensor`.
            flip: Average with the prediction from the flipped crops, if the scheme has a mirror.
        """
        self.eval()
        maps = self.heatmaps(images)
        if flip and self.mirror is not None:
            flipped = self.heatmaps(images.flip(-1).contiguous(memory_format=torch.channels_last))
            mirror = torch.tensor(self.mirror, device=images.device)
            maps = [average_with_flipped(m, f, mirror) for m, f in zip(maps, flipped, strict=True)]
        heatmaps = average_heatmaps(maps)
        scores = self.codec.decode(heatmaps)[1]
        return EnsemblePrediction(heatmaps, self.decode(maps), scores, self.predict_quality(images, heatmaps))
