"""The cascade's frames: the mean face, and the similarities that align a face, a component or a patch to it.

The mean face's frame is the unit square of `LandmarkScheme.mean_face`. A crop or patch is a part of it, so every position in a crop
is a position in the mean face, and one inverse map leads back to the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import (
    FloatArray,
    Similarity,
    box_centre,
    box_of_points,
    box_size,
    crop_from_box,
    fit_similarity,
)
from fewmark.data.crops import CropRule
from fewmark.landmarks.scheme import LandmarkScheme

MeanFace = NDArray[np.float64]
"""(K, 2) mean-face frame."""

CONTOUR = "contour"
MIN_SIDE = 0.3
"""Smallest side of a component's crop, in the mean face's frame: a component of one landmark has no size of its own."""

RESOLUTION = CropRule(size=160, margin=0.2)
"""Upright crop that sets the resolution of windows in memory: a component is about a third of it."""
REACH = 1.8
"""Side of a window over that crop's side: a face that is rotated by any angle, scaled and shifted stays inside."""


def scheme_mean_face(scheme: LandmarkScheme) -> MeanFace:
    """The scheme's mean face.

    Raises:
        InputError: It has none.
    """
    if scheme.mean_face is None:
        raise InputError(
            f"scheme {scheme.name} has no mean face, which the cascade aligns faces to; "
            "add `mean_face` to its file, or give the stage the mean of labelled faces"
        )
    return np.asarray(scheme.mean_face, np.float64)


def inner_components(scheme: LandmarkScheme) -> dict[str, tuple[int, ...]]:
    """The components that are refined: all but the contour.

    Raises:
        InputError: The scheme has none.
    """
    found = {name: indices for name, indices in scheme.components.items() if name != CONTOUR and indices}
    if not found:
        raise InputError(
            f"scheme {scheme.name} has no components but the contour; "
            "add [components] to its file, or train the cascade without its component and point stages"
        )
    return found


def inner_landmarks(scheme: LandmarkScheme) -> tuple[int, ...]:
    """The landmarks of the inner components, in the scheme's order, each once."""
    return tuple(sorted({i for indices in inner_components(scheme).values() for i in indices}))


def face_angle(points: FloatArray, mean_face: FloatArray) -> float:
    """In-plane rotation of a face, degrees counter-clockwise in (-180, 180].

    Args:
        points: (K, 2) image px, NaN rows left out.
        mean_face: (K, 2).
    """
    return fit_similarity(mean_face, points).angle


def mean_from_image(
    points: FloatArray, mean_face: MeanFace, indices: Sequence[int] | None = None, *, rest: float = 0.5
) -> Similarity:
    """Align a face to the mean face by its current landmarks.

    Args:
        points: (K, 2) image px, NaN rows left out.
        mean_face: (K, 2).
        indices: Landmarks to align best (a component); None: all alike.
        rest: Weight of all other landmarks together, relative to these. It stabilises rotation and scale, which five landmarks in a
            row, or a single one, do not determine.

    Raises:
        ValueError: Fewer than two landmarks are present, or all are in one place.
    """
    if indices is None:
        return fit_similarity(points, mean_face)
    seen = np.isfinite(points).all(1)
    selected = np.zeros(len(mean_face), bool)
    selected[list(indices)] = True
    weights = np.zeros(len(mean_face))
    weights[selected & seen] = 1 / max(1, int((selected & seen).sum()))
    weights[~selected & seen] = rest / max(1, int((~selected & seen).sum()))
    return fit_similarity(points, mean_face, weights)


def component_from_mean(mean_face: MeanFace, indices: Sequence[int], size: int, margin: float) -> Similarity:
    """Map from the mean face to the square crop around a component.

    Args:
        mean_face: (K, 2).
        indices: Landmarks of the component.
        size: Side of the crop, px.
        margin: Added on each side, as a fraction of the longer side of the component's tight box; the square's side is at least
            `MIN_SIDE`.
    """
    box = box_of_points(mean_face[list(indices)]).astype(np.float64)
    side = max(float(box_size(box).max()) * (1 + 2 * margin), MIN_SIDE)
    centre = box_centre(box)
    return crop_from_box(np.concatenate([centre - side / 2, centre + side / 2]), size)


def nearest_landmarks(mean_face: MeanFace, among: Sequence[int], n: int) -> NDArray[np.int64]:
    """Indices (P, n) of the n landmarks among the P of `among` that are nearest to each in the mean face, itself first."""
    points = mean_face[list(among)]
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, -1.0)
    order = np.argsort(distance, axis=1, kind="stable")[:, :n]
    return np.asarray(among, np.int64)[order]
