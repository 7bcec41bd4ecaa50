"""The frames of the cascade: the mean face, and the similarities that lay a face, a component or a patch on it.

The mean face's frame is the unit square of `LandmarkScheme.mean_face`; a crop or patch is a piece of it, so that every
place in a crop is a place in the mean face, and the way back to the image is one inverse map.
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
"""Of a component's crop, as a part of the mean face: a component of one point has no size of its own."""


RESOLUTION = CropRule(size=160, margin=0.2)
"""The upright crop that the windows in memory are as fine as: a component is about a third of it."""
REACH = 1.8
"""Side of a window over that crop's side: a face turned by any angle, scaled and shifted stays inside."""


def scheme_mean_face(scheme: LandmarkScheme) -> MeanFace:
    """The scheme's own mean face.

    Raises:
        InputError: it has none.
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
        InputError: the scheme has none.
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
    """By how much a face is turned, degrees counter-clockwise in (-180, 180]; (K, 2) image px, NaN rows left out."""
    return fit_similarity(mean_face, points).angle


def mean_from_image(
    points: FloatArray, mean_face: MeanFace, indices: Sequence[int] | None = None, *, rest: float = 0.5
) -> Similarity:
    """Lay a face on the mean face by its current points.

    Args:
        points: (K, 2) image px, NaN rows left out.
        mean_face: (K, 2).
        indices: the landmarks that should lie well (a component), or None for all of them alike.
        rest: weight of all the other landmarks together, relative to these. It steadies the turn and the scale, which an
            eyebrow of five points in a row, or a single point, does not give by itself.

    Raises:
        ValueError: fewer than two points are present, or all in one place.
    """
    if indices is None:
        return fit_similarity(points, mean_face)
    seen = np.isfinite(points).all(1)
    chosen = np.zeros(len(mean_face), bool)
    chosen[list(indices)] = True
    weights = np.zeros(len(mean_face))
    weights[chosen & seen] = 1 / max(1, int((chosen & seen).sum()))
    weights[~chosen & seen] = rest / max(1, int((~chosen & seen).sum()))
    return fit_similarity(points, mean_face, weights)


def component_from_mean(mean_face: MeanFace, indices: Sequence[int], size: int, margin: float) -> Similarity:
    """The square of the mean face round a component, as a crop of `size` px.

    Args:
        margin: on each side, as a part of the longer side of the component's tight box; the square's side is at least
            MIN_SIDE of the mean face.
    """
    box = box_of_points(mean_face[list(indices)]).astype(np.float64)
    side = max(float(box_size(box).max()) * (1 + 2 * margin), MIN_SIDE)
    centre = box_centre(box)
    return crop_from_box(np.concatenate([centre - side / 2, centre + side / 2]), size)


def nearest_landmarks(mean_face: MeanFace, among: Sequence[int], n: int) -> NDArray[np.int64]:
    """For each landmark of `among` the n nearest of them in the mean face, itself first: (P, n) indices of landmarks."""
    points = mean_face[list(among)]
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distance, -1.0)
    order = np.argsort(distance, axis=1, kind="stable")[:, :n]
    return np.asarray(among, np.int64)[order]
