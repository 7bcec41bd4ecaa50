"""Procrustes analysis: similarities of many shapes to one target, and mean shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats, box_centre, box_of_points, box_size, fit_similarity

_N_STEPS = 100
_CONVERGED = 1e-12  # largest move of the mean in the last step, relative to the shape's size


def fit_similarities(shapes: FloatArray, target: FloatArray) -> Floats:
    """Fit a similarity from every shape to one target; a vectorised `fit_similarity`.

    Args:
        shapes: (N, K, 2), each in its own frame.
        target: (K, 2), no point missing, not all equal.

    Returns:
        (N, 2, 3) target_from_shape; NaN for a shape with a missing point or whose points coincide.

    Source: Umeyama, PAMI 1991; in the plane the solution is one complex factor, sum(conj(a) b) / sum(|a|^2) of centred points.

    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> fit_similarities(square[None] * 2 + 3, square).round(6)[0, :, 2].tolist()
    [-1.5, -1.5]
    """
    shapes = np.asarray(shapes, np.float64)
    a, b = _complex(shapes), _complex(target)
    a_mean, b_mean = a.mean(-1), b.mean()
    a, b = a - a_mean[:, None], b - b_mean
    size = (np.abs(a) ** 2).sum(-1)
    extent = np.abs(shapes).max((-1, -2)) ** 2
    usable = np.isfinite(size) & (size > 1e-12 * np.where(np.isfinite(extent), extent, 1.0))
    factor = np.full(len(a), complex(np.nan, np.nan))
    factor[usable] = (np.conj(a[usable]) * b).sum(-1) / size[usable]
    shift = b_mean - factor * a_mean
    rows = [factor.real, -factor.imag, shift.real, factor.imag, factor.real, shift.imag]
    return np.stack(rows, -1).reshape(-1, 2, 3)


def map_each(target_from_shape: FloatArray, shapes: FloatArray) -> Floats:
    """Map every shape by its own similarity: (N, 2, 3), (N, K, 2) -> (N, K, 2); NaN stays NaN."""
    x_axis, y_axis, shift = (target_from_shape[:, None, :, i] for i in range(3))
    return np.asarray(shapes[..., :1] * x_axis + shapes[..., 1:] * y_axis + shift, np.float64)


def invert_each(target_from_shape: FloatArray) -> Floats:
    """Invert similarities without reflection: (N, 2, 3) -> (N, 2, 3) shape_from_target."""
    linear = target_from_shape[:, :, :2]
    factor = linear[:, 0, 0] + 1j * linear[:, 1, 0]
    shift = target_from_shape[:, 0, 2] + 1j * target_from_shape[:, 1, 2]
    inverse = 1 / factor
    shift = -inverse * shift
    rows = [inverse.real, -inverse.imag, shift.real, inverse.imag, inverse.real, shift.imag]
    return np.stack(rows, -1).reshape(-1, 2, 3)


def mean_shape(shapes: FloatArray, like: FloatArray | None = None) -> Floats:
    """The Procrustes mean: align the shapes to their mean and average them, until convergence.

    Args:
        shapes: (N, K, 2), each in its own frame; shapes with a missing point are ignored.
        like: (K, 2) shape that gives the mean its position, size and orientation, such as a scheme's mean face. None: the
            orientation of the first shape, in the unit square: the longer side of the tight box spans 0 to 1, the
            shorter one is centred.

    Returns:
        (K, 2).

    Raises:
        ValueError: no complete shape with an extent.

    Source: Gower, Psychometrika 1975 (generalised Procrustes analysis).
    """
    shapes = np.asarray(shapes, np.float64)
    usable = np.isfinite(fit_similarities(shapes, _any_target(shapes.shape[1]))).all((1, 2))
    if not usable.any():
        raise ValueError(f"mean_shape: expected at least one shape without missing points, given none of {len(shapes)}")
    shapes = shapes[usable]
    mean = _unit(shapes[0])
    for _ in range(_N_STEPS):
        new = _unit(map_each(fit_similarities(shapes, mean), shapes).mean(0))
        moved = np.abs(new - mean).max()
        mean = new
        if moved < _CONVERGED:
            break
    if like is not None:
        return fit_similarity(mean, like)(mean)
    return in_unit_square(mean)


def mirrored_mean_shape(
    shapes: FloatArray, upright: FloatArray, mirror: Sequence[int] | None = None, *, n_steps: int = 5
) -> Floats:
    """Procrustes mean of faces with missing landmarks, made symmetric by the scheme's mirror.

    Args:
        shapes: (N, K, 2) px, NaN where missing; every landmark must be present in at least one face.
        upright: (K, 2) initial mean, which sets the orientation: the scheme's mean face or any upright face.
        mirror: (K,) mirror of the scheme; None: the mean is not made symmetric.
        n_steps: iterations of aligning and averaging.

    Returns:
        (K, 2) in the unit square: the longer side of the tight box spans 0 to 1, the shorter one is centred.

    Raises:
        InputError: a landmark is missing in all faces.
    """
    shapes = np.asarray(shapes, np.float64)
    absent = np.flatnonzero(~np.isfinite(shapes).all(2).any(0))
    if len(absent):
        raise InputError(f"mean face: landmark {int(absent[0])} is missing in all {len(shapes)} faces")
    mean = in_unit_square(np.asarray(upright, np.float64))
    for _ in range(n_steps):
        aligned = np.stack([fit_similarity(s, mean)(s) for s in shapes])
        mean = np.nanmean(aligned, axis=0)
        if mirror is not None:
            mean = in_unit_square(mean)
            flipped = mean[list(mirror)] * [-1, 1] + [1, 0]
            mean = (mean + flipped) / 2
        mean = in_unit_square(mean)
    return mean


def in_unit_square(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift and scale points so that the longer side of their tight box spans 0 to 1 and the shorter one is centred."""
    box = box_of_points(points).astype(np.float64)
    return (points - box_centre(box)) / max(float(box_size(box).max()), 1e-12) + 0.5


def _unit(shape: Floats) -> Floats:
    """Centre a shape and scale it to a root mean square distance of 1 from its centre."""
    centred = shape - shape.mean(0)
    return np.asarray(centred / np.sqrt((centred**2).sum(-1).mean()), np.float64)


def _any_target(k: int) -> Floats:
    """Any (k, 2) points that do not coincide: a shape that can be aligned at all can be aligned to them."""
    return np.stack([np.arange(k), np.zeros(k)], -1).astype(np.float64)


def _complex(points: FloatArray) -> NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * np.asarray(points[..., 1], np.float64), np.complex128)
