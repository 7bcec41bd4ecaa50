"""How far a landmark is expected to be from the truth, from the score that the networks give it.

A score ranks landmarks; a person wants pixels. On held-out labelled faces the error is averaged over landmarks of
similar scores (a monotone curve, by pooling adjacent violators), and each landmark has a factor of its own: a point of the
contour is worse than an eye's corner at the same score.
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
"""Held-out faces below which nothing is said: the curve would be these faces' own."""
MIN_SCORE = 0.65
"""Of the lowest mean score of a held-out face: what the face detector took for a face is none, or one whose landmarks cannot be seen, where
it has less. Of 1870 labelled faces it leaves out none whose landmarks are right, and of 66 other finds half (experiments/unlikely_faces.py)."""
N_KNOTS = 24
"""Of the curve; each is the mean over as many landmarks."""
ROUNDS = 4
"""In which the curve and the landmarks' factors are fitted in turn."""
PRIOR_FACES = 10
"""As many faces at a factor of 1 are added to each landmark's, against noise."""


@dataclass(frozen=True, eq=False)
class ErrorCalibration:
    """Scores to expected errors.

    Attributes:
        scores: (n,) rising, the curve's knots.
        errors: (n,) not rising: the mean distance at each, as a fraction of the face's size.
        factors: (K,) of each landmark, 1 on average.
        n_faces: that it was fitted on.
        least_score: the lowest mean score of one of these faces; None in files of before 0.2.

    Raises:
        InputError: knots that do not rise, or numbers that are negative or not finite.
    """

    scores: Floats
    errors: Floats
    factors: Floats
    n_faces: int
    least_score: float | None = None

    def __post_init__(self) -> None:
        good = len(self.scores) == len(self.errors) > 0 and bool((np.diff(self.scores) > 0).all())
        numbers = (self.scores, self.errors, self.factors, 0.0 if self.least_score is None else self.least_score)
        finite = all(bool(np.isfinite(a).all()) for a in numbers)
        if not (good and finite and (self.errors >= 0).all() and (self.factors > 0).all()):
            raise InputError(
                "calibration: expected rising scores with as many errors from 0, and factors above 0, all finite, given "
                f"{len(self.scores)} scores, {len(self.errors)} errors and {len(self.factors)} factors"
            )

    @classmethod
    def of_faces(
        cls, found: NDArray[np.float32], scores: NDArray[np.float32], truth: NDArray[np.float32]
    ) -> ErrorCalibration | None:
        """The curve and the factors of what a detector said of held-out faces; see `fit`.

        Args:
            found: (N, K, 2) image px, NaN where it found nothing.
            scores: (N, K) of these.
            truth: (N, K, 2) image px, NaN where not annotated.
        """
        return cls.fit(scores, relative_errors(found, truth))

    @classmethod
    def fit(cls, scores: ArrayLike, errors: ArrayLike) -> ErrorCalibration | None:
        """The curve and the factors of held-out faces.

        Args:
            scores: (N, K) of the landmarks, higher = surer; NaN = none.
            errors: (N, K) distance to the truth as a fraction of the face's size; NaN where a landmark is not annotated.

        Returns:
            None where fewer than 20 faces have a score, or the score does not vary.
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
        for _ in range(ROUNDS):
            knots, values = _falling_curve(x, y / factors[rows])
            expected = np.interp(x, knots, values)
            above = np.bincount(rows, y, minlength=len(factors))
            below = np.bincount(rows, expected, minlength=len(factors))
            prior = PRIOR_FACES * float(expected.mean())
            factors = (above + prior) / (below + prior)
            factors = factors / np.average(factors, weights=np.bincount(rows, minlength=len(factors)))
        means = np.nanmean(np.where(known, s, np.nan)[known.any(1)], 1)
        return cls(knots, values, factors, n_faces, float(means.min()))

    def expected_errors(self, scores: ArrayLike, face_sizes: ArrayLike) -> NDArray[np.float32]:
        """(..., K) px.

        Args:
            scores: (..., K); NaN gives NaN.
            face_sizes: (...,) the longer side of the landmarks' tight box, px.
        """
        s = np.asarray(scores, np.float64)
        if s.shape[-1:] != self.factors.shape:
            raise InputError(f"calibration: expected scores (..., {len(self.factors)}), given {s.shape}")
        found = np.interp(s, self.scores, self.errors) * self.factors
        found = np.where(np.isfinite(s), found, np.nan)
        return np.asarray(found * np.asarray(face_sizes, np.float64)[..., None], np.float32)

    def is_face(self, scores: NDArray[np.float32], least: float = MIN_SCORE) -> bool:
        """Whether landmarks of these scores (K,) can be a face's; True where it is not known.

        Args:
            least: of the lowest mean score of a held-out face.
        """
        return self.least_score is None or not float(scores.mean()) < least * self.least_score  # NaN says nothing

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "scores": [float(v) for v in self.scores],
            "errors": [float(v) for v in self.errors],
            "factors": [float(v) for v in self.factors],
            "n_faces": self.n_faces,
            "least_score": self.least_score,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], n_landmarks: int) -> ErrorCalibration:
        """What `to_dict` gave.

        Raises:
            InputError: a field is missing or wrong, or it is of another number of landmarks.
        """
        try:
            scores, errors, factors = (np.asarray(data[name], np.float64) for name in ("scores", "errors", "factors"))
            n_faces = int(data["n_faces"])
            least_score = None if data.get("least_score") is None else float(data["least_score"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"calibration: a field is missing or wrong ({error!r})") from error
        if factors.shape != (n_landmarks,):
            raise InputError(f"calibration: factors: expected {n_landmarks}, given {factors.size}")
        return cls(scores, errors, factors, n_faces, least_score)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Expected against true errors, in bins of as many landmarks each.

    Attributes:
        expected: (n,) mean expected error of each bin, as a fraction of the face's size, rising.
        true: (n,) mean true error of the same landmarks.
        ratio: all expected errors over all true ones; 1 = right on average.
    """

    expected: Floats
    true: Floats
    ratio: float


def cross_validated(scores: ArrayLike, errors: ArrayLike, n_folds: int = 5) -> Floats:
    """(N, K) errors expected of each face by the curve of the others, as fractions of the face's size; NaN where nothing is said.

    Args:
        scores: see `ErrorCalibration.fit`.
        errors: see `ErrorCalibration.fit`.
        n_folds: every n-th face is left out at a time.
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
    """(N, K) distance as a fraction of the face's size, the longer side of the found landmarks' tight box.

    Args:
        found: (N, K, 2) image px, NaN where nothing was found.
        truth: (N, K, 2) image px, NaN where not annotated.
    """
    apart = np.linalg.norm(np.asarray(found - truth, np.float64), axis=-1)
    return np.asarray(apart / face_sizes(found)[:, None], np.float64)


def reliability(expected: ArrayLike, true: ArrayLike, n_bins: int = 10) -> Reliability:
    """How well expected errors foretell the true ones.

    Args:
        expected: any shape, NaN = none.
        true: the same shape, NaN where not annotated.

    Raises:
        InputError: another shape, or nothing that is in both.
    """
    a, b = np.asarray(expected, np.float64), np.asarray(true, np.float64)
    known = np.isfinite(a) & np.isfinite(b) if a.shape == b.shape else np.zeros(0, bool)
    if not known.any():
        raise InputError(f"reliability: expected arrays of one shape that share numbers, given {a.shape} and {b.shape}")
    a, b = a[known], b[known]
    bins = [part for part in np.array_split(np.argsort(a, kind="stable"), n_bins) if len(part)]
    means = np.array([[a[part].mean(), b[part].mean()] for part in bins])
    return Reliability(means[:, 0], means[:, 1], float(a.sum() / b.sum()))


def _falling_curve(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Knots that rise, and means of y that do not: equal numbers of points a knot, then adjacent violators pooled."""
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
