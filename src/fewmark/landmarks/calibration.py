"""Calibration of landmark scores: the expected error, in pixels, of a landmark with a given score.

On held-out labelled faces, isotonic regression (pooling adjacent violators) gives the mean error as a monotone function of the
score, and each landmark has its own factor: at the same score a contour point is less accurate than an eye corner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats, face_sizes

MIN_FACES = 20
"""Fewest held-out faces for a fit; on fewer the curve would overfit."""
MIN_SCORE = 0.65
"""A detection counts as a face if its mean score is at least this fraction of the lowest mean score of a held-out face. Among 1870
labelled faces no correctly located one is rejected, and half of 66 false detections are (experiments/unlikely_faces.py)."""
N_KNOTS = 24
"""Knots of the curve; each is the mean over equally many landmarks."""
N_ITERATIONS = 4
"""Alternations of fitting the curve and the factors."""
PRIOR_FACES = 10
"""Pseudo-count of faces with factor 1, which regularises each landmark's factor."""


@dataclass(frozen=True, eq=False)
class ErrorCalibration:
    """Expected errors as a function of scores.

    Attributes:
        scores: (n,) increasing scores, the knots of the curve.
        errors: (n,) non-increasing mean errors at the knots, fractions of the face size.
        factors: (K,) factor of each landmark, 1 on average.
        n_faces: number of faces in the fit.
        min_score: lowest mean score of these faces; None in files written before 0.2.

    Raises:
        InputError: scores do not increase, or numbers are negative or not finite.
    """

    scores: Floats
    errors: Floats
    factors: Floats
    n_faces: int
    min_score: float | None = None

    def __post_init__(self) -> None:
        good = len(self.scores) == len(self.errors) > 0 and bool((np.diff(self.scores) > 0).all())
        numbers = (self.scores, self.errors, self.factors, 0.0 if self.min_score is None else self.min_score)
        finite = all(bool(np.isfinite(a).all()) for a in numbers)
        if not (good and finite and (self.errors >= 0).all() and (self.factors > 0).all()):
            raise InputError(
                "calibration: expected increasing scores, as many errors of at least 0, and factors above 0, all finite, given "
                f"{len(self.scores)} scores, {len(self.errors)} errors and {len(self.factors)} factors"
            )

    @classmethod
    def fit_predictions(
        cls, found: NDArray[np.float32], scores: NDArray[np.float32], truth: NDArray[np.float32]
    ) -> ErrorCalibration | None:
        """Fit to a detector's predictions on held-out faces; see `fit`.

        Args:
            found: (N, K, 2) predictions, image px, NaN where missing.
            scores: (N, K) their scores.
            truth: (N, K, 2) image px, NaN where not annotated.
        """
        return cls.fit(scores, relative_errors(found, truth))

    @classmethod
    def fit(cls, scores: ArrayLike, errors: ArrayLike) -> ErrorCalibration | None:
        """Fit the curve and the factors to held-out faces.

        Args:
            scores: (N, K) landmark scores, higher = more confident; NaN = none.
            errors: (N, K) distances to the truth as fractions of the face size; NaN where not annotated.

        Returns:
            None if fewer than `MIN_FACES` faces have scores, or the scores do not vary.
        """
        s, e = np.asarray(scores, np.float64), np.asarray(errors, np.float64)
        if s.shape != e.shape or s.ndim != 2:
            raise InputError(
                f"calibration: expected scores and errors of one shape (N, K), given {s.shape} and {e.shape}"
            )
        known = np.isfinite(s) & np.isfinite(e)
        n_faces = int(known.any(1).sum())
        if n_faces < MIN_FACES or np.ptp(s[known]) == 0:
            return None
        rows = np.nonzero(known)[1]
        x, y = s[known], e[known]
        factors = np.ones(s.shape[1])
        knots = values = np.zeros(0)
        for _ in range(N_ITERATIONS):
            knots, values = _monotone_curve(x, y / factors[rows])
            expected = np.interp(x, knots, values)
            above = np.bincount(rows, y, minlength=len(factors))
            below = np.bincount(rows, expected, minlength=len(factors))
            prior = PRIOR_FACES * float(expected.mean())
            factors = (above + prior) / (below + prior)
            factors = factors / np.average(factors, weights=np.bincount(rows, minlength=len(factors)))
        means = np.nanmean(np.where(known, s, np.nan)[known.any(1)], 1)
        return cls(knots, values, factors, n_faces, float(means.min()))

    def expected_errors(self, scores: ArrayLike, face_sizes: ArrayLike) -> NDArray[np.float32]:
        """Expected errors of landmarks: (..., K) px.

        Args:
            scores: (..., K); NaN gives NaN.
            face_sizes: (...,) longer sides of the landmarks' tight boxes, px.
        """
        s = np.asarray(scores, np.float64)
        if s.shape[-1:] != self.factors.shape:
            raise InputError(f"calibration: expected scores (..., {len(self.factors)}), given {s.shape}")
        found = np.interp(s, self.scores, self.errors) * self.factors
        found = np.where(np.isfinite(s), found, np.nan)
        return np.asarray(found * np.asarray(face_sizes, np.float64)[..., None], np.float32)

    def is_face(self, scores: NDArray[np.float32], min_ratio: float = MIN_SCORE) -> bool:
        """Whether landmarks with these scores (K,) belong to a face; True if the calibration has no minimum.

        Args:
            min_ratio: smallest mean score, as a fraction of `min_score`.
        """
        return (
            self.min_score is None or not float(scores.mean()) < min_ratio * self.min_score
        )  # a NaN score does not reject

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "scores": [float(v) for v in self.scores],
            "errors": [float(v) for v in self.errors],
            "factors": [float(v) for v in self.factors],
            "n_faces": self.n_faces,
            "least_score": self.min_score,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], n_landmarks: int) -> ErrorCalibration:
        """Restore from `to_dict`.

        Raises:
            InputError: a field is missing or wrong, or the number of landmarks differs.
        """
        try:
            scores, errors, factors = (np.asarray(data[name], np.float64) for name in ("scores", "errors", "factors"))
            n_faces = int(data["n_faces"])
            min_score = None if data.get("least_score") is None else float(data["least_score"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"calibration: a field is missing or wrong ({error!r})") from error
        if factors.shape != (n_landmarks,):
            raise InputError(f"calibration: factors: expected {n_landmarks}, given {factors.size}")
        return cls(scores, errors, factors, n_faces, min_score)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Expected against true errors, in bins of equally many landmarks.

    Attributes:
        expected: (n,) mean expected error of each bin, increasing; fractions of the face size.
        true: (n,) mean true error of the same landmarks.
        ratio: sum of expected errors over sum of true errors; 1 = unbiased.
    """

    expected: Floats
    true: Floats
    ratio: float


def cross_validated_errors(scores: ArrayLike, errors: ArrayLike, n_folds: int = 5) -> Floats:
    """Expected errors of each face by a calibration fitted on the other folds: (N, K) fractions of the face size, NaN where unknown.

    Args:
        scores: see `ErrorCalibration.fit`.
        errors: see `ErrorCalibration.fit`.
        n_folds: number of folds; fold i holds every n-th face from i.
    """
    s, e = np.asarray(scores, np.float64), np.asarray(errors, np.float64)
    expected = np.full(s.shape, np.nan)
    for fold in range(n_folds):
        out = np.arange(len(s)) % n_folds == fold
        calibration = ErrorCalibration.fit(s[~out], e[~out])
        if calibration is not None:
            expected[out] = calibration.expected_errors(s[out], np.ones(int(out.sum())))
    return expected


def relative_errors(found: NDArray[np.float32], truth: NDArray[np.float32]) -> Floats:
    """Distances (N, K) as fractions of the face size, the longer side of the predicted landmarks' tight box.

    Args:
        found: (N, K, 2) predictions, image px, NaN where missing.
        truth: (N, K, 2) image px, NaN where not annotated.
    """
    distances = np.linalg.norm(np.asarray(found - truth, np.float64), axis=-1)
    return np.asarray(distances / face_sizes(found)[:, None], np.float64)


def reliability(expected: ArrayLike, true: ArrayLike, n_bins: int = 10) -> Reliability:
    """Compare expected with true errors.

    Args:
        expected: any shape, NaN = none.
        true: same shape, NaN where not annotated.

    Raises:
        InputError: the shapes differ, or no element is present in both.
    """
    a, b = np.asarray(expected, np.float64), np.asarray(true, np.float64)
    known = np.isfinite(a) & np.isfinite(b) if a.shape == b.shape else np.zeros(0, bool)
    if not known.any():
        raise InputError(
            f"reliability: expected arrays of one shape with elements present in both, given {a.shape} and {b.shape}"
        )
    a, b = a[known], b[known]
    bins = [part for part in np.array_split(np.argsort(a, kind="stable"), n_bins) if len(part)]
    means = np.array([[a[part].mean(), b[part].mean()] for part in bins])
    return Reliability(means[:, 0], means[:, 1], float(a.sum() / b.sum()))


def _monotone_curve(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Isotonic regression: increasing knots and non-increasing means of y, over bins of equal size."""
    parts = [part for part in np.array_split(np.argsort(x, kind="stable"), N_KNOTS) if len(part)]
    pooled: list[tuple[float, float, int]] = []  # mean of x, of y, number of points
    for part in parts:
        block = (float(x[part].mean()), float(y[part].mean()), len(part))
        while pooled and (pooled[-1][1] <= block[1] or pooled[-1][0] >= block[0]):
            last = pooled.pop()
            n = last[2] + block[2]
            block = ((last[0] * last[2] + block[0] * block[2]) / n, (last[1] * last[2] + block[1] * block[2]) / n, n)
        pooled.append(block)
    means = np.array(pooled)
    return means[:, 0], means[:, 1]
