"""Landmarks of faces whose boxes are known: passes, batches and crops, whatever runs the networks. No torch is imported."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import Box, FloatArray, Similarity, box_centre, box_of_points, box_size, fit_similarity
from fewmark.data.crops import CropRule, cut
from fewmark.inference.checkpoint.model import Checkpoint

_BATCH = 32  # crops at a time
MAX_BOX_CHANGE = 0.08
"""A face is not looked at again where its landmarks' box lies nearer than this to the box that was looked in (`box_change`): networks
are trained on boxes that are so far off."""
MIN_ROTATION = 15.0
"""Degrees from upright, or from how the last crop was turned, from which on a face is looked at again, turned."""
LOW_CONFIDENCE = 0.85
"""Of the lowest mean score of a held-out face: a face that has less in its first look or its last one is looked for from the other three
sides too, and turned as the first look says; the surest counts."""
MIN_GAIN = 1.15
"""By how much the scores of such a look have to be higher than those of the straight one."""
_QUARTERS = np.array([90.0, 180.0, -90.0])
BOX_SCALE_RANGE = (0.4, 2.5)  # a second look is taken where the new box's side is within these of the old one's


@dataclass(frozen=True, eq=False)
class CropPrediction:
    """What the networks say of B crops.

    Attributes:
        landmarks: (B, K, 2) crop px.
        scores: (B, K).
        quality: (B,) the teacher's word of the landmarks (TS3, Eq. 3), higher is better; None from a model without a teacher.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    quality: NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class Prediction:
    """The landmarks of N faces.

    Attributes:
        landmarks: (N, K, 2) image px.
        scores: (N, K).
        angles: (N,) degrees, see `Face`.
        quality: (N,) see `CropPrediction`; NaN without a teacher.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    angles: NDArray[np.float64]
    quality: NDArray[np.float32]

    def quality_of(self, face: int) -> float | None:
        """The teacher's word of a face, or None."""
        quality = float(self.quality[face])
        return quality if math.isfinite(quality) else None


class LandmarkPredictor(ABC):
    """Finds the landmarks of faces.

    Args:
        checkpoint: says what part of an image the networks see, and what they find.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @abstractmethod
    def predict_crops(self, crops: NDArray[np.uint8], *, flip: bool) -> CropPrediction:
        """What the networks say of B crops.

        Args:
            crops: (B, H, W, 3) RGB, as the crop rule cuts them.
            flip: average with what is seen in the flipped crops, where the scheme has a mirror.
        """

    def __call__(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[Box],
        n_passes: Sequence[int],
        *,
        flip: bool | None = None,
        angles: Sequence[float] | None = None,
    ) -> Prediction:
        """Landmarks of N faces.

        Args:
            images: one (H, W, 3) RGB a face.
            boxes_xyxy: one (4,) image px a face.
            n_passes: one number a face; every pass after the first begins with the landmarks of the one before. There are fewer
                where a pass finds the face where it looked for it (`MAX_BOX_CHANGE`), but not of a cascade, which looks upright again.
            flip: average with what is seen in the flipped crop; None: as the model asks.
            angles: by which each face is turned, degrees counter-clockwise, and `boxes_xyxy` are theirs when they stand upright, as
                `next_box` says them; None: the faces are looked at as they are.
        """
        flip = self.checkpoint.flip if flip is None else flip
        start = np.zeros(len(images)) if angles is None else angles
        found, first = self._look_often(images, boxes_xyxy, n_passes, start, flip)
        for i, n in enumerate(n_passes):
            if n > 1 and self.checkpoint.cascade is None and (self._doubts(first, i) or self._doubts(found, i)):
                turns = [face_rotation(first.landmarks[i], self.checkpoint.scheme.mean_face), *(start[i] + _QUARTERS)]
                sides, _ = self._look_often([images[i]] * 4, [boxes_xyxy[i]] * 4, [n] * 4, turns, flip)
                best = int(sides.scores.mean(1).argmax())
                if sides.scores[best].mean() > MIN_GAIN * found.scores[i].mean():
                    for mine, theirs in zip(vars(found).values(), vars(sides).values(), strict=True):
                        mine[i] = theirs[best]
        return found

    def _look_often(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[Box],
        n_passes: Sequence[int],
        angles: Sequence[float] | NDArray[np.float64],
        flip: bool,
    ) -> tuple[Prediction, Prediction]:
        """What one pass after the other finds, see `__call__`; and what the first one found."""
        n_faces, k = len(images), self.checkpoint.scheme.n_landmarks
        found = Prediction(
            np.full((n_faces, k, 2), np.nan, np.float32),
            np.full((n_faces, k), np.nan, np.float32),
            np.array(angles, np.float64),
            np.full(n_faces, np.nan, np.float32),
        )
        boxes = list(boxes_xyxy)
        first = found
        rows = list(range(n_faces))
        for n in range(max(n_passes, default=0)):
            rows = [i for i in rows if n_passes[i] > n]
            if n > 0 and self.checkpoint.cascade is None:
                rows = [i for i in rows if self._turn_to(i, boxes, found)]
            elif n > 0:
                for i in rows:
                    boxes[i] = next_box(boxes[i], found.landmarks[i])
            for start in range(0, len(rows), _BATCH):
                self._look(images, boxes, rows[start : start + _BATCH], found, again=n > 0, flip=flip)
            if n == 0 and max(n_passes) > 1:
                first = Prediction(*(values.copy() for values in vars(found).values()))
        return found, first

    def _doubts(self, found: Prediction, i: int) -> bool:
        """Whether it is doubtful that a face was seen."""
        calibration = self.checkpoint.calibration
        return calibration is not None and not calibration.is_face(found.scores[i], LOW_CONFIDENCE)

    def _turn_to(self, i: int, boxes: list[Box], found: Prediction) -> bool:
        """Where to look at a face again, by what was seen of it: its upright box and its angle; False if that is where it was looked at."""
        mean_face = self.checkpoint.scheme.mean_face
        angle = float(found.angles[i]) if self._doubts(found, i) else face_rotation(found.landmarks[i], mean_face)
        box = next_box(boxes[i], found.landmarks[i], angle)
        turn = abs((angle - found.angles[i] + 180) % 360 - 180)
        if turn <= MIN_ROTATION and box_change(boxes[i], box) <= MAX_BOX_CHANGE:
            return False
        boxes[i], found.angles[i] = box, angle
        return True

    def _look(
        self,
        images: Sequence[NDArray[np.uint8]],
        boxes: Sequence[Box],
        rows: Sequence[int],
        found: Prediction,
        *,
        again: bool,
        flip: bool,
    ) -> None:
        """Write what is seen of some faces into `found`; `again` says that it holds what an earlier pass saw."""
        rule = self.checkpoint.crop
        maps = [rule.crop_from_image(boxes[i], -float(found.angles[i])) for i in rows]
        crops = [cut_window(images[i], m, rule) for i, m in zip(rows, maps, strict=True)]
        seen = self.predict_crops(np.stack(crops) if len(crops) > 1 else crops[0][None], flip=flip)
        for j, i in enumerate(rows):
            found.landmarks[i] = maps[j].inverse()(seen.landmarks[j])
            found.scores[i] = seen.scores[j]
            if seen.quality is not None:
                found.quality[i] = seen.quality[j]


def cut_window(image: NDArray[np.uint8], crop_from_image: Similarity, rule: CropRule) -> NDArray[np.uint8]:
    """The crop, from the face's window of the image only, so that a large image costs no more than a
    small one."""
    (a, b, x), (c, d, y) = crop_from_image.matrix.tolist()
    area = abs(a * d - b * c)  # in plain numbers: arrays of four cost more than the warp
    margin = 2 / math.sqrt(area) + 1  # px that the warp's averaging and interpolation reach out
    middle, half = (rule.size - 1) / 2, (rule.size + 1) / 2
    centre_x = (d * (middle - x) - b * (middle - y)) / (a * d - b * c)
    centre_y = (a * (middle - y) - c * (middle - x)) / (a * d - b * c)
    reach_x, reach_y = half * (abs(d) + abs(b)) / area + margin, half * (abs(a) + abs(c)) / area + margin
    height, width = image.shape[:2]
    x0, y0 = _within(centre_x - reach_x, width - 1), _within(centre_y - reach_y, height - 1)
    x1, y1 = max(x0 + 1, _within(centre_x + reach_x + 1, width)), max(y0 + 1, _within(centre_y + reach_y + 1, height))
    crop_from_window = Similarity(np.array([[a, b, a * x0 + b * y0 + x], [c, d, c * x0 + d * y0 + y]]))
    return cut(image[y0:y1, x0:x1], crop_from_window, rule.size)


def box_change(old_xyxy: Box, new_xyxy: Box) -> float:
    """How far a box lies from another: its centre's way on one axis as a part of the old one's longer side, or the logarithm of
    the sides' ratio, whichever is larger.

    >>> round(box_change(np.array([0, 0, 10, 8], np.float32), np.array([1, 0, 11, 8], np.float32)), 3)
    0.1
    """
    side = float(box_size(old_xyxy).max())
    way = float(np.abs(box_centre(new_xyxy) - box_centre(old_xyxy)).max()) / side
    return max(way, abs(math.log(float(box_size(new_xyxy).max()) / side)))


def _within(value: float, most: int) -> int:
    """The whole number below a value, from 0 to `most`."""
    return int(min(max(value, 0), most))


def face_rotation(landmarks: NDArray[np.float32], mean_face: FloatArray | None) -> float:
    """By which a face is turned, degrees counter-clockwise; 0 below `MIN_ROTATION`, and in a scheme without a mean face.

    Args:
        landmarks: (K, 2) image px, none missing.
        mean_face: the scheme's, (K, 2), or None.
    """
    if mean_face is None or not float(np.ptp(landmarks, 0).max()) > 0:
        return 0.0
    angle = fit_similarity(mean_face, landmarks).angle
    return angle if abs(angle) > MIN_ROTATION else 0.0


def next_box(box_xyxy: Box, landmarks: NDArray[np.float32], angle: float = 0.0) -> Box:
    """Where the next pass looks: the box of the points of the last one; the old one where that is no likely box of the same
    face.

    Args:
        box_xyxy: where the last one looked, (4,) image px.
        landmarks: (K, 2) image px.
        angle: by which the face is turned, degrees counter-clockwise; the box is then that of the face turned upright, moved to where it is.
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
