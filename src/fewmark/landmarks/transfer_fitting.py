"""Fitting of transfers between schemes: usable pairs, folds, ridge regression, cross-validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats
from fewmark.core.procrustes import fit_similarities, invert_each, map_each, mean_shape
from fewmark.landmarks.metrics import nme_per_face
from fewmark.landmarks.scheme import LandmarkScheme

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
"""What cross-validation chooses among: the first is as good as none where there are many pairs, the last all but leaves the
target's mean face."""
N_FOLDS = 5

_NULL = 1e-5  # of the face's size: source points that vary less along a direction say nothing about it


@dataclass(frozen=True, eq=False)
class UsablePairs:
    """Faces that are labelled in both schemes.

    Attributes:
        source: (N, Ks, 2) image px, complete.
        target: (N, Kt, 2) image px of the same faces; NaN where missing, at least one point present.
        rows: (N,) indices of these pairs among those given.
        n_given: Number of pairs given.
    """

    source: Floats
    target: Floats
    rows: NDArray[np.int64]
    n_given: int


@dataclass(frozen=True)
class RidgeChoice:
    """Result of the cross-validation.

    Attributes:
        ridge: Ridge penalty with the smallest error.
        errors: Ridge -> mean error of the held-out target landmarks, as a fraction of the face size (root mean square
            distance of its source landmarks from their centre).
    """

    ridge: float
    errors: Mapping[float, float]


def usable_pairs(
    source: LandmarkScheme, target: LandmarkScheme, source_points: FloatArray, target_points: FloatArray
) -> UsablePairs:
    """Select the usable pairs: all source landmarks present and not coinciding, and at least one target landmark.

    Arguments as in `SchemeTransfer.fit`.

    Raises:
        InputError: The points do not match their scheme or each other, the source scheme has one landmark, or no pair is usable.
    """
    what = f"transfer {source.name} -> {target.name}"
    if source.n_landmarks < 2:
        raise InputError(
            f"{what}: expected a source scheme of 2 landmarks or more (a face's place, size and turn), given "
            f"{source.n_landmarks}"
        )
    x, y = np.asarray(source_points, np.float64), np.asarray(target_points, np.float64)
    for name, points, scheme in (("source", x, source), ("target", y, target)):
        if points.ndim != 3 or points.shape[1:] != (scheme.n_landmarks, 2):
            raise InputError(
                f"{what}: {name} points: expected (N, {scheme.n_landmarks}, 2), given {points.shape}; is this the scheme?"
            )
    if len(x) != len(y):
        raise InputError(f"{what}: expected as many source faces as target faces, given {len(x)} and {len(y)}")
    spread = np.arange(2 * source.n_landmarks, dtype=np.float64).reshape(-1, 2)  # any shape that has an extent
    whole = np.asarray(np.isfinite(fit_similarities(x, spread)).all((1, 2)))
    there = np.asarray(np.isfinite(y).all(2))
    rows = np.flatnonzero(whole & there.any(1))
    if not len(rows):
        raise InputError(
            f"{what}: expected faces with every source landmark and some target landmark, given none among {len(x)}"
        )
    return UsablePairs(x[rows], np.where(there[rows][..., None], y[rows], np.nan), rows, len(x))


def cross_validate_ridge(
    source: LandmarkScheme,
    target: LandmarkScheme,
    source_points: FloatArray,
    target_points: FloatArray,
    *,
    ridges: Sequence[float] = RIDGES,
    groups: Sequence[str] | None = None,
    n_folds: int = N_FOLDS,
    rng: np.random.Generator | None = None,
) -> RidgeChoice:
    """Choose the ridge that predicts held-out faces best. Arguments as in `SchemeTransfer.fit`.

    Raises:
        InputError: See `SchemeTransfer.fit`; or all pairs are of one group, so that none can be held out.
    """
    if not ridges or not all(0 <= r < math.inf for r in ridges):
        raise InputError(f"ridges: expected one or more numbers from 0 on, given {list(ridges)}")
    pairs = usable_pairs(source, target, source_points, target_points)
    folds = assign_folds(pairs, groups, n_folds, rng)
    if len(np.unique(folds)) < 2:
        raise InputError(f"ridge: expected pairs of 2 or more groups to cross-validate, given {len(pairs.rows)} of one")
    return choose_ridge(source, pairs, ridges, folds)


def assign_folds(
    pairs: UsablePairs,
    groups: Sequence[str] | None = None,
    n_folds: int = N_FOLDS,
    rng: np.random.Generator | None = None,
) -> NDArray[np.int64]:
    """Assign pairs to folds (N,): groups in random order, the largest first, each to the smallest fold.

    Arguments as in `SchemeTransfer.fit`.

    Raises:
        InputError: There are fewer than 2 folds, or not one group per given pair.
    """
    if n_folds < 2:
        raise InputError(f"n_folds: expected 2 or more, given {n_folds}")
    if groups is not None and len(groups) != pairs.n_given:
        raise InputError(f"groups: expected one for each of {pairs.n_given} pairs, given {len(groups)}")
    names = (
        np.arange(pairs.n_given) if groups is None else np.unique(np.asarray(groups, np.str_), return_inverse=True)[1]
    )
    own, sizes = np.unique(names[pairs.rows], return_inverse=True, return_counts=True)[1:]
    order = (np.random.default_rng(0) if rng is None else rng).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, filled = np.zeros(len(sizes), np.int64), np.zeros(min(n_folds, len(sizes)), np.int64)
    for group in order.tolist():
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[own], np.int64)


def in_frame(mean: Floats, source: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Features and targets of the fit: offsets (N, 2 Ks) from the mean shape and targets (N, Kt, 2), in the mean-face frame.

    Args:
        mean: (Ks, 2) mean-face frame.
        source: (N, Ks, 2) image px.
        target: (N, Kt, 2) image px, NaN where missing.
    """
    frame_from_image = fit_similarities(source, mean)
    offsets = map_each(frame_from_image, source) - mean
    return offsets.reshape(len(offsets), -1), map_each(frame_from_image, target)


def solve(features: Floats, targets: Floats, ridges: Sequence[float]) -> Floats:
    """Least squares for each ridge (R, P + 1, 2 Kt), the last row being the bias; each landmark uses the pairs that have it."""
    n_features, n_targets = features.shape[1], targets.shape[1]
    matrices = np.full((len(ridges), n_features + 1, n_targets, 2), np.nan)
    for rows, columns in _patterns(targets):
        x, y = features[rows], targets[rows][:, columns].reshape(len(rows), -1)
        x_mean, y_mean = x.mean(0), y.mean(0)
        x, y = x - x_mean, y - y_mean
        variances, directions = np.linalg.eigh(x.T @ x / len(rows))
        aim = directions.T @ (x.T @ y) / len(rows)
        used = variances > _NULL**2
        for matrix, ridge in zip(matrices, ridges, strict=True):
            penalised = variances + ridge * variances.mean()
            gain = np.divide(1.0, penalised, out=np.zeros_like(variances), where=used)
            w = directions @ (gain[:, None] * aim)
            matrix[:-1, columns] = w.reshape(n_features, len(columns), 2)
            matrix[-1, columns] = (y_mean - x_mean @ w).reshape(len(columns), 2)
    return matrices.reshape(len(ridges), n_features + 1, 2 * n_targets)


def count_singular(features: Floats, targets: Floats) -> int:
    """Number of target landmarks whose pairs do not determine their unknowns."""
    n, n_needed = 0, features.shape[1] - 4
    for rows, columns in _patterns(targets):
        x = features[rows] - features[rows].mean(0)
        variances = np.linalg.eigvalsh(x.T @ x / len(rows))
        if len(rows) <= n_needed or (variances > _NULL**2).sum() < n_needed:
            n += len(columns)
    return n


def _patterns(targets: Floats) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows that have a target landmark, for each set of landmarks present in the same rows."""
    masks, which = np.unique(np.isfinite(targets).all(2), axis=1, return_inverse=True)
    found = [(np.flatnonzero(masks[:, i]), np.flatnonzero(which == i)) for i in range(masks.shape[1])]
    return [(rows, columns) for rows, columns in found if len(rows)]


def held_out_errors(
    source: LandmarkScheme, pairs: UsablePairs, ridges: Sequence[float], folds: NDArray[np.int64]
) -> Floats:
    """Error of each pair (R, N, Kt) px under a transfer fitted without its fold."""
    n, k = pairs.target.shape[:2]
    errors = np.full((len(ridges), n, k), np.nan)
    for fold in np.unique(folds):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        mean = mean_shape(pairs.source[rest], source.mean_face)
        features, targets = in_frame(mean, pairs.source[rest], pairs.target[rest])
        frame_from_image = fit_similarities(pairs.source[held], mean)
        offsets, _ = in_frame(mean, pairs.source[held], pairs.target[held])
        for i, matrix in enumerate(solve(features, targets, ridges)):
            answers = (offsets @ matrix[:-1] + matrix[-1]).reshape(len(held), k, 2)
            found = map_each(invert_each(frame_from_image), answers)
            errors[i, held] = np.linalg.norm(found - pairs.target[held], axis=2)
    return errors


def choose_ridge(
    source: LandmarkScheme, pairs: UsablePairs, ridges: Sequence[float], folds: NDArray[np.int64]
) -> RidgeChoice:
    """See `cross_validate_ridge`; folds: (N,) at least two."""
    errors = held_out_errors(source, pairs, ridges, folds)
    centred = pairs.source - pairs.source.mean(1, keepdims=True)
    sizes = np.sqrt((centred**2).sum(2).mean(1))
    found = {}
    for ridge, each in zip(ridges, errors, strict=True):
        found[float(ridge)] = mean_present(nme_per_face(each, sizes))
    return RidgeChoice(min(found, key=lambda r: found[r]), found)


def mean_present(values: Floats) -> float:
    """Mean of the finite values; NaN if there are none."""
    present = values[np.isfinite(values)]
    return float(present.mean()) if len(present) else math.nan
