"""Faces over the frames of a video: each keeps its id, and is found again from the landmarks of the frame before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, FloatArray, box_centre, box_of_points, box_size
from fewmark.core.procrustes import fit_similarities, map_each
from fewmark.data.images import as_rgb
from fewmark.inference.answer import make_answer
from fewmark.inference.detector import Detector
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import box_overlap
from fewmark.inference.predictor import face_rotation, next_box
from fewmark.video.smoothing import OneEuroFilter, Smoothing

MIN_SCORE = 0.8
"""Of a track's usual mean score: below it the face detector is asked. Faces of 300-W's training set have 0.92 and more of their median
with the packaged models, places one side beside them 0.26 to 0.48 of it, 0.73 at most for 99 of 100."""
MAX_SHAPE_DISTANCE = 0.4
"""Of a shape's distance to the mean face, see `shape_distance`; 300-W's 1071 training faces reach 0.37."""
MOST_SHIFT, MOST_GROWTH = 0.5, 1.6
"""From frame to frame: of the box's centre, in sides, and of its side."""
SAME_FACE, SAME_MISSING = 0.3, 0.1
"""Overlap of a found box and a track's, seen in the last frame or missing for some."""
MERGED = 0.5
"""Two tracks that overlap more are on one face."""
MIN_SIDE = 4.0
"""px of a face's box."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackedFace(Face):
    """A face of one frame; its box is the tight box of the landmarks, its box score the last one that the face detector gave.

    Attributes:
        id: of the track, from 1; never used again in the same video.
        raw_landmarks: (K, 2) image px, before smoothing; `quality` is theirs.
    """

    id: int
    raw_landmarks: NDArray[np.float32]


@dataclass(eq=False)
class _Track:
    id: int
    box: Box  # of the landmarks
    upright_box: Box  # where the face is looked for in the next frame, turned by `angle`, see `next_box`
    angle: float
    usual_score: float  # NaN from a model that gives none
    filter: OneEuroFilter | None
    box_score: float | None
    n_confirmed: int = 1  # looks of the face detector that saw it
    n_missed: int = 0  # frames since it was seen


@dataclass(frozen=True, eq=False)
class _Observation:
    """What one frame shows of one track."""

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    angle: float
    quality: float | None


class Tracker:
    """Follows the faces of one video; call it with each frame in turn.

    A face's landmarks are found by one look in the tight box of its last ones. Where that goes wrong (the scores fall, the shape is
    none of a face, the box jumps), the face detector is asked; a face that it does not see either is missing, and lost after
    `patience` frames. New faces are looked for in every `every`-th frame, and in each while there is none.

    Args:
        detector: finds faces and landmarks.
        smoothing: None for none.
        every: frames between two looks for new faces.
        max_faces: followed at one time; the largest come first. None: all.
        patience: frames for which a missing face keeps its id.
        flip: see `Detector.detect`.
        scheme: of the landmarks that are returned, see `Detector.detect`.

    Raises:
        InputError: a number below 1, or a scheme that the model carries no transfer to.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        smoothing: Smoothing | None = Smoothing(),
        every: int = 10,
        max_faces: int | None = None,
        patience: int = 12,
        flip: bool = True,
        scheme: str | None = None,
    ) -> None:
        for name, value in (
            ("every", every),
            ("max_faces", 1 if max_faces is None else max_faces),
            ("patience", patience),
        ):
            if value < 1:
                raise InputError(f"{name}: expected 1 or more, given {value}")
        self.detector, self.smoothing, self.flip = detector, smoothing, flip
        self.every, self.max_faces, self.patience = every, max_faces, patience
        self.scheme = detector.checkpoint.scheme_of(scheme)
        self.reset()

    def reset(self) -> None:
        """Begin another video; ids begin at 1 again."""
        self._tracks: list[_Track] = []
        self._time_s = -math.inf
        self._n_frames = 0
        self.n_tracks = 0

    def __call__(self, image: NDArray[np.generic], time_s: float) -> list[TrackedFace]:
        """The faces of the next frame, by id.

        Args:
            image: as `fewmark.data.images.as_rgb` takes it.
            time_s: of the frame, later than the last one's.

        Raises:
            InputError: no image, or a time that is not later.
        """
        if not math.isfinite(time_s) or time_s <= self._time_s:
            raise InputError(f"time_s: expected a time after the last frame's, {self._time_s} s, given {time_s} s")
        rgb = as_rgb(image)
        seen = self._follow(rgb)
        doubtful = any(t.id not in seen for t in self._tracks)
        if doubtful or not self._tracks or self._n_frames % self.every == 0:
            self._look(rgb, seen)
        for track in self._tracks:
            track.n_missed = 0 if track.id in seen else track.n_missed + 1
        self._tracks = [t for t in self._tracks if t.n_missed <= self.patience]
        self._merge(seen)
        faces = [self._face(t, seen[t.id], time_s) for t in self._tracks if t.id in seen]
        self._time_s, self._n_frames = time_s, self._n_frames + 1
        return faces

    def _follow(self, image: NDArray[np.uint8]) -> dict[int, _Observation]:
        """What the last frame's tracks show in this one; those whose answer is doubtful are left out."""
        present = [t for t in self._tracks if t.n_missed == 0]
        sights = self._locate(image, [t.upright_box for t in present], 1, [t.angle for t in present])
        return {t.id: s for t, s in zip(present, sights, strict=True) if _goes_on(t, s) and self._is_face(s, image)}

    def _look(self, image: NDArray[np.uint8], seen: dict[int, _Observation]) -> None:
        """Ask the face detector: it confirms tracks, finds missing ones again, and begins new ones."""
        found = self.detector.detect_faces(image)
        boxes = [box for box, _ in found]
        now = {t.id: box_of_points(seen[t.id].landmarks) if t.id in seen else t.box for t in self._tracks}
        matches = _matches(boxes, self._tracks, now)
        wanted = [i for i in range(len(boxes)) if i not in matches or matches[i].id not in seen]
        located = self._locate(image, [boxes[i] for i in wanted], 2)
        sights = {i: s for i, s in zip(wanted, located, strict=True) if self._is_face(s, image)}
        for i, track in matches.items():
            track.n_confirmed += 1
            track.box_score = found[i][1]
            if track.id not in seen and i in sights:
                seen[track.id] = sights[i]
                if track.filter is not None:
                    track.filter.reset()
            if track.id in seen:
                track.usual_score += (_mean(seen[track.id].scores) - track.usual_score) / 2
        confirmed = {t.id for t in matches.values()}
        for track in self._tracks:  # who has no scores, or was seen once, lives by the face detector's word
            if track.id not in confirmed and (track.n_confirmed < 2 or math.isnan(track.usual_score)):
                seen.pop(track.id, None)
        for i, sight in sights.items():
            if i not in matches and (self.max_faces is None or len(self._tracks) < self.max_faces):
                self.n_tracks += 1
                smooth = None if self.smoothing is None else OneEuroFilter(self.smoothing)
                self._tracks.append(
                    _Track(self.n_tracks, boxes[i], boxes[i], 0.0, _mean(sight.scores), smooth, found[i][1])
                )
                seen[self.n_tracks] = sight

    def _merge(self, seen: dict[int, _Observation]) -> None:
        """Of two tracks on one face the older one stays."""
        kept: list[_Track] = []
        boxes: list[Box] = []
        for track in self._tracks:
            box = box_of_points(seen[track.id].landmarks) if track.id in seen else track.box
            if all(box_overlap(box, b) <= MERGED for b in boxes):
                kept.append(track)
                boxes.append(box)
        self._tracks = kept

    def _face(self, track: _Track, sight: _Observation, time_s: float) -> TrackedFace:
        landmarks = sight.landmarks
        if track.filter is not None:
            size = float(box_size(box_of_points(landmarks)).max())
            landmarks = track.filter(landmarks, time_s, size).astype(np.float32)
        track.box = box_of_points(landmarks)
        if self.detector.checkpoint.cascade is None:  # which turns its faces itself
            track.angle = face_rotation(landmarks, self.detector.scheme.mean_face)
        track.upright_box = next_box(track.box, landmarks, track.angle)
        checkpoint, scores = self.detector.checkpoint, sight.scores[None]
        raw = make_answer(sight.landmarks[None], scores, checkpoint, self.scheme.name)
        smooth = make_answer(landmarks[None], scores, checkpoint, self.scheme.name)
        return TrackedFace(
            box=track.box,
            landmarks=smooth.landmarks[0],
            scores=raw.scores[0],
            box_score=track.box_score,
            scheme=self.scheme,
            angle=sight.angle,
            expected_errors=None if raw.expected_errors is None else raw.expected_errors[0],
            quality=sight.quality,
            id=track.id,
            raw_landmarks=raw.landmarks[0],
        )

    def _locate(
        self, image: NDArray[np.uint8], boxes: Sequence[Box], n_passes: int, angles: Sequence[float] | None = None
    ) -> list[_Observation]:
        n = len(boxes)
        found = self.detector.predictor.predict([image] * n, boxes, n_passes, flip=self.flip, angles=angles)
        return [
            _Observation(found.landmarks[i], found.scores[i], float(found.angles[i]), found.quality_of(i))
            for i in range(n)
        ]

    def _is_face(self, sight: _Observation, image: NDArray[np.uint8]) -> bool:
        """Whether the landmarks can be those of a face in the image."""
        if not np.isfinite(sight.landmarks).all() or not self.detector.is_face(sight.scores):
            return False
        box = box_of_points(sight.landmarks)
        centre, (height, width) = box_centre(box), image.shape[:2]
        if box_size(box).max() < MIN_SIDE or not ((centre >= -0.5) & (centre <= [width - 0.5, height - 0.5])).all():
            return False
        mean_face = self.detector.scheme.mean_face
        return mean_face is None or shape_distance(sight.landmarks, np.asarray(mean_face)) <= MAX_SHAPE_DISTANCE


def shape_distance(landmarks: FloatArray, mean_face: FloatArray) -> float:
    """How far landmarks are from the mean face that a similarity lays on them.

    Args:
        landmarks: (K, 2) px.
        mean_face: (K, 2) in any frame.

    Returns:
        Root mean square distance, in units of the mean face's root mean square radius; NaN where a landmark is missing, or all
        lie in one place.

    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> round(shape_distance(square * 30 + 7, square), 6)
    0.0
    """
    target = np.asarray(mean_face, np.float64)
    laid = map_each(fit_similarities(np.asarray(landmarks)[None], target), np.asarray(landmarks, np.float64)[None])[0]
    radius = math.sqrt(((target - target.mean(0)) ** 2).sum(1).mean())
    return math.sqrt(((laid - target) ** 2).sum(1).mean()) / radius


def _goes_on(track: _Track, sight: _Observation) -> bool:
    """Whether this can be the track's face one frame later."""
    if not np.isfinite(sight.landmarks).all():
        return False
    new, old = box_of_points(sight.landmarks), track.box
    side, old_side = float(box_size(new).max()), float(box_size(old).max())
    shift = float(np.linalg.norm(box_centre(new) - box_centre(old)))
    steady = shift <= MOST_SHIFT * old_side and old_side / MOST_GROWTH <= side <= MOST_GROWTH * old_side
    falls = _mean(sight.scores) < MIN_SCORE * track.usual_score  # never where there are no scores
    return steady and not falls


def _matches(boxes: Sequence[Box], tracks: Sequence[_Track], now: dict[int, Box]) -> dict[int, _Track]:
    """Found boxes and tracks in pairs, those that overlap most first; a box belongs to one track at most."""
    pairs = [(box_overlap(box, now[t.id]), i, t) for i, box in enumerate(boxes) for t in tracks]
    matches: dict[int, _Track] = {}
    taken: set[int] = set()
    for overlap, i, track in sorted(pairs, key=lambda p: (-p[0], p[2].id, p[1])):
        if i not in matches and track.id not in taken and overlap >= (SAME_MISSING if track.n_missed else SAME_FACE):
            matches[i] = track
            taken.add(track.id)
    return matches


def _mean(scores: NDArray[np.float32]) -> float:
    """NaN where the model gives no scores."""
    return float(scores.mean(dtype=np.float64))
