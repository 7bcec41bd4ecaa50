"""Landmarks of faces whose boxes are known, by the networks of a model file: students in an ensemble, or a cascade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fewmark.cascade.frames import face_angle, scheme_mean_face
from fewmark.cascade.looking import look
from fewmark.cascade.pipeline import Cascade
from fewmark.cascade.state import FaceState, Picture
from fewmark.cascade.stored import cascade_modules
from fewmark.checkpoint import Checkpoint
from fewmark.data.crops import CropRule, cut
from fewmark.ensemble import Ensemble, to_tensor
from fewmark.geometry import Box, Similarity, box_of_points, box_size

_BATCH = 32  # crops at a time
_STEADY = (0.4, 2.5)  # a second look is taken where the new box's side is within these of the old one's


@dataclass(frozen=True, eq=False)
class Located:
    """The landmarks of N faces.

    Attributes:
        landmarks: (N, K, 2) image px.
        scores: (N, K).
        angles: (N,) degrees, see `Face`.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    angles: NDArray[np.float64]


class Locator:
    """Finds the landmarks of faces.

    Args:
        checkpoint: whose networks are moved to the device and to evaluation mode, channels last in memory.
        device: where they run.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.checkpoint = checkpoint
        self.device = device
        students, cascade = checkpoint.students, checkpoint.cascade
        self._ensemble: Ensemble | None = None
        if cascade is None:
            codecs = [s.codec for s in students]
            self._ensemble = Ensemble([s.module for s in students], codecs, checkpoint.scheme.mirror)
        networks = [] if cascade is None else list(cascade_modules(cascade).values())
        for network in [self._ensemble] if self._ensemble is not None else networks:
            network.to(self.device).eval()
            for parameter in network.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def __call__(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        boxes_xyxy: Sequence[Box],
        n_passes: Sequence[int],
        *,
        flip: bool = True,
    ) -> Located:
        """Landmarks of N faces.

        Args:
            pictures: one (H, W, 3) RGB a face.
            boxes_xyxy: one (4,) image px a face.
            n_passes: one number a face; every pass after the first begins with the landmarks of the one before.
            flip: average with what is seen in the flipped crop.
        """
        n_faces, k = len(pictures), self.checkpoint.scheme.n_landmarks
        found = Located(
            np.full((n_faces, k, 2), np.nan, np.float32), np.full((n_faces, k), np.nan, np.float32), np.zeros(n_faces)
        )
        boxes = list(boxes_xyxy)
        for n in range(max(n_passes, default=0)):
            rows = [i for i, wanted in enumerate(n_passes) if wanted > n]
            if n > 0:
                for i in rows:
                    boxes[i] = _next_box(boxes[i], found.landmarks[i])
            for start in range(0, len(rows), _BATCH):
                part = rows[start : start + _BATCH]
                if self.checkpoint.cascade is not None:
                    self._by_cascade(self.checkpoint.cascade, pictures, boxes, part, found, again=n > 0, flip=flip)
                else:
                    self._by_students(pictures, boxes, part, found, flip=flip)
        return found

    def _by_students(
        self, pictures: Sequence[Picture], boxes: Sequence[Box], rows: Sequence[int], found: Located, *, flip: bool
    ) -> None:
        assert self._ensemble is not None
        rule = self.checkpoint.crop
        maps = [rule.crop_from_image(boxes[i]) for i in rows]
        crops = [_cut_window(pictures[i], m, rule) for i, m in zip(rows, maps, strict=True)]
        prediction = self._ensemble.predict(to_tensor(np.stack(crops), self.device), flip=flip)
        points, sure = prediction.landmarks.cpu().numpy(), prediction.scores.cpu().numpy()
        for j, i in enumerate(rows):
            found.landmarks[i] = maps[j].inverse()(points[j])
            found.scores[i] = sure[j]

    def _by_cascade(
        self,
        cascade: Cascade,
        pictures: Sequence[Picture],
        boxes: Sequence[Box],
        rows: Sequence[int],
        found: Located,
        *,
        again: bool,
        flip: bool,
    ) -> None:
        """Another pass begins upright, by the angle of the landmarks of the one before."""
        turns = "angle" in [s.name for s in cascade.stages]
        if again and turns:
            mean_face = scheme_mean_face(self.checkpoint.scheme)
            found.angles[rows] = [face_angle(found.landmarks[i], mean_face) for i in rows]
            cascade = cascade.without("angle")
        starts = [FaceState(boxes[i], angle=float(found.angles[i])) for i in rows]
        for i, face in zip(rows, look(cascade, [pictures[i] for i in rows], starts, flip=flip), strict=True):
            found.landmarks[i] = face.landmarks
            if face.scores is not None:
                found.scores[i] = face.scores
            found.angles[i] = face.angle


def _cut_window(image: NDArray[np.uint8], crop_from_image: Similarity, rule: CropRule) -> NDArray[np.uint8]:
    """The crop, from the face's window of the picture only, so that a large picture costs no more than a
    small one."""
    ends = np.array([-1.0, rule.size])
    corners = crop_from_image.inverse()(np.stack(np.meshgrid(ends, ends), -1).reshape(4, 2))
    margin = 2 / crop_from_image.scale + 1  # px that the warp's averaging and interpolation reach out
    height, width = image.shape[:2]
    x0, y0 = (int(v) for v in np.clip(np.floor(corners.min(0) - margin), 0, [width - 1, height - 1]))
    x1, y1 = (int(v) for v in np.clip(np.ceil(corners.max(0) + margin), [x0 + 1, y0 + 1], [width, height]))
    return cut(image[y0:y1, x0:x1], crop_from_image @ Similarity.translation(x0, y0), rule.size)


def _next_box(box_xyxy: Box, landmarks: NDArray[np.float32]) -> Box:
    """The box of the points of the last pass; the old one where that is no likely box of the same face."""
    if not np.isfinite(landmarks).all(1).any():
        return box_xyxy
    new = box_of_points(landmarks)
    ratio = float(box_size(new).max() / box_size(box_xyxy).max())
    return new if _STEADY[0] <= ratio <= _STEADY[1] else box_xyxy
