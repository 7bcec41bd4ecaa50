"""How far predicted landmarks are from the true ones: errors, NME, AUC, failure rate, CED, with their counts.

Lengths are image px, NMEs and rates are fractions. A true landmark that is missing (NaN) is left out and
counted. A predicted one that is missing while the true one is there makes its face undetected: its NME is
infinite, so that it counts fully in AUC and failure rate, and it is left out of means and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats, box_size
from fewmark.core.json import json_value
from fewmark.landmarks.scheme import BoxDiagonal, BoxSize, LandmarkScheme, Normalizer

THRESHOLD = 0.08
"""Default threshold of the AUC and the failure rate, as for 300-W and 300-VW."""


def landmark_errors(predicted: FloatArray, true: FloatArray) -> Floats:
    """Distance between each predicted landmark and the true one.

    Args:
        predicted: (N, K, 2) image px; NaN where nothing was predicted.
        true: (N, K, 2) image px; NaN where not annotated.

    Returns:
        (N, K) px; NaN where the true landmark is missing, infinite where only the prediction is missing.

    Raises:
        InputError: The shapes differ, or a true landmark is infinite.

    >>> true = np.array([[[0.0, 0.0], [np.nan, np.nan]]])
    >>> landmark_errors(np.array([[[3.0, 4.0], [1.0, 1.0]]]), true).tolist()
    [[5.0, nan]]
    """
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    if true.ndim != 3 or true.shape[2] != 2 or predicted.shape != true.shape:
        raise InputError(
            "landmarks: expected predicted and true landmarks of the same shape (N, K, 2), "
            f"given {predicted.shape} and {true.shape}"
        )
    infinite = np.isinf(true).any((1, 2))
    if infinite.any():
        raise InputError(
            f"landmarks: true face {int(infinite.argmax())} has an infinite coordinate; use NaN for missing"
        )
    missing = np.isnan(true).any(2)
    distance = np.linalg.norm(np.where(np.isinf(predicted), np.nan, predicted) - true, axis=2)
    return np.where(missing, np.nan, np.where(np.isnan(distance), np.inf, distance))


def contour_errors(predicted: FloatArray, true: FloatArray) -> tuple[Floats, Floats]:
    """Errors of contour landmarks, split into components along and across the true contour.

    The tangent at a landmark is the direction from the previous true landmark to the next one. At the ends of the
    contour, or where a neighbour is missing, the landmark itself takes the neighbour's place.

    Args:
        predicted: (N, C, 2) image px, landmarks of one open contour in order; NaN where nothing was predicted.
        true: (N, C, 2) image px; NaN where not annotated.

    Returns:
        Tangential and normal error, (N, C) px each; their squares sum to the squared distance. NaN where the true
        landmark is missing or the tangent is undefined, infinite where only the prediction is missing.

    Raises:
        InputError: See `landmark_errors`.

    Source: Deep convolutional coarse-to-fine cascade, section 4.3 and Fig. 6.

    >>> true = np.array([[[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]]])
    >>> [e.tolist() for e in contour_errors(true + [3.0, -4.0], true)]
    [[[3.0, 3.0, 3.0]], [[4.0, 4.0, 4.0]]]
    """
    distance = landmark_errors(predicted, true)
    true = np.asarray(true, np.float64)
    edge = np.full_like(true[:, :1], np.nan)
    before, after = np.concatenate([edge, true[:, :-1]], 1), np.concatenate([true[:, 1:], edge], 1)
    along = np.where(np.isnan(after), true, after) - np.where(np.isnan(before), true, before)
    length = np.linalg.norm(along, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        along = np.where(length[..., None] > 0, along / length[..., None], np.nan)
        offset = np.asarray(predicted, np.float64) - true
        tangent = np.abs((offset * along).sum(2))
        normal = np.abs(offset[..., 0] * along[..., 1] - offset[..., 1] * along[..., 0])
    undetected = np.isinf(distance)
    return np.where(undetected, np.inf, tangent), np.where(undetected, np.inf, normal)


def normalising_lengths(true: FloatArray, boxes: FloatArray | None, normalizer: Normalizer) -> Floats:
    """Normalising length of each face, by which its errors are divided.

    Args:
        true: (N, K, 2) image px.
        boxes: (N, 4) x0 y0 x1 y1 image px, with NaN rows for faces without a box, or None. Used by box normalisers.
        normalizer: Normaliser of the scheme.

    Returns:
        (N,) px; NaN if a landmark or box it needs is missing, or if the length would be 0.

    Raises:
        InputError: The normaliser needs boxes and none are given, or their number is wrong.
    """
    true = np.asarray(true, np.float64)
    needs_box = isinstance(normalizer, BoxSize | BoxDiagonal)
    if boxes is not None:
        boxes = np.asarray(boxes, np.float64)
        if boxes.shape != (len(true), 4):
            raise InputError(f"boxes: expected x0 y0 x1 y1 of {len(true)} faces, given an array of shape {boxes.shape}")
    lengths = np.full(len(true), np.nan)
    for i, landmarks in enumerate(true):
        box = None if boxes is None else boxes[i]
        if needs_box and box is not None and not (box_size(box) > 0).all():
            continue
        if np.isnan(landmarks).any(1).all():
            continue
        length = normalizer(landmarks, box)
        if math.isfinite(length) and length > 0:
            lengths[i] = length
    return lengths


def nme_per_face(errors: FloatArray, lengths: FloatArray) -> Floats:
    """Mean error of each face over its annotated landmarks, divided by its normalising length.

    Args:
        errors: (N, K) px, from `landmark_errors`.
        lengths: (N,) px, from `normalising_lengths`.

    Returns:
        (N,); NaN for a face that is left out (no landmark or no length), infinite for an undetected face.
    """
    return _mean(_normalised(errors, lengths), axis=1)


def nme_per_landmark(errors: FloatArray, lengths: FloatArray) -> Floats:
    """Mean error per landmark (K,) over the detected faces; NaN if no face has the landmark. Arguments as in `nme_per_face`."""
    return _mean(_detected(errors, lengths), axis=0)


def nme_per_component(
    errors: FloatArray, lengths: FloatArray, components: Mapping[str, tuple[int, ...]]
) -> dict[str, float]:
    """Mean error per component: over its landmarks, then over the detected faces; NaN if there are none.

    Args:
        errors: (N, K) px, from `landmark_errors`.
        lengths: (N,) px, from `normalising_lengths`.
        components: Components of the scheme, name -> indices.
    """
    normalised = _detected(errors, lengths)
    return {
        name: float(_mean(_mean(normalised[:, list(indices)], axis=1)[:, None], axis=0)[0])
        for name, indices in components.items()
    }


def auc(nme: FloatArray, threshold: float = THRESHOLD) -> float:
    """Area under the CED curve from 0 to the threshold, as a fraction of the threshold; 1 is perfect.

    Args:
        nme: (N,) NME of the faces; NaN values are left out.
        threshold: Upper end of the curve.

    Raises:
        InputError: No face is left, or the threshold is not positive.

    Source: Mean over the faces of max(0, 1 - e / t), the limit of the usual sum over steps.

    >>> auc(np.array([0.0, 0.04, 0.2, np.inf]), 0.08)
    0.375
    """
    scored = _scored(nme, threshold)
    return float(np.maximum(0.0, 1.0 - scored / threshold).mean())


def failure_rate(nme: FloatArray, threshold: float = THRESHOLD) -> float:
    """Fraction of faces with an NME above the threshold. Arguments as in `auc`.

    >>> failure_rate(np.array([0.0, 0.08, 0.2, np.inf]), 0.08)
    0.5
    """
    return float((_scored(nme, threshold) > threshold).mean())


def ced(nme: FloatArray, thresholds: FloatArray | None = None) -> tuple[Floats, Floats]:
    """Cumulative error distribution: the fraction of faces with an NME of at most x.

    Args:
        nme: (N,) NME of the faces; NaN values are left out, infinite ones are never reached.
        thresholds: (M,) values of x; None: 0 and every finite NME, i.e. the steps of the curve.

    Returns:
        x (M,) and y (M,).

    Raises:
        InputError: No face is left.

    >>> [a.tolist() for a in ced(np.array([0.25, 0.5, 0.5, np.inf]))]
    [[0.0, 0.25, 0.5], [0.0, 0.25, 0.75]]
    """
    scored = np.sort(_scored(nme))
    if thresholds is None:
        x = np.unique(np.concatenate([[0.0], scored[np.isfinite(scored)]]))
    else:
        x = np.asarray(thresholds, np.float64)
    return x, np.searchsorted(scored, x, side="right") / len(scored)


@dataclass(frozen=True, eq=False)
class Score:
    """Accuracy of predictions on a set of faces.

    Attributes:
        nme: Mean NME of the detected faces, as a fraction; infinite if no face was detected.
        auc: Area under the CED curve up to the threshold, over all scored faces, as a fraction.
        failure_rate: Fraction of scored faces with an NME above the threshold, undetected faces included.
        normalizer: Name of the normaliser.
        threshold: Threshold of `auc` and `failure_rate`.
        n_faces: Number of scored faces, detected or not.
        n_undetected: Number of scored faces with an annotated landmark that has no prediction.
        n_left_out: Number of faces that could not be scored: no annotated landmark, or no normalising length.
        n_landmarks: Number of landmarks in the scheme, K.
        n_missing: Number of unannotated landmarks in the scored faces, left out of every mean.
        per_face: (N,) NME of each face; NaN if left out, infinite if undetected.
        per_landmark: (K,) mean NME of each landmark over the detected faces.
        per_component: Mean NME of each component over the detected faces.
    """

    nme: float
    auc: float
    failure_rate: float
    normalizer: str
    threshold: float
    n_faces: int
    n_undetected: int
    n_left_out: int
    n_landmarks: int
    n_missing: int
    per_face: Floats
    per_landmark: Floats
    per_component: Mapping[str, float]

    @property
    def median(self) -> float:
        """Median NME of the detected faces, as a fraction; infinite if no face was detected."""
        found = self.per_face[np.isfinite(self.per_face)]
        return float(np.median(found)) if len(found) else math.inf

    @property
    def standard_error(self) -> float:
        """Standard error of `nme`: the deviation of the detected faces' NME over the root of their number; NaN for fewer than two."""
        found = self.per_face[np.isfinite(self.per_face)]
        return float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan

    def worst_faces(self, n: int) -> list[int]:
        """Indices of the n detected faces of the highest NME, worst first."""
        order = np.argsort(np.where(np.isfinite(self.per_face), -self.per_face, np.inf), kind="stable")
        return [int(i) for i in order[: min(n, int(np.isfinite(self.per_face).sum()))]]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for JSON; non-finite numbers become None."""
        return {f.name: json_value(getattr(self, f.name)) for f in fields(self)}

    def __str__(self) -> str:
        notes = [f"{self.n_faces} faces"]
        notes += [f"{n} {what}" for n, what in self._omissions() if n]
        return (
            f"NME {100 * self.nme:.2f} % ({self.normalizer}), AUC@{self.threshold:g} {100 * self.auc:.2f} %, "
            f"failure rate {100 * self.failure_rate:.2f} %; {', '.join(notes)}"
        )

    def _omissions(self) -> tuple[tuple[int, str], ...]:
        return (
            (self.n_undetected, "undetected"),
            (self.n_left_out, "left out"),
            (self.n_missing, "landmarks missing"),
        )


def score(
    predicted: FloatArray,
    true: FloatArray,
    scheme: LandmarkScheme,
    *,
    boxes: FloatArray | None = None,
    normalizer: str | None = None,
    threshold: float = THRESHOLD,
) -> Score:
    """Score predicted landmarks against the true ones.

    Args:
        predicted: (N, K, 2) image px; NaN where nothing was predicted.
        true: (N, K, 2) image px; NaN where not annotated.
        scheme: Scheme of both.
        boxes: (N, 4) x0 y0 x1 y1 image px, for the normalisers "box-size" and "box-diagonal".
        normalizer: Name of a normaliser of the scheme; None: the default one.
        threshold: Threshold of the AUC and the failure rate, in units of NME.

    Raises:
        InputError: The shapes do not match the scheme or each other, the normaliser is unknown, boxes are needed but
            not given, or no face can be scored.
    """
    name = scheme.default_normalizer if normalizer is None else normalizer
    rule = scheme.get_normalizer(name)
    errors = landmark_errors(predicted, true)
    if errors.shape[1] != scheme.n_landmarks:
        raise InputError(f"landmarks: scheme {scheme.name} has {scheme.n_landmarks} per face, given {errors.shape[1]}")
    lengths = normalising_lengths(true, boxes, rule)
    per_face = nme_per_face(errors, lengths)
    scored = ~np.isnan(per_face)
    if not scored.any():
        raise InputError(
            f"none of {len(per_face)} faces can be scored with the normalizer {name!r}: landmarks or boxes "
            f"that it needs are missing; choose one of {', '.join(scheme.normalizer_names)}"
        )
    detected = np.isfinite(per_face)
    return Score(
        nme=float(per_face[detected].mean()) if detected.any() else math.inf,
        auc=auc(per_face, threshold),
        failure_rate=failure_rate(per_face, threshold),
        normalizer=name,
        threshold=threshold,
        n_faces=int(scored.sum()),
        n_undetected=int((scored & ~detected).sum()),
        n_left_out=int((~scored).sum()),
        n_landmarks=scheme.n_landmarks,
        n_missing=int(np.isnan(errors[scored]).sum()),
        per_face=per_face,
        per_landmark=nme_per_landmark(errors, lengths),
        per_component=nme_per_component(errors, lengths, scheme.components),
    )


def spearman(a: FloatArray, b: FloatArray) -> float:
    """Spearman rank correlation: Pearson correlation of the ranks, where ties share their mean rank.

    Args:
        a: (N,) without NaN.
        b: (N,) without NaN.

    Returns:
        Correlation in [-1, 1]; NaN if `a` or `b` is constant.

    Raises:
        InputError: The shapes differ or are not (N,), there are fewer than two values, or a value is NaN.

    >>> round(spearman(np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 40.0, 30.0])), 6)
    0.8
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise InputError(
            f"rank correlation: expected two lists of the same length, at least 2, given {a.shape} and {b.shape}"
        )
    if np.isnan(a).any() or np.isnan(b).any():
        raise InputError("rank correlation: expected values without NaN; leave those pairs out")
    x, y = _centred_ranks(a), _centred_ranks(b)
    spread = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / spread if spread > 0 else math.nan


def _centred_ranks(values: FloatArray) -> Floats:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(ranks[group] - (len(values) + 1) / 2, np.float64)


def _normalised(errors: FloatArray, lengths: FloatArray) -> Floats:
    return np.asarray(errors, np.float64) / np.asarray(lengths, np.float64)[:, None]


def _detected(errors: FloatArray, lengths: FloatArray) -> Floats:
    """Normalised errors (M, K) of the faces with a finite NME, over which means are taken."""
    return _normalised(errors, lengths)[np.isfinite(nme_per_face(errors, lengths))]


def _mean(values: Floats, axis: int) -> Floats:
    """Mean of the values that are not NaN; NaN if there are none."""
    present = ~np.isnan(values)
    n = present.sum(axis)
    total = np.where(present, values, 0.0).sum(axis)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _scored(nme: FloatArray, threshold: float = THRESHOLD) -> Floats:
    if not 0 < threshold < math.inf:
        raise InputError(f"threshold: expected a positive fraction, such as 0.08 for 8 %, given {threshold}")
    scored = np.asarray(nme, np.float64).ravel()
    scored = scored[~np.isnan(scored)]
    if len(scored) == 0:
        raise InputError("no face to score: the list is empty, or every face was left out")
    return scored
