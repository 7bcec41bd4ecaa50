"""Stage 3: refine each inner landmark, from three patches around its 3, 5 and 7 nearest neighbours in the mean face.

All patches of a face share the rotation and scale that align its inner landmarks to the mean face: three neighbours in a row would
determine neither. A patch is centred on the mean of its neighbours' current landmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image, warp_patches
from fewmark.data.crops import FILL
from fewmark.inference.cascade.frames import MeanFace, inner_landmarks, mean_from_image, nearest_landmarks
from fewmark.inference.cascade.networks import NetworkPart, run_in_chunks, sizes_of
from fewmark.inference.cascade.state import FaceState, check_faces
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.normalization import MEAN, STD

MIN_SIDE = 0.16
"""Smallest side of a patch, in the mean face's frame: the landmarks of an eye are very close."""


@dataclass(frozen=True, eq=False)
class PatchLayout:
    """The patches that a face is cut into, in the mean-face frame.

    Attributes:
        mean_face: (K, 2).
        points: (P,) indices of the inner landmarks.
        neighbours: Per scale (P, n) indices of landmarks, the point itself first.
        size: Side of a patch, px.
        margin: Added on each side of the neighbours' tight box, as a fraction of its longer side.
    """

    mean_face: MeanFace
    points: tuple[int, ...]
    neighbours: tuple[NDArray[np.int64], ...]
    size: int
    margin: float

    @classmethod
    def of_scheme(
        cls, scheme: LandmarkScheme, mean_face: MeanFace, counts: Sequence[int], size: int, margin: float
    ) -> PatchLayout:
        """The layout for a scheme's inner landmarks; if there are fewer than n, a patch holds all of them.

        Args:
            scheme: Gives the inner landmarks.
            mean_face: (K, 2).
            counts: Number of neighbours n per scale.
            size: Side of a patch, px.
            margin: See the class.

        Raises:
            InputError: The scheme has no inner components, or the mean face does not fit it.
        """
        points = inner_landmarks(scheme)
        if mean_face.shape != (scheme.n_landmarks, 2):
            raise InputError(
                f"point stage: expected a mean face of {scheme.n_landmarks} landmarks, "
                f"given an array of shape {mean_face.shape}"
            )
        tables = tuple(nearest_landmarks(mean_face, points, min(n, len(points))) for n in counts)
        return cls(mean_face, points, tables, size, margin)

    @cached_property
    def sides(self) -> NDArray[np.float64]:
        """(S, P) sides of the patches in the mean-face frame."""
        rows = []
        for table in self.neighbours:
            near = self.mean_face[table]  # (P, n, 2)
            extent = (near.max(1) - near.min(1)).max(1)
            rows.append(np.maximum(extent * (1 + 2 * self.margin), MIN_SIDE))
        return np.stack(rows)

    @cached_property
    def places(self) -> tuple[NDArray[np.float64], ...]:
        """Per scale (P, n, 2): positions of the mean face's neighbours in a patch, px."""
        found = []
        for table, side in zip(self.neighbours, self.sides, strict=True):
            near = self.mean_face[table]
            relative = near - near.mean(1, keepdims=True)
            found.append(relative * (self.size / side)[:, None, None] + (self.size - 1) / 2)
        return tuple(found)

    def patch_from_image(self, landmarks: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The maps to all patches: (S, P, 2, 3), image px -> patch px.

        Args:
            landmarks: (K, 2) current landmarks, image px; missing ones are taken from the aligned mean face.

        Raises:
            ValueError: Fewer than two landmarks are present, or all are in one place.
        """
        points = np.asarray(landmarks, np.float64)
        aligned = mean_from_image(points, self.mean_face, self.points, rest=0.0 if len(self.points) > 2 else 0.5)
        expected = aligned.inverse()(self.mean_face)
        points = np.where(np.isfinite(points), points, expected)
        linear = aligned.matrix[:, :2]
        maps = np.empty((len(self.neighbours), len(self.points), 2, 3))
        for s, (table, side) in enumerate(zip(self.neighbours, self.sides, strict=True)):
            scaled = linear[None] * (self.size / side)[:, None, None]
            centre = points[table].mean(1)
            maps[s, :, :, :2] = scaled
            maps[s, :, :, 2] = (self.size - 1) / 2 - np.einsum("pij,pj->pi", scaled, centre)
        return maps

    def cut(self, image: Image, maps: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Cut the patches: (S, P, size, size, 3), one warp per scale."""
        return np.stack([warp_patches(image, m, self.size, fill=FILL) for m in maps])


@dataclass(frozen=True, eq=False)
class PointStage:
    """Refines the inner landmarks, by the networks of all of them together.

    Attributes:
        scheme: Scheme of the landmarks.
        network: Patches -> offsets and gates.
        layout: The patches.

    Source: coarse-to-fine, section 3.3.
    """

    scheme: LandmarkScheme
    network: NetworkPart
    layout: PatchLayout
    name: str = "point"

    def __call__(self, images: Sequence[Image], faces: Sequence[FaceState]) -> list[FaceState]:
        """See `Stage`."""
        check_faces(self.name, images, faces, self.scheme, needs_landmarks=True)
        if not faces:
            return []
        layout, maps = self.layout, []
        for i, face in enumerate(faces):
            assert face.landmarks is not None
            try:
                maps.append(layout.patch_from_image(face.landmarks))
            except ValueError as error:
                raise InputError(f"point stage: face {i} cannot be aligned to the mean face: {error}") from None
        patches = np.stack([layout.cut(image, m) for image, m in zip(images, maps, strict=True)])
        offsets, gates = self._run(patches)
        result = []
        for row, (face, m) in enumerate(zip(faces, maps, strict=True)):
            own = np.stack([places[:, 0] for places in layout.places]) + offsets[row]  # (S, P, 2) patch px
            back = np.linalg.inv(m[..., :2])
            refined = np.einsum("spij,spj->spi", back, own - m[..., 2])
            points = np.array(face.landmarks, np.float64)
            points[list(layout.points)] = (gates[row].T[..., None] * refined).sum(0)
            result.append(replace(face, landmarks=points.astype(np.float32)))
        return result

    def _run(self, patches: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Per scale the offset of the point itself (N, S, P, 2) patch px, and the gates (N, P, S)."""
        device = next(self.network.module.parameters()).device

        def run(part: NDArray[np.uint8]) -> Tensor:
            offsets, gates = self.network.module(patches_to_tensor(part, device))
            own = torch.stack([o[:, :, 0] for o in offsets], 1)
            return torch.cat([own, gates.transpose(1, 2)[..., None]], -1)

        found = run_in_chunks(run, patches).double().cpu().numpy()
        return found[..., :2], found[..., 2].transpose(0, 2, 1)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Its networks by name."""
        return {"point": self.network.module}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the scheme and the weights."""
        return {
            "network": self.network.to_dict(),
            "mean_face": self.layout.mean_face.tolist(),
            "size": self.layout.size,
            "margin": self.layout.margin,
            "neighbours": [table.shape[1] for table in self.layout.neighbours],
            **sizes_of(self.modules, self.layout.size),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], scheme: LandmarkScheme) -> PointStage:
        """The stage with new weights; load the stored ones into `modules`."""
        mean_face = np.asarray(data["mean_face"], np.float64)
        layout = PatchLayout.of_scheme(scheme, mean_face, data["neighbours"], data["size"], data["margin"])
        return cls(scheme, NetworkPart.from_dict(data["network"]), layout)


def patches_to_tensor(patches: NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Normalise patches: (B, S, P, H, W, 3) uint8 RGB -> (B, S, P, 3, H, W) float by ImageNet's mean and deviation."""
    images = torch.from_numpy(patches).to(device).float()
    mean, std = (torch.tensor(v, device=images.device) for v in (MEAN, STD))
    return ((images - mean) / std).movedim(-1, 3)
