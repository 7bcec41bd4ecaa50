"""What several students say together: Eq. 5 of TS3, with averaging over the flipped image."""

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
    """What students say of B crops.

    Attributes:
        heatmaps: (B, K, h, w) averaged, at the finest stride, without background.
        landmarks: (B, K, 2) crop px.
        scores: (B, K).
        quality: (B,) the teacher's (TS3, Eq. 3), higher is better; None without a teacher.
    """

    heatmaps: Tensor
    landmarks: Tensor
    scores: Tensor
    quality: Tensor | None = None


def to_tensor(crops: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float by ImageNet's mean and deviation, channels last."""
    images = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float()
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
    """Any number of students as one.

    Args:
        students: each (B, 3, H, W) -> network stages of (B, K', h, w).
        codecs: one a student.
        mirror: (K,) permutation of a flipped image, or None: then nothing is flipped.
        teacher: judges the averaged maps, or None; see `models.teacher.Teacher`.
        bias: (K, 2) crop px added to the landmarks, see `label_bias`, or None.

    Source: TS3, Eq. 5. Differs: the students' last network stages are averaged, for the scores and the teacher; the landmarks
    are the mean of what each student's own maps are decoded to, which no difference of strides blurs (1.6 % NME on perfect
    maps at strides 8 and 4, see docs/papers/ts3.md). Where maps are distributions of one stride, both are the same.
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
        """Each student's heatmaps (B, K, h_s, w_s) -> the landmarks (B, K, 2), crop px."""
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

    def judge(self, images: Tensor, heatmaps: Tensor) -> Tensor | None:
        """(B,) the teacher's quality of averaged heatmaps, or None.

        Args:
            images: (B, 3, H, W), not flipped.
            heatmaps: (B, K, h, w), see `EnsemblePrediction`.
        """
        if self.teacher is None:
            return None
        quality: Tensor = self.teacher.label_quality(images, self.codec.heights(heatmaps))  # type: ignore[operator]
        return quality.float()

    @torch.inference_mode()
    def predict(self, images: Tensor, *, flip: bool = False) -> EnsemblePrediction:
        """Landmarks of B crops.

        Args:
            images: (B, 3, H, W) normalised, see `to_tensor`.
            flip: average with what is seen in the flipped image, where the scheme has a mirror.
        """
        self.eval()
        maps = self.heatmaps(images)
        if flip and self.mirror is not None:
            flipped = self.heatmaps(images.flip(-1).contiguous(memory_format=torch.channels_last))
            mirror = torch.tensor(self.mirror, device=images.device)
            maps = [average_with_flipped(m, f, mirror) for m, f in zip(maps, flipped, strict=True)]
        heatmaps = average_heatmaps(maps)
        scores = self.codec.decode(heatmaps)[1]
        return EnsemblePrediction(heatmaps, self.decode(maps), scores, self.judge(images, heatmaps))
