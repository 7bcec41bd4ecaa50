"""SchemeTransfer: predict the landmarks of one scheme from those of another, by least squares in the mean-face frame.

Each face is aligned by the similarity that maps its source landmarks to their mean shape. In this frame the target
landmarks are an affine function of the source landmarks, so a transfer commutes with every similarity.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats, box_of_points
from fewmark.core.procrustes import fit_similarities, invert_each, map_each, mean_shape
from fewmark.landmarks.metrics import nme_per_face, nme_per_landmark, normalising_lengths
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.landmarks.transfer_fitting import (
    N_FOLDS,
    RIDGES,
    RidgeChoice,
    UsablePairs,
    assign_folds,
    choose_ridge,
    count_singular,
    cross_validate_ridge,
    held_out_errors,
    in_frame,
    mean_present,
    solve,
    usable_pairs,
)

__all__ = ["N_FOLDS", "RIDGES", "RidgeChoice", "SchemeTransfer", "cross_validate_ridge"]

_LONE_RIDGE = 1.0  # used when there is only one group of pairs, so cross-validation is impossible


@dataclass(frozen=True, eq=False)
class SchemeTransfer:
    """Linear map from the landmarks of `source` to those of `target`.

    Attributes:
        source: Input scheme.
        target: Output scheme.
        mean_shape: (Ks, 2) mean-face frame, Procrustes mean of the source landmarks of the training faces.
        matrix: (2 Ks + 1, 2 Kt) mean-face frame, coefficients from the offsets of the source coordinates from the mean
            shape to the target coordinates. The last row is the bias: the target landmarks of the mean face. Columns
            are NaN for a target landmark that no training face has.
        ridge: Ridge penalty, see `fit`.
        n_pairs: Number of pairs used.
        normalizer: Name of the normaliser of the target scheme used for the expected errors.
        expected_error: Cross-validated NME, averaged over the landmarks and then over the faces. Assumes source
            landmarks as accurate as those in the fit; NaN if no faces could be held out.
        expected_error_per_landmark: (Kt,) cross-validated NME per landmark.
        provenance: Description of the training data.
        licence: Licence of the transfer, as permitted by its training data.

    Source: Deep convolutional coarse-to-fine cascade, section 3.4, Eq. 1 and 2. Differs: fitted in the mean-face frame,
    which removes position, scale and rotation; the ridge is optional; a missing target landmark excludes its pair for
    that landmark only.
    """

    source: LandmarkScheme
    target: LandmarkScheme
    mean_shape: Floats
    matrix: Floats
    ridge: float
    n_pairs: int
    normalizer: str
    expected_error: float
    expected_error_per_landmark: Floats
    provenance: str = ""
    licence: str = ""

    @classmethod
    def fit(
        cls,
        source: LandmarkScheme,
        target: LandmarkScheme,
        source_points: FloatArray,
        target_points: FloatArray,
        *,
        ridge: float | Literal["auto"] = 0.0,
        groups: Sequence[str] | None = None,
        boxes_xyxy: FloatArray | None = None,
        n_folds: int = N_FOLDS,
        rng: np.random.Generator | None = None,
        provenance: str = "",
        licence: str = "",
    ) -> SchemeTransfer:
        """Fit a transfer on faces labelled in both schemes.

        Pairs with a missing source landmark are excluded. A missing target landmark excludes its pair for that landmark
        only. If there are fewer pairs than unknowns (2 Ks - 3 per coordinate: 2 Ks and the bias, minus the four degrees
        of freedom removed by the alignment), or the pairs are too similar, a ridge of 0 is replaced with a
        cross-validated one and a warning is issued.

        Args:
            source: Scheme of the source points.
            target: Scheme of the target points.
            source_points: (N, Ks, 2) image px, NaN where missing.
            target_points: (N, Kt, 2) image px of the same faces, NaN where missing.
            ridge: L2 penalty on the matrix, excluding the bias. Relative to the mean variance of the source coordinates,
                so that its effect does not depend on the number of pairs. "auto" chooses it by cross-validation.
            groups: N names of persons, scenes or videos, which are never split across folds. None: one group per pair.
            boxes_xyxy: (N, 4) image px, for normalisers that need a box; None: the tight box of the target points.
            n_folds: Number of cross-validation folds; fewer are used if there are fewer groups.
            rng: Random generator for the folds; None: a fixed assignment.
            provenance: Description of the pairs.
            licence: Licence that the pairs permit.

        Raises:
            InputError: The points do not match their scheme or each other, the source scheme has only one landmark, there
                is no usable pair, the ridge is negative, or there are fewer than 2 folds.

        >>> from fewmark.landmarks.scheme import LandmarkScheme
        >>> three, one = LandmarkScheme("three", ("a", "b", "c")), LandmarkScheme("one", ("middle",))
        >>> points = np.random.default_rng(0).normal(size=(20, 3, 2))
        >>> transfer = SchemeTransfer.fit(three, one, points, points.mean(1, keepdims=True))
        >>> bool(np.allclose(transfer.apply(points[0] * 7), points[0].mean(0) * 7))
        True
        """
        if ridge != "auto" and not (isinstance(ridge, int | float) and 0 <= ridge < math.inf):
            raise InputError(f"ridge: expected a non-negative number or 'auto', given {ridge!r}")
        pairs = usable_pairs(source, target, source_points, target_points)
        folds = assign_folds(pairs, groups, n_folds, rng)
        can_hold_out = len(np.unique(folds)) > 1
        mean = mean_shape(pairs.source, source.mean_face)
        features, targets = in_frame(mean, pairs.source, pairs.target)
        n_singular = count_singular(features, targets)
        chosen = 0.0 if ridge == "auto" else float(ridge)
        if ridge == "auto" or (ridge == 0 and n_singular):
            chosen = choose_ridge(source, pairs, RIDGES, folds).ridge if can_hold_out else _LONE_RIDGE
        problems = _problems(source, target, targets, chosen, n_singular if ridge == 0 else 0)
        if ridge == "auto" and not can_hold_out:
            problems.append(f"cannot cross-validate with a single group of pairs; ridge {chosen:g} is used")
        for problem in problems:
            warnings.warn(f"transfer {source.name} -> {target.name}: {problem}", stacklevel=2)
        lengths = normalising_lengths(pairs.target, _boxes(pairs, boxes_xyxy), target.normalizer)
        errors = np.full(pairs.target.shape[:2], np.nan)
        if can_hold_out:
            errors = held_out_errors(source, pairs, [chosen], folds)[0]
        return cls(
            source=source,
            target=target,
            mean_shape=mean,
            matrix=solve(features, targets, [chosen])[0],
            ridge=chosen,
            n_pairs=len(pairs.rows),
            normalizer=target.default_normalizer,
            expected_error=mean_present(nme_per_face(errors, lengths)),
            expected_error_per_landmark=nme_per_landmark(errors, lengths),
            provenance=provenance,
            licence=licence,
        )

    @property
    def target_mean_shape(self) -> Floats:
        """Target landmarks of the mean face (Kt, 2), mean-face frame: the bias of the matrix."""
        return np.asarray(self.matrix[-1].reshape(-1, 2), np.float64)

    @property
    def expected_error_per_component(self) -> dict[str, float]:
        """Mean expected error of each component of the target scheme; NaN if unknown."""
        errors = self.expected_error_per_landmark
        return {name: mean_present(errors[list(indices)]) for name, indices in self.target.components.items()}

    @property
    def influence(self) -> Floats:
        """Relative influence (Kt, Ks) of each source landmark on each target landmark, near the mean face.

        This is the norm of the derivative, with rows normalised to sum to 1. The derivative has two parts: similarities
        move all landmarks together, and the remaining motion goes through the matrix.
        """
        moves, answers = _similarity_moves(self.mean_shape), _similarity_moves(self.target_mean_shape)
        parameters = np.linalg.pinv(moves)
        rest = np.eye(len(moves)) - moves @ parameters
        derivative = answers @ parameters + self.matrix[:-1].T @ rest
        blocks = derivative.reshape(self.target.n_landmarks, 2, self.source.n_landmarks, 2)
        size = np.sqrt((blocks**2).sum((1, 3)))
        return np.asarray(size / size.sum(1, keepdims=True), np.float64)

    def apply(self, source_points: FloatArray, *, keep: FloatArray | None = None) -> Floats:
        """Predict the target landmarks of faces.

        Args:
            source_points: (..., Ks, 2) image px.
            keep: (..., Kt, 2) image px, target landmarks from another source, returned unchanged where they are not NaN.
                For example, the contour can be predicted directly, as in the paper (sections 3.1 and 4.3).

        Returns:
            (..., Kt, 2) image px. Except for kept landmarks, NaN for faces with a missing source landmark and for landmarks
            that no training face had.

        Raises:
            InputError: The points do not match these schemes.
        """
        matrix = self.matrix

        def predict(offsets: Floats) -> Floats:
            return np.asarray(offsets @ matrix[:-1] + matrix[-1], np.float64)

        return apply_in_frame(self.source, self.target, self.mean_shape, predict, source_points, keep)

    def apply_scores(self, source_scores: FloatArray) -> Floats:
        """Scores of the target landmarks: the mean of the source scores, weighted by `influence`.

        Args:
            source_scores: (..., Ks); a NaN makes all scores of its face NaN.

        Returns:
            (..., Kt).
        """
        return np.asarray(np.asarray(source_scores, np.float64) @ self.influence.T, np.float64)

    def source_box(self, target_box_xyxy: FloatArray) -> NDArray[np.float32]:
        """Estimate the tight box of the source landmarks from that of the target landmarks, using the mean face.

        Args:
            target_box_xyxy: (4,) image px.

        Returns:
            (4,) image px.
        """
        box = np.asarray(target_box_xyxy, np.float64).reshape(2, 2)
        present = self.target_mean_shape[np.isfinite(self.target_mean_shape).all(1)]
        low, extent = present.min(0), np.maximum(np.ptp(present, axis=0), 1e-6)
        inside = (np.stack([self.mean_shape.min(0), self.mean_shape.max(0)]) - low) / extent
        return np.asarray((box[0] + inside * (box[1] - box[0])).reshape(4), np.float32)


def apply_in_frame(
    source: LandmarkScheme,
    target: LandmarkScheme,
    mean: Floats,
    predict: Callable[[Floats], Floats],
    source_points: FloatArray,
    keep: FloatArray | None,
) -> Floats:
    """Map faces to the mean-face frame, predict there, and map the predictions back; see `SchemeTransfer.apply`.

    Args:
        source: Scheme of the points.
        target: Scheme of the predictions.
        mean: (Ks, 2) mean-face frame.
        predict: Function from offsets from the mean shape (N, 2 Ks) to points (N, 2 Kt), both in the mean-face frame.
        source_points: (..., Ks, 2) image px.
        keep: (..., Kt, 2) image px, or None.

    Raises:
        InputError: The points do not match these schemes.
    """
    points = np.asarray(source_points, np.float64)
    if points.ndim < 2 or points.shape[-2:] != (source.n_landmarks, 2):
        raise InputError(
            f"source points: expected (..., {source.n_landmarks}, 2) as scheme {source.name} has, given {points.shape}"
        )
    shape = (*points.shape[:-2], target.n_landmarks, 2)
    flat = points.reshape(-1, source.n_landmarks, 2)
    frame_from_image = fit_similarities(flat, mean)
    offsets = (map_each(frame_from_image, flat) - mean).reshape(len(flat), 2 * source.n_landmarks)
    found = np.full((len(flat), target.n_landmarks, 2), np.nan)
    usable = np.isfinite(frame_from_image).all((1, 2))
    if usable.any():
        answers = predict(offsets[usable]).reshape(-1, target.n_landmarks, 2)
        found[usable] = map_each(invert_each(frame_from_image[usable]), answers)
    found = found.reshape(shape)
    if keep is not None:
        known = np.asarray(keep, np.float64)
        if known.shape != shape:
            raise InputError(f"keep: expected {shape} as scheme {target.name} has, given {known.shape}")
        found = np.where(np.isnan(known).any(-1, keepdims=True), found, known)
    return found


def _problems(
    source: LandmarkScheme, target: LandmarkScheme, targets: Floats, ridge: float, n_singular: int
) -> list[str]:
    """Problems with the pairs, given the targets (N, Kt, 2) and the number of landmarks with a singular system."""
    found = []
    unseen = np.flatnonzero(~np.isfinite(targets).any((0, 2)))
    if n_singular:
        of_all = "" if n_singular == target.n_landmarks else f" for {n_singular} of {target.n_landmarks} landmarks"
        found.append(
            f"{len(targets)} pairs for {max(1, 2 * source.n_landmarks - 3)} unknowns per coordinate: the least-squares system is "
            f"singular{of_all}; ridge {ridge:g} is used instead of 0; give more pairs, or a ridge"
        )
    if len(unseen):
        more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        found.append(
            f"no pair has the landmark {target.landmarks[unseen[0]]}{more}; it will be missing from every prediction"
        )
    return found


def _boxes(pairs: UsablePairs, boxes_xyxy: FloatArray | None) -> Floats:
    """Boxes (N, 4) of the usable pairs; the tight box of the target points where none is given."""
    tight = np.stack([box_of_points(p) for p in pairs.target]).astype(np.float64)
    if boxes_xyxy is None:
        return tight
    boxes = np.asarray(boxes_xyxy, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) != pairs.n_given:
        raise InputError(f"boxes: expected x0 y0 x1 y1 of {pairs.n_given} pairs, given an array of shape {boxes.shape}")
    return np.where(np.isnan(boxes[pairs.rows]), tight, boxes[pairs.rows])


def _similarity_moves(points: Floats) -> Floats:
    """Derivatives (2 K, 4) of the coordinates under translation in x and y, scaling and rotation about the origin."""
    ones, zeros = np.ones(len(points)), np.zeros(len(points))
    x, y = points[:, 0], points[:, 1]
    columns = [(ones, zeros), (zeros, ones), (x, y), (-y, x)]
    return np.stack([np.stack(c, -1).ravel() for c in columns], -1)
