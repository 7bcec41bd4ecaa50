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
        box: (4,) x0 y0 x1 y1 image px: the given one, or the face detector's adapted to the model.
        landmarks: (K, 2) image px.
        scores: (K,) how sure the networks are of each, of a cascade its coarse stage; NaN where it does not say.
        box_score: the face detector's, 0 to 1; None for a given box.
        scheme: what the landmarks mean.
        angle: by which the face was turned upright for its last look, degrees counter-clockwise; 0 where it was not.
        expected_errors: (K,) mean distance to the truth that landmarks of such scores had on held-out faces, image px; None
            from a model that was not calibrated, and with a transfer to another scheme.
        quality: how good the model's own teacher takes the landmarks to be (TS3, Eq. 3), for the face as a whole: higher is
            better. A rank among faces of one model, no probability: 0 is as good as its teacher's training faces were on average,
            1 one standard deviation of their log error better. None from a model without a teacher, and from a cascade.
        occluded: (K,) which landmarks are hidden by something; None where the model does not say, as none does so far.
    """

    box: Box
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    box_score: float | None
    scheme: LandmarkScheme
    angle: float = 0.0
    expected_errors: NDArray[np.float32] | None = None
    quality: float | None = None
    occluded: NDArray[np.bool_] | None = None

    @property
    def by_name(self) -> Mapping[str, NDArray[np.float32]]:
        """Landmark name -> (2,) image px."""
        return dict(zip(self.scheme.landmarks, self.landmarks, strict=True))

    def to_supervision(self) -> Any:
        """This face alone as `supervision.KeyPoints`; see `to_supervision`."""
        return to_supervision([self])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what is missing is null."""
        return {
            "scheme": self.scheme.name,
            "box_xyxy": [round(float(v), 2) for v in self.box],
            "angle": wrap_angle(round(self.angle, 2)),
            "box_score": None if self.box_score is None else round(self.box_score, 3),
            "landmarks": [[round(float(v), 3) for v in p] if np.isfinite(p).all() else None for p in self.landmarks],
            "scores": _numbers(self.scores, 4),
            "expected_errors": None if self.expected_errors is None else _numbers(self.expected_errors, 3),
            "quality": None if self.quality is None else round(self.quality, 3),
            "occluded": None if self.occluded is None else [bool(v) for v in self.occluded],
        }


def _numbers(values: NDArray[np.float32], digits: int) -> list[float | None]:
    return [json_value(round(float(v), digits)) for v in values]


def to_supervision(faces: Sequence[Face]) -> Any:
    """The faces of one image as `supervision.KeyPoints`, which its annotators draw.

    Args:
        faces: of one scheme; may be empty.

    Returns:
        `xy` (N, K, 2) image px, (0, 0) where a landmark is missing, as supervision has it; the landmarks' confidence (N, K):
        the scores, 0 where they are missing or unknown; `class_id` (N,) zeros; `data["class_name"]` (N,) the scheme's name.
        Where this supervision has a `detection_confidence` (N,) too: the boxes' scores, if every face has one.

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
