"""From face boxes to landmarks: crops, passes and batches, whatever runs the networks. Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import (
    Box,
    FloatArray,
    Image,
    Similarity,
    box_centre,
    box_of_points,
    box_size,
    fit_similarity,
    wrap_angle,
)
from fewmark.data.crops import cut_from_image
from fewmark.inference.checkpoint.model import Checkpoint

MAX_BOX_CHANGE = 0.08
"""Skip a refinement pass if the new box differs from the box of the last crop by less than this (`box_change`): networks are trained
on boxes that are this far off."""
MIN_ROTATION = 15.0
"""Degrees. Below it a face counts as upright, and a refinement pass with the same crop is skipped."""
LOW_CONFIDENCE = 0.85
"""Fraction of the lowest mean score of a held-out face. A face that scores less in its first or last pass is tried in other
rotations."""
MIN_GAIN = 1.15
"""Factor by which another rotation has to raise the mean score to be taken."""
MAX_TILT = 60.0
"""Degrees by which a face may be rotated from the direction in which a face detector found it."""
BOX_SCALE_RANGE = (0.4, 2.5)
"""Range of the new box's side over the old one's; outside it the old box is kept."""
_BATCH = 32  # crops
_QUARTER_TURNS = np.array([90.0, 180.0, -90.0])


@dataclass(frozen=True, eq=False)
class CropPrediction:
    """Output of the networks for B crops.

    Attributes:
        landmarks: (B, K, 2) crop px.
        scores: (B, K) confidence.
        quality: (B,) quality that the teacher predicts (TS3, Eq. 3), higher is better; None from a model without a teacher.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    quality: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Prediction:
    """Landmarks of N faces.

    Attributes:
        landmarks: (N, K, 2) image px.
        scores: (N, K) confidence.
        angles: (N,) degrees, see `Face`.
        quality: (N,) see `CropPrediction`; NaN without a teacher.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    angles: NDArray[np.float64]
    quality: NDArray[np.float32]

    @classmethod
    def empty(cls, angles: Sequence[float] | NDArray[np.float64], k: int) -> Prediction:
        """NaN for as many faces of K landmarks as there are angles."""
        n = len(angles)
        return cls(
            np.full((n, k, 2), np.nan, np.float32),
            np.full((n, k), np.nan, np.float32),
            np.array(angles, np.float64),
            np.full(n, np.nan, np.float32),
        )

    def quality_of(self, face: int) -> float | None:
        """The predicted quality of a face, or None."""
        quality = float(self.quality[face])
        return quality if math.isfinite(quality) else None

    def copy(self) -> Prediction:
        return Prediction(self.landmarks.copy(), self.scores.copy(), self.angles.copy(), self.quality.copy())

    def replace_rows(self, rows: Sequence[int], other: Prediction) -> None:
        """Overwrite the faces `rows` with all faces of another prediction."""
        self.landmarks[rows], self.scores[rows] = other.landmarks, other.scores
        self.angles[rows], self.quality[rows] = other.angles, other.quality

    def row(self, face: int) -> Prediction:
        """One face as a prediction of its own."""
        rows = slice(face, face + 1)
        return Prediction(self.landmarks[rows], self.scores[rows], self.angles[rows], self.quality[rows])


class LandmarkPredictor(ABC):
    """Predicts the landmarks of faces whose boxes are known.

    Args:
        checkpoint: Its crop rule, scheme and calibration; its networks are the subclass's business.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @abstractmethod
    def predict_crops(self, crops: NDArray[np.uint8], *, flip: bool) -> CropPrediction:
        """Run the networks on B crops.

        Args:
            crops: (B, H, W, 3) RGB, as the crop rule cuts them.
            flip: Average with the prediction from the flipped crops, if the scheme has a mirror.
        """

    def predict(
        self,
        images: Sequence[Image],
        boxes_xyxy: Sequence[Box],
        n_passes: int | Sequence[int],
        *,
        flip: bool | None = None,
        angles: Sequence[float] | None = None,
        directed: Sequence[bool] | None = None,
    ) -> Prediction:
        """Predict the landmarks of N faces.

        Args:
            images: One (H, W, 3) RGB image per face.
            boxes_xyxy: One (4,) box per face, image px.
            n_passes: Most passes, for all faces or per face. Each pass after the first crops around the landmarks of the one before,
                and is skipped where it would see nearly the same crop (`MAX_BOX_CHANGE`); a cascade never skips.
            flip: Average with the prediction from the flipped crop; None: as the model asks.
            angles: In-plane rotation of each face, degrees counter-clockwise; `boxes_xyxy` are then the boxes of the faces rotated
                upright, as `next_box` returns them. None: 0.
            directed: Faces known to be rotated by `angles` up to `MAX_TILT`; the others are tried in four directions where their
                scores are low. None: none.
        """
        flip = self.checkpoint.flip if flip is None else flip
        passes = [n_passes] * len(images) if isinstance(n_passes, int) else n_passes
        start = np.zeros(len(images)) if angles is None else angles
        first, last = self._predict_passes(images, boxes_xyxy, passes, start, flip)
        for i, n in enumerate(passes):
            uncertain = n > 1 and (self._is_uncertain(first, i) or self._is_uncertain(last, i))
            if uncertain and self.checkpoint.cascade is None:  # a cascade finds the rotation by itself
                rotations = [self._rotation(first, i)]
                if directed is None or not directed[i]:
                    rotations += (start[i] + _QUARTER_TURNS).tolist()
                elif abs(wrap_angle(rotations[0] - start[i])) > MAX_TILT:
                    continue
                rotated = self._predict_rotations(images[i], boxes_xyxy[i], n, rotations, flip)
                best = int(rotated.scores.mean(1).argmax())
                if rotated.scores[best].mean() > MIN_GAIN * last.scores[i].mean():
                    last.replace_rows([i], rotated.row(best))
        return last

    def looks_rotated(
        self, image: Image, box_xyxy: Box, scores: NDArray[np.float32], n_passes: int, *, flip: bool | None = None
    ) -> bool:
        """Whether a quarter turn or a half turn of an upright face with doubtful scores gives clearly better ones, and those a face's.

        Args:
            image: (H, W, 3) RGB.
            box_xyxy: (4,) image px.
            scores: (K,) of the upright face.
            n_passes: See `predict`.
            flip: See `predict`.
        """
        if self.checkpoint.cascade is not None:
            return False
        flip = self.checkpoint.flip if flip is None else flip
        rotated = self._predict_rotations(image, box_xyxy, n_passes, _QUARTER_TURNS.tolist(), flip)
        best = rotated.scores[int(rotated.scores.mean(1).argmax())]
        calibration = self.checkpoint.calibration
        return bool(best.mean() > MIN_GAIN * scores.mean()) and (calibration is None or calibration.is_face(best))

    def _predict_rotations(
        self, image: Image, box_xyxy: Box, n_passes: int, rotations: Sequence[float], flip: bool
    ) -> Prediction:
        """The predictions for one face from each of several rotations."""
        n = len(rotations)
        return self._predict_passes([image] * n, [box_xyxy] * n, [n_passes] * n, rotations, flip)[1]

    def _predict_passes(
        self,
        images: Sequence[Image],
        boxes_xyxy: Sequence[Box],
        n_passes: Sequence[int],
        angles: Sequence[float] | NDArray[np.float64],
        flip: bool,
    ) -> tuple[Prediction, Prediction]:
        """The predictions after the first pass and after the last, see `predict`."""
        boxes, found = list(boxes_xyxy), Prediction.empty(angles, self.checkpoint.scheme.n_landmarks)
        first, rows = found, list(range(len(images)))
        for n in range(max(n_passes, default=0)):
            if n == 1:
                first = found.copy()
            if n > 0:
                crops = {i: self._next_crop(boxes[i], found, i) for i in rows if n_passes[i] > n}
                rows = []
                for i, crop in crops.items():
                    if crop is not None:
                        boxes[i], found.angles[i] = crop
                        rows.append(i)
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                found.replace_rows(part, self._run_pass(images, boxes, part, found.angles, refines=n > 0, flip=flip))
        return first, found

    def _run_pass(
        self,
        images: Sequence[Image],
        boxes_xyxy: Sequence[Box],
        rows: Sequence[int],
        angles: NDArray[np.float64],
        *,
        refines: bool,
        flip: bool,
    ) -> Prediction:
        """Predict the landmarks of some faces from one crop each.

        Args:
            images: One per face.
            boxes_xyxy: One per face.
            rows: Indices of the faces to predict.
            angles: (N,) degrees, one per face.
            refines: Whether it is a pass after the first.
            flip: See `predict`.
        """
        rule = self.checkpoint.crop
        crop_from_image = [rule.crop_from_image(boxes_xyxy[i], -float(angles[i])) for i in rows]
        crops = [cut_from_image(images[i], m, rule.size) for i, m in zip(rows, crop_from_image, strict=True)]
        seen = self.predict_crops(np.stack(crops) if len(crops) > 1 else crops[0][None], flip=flip)
        found = Prediction.empty(angles[rows], self.checkpoint.scheme.n_landmarks)
        for j, to_crop in enumerate(crop_from_image):
            found.landmarks[j] = to_crop.inverse()(seen.landmarks[j])
        found.scores[:] = seen.scores
        if seen.quality is not None:
            found.quality[:] = seen.quality
        return found

    def _next_crop(self, box_xyxy: Box, found: Prediction, i: int) -> tuple[Box, float] | None:
        """Upright box and angle for the next pass of face `i`; None if they are nearly those of the last pass."""
        last_angle = float(found.angles[i])
        angle = last_angle if self._is_uncertain(found, i) else self._rotation(found, i)
        box = next_box(box_xyxy, found.landmarks[i], angle)
        rotation = abs((angle - found.angles[i] + 180) % 360 - 180)
        if rotation <= MIN_ROTATION and box_change(box_xyxy, box) <= MAX_BOX_CHANGE:
            return None
        return box, angle

    def _is_uncertain(self, found: Prediction, i: int) -> bool:
        """Whether the scores of face `i` are too low to trust."""
        calibration = self.checkpoint.calibration
        return calibration is not None and not calibration.is_face(found.scores[i], LOW_CONFIDENCE)

    def _rotation(self, found: Prediction, i: int) -> float:
        return face_rotation(found.landmarks[i], self.checkpoint.scheme.mean_face)


def box_change(old_xyxy: Box, new_xyxy: Box) -> float:
    """Difference between two boxes: the centre's shift along an axis as a fraction of the old longer side, or the logarithm of
    the sides' ratio, whichever is larger.

    >>> round(box_change(np.array([0, 0, 10, 8], np.float32), np.array([1, 0, 11, 8], np.float32)), 3)
    0.1
    """
    side = float(box_size(old_xyxy).max())
    shift = float(np.abs(box_centre(new_xyxy) - box_centre(old_xyxy)).max()) / side
    return max(shift, abs(math.log(float(box_size(new_xyxy).max()) / side)))


def face_rotation(landmarks: NDArray[np.float32], mean_face: FloatArray | None) -> float:
    """In-plane rotation of a face, degrees counter-clockwise; 0 below `MIN_ROTATION`, and in a scheme without a mean face.

    Args:
        landmarks: (K, 2) image px, none missing.
        mean_face: (K, 2) the scheme's, or None.
    """
    if mean_face is None or not float(np.ptp(landmarks, 0).max()) > 0:
        return 0.0
    angle = fit_similarity(mean_face, landmarks).angle
    return angle if abs(angle) > MIN_ROTATION else 0.0


def next_box(box_xyxy: Box, landmarks: NDArray[np.float32], angle: float = 0.0) -> Box:
    """The box for the next pass: the tight box of the landmarks, or the old box if that is no likely box of the same face.

    Args:
        box_xyxy: (4,) the box of the last pass, image px.
        landmarks: (K, 2) image px.
        angle: In-plane rotation of the face, degrees counter-clockwise; the result is then the box of the face rotated upright about
            its centre.
    """
    if not np.isfinite(landmarks).all(1).any():
        return box_xyxy
    if angle == 0:
        new = box_of_points(landmarks)
    else:
        upright_from_image = Similarity.about((0.0, 0.0), (0.0, 0.0), angle=-angle)
        new = box_of_points(upright_from_image(landmarks))
        centre = upright_from_image.inverse()(box_centre(new))
        new = (new + np.tile(centre - box_centre(new), 2)).astype(np.float32)
    ratio = float(box_size(new).max() / box_size(box_xyxy).max())
    return new if BOX_SCALE_RANGE[0] <= ratio <= BOX_SCALE_RANGE[1] else box_xyxy
