"""A face and its landmarks, as a detector returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, wrap_angle
from fewmark.core.json import json_value
from fewmark.landmarks.scheme import LandmarkScheme


@dataclass(frozen=True, eq=False)
class Face:
    """A face and its landmarks.

    Attributes:
        box: (4,) x0 y0 x1 y1 image px: the given box, or the face detector's, adapted to the model.
        landmarks: (K, 2) image px.
        scores: (K,) confidence of each landmark, for a cascade its coarse stage's; NaN where there is none.
        box_score: The face detector's score, 0 to 1; None for a given box.
        scheme: Annotation scheme of the landmarks.
        angle: In-plane rotation that the last pass undid, degrees counter-clockwise; 0 for a crop that was not rotated.
        expected_errors: (K,) image px: mean distance to the truth of landmarks with such scores on held-out faces; None from a model
            without calibration, and after a transfer to another scheme.
        quality: Quality of the landmarks as a whole, predicted by the model's teacher (TS3, Eq. 3); higher is better. It ranks faces
            of one model and is no probability: 0 is the mean of the teacher's training faces, 1 is one standard deviation of their
            log error better. None from a model without a teacher, and from a cascade.
    """

    box: Box
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    box_score: float | None
    scheme: LandmarkScheme
    angle: float = 0.0
    expected_errors: NDArray[np.float32] | None = None
    quality: float | None = None

    @property
    def by_name(self) -> Mapping[str, NDArray[np.float32]]:
        """Landmark name -> (2,) image px."""
        return dict(zip(self.scheme.landmarks, self.landmarks, strict=True))

    def to_supervision(self) -> Any:
        """Convert this face to `supervision.KeyPoints`; see `to_supervision`."""
        return to_supervision([self])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; missing values are null."""
        return {
            "scheme": self.scheme.name,
            "box_xyxy": [round(float(v), 2) for v in self.box],
            "angle": wrap_angle(round(self.angle, 2)),
            "box_score": None if self.box_score is None else round(self.box_score, 3),
            "landmarks": [[round(float(v), 3) for v in p] if np.isfinite(p).all() else None for p in self.landmarks],
            "scores": _numbers(self.scores, 4),
            "expected_errors": None if self.expected_errors is None else _numbers(self.expected_errors, 3),
            "quality": None if self.quality is None else round(self.quality, 3),
            "occluded": None,  # a field of the format that no model fills yet
        }


def _numbers(values: NDArray[np.float32], digits: int) -> list[float | None]:
    return [json_value(round(float(v), digits)) for v in values]


def to_supervision(faces: Sequence[Face]) -> Any:
    """Convert the faces of one image to `supervision.KeyPoints`, which supervision's annotators draw.

    Args:
        faces: Faces of one scheme; may be empty.

    Returns:
        `xy` (N, K, 2) image px, (0, 0) for a missing landmark, as is supervision's convention; the landmarks' confidence (N, K):
        the scores, 0 where missing; `class_id` (N,) zeros; `data["class_name"]` (N,) the scheme's name. If the installed version has
        `detection_confidence` (N,): the boxes' scores, provided every face has one.

    Raises:
        InputError: supervision is not installed, or the faces are of several schemes.
    """
    try:
        import supervision
    except ImportError as error:
        raise InputError("to_supervision needs supervision: pip install 'fewmark[supervision]'") from error
    if not faces:
        return supervision.KeyPoints.empty()
    names = sorted({f.scheme.name for f in faces})
    if len(names) > 1:
        raise InputError(f"to_supervision: expected faces of one scheme, given {', '.join(names)}")
    # supervision renamed its argument `confidence`
    fields = getattr(supervision.KeyPoints, "__dataclass_fields__", {})
    confidence = "keypoint_confidence" if "keypoint_confidence" in fields else "confidence"
    more: dict[str, Any] = {}
    box_scores = [f.box_score for f in faces if f.box_score is not None]
    if "detection_confidence" in fields and len(box_scores) == len(faces):
        more["detection_confidence"] = np.array(box_scores, np.float32)
    return supervision.KeyPoints(
        xy=np.nan_to_num(np.stack([f.landmarks for f in faces]).astype(np.float32), nan=0.0),
        class_id=np.zeros(len(faces), int),
        data={"class_name": np.array([names[0]] * len(faces))},
        **{confidence: np.nan_to_num(np.stack([f.scores for f in faces]).astype(np.float32), nan=0.0)},
        **more,
    )
