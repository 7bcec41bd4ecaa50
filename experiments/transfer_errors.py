"""Shared by the transfer experiments: a row of errors by part of the face, and its cells in a table."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from measurement import percent

from fewmark.data.pairs import FacePairs
from fewmark.data.relabelling import score_landmarks
from fewmark.landmarks.scheme import LandmarkScheme

COLUMNS = {
    "all": "NME",
    "contour": "contour",
    "tangent": "along",
    "normal": "across",
    "inner": "inner",
    "expected": "expected",
}
"""Field of a row -> its column's head."""

Row = dict[str, Any]


def measure(target: LandmarkScheme, points: np.ndarray, test: FacePairs, transfer: Any = None) -> Row:
    """Errors in fractions of the target scheme's normaliser; None where the scheme has no contour or nothing is expected.

    Args:
        target: Scheme of the landmarks.
        points: (N, Kt, 2) image px of the test faces.
        test: The test faces and their true landmarks.
        transfer: The transfer that made the landmarks; its expected error and ridge are recorded if it has any.
    """
    found = score_landmarks(target, points, test)
    numbers = {**found.by_part, "expected": getattr(transfer, "expected_error", math.nan)}
    return {
        **{k: v if math.isfinite(v) else None for k, v in numbers.items()},
        "normalizer": found.score.normalizer,
        "n_faces": found.score.n_faces,
        "ridge": getattr(transfer, "ridge", None),
    }


def cells(row: Row) -> list[str]:
    """Cells of a Markdown row, errors in %."""
    return [percent(row[c], unit="") for c in COLUMNS]
