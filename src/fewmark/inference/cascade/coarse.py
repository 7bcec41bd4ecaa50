"""Stage 1: all landmarks of the upright face, from one small crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image
from fewmark.data.crops import CropRule, cut
from fewmark.inference.cascade.angle import upright_crop_from_image
from fewmark.inference.cascade.frames import CONTOUR
from fewmark.inference.cascade.networks import NetworkPart, sizes_of
from fewmark.inference.cascade.state import FaceState, check_faces
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True, eq=False)
class CoarsePart:
    """A network and the indices of the landmarks that it predicts, in its order."""

    landmarks: tuple[int, ...]
    network: NetworkPart


@dataclass(frozen=True, eq=False)
class CoarseStage:
    """Predicts all landmarks from one crop, by one network or by one for the contour and one for the inner landmarks.

    Attributes:
        scheme: Scheme of the landmarks.
        parts: The networks; a landmark that none predicts stays as it was, or missing (NaN).
        rule: Crop of the networks.

    Raises:
        InputError: A landmark is predicted twice, or is not in the scheme.

    Source: coarse-to-fine, section 3.1.
    """

    scheme: LandmarkScheme
    parts: tuple[CoarsePart, ...]
    rule: CropRule
    name: str = "coarse"

    def __post_init__(self) -> None:
        used = [i for part in self.parts for i in part.landmarks]
        wrong = [i for i in used if not 0 <= i < self.scheme.n_landmarks]
        if wrong or len(set(used)) != len(used) or not used:
            raise InputError(
                f"coarse stage: expected parts that share the {self.scheme.n_landmarks} landmarks of {self.scheme.name}, "
                f"each in one part, given {[list(p.landmarks) for p in self.parts]}"
            )

    def __call__(self, images: Sequence[Image], faces: Sequence[FaceState]) -> list[FaceState]:
        """See `Stage`."""
        check_faces(self.name, images, faces, self.scheme)
        if not faces:
            return []
        maps = [upright_crop_from_image(face, self.rule) for face in faces]
        crops = np.stack([cut(i, m, self.rule.size) for i, m in zip(images, maps, strict=True)])
        found = np.full((len(faces), self.scheme.n_landmarks, 3), np.nan)
        for row, face in enumerate(faces):
            if face.landmarks is not None:
                found[row, :, :2] = maps[row](face.landmarks)
        for part in self.parts:
            found[:, list(part.landmarks)] = part.network(crops, "scored")
        return [
            replace(f, landmarks=m.inverse()(x[:, :2]).astype(np.float32), scores=x[:, 2].astype(np.float32))
            for f, m, x in zip(faces, maps, found, strict=True)
        ]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Its networks by name."""
        return {f"coarse{i}": part.network.module for i, part in enumerate(self.parts)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the scheme and the weights."""
        parts = [{"landmarks": list(p.landmarks), "network": p.network.to_dict()} for p in self.parts]
        return {
            "parts": parts,
            "size": self.rule.size,
            "margin": self.rule.margin,
            **sizes_of(self.modules, self.rule.size),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], scheme: LandmarkScheme) -> CoarseStage:
        """The stage with new weights; load the stored ones into `modules`."""
        parts = tuple(CoarsePart(tuple(p["landmarks"]), NetworkPart.from_dict(p["network"])) for p in data["parts"])
        return cls(scheme, parts, CropRule(data["size"], data["margin"]))


def contour_and_inner(scheme: LandmarkScheme) -> list[tuple[int, ...]]:
    """The two subsets of landmarks that the paper predicts separately: the contour and the rest.

    Raises:
        InputError: The scheme has no contour, or nothing else.
    """
    contour = tuple(scheme.components.get(CONTOUR, ()))
    inner = tuple(i for i in range(scheme.n_landmarks) if i not in set(contour))
    if not contour or not inner:
        raise InputError(
            f"scheme {scheme.name}: expected a component `contour` and other landmarks, to predict the two separately; "
            "train one network for all landmarks"
        )
    return [contour, inner]


def join_parts(stages: Sequence[CoarseStage]) -> CoarseStage:
    """Join stages for subsets of the landmarks into one.

    Raises:
        InputError: They have different crops or schemes, or share a landmark.
    """
    first = stages[0]
    for stage in stages[1:]:
        if stage.rule != first.rule or stage.scheme.landmarks != first.scheme.landmarks:
            raise InputError(
                f"coarse stages: expected one scheme and one crop, given {first.scheme.name} {first.rule} and "
                f"{stage.scheme.name} {stage.rule}"
            )
    return CoarseStage(first.scheme, tuple(part for stage in stages for part in stage.parts), first.rule)
