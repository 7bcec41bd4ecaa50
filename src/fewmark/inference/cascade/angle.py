"""Stage 0: the in-plane rotation of a face.

The image is not resampled here: the angle becomes part of the face's state, and the next stage's warp rotates its crop upright.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from fewmark.core.geometry import Image, Similarity, wrap_angle
from fewmark.data.crops import CropRule, cut
from fewmark.inference.cascade.networks import NetworkPart, sizes_of
from fewmark.inference.cascade.state import FaceState, check_faces
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.angle import Angle

N_ROTATIONS = 4
"""Views of a face, a quarter turn apart."""


@dataclass(frozen=True, eq=False)
class AngleStage:
    """Adds the rotation that the network predicts to each face's angle.

    The network sees four crops, a quarter turn apart, and its four distributions over directions are averaged: where one view takes
    a face for upside down, the others correct it.

    Attributes:
        scheme: Scheme whose mean face is upright.
        network: Crop -> (cos, sin).
        rule: Crop of the network.

    Source: coarse-to-fine, section 3.1 and Fig. 2. Differs: four views instead of one.
    """

    scheme: LandmarkScheme
    network: NetworkPart
    rule: CropRule
    name: str = "angle"

    def __call__(self, images: Sequence[Image], faces: Sequence[FaceState]) -> list[FaceState]:
        """See `Stage`."""
        check_faces(self.name, images, faces, self.scheme)
        if not faces:
            return []
        views = []
        for quarter in range(N_ROTATIONS):
            maps = [upright_crop_from_image(replace(f, angle=f.angle + 90 * quarter), self.rule) for f in faces]
            crops = np.stack([cut(i, m, self.rule.size) for i, m in zip(images, maps, strict=True)])
            weights = self.network(crops, "weights")
            views.append(np.roll(weights, quarter * weights.shape[1] // N_ROTATIONS, axis=1))
        module = self.network.module
        assert isinstance(module, Angle)
        device = next(module.parameters()).device
        pairs = module.direction(torch.from_numpy(np.mean(views, 0)).float().to(device)).cpu().numpy()
        return [
            replace(f, angle=wrap_angle(f.angle + math.degrees(math.atan2(sin, cos))))
            for f, (cos, sin) in zip(faces, pairs, strict=True)
        ]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Its networks by name."""
        return {"angle": self.network.module}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the scheme and the weights."""
        return {
            "network": self.network.to_dict(),
            "size": self.rule.size,
            "margin": self.rule.margin,
            **{
                k: v * (N_ROTATIONS if k == "n_multiply_adds" else 1)
                for k, v in sizes_of(self.modules, self.rule.size).items()
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], scheme: LandmarkScheme) -> AngleStage:
        """The stage with new weights; load the stored ones into `modules`."""
        return cls(scheme, NetworkPart.from_dict(data["network"]), CropRule(data["size"], data["margin"]))


def upright_crop_from_image(face: FaceState, rule: CropRule) -> Similarity:
    """Map to the square crop around the face's box in which a face of this angle is upright."""
    return rule.crop_from_image(face.box_xyxy, angle=-face.angle)
