"""Stage 2: refine each component, from a crop in which its current landmarks are aligned to the mean face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image, Similarity
from fewmark.data.crops import cut
from fewmark.inference.cascade.frames import MeanFace, component_from_mean, inner_components, mean_from_image
from fewmark.inference.cascade.networks import NetworkPart, sizes_of
from fewmark.inference.cascade.state import FaceState, check_faces
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True, eq=False)
class ComponentStage:
    """Refines components by one network each; all faces of a batch go through a network in one call.

    Attributes:
        scheme: Gives the components; the contour is left to the coarse stage.
        networks: Component -> network; a component without one stays as it is.
        mean_face: (K, 2) faces are aligned to it, and the networks predict offsets from it.
        size: Side of a crop, px.
        margin: Margin around the mean component, see `component_from_mean`.

    Raises:
        InputError: The scheme lacks one of the components.

    Source: coarse-to-fine, section 3.2.
    """

    scheme: LandmarkScheme
    networks: Mapping[str, NetworkPart]
    mean_face: MeanFace
    size: int
    margin: float
    name: str = "component"

    def __post_init__(self) -> None:
        known = inner_components(self.scheme)
        unknown = [c for c in self.networks if c not in known]
        if unknown:
            raise InputError(
                f"component stage: scheme {self.scheme.name} has no component {unknown[0]!r}; "
                f"expected some of {', '.join(known)}"
            )
        if self.mean_face.shape != (self.scheme.n_landmarks, 2):
            raise InputError(
                f"component stage: expected a mean face of {self.scheme.n_landmarks} landmarks, "
                f"given an array of shape {self.mean_face.shape}"
            )

    def __call__(self, images: Sequence[Image], faces: Sequence[FaceState]) -> list[FaceState]:
        """See `Stage`."""
        check_faces(self.name, images, faces, self.scheme, needs_landmarks=True)
        if not faces:
            return []
        found = [np.array(face.landmarks, np.float64) for face in faces]
        for component, network in self.networks.items():
            indices = list(self.scheme.components[component])
            maps = [
                component_crop_from_image(f, i, self.mean_face, indices, self.size, self.margin)
                for i, f in enumerate(faces)
            ]
            crops = np.stack([cut(image, m, self.size) for image, m in zip(images, maps, strict=True)])
            mean_points = component_from_mean(self.mean_face, indices, self.size, self.margin)(self.mean_face[indices])
            for row, offsets in enumerate(network(crops)):
                found[row][indices] = maps[row].inverse()(mean_points + offsets)
        return [replace(f, landmarks=points.astype(np.float32)) for f, points in zip(faces, found, strict=True)]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Its networks by name."""
        return {name: network.module for name, network in self.networks.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the scheme and the weights."""
        return {
            "networks": {name: network.to_dict() for name, network in self.networks.items()},
            "mean_face": self.mean_face.tolist(),
            "size": self.size,
            "margin": self.margin,
            **sizes_of(self.modules, self.size),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], scheme: LandmarkScheme) -> ComponentStage:
        """The stage with new weights; load the stored ones into `modules`."""
        networks = {name: NetworkPart.from_dict(n) for name, n in data["networks"].items()}
        return cls(scheme, networks, np.asarray(data["mean_face"], np.float64), data["size"], data["margin"])


def component_crop_from_image(
    face: FaceState, index: int, mean_face: MeanFace, indices: Sequence[int], size: int, margin: float
) -> Similarity:
    """Map to the crop of a component in which the face's landmarks are aligned to the mean face.

    Args:
        face: With landmarks.
        index: Number of the face, for messages.
        mean_face: (K, 2).
        indices: Landmarks of the component.
        size: Side of the crop, px.
        margin: See `component_from_mean`.

    Raises:
        InputError: The landmarks give no similarity.
    """
    assert face.landmarks is not None
    try:
        aligned = mean_from_image(face.landmarks, mean_face, indices)
    except ValueError as error:
        raise InputError(f"component stage: face {index} cannot be aligned to the mean face: {error}") from None
    return component_from_mean(mean_face, indices, size, margin) @ aligned
