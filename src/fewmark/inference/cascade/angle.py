"""Stage 0: by how much a face is turned in the plane of its image.

Nothing is resampled here: the angle joins the face's state, and the next stage's one warp turns the crop upright.
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

SIDES = 4
"""From which a crop is looked at, each a quarter turn further."""


@dataclass(frozen=True, eq=False)
class AngleStage:
    """Adds to each face's angle what the network sees of it in the crop that the angle so far makes upright.

    The crop is looked at from four sides, and the four distributions over directions are averaged: a face that the network
    takes for one upside down from one side is set right by the others.

    Attributes:
        scheme: whose mean face stands upright.
        network: crop -> (cos, sin).
        rule: which crop it sees.

    Source: coarse-to-fine, section 3.1 and Fig. 2. Differs: four sides instead of one.
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
        sides = []
        for quarter in range(SIDES):
            maps = [upright_crop_from_image(replace(f, angle=f.angle + 90 * quarter), self.rule) for f in faces]
            crops = np.stack([cut(i, m, self.rule.size) for i, m in zip(images, maps, strict=True)])
            weights = self.network(crops, "weights")
            sides.append(np.roll(weights, quarter * weights.shape[1] // SIDES, axis=1))
        module = self.network.module
        assert isinstance(module, Angle)
        device = next(module.parameters()).device
        pairs = module.direction(torch.from_numpy(np.mean(sides, 0)).float().to(device)).cpu().numpy()
        return [
            replace(f, angle=wrap_angle(f.angle + math.degrees(math.atan2(sin, cos))))
            for f, (cos, sin) in zip(faces, pairs, strict=True)
        ]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Its networks by name."""
        return {"angle": self.network.module}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, all but the scheme and the weights."""
        return {
            "network": self.network.to_dict(),
            "size": self.rule.size,
            "margin": self.rule.margin,
            **{
                k: v * (SIDES if k == "n_multiply_adds" else 1)
                for k, v in sizes_of(self.modules, self.rule.size).items()
            },
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], scheme: LandmarkScheme) -> AngleStage:
        """The stage with fresh weights; load them into `modules`."""
        return cls(scheme, NetworkPart.from_dict(data["network"]), CropRule(data["size"], data["margin"]))


def upright_crop_from_image(face: FaceState, rule: CropRule) -> Similarity:
    """The square round the face's box, turned so that a face of this angle stands upright."""
    return rule.crop_from_image(face.box_xyxy, angle=-face.angle)
