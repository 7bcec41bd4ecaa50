"""Many faces brought to one shape: similarities to a mean shape, all at once, and the mean shape itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats, box_centre, box_of_points, box_size, fit_similarity

_N_STEPS = 100
_SMALL = 1e-12  # of the shape's size: a mean that moves less than this has settled


def fit_similarities(shapes: FloatArray, target: FloatArray) -> Floats:
    """`fit_similarity` of every shape to one target, in one go.

    Args:
        shapes: (N, K, 2) each in a frame of its own.
        target: (K, 2) all present, not all in one place.

    Returns:
        (N, 2, 3) target_from_shape; NaN for a shape with a missing point, or whose points are in one place.

    Source: Umeyama, PAMI 1991; in the plane it is one complex factor, sum(conj(a) b) / sum(|a|^2) of the centred points.

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
    """Every shape by its own map: (N, 2, 3), (N, K, 2) -> (N, K, 2); NaN stays NaN."""
    x_axis, y_axis, shift = (target_from_shape[:, None, :, i] for i in range(3))
    return np.asarray(shapes[..., :1] * x_axis + shapes[..., 1:] * y_axis + shift, np.float64)


def invert_each(target_from_shape: FloatArray) -> Floats:
    """shape_from_target of similarities without reflection: (N, 2, 3) -> (N, 2, 3)."""
    linear = target_from_shape[:, :, :2]
    factor = linear[:, 0, 0] + 1j * linear[:, 1, 0]
    shift = target_from_shape[:, 0, 2] + 1j * target_from_shape[:, 1, 2]
    back = 1 / factor
    gone = -back * shift
    rows = [back.real, -back.imag, gone.real, back.imag, back.real, gone.imag]
    return np.stack(rows, -1).reshape(-1, 2, 3)


def mean_shape(shapes: FloatArray, like: FloatArray | None = None) -> Floats:
    """The Procrustes mean: shapes aligned to their mean, and averaged, until it stands still.

    Args:
        shapes: (N, K, 2) each in a frame of its own; those with a missing point are left out.
        like: (K, 2) a shape whose place, size and turn the mean takes, e.g. a scheme's mean face; None: it is turned as
            the first shape, and the longer side of its tight box spans 0 to 1, the shorter is centred.

    Returns:
        (K, 2).

    Raises:
        ValueError: no shape is whole and has an extent.

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
        if moved < _SMALL:
            break
    if like is not None:
        return fit_similarity(mean, like)(mean)
    return _in_unit_square(mean)


def mirrored_mean_shape(
    shapes: FloatArray, upright: FloatArray, mirror: Sequence[int] | None = None, *, n_steps: int = 5
) -> Floats:
    """The Procrustes mean of faces, some of whose landmarks may be missing, made symmetric by the scheme's mirror.

    Args:
        shapes: (N, K, 2) px, NaN where missing; every landmark must be present in one face.
        upright: (K, 2) what to begin with (the scheme's mean face, or one upright face); it gives the mean its direction.
        mirror: (K,) the mean is made symmetric by it.
        n_steps: of aligning and averaging.

    Returns:
        (K, 2) in the unit square: the longer side of the tight box spans 0 to 1, the shorter is centred.

    Raises:
        InputError: a landmark is missing in all faces.
    """
    shapes = np.asarray(shapes, np.float64)
    absent = np.flatnonzero(~np.isfinite(shapes).all(2).any(0))
    if len(absent):
        raise InputError(f"mean face: landmark {int(absent[0])} is missing in all {len(shapes)} faces")
    mean = _in_unit_square(np.asarray(upright, np.float64))
    for _ in range(n_steps):
        laid = np.stack([fit_similarity(s, mean)(s) for s in shapes])
        mean = np.nanmean(laid, axis=0)
        if mirror is not None:
            mean = _in_unit_square(mean)
            flipped = mean[list(mirror)] * [-1, 1] + [1, 0]
            mean = (mean + flipped) / 2
        mean = _in_unit_square(mean)
    return mean


def _in_unit_square(points: NDArray[np.float64]) -> NDArray[np.float64]:
    box = box_of_points(points).astype(np.float64)
    return (points - box_centre(box)) / max(float(box_size(box).max()), 1e-12) + 0.5


def _unit(shape: Floats) -> Floats:
    """Centred, with a root mean square distance of 1 from the centre."""
    centred = shape - shape.mean(0)
    return np.asarray(centred / np.sqrt((centred**2).sum(-1).mean()), np.float64)


def _any_target(k: int) -> Floats:
    """(k, 2) points that are not in one place: what a shape could be aligned to, if it can be aligned at all."""
    return np.stack([np.arange(k), np.zeros(k)], -1).astype(np.float64)


def _complex(points: FloatArray) -> NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * np.asarray(points[..., 1], np.float64), np.complex128)
