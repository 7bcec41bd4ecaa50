"""Follow faces through a video: each keeps its id, and is predicted from its landmarks in the frame before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, FloatArray, Image, box_centre, box_of_points, box_size, wrap_angle
from fewmark.core.procrustes import fit_similarities, map_each
from fewmark.data.images import ImageLike, to_rgb
from fewmark.inference.answer import make_answer
from fewmark.inference.detector import Detector
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import box_overlap
from fewmark.inference.face_detection.directions import OTHER_DIRECTIONS
from fewmark.inference.predictor import Prediction, face_rotation, next_box
from fewmark.inference.search import best_of_directions, merge_directions, predict_requests
from fewmark.video.smoothing import OneEuroFilter, Smoothing

MIN_SCORE = 0.8
"""With the packaged models, faces of 300-W's training set score 0.92 and more of their median, boxes one side away from a
face 0.26 to 0.48, 99 of 100 of those at most 0.73."""
MAX_SHAPE_DISTANCE = 0.4
"""300-W's 1071 training faces reach 0.37."""
MIN_BOX_SIDE = 4.0
"""px of a face's box; smaller ones are no faces."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TrackedFace(Face):
    """A face in one frame; its box is the tight box of the landmarks, its box score the face detector's latest.

    Attributes:
        id: Number of the track, from 1; never reused in the same video.
        raw_landmarks: (K, 2) image px, before smoothing; `quality` and `expected_errors` are theirs.
    """

    id: int
    raw_landmarks: NDArray[np.float32]

    def __repr__(self) -> str:
        return super().__repr__().replace("(", f"({self.id}, ", 1)


@dataclass(eq=False)
class _Track:
    id: int
    box: Box  # of the landmarks
    upright_box: Box  # to crop around in the next frame, rotated by `angle`, see `next_box`
    angle: float
    usual_score: float  # NaN from a model without scores
    filter: OneEuroFilter | None
    box_score: float | None
    n_confirmed: int = 1  # detections of the face
    n_missed: int = 0  # frames since it was last seen


@dataclass(frozen=True, eq=False)
class _Observation:
    """The prediction for one track in one frame."""

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    angle: float
    quality: float | None


class Tracker:
    """Follows the faces of one video; call it with each frame in turn.

    A face is predicted by one pass in the tight box of its last landmarks. If the prediction is implausible (low scores, no face's
    shape, a jump of the box), the face detector runs; a face that it does not find either is missing, and dropped after `patience`
    frames. The face detector also looks for new faces in every `every`-th frame, and in each frame while there is no face. It searches
    for upright faces and in the directions of the tracks; in all four in every `every`-th frame, if there is no certain face.

    Args:
        detector: Finds faces and landmarks.
        smoothing: Filter of the landmarks; None: no smoothing.
        every: Frames between two searches for new faces. Raising it saves time; lowering it finds new faces sooner.
        max_faces: Most faces at a time, the largest first. None: all.
        patience: Frames for which a missing face keeps its id. Raising it keeps ids through longer occlusions; lowering it reuses
            fewer ids for another face at the same place.
        flip: See `Detector.detect`.
        scheme: Annotation scheme of the returned landmarks, see `Detector.detect`.
        min_score: Lowest mean score of a prediction, as a fraction of the track's usual one. Raising it drops occluded faces sooner
            and runs the face detector more often; lowering it follows faces longer, and sometimes the background.
        max_shape_distance: Largest distance of the landmarks' shape from the mean face, see `shape_distance`. Raising it accepts
            extreme poses and expressions; lowering it rejects wrong predictions sooner.
        max_shift: Largest shift of the box's centre between frames, as a fraction of its side. Raise it for few frames per second
            or fast motion; lowering it keeps a track from jumping to a neighbouring face.
        max_growth: Largest factor of the box's side between frames, and of its inverse. Raise it for few frames per second; lowering
            it rejects wrong predictions sooner.
        min_overlap: Least overlap (intersection over union) of a detected box with a track's box to be the same face. Raising it
            starts new ids sooner; lowering it confuses neighbouring faces sooner.
        min_overlap_missing: The same for a track that is missing, whose box is old.
        max_overlap: Two tracks that overlap by more are one face, and the older one stays. Raising it keeps duplicates; lowering it
            drops one of two faces close together.

    Raises:
        InputError: A number is out of its range, or the model has no transfer to the scheme.
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
        min_score: float = MIN_SCORE,
        max_shape_distance: float = MAX_SHAPE_DISTANCE,
        max_shift: float = 0.5,
        max_growth: float = 1.6,
        min_overlap: float = 0.3,
        min_overlap_missing: float = 0.1,
        max_overlap: float = 0.5,
    ) -> None:
        for name, value, least in (
            ("every", every, 1),
            ("max_faces", 1 if max_faces is None else max_faces, 1),
            ("patience", patience, 1),
            ("min_score", min_score, 0),
            ("max_shape_distance", max_shape_distance, 0),
            ("max_shift", max_shift, 0),
            ("max_growth", max_growth, 1),
            ("min_overlap", min_overlap, 0),
            ("min_overlap_missing", min_overlap_missing, 0),
            ("max_overlap", max_overlap, 0),
        ):
            if not value >= least:
                raise InputError(f"{name}: expected {least} or more, given {value}")
        self.detector, self.smoothing, self.flip = detector, smoothing, flip
        self.every, self.max_faces, self.patience = every, max_faces, patience
        self.min_score, self.max_shape_distance = min_score, max_shape_distance
        self.max_shift, self.max_growth = max_shift, max_growth
        self.min_overlap, self.min_overlap_missing, self.max_overlap = min_overlap, min_overlap_missing, max_overlap
        self.scheme = detector.checkpoint.scheme_of(scheme)
        self.reset()

    def reset(self) -> None:
        """Start another video; ids start at 1 again."""
        self._tracks: list[_Track] = []
        self._time_s = -math.inf
        self._n_frames = 0
        self.n_tracks = 0

    def __call__(self, image: ImageLike, time_s: float, *, bgr: bool = False) -> list[TrackedFace]:
        """The faces of the next frame, ordered by id.

        Args:
            image: The frame, as `Detector.detect` takes an image.
            time_s: Its time, later than the last frame's.
            bgr: See `Detector.detect`.

        Raises:
            InputError: The image is none, or the time is not later.
        """
        if not math.isfinite(time_s) or time_s <= self._time_s:
            raise InputError(f"time_s: expected a time after the last frame's, {self._time_s} s, given {time_s} s")
        rgb = to_rgb(image, bgr=bgr)
        seen = self._follow(rgb)
        any_lost = any(t.id not in seen for t in self._tracks)
        if any_lost or not self._tracks or self._n_frames % self.every == 0:
            self._detect(rgb, seen)
        for track in self._tracks:
            track.n_missed = 0 if track.id in seen else track.n_missed + 1
        self._tracks = [t for t in self._tracks if t.n_missed <= self.patience]
        self._drop_duplicates(seen)
        faces = [self._update(t, seen[t.id], time_s) for t in self._tracks if t.id in seen]
        self._time_s, self._n_frames = time_s, self._n_frames + 1
        return faces

    def _follow(self, image: Image) -> dict[int, _Observation]:
        """Predict the last frame's tracks in this one: track id -> observation, without the implausible ones."""
        present = [t for t in self._tracks if t.n_missed == 0]
        boxes, angles = [t.upright_box for t in present], [t.angle for t in present]
        found = self.detector.predictor.predict([image] * len(boxes), boxes, 1, flip=self.flip, angles=angles)
        return {
            t.id: o
            for i, t in enumerate(present)
            if self._is_continuous(t, o := _observation(found, i)) and self._is_face(o, image)
        }

    def _detect(self, image: Image, seen: dict[int, _Observation]) -> None:
        """Run the face detector: confirm tracks, find missing ones again, and start new ones."""
        directions = {0.0, *(wrap_angle(90.0 * round(t.angle / 90)) for t in self._tracks)}
        requests = self.detector.search(image, sorted(directions, key=abs))
        detected = [requests[i] for i in best_of_directions(requests)]
        boxes = [r.box for r in detected]
        now = {t.id: box_of_points(seen[t.id].landmarks) if t.id in seen else t.box for t in self._tracks}
        matches = self._match(boxes, now)
        wanted = [i for i in range(len(boxes)) if i not in matches or matches[i].id not in seen]
        found = predict_requests(self.detector.predictor, [detected[i] for i in wanted], flip=self.flip)
        if not self._tracks and self._n_frames % self.every == 0 and not any(f.certain for f in found):
            others = self.detector.search(image, OTHER_DIRECTIONS)
            found = merge_directions([*found, *predict_requests(self.detector.predictor, others, flip=self.flip)])
            detected = [f.request for f in found]
            boxes, wanted = [r.box for r in detected], list(range(len(detected)))
        observations = {
            i: o
            for i, f in zip(wanted, found, strict=True)
            if (f.certain or f.request.direction == 0) and self._is_face(o := _observation(f.prediction, 0), image)
        }
        for i, track in matches.items():
            track.n_confirmed += 1
            track.box_score = detected[i].box_score
            if track.id not in seen and i in observations:
                seen[track.id] = observations[i]
                if track.filter is not None:
                    track.filter.reset()
            if track.id in seen:
                track.usual_score += (_mean(seen[track.id].scores) - track.usual_score) / 2
        confirmed = {t.id for t in matches.values()}
        for track in self._tracks:  # without scores, or detected only once, a track needs every detection
            if track.id not in confirmed and (track.n_confirmed < 2 or math.isnan(track.usual_score)):
                seen.pop(track.id, None)
        for i, observation in observations.items():
            if i not in matches and (self.max_faces is None or len(self._tracks) < self.max_faces):
                self.n_tracks += 1
                smooth = None if self.smoothing is None else OneEuroFilter(self.smoothing)
                score = _mean(observation.scores)
                self._tracks.append(
                    _Track(self.n_tracks, boxes[i], boxes[i], 0.0, score, smooth, detected[i].box_score)
                )
                seen[self.n_tracks] = observation

    def _match(self, boxes: Sequence[Box], now: dict[int, Box]) -> dict[int, _Track]:
        """Pair detected boxes with tracks, the largest overlaps first: index of the box -> track.

        Args:
            boxes: (4,) image px.
            now: Track id -> box in this frame, or its last one.
        """
        pairs = [(box_overlap(box, now[t.id]), i, t) for i, box in enumerate(boxes) for t in self._tracks]
        matches: dict[int, _Track] = {}
        matched: set[int] = set()
        for overlap, i, track in sorted(pairs, key=lambda p: (-p[0], p[2].id, p[1])):
            least = self.min_overlap_missing if track.n_missed else self.min_overlap
            if i not in matches and track.id not in matched and overlap >= least:
                matches[i] = track
                matched.add(track.id)
        return matches

    def _drop_duplicates(self, seen: dict[int, _Observation]) -> None:
        """Keep the older of two tracks on one face."""
        kept: list[_Track] = []
        boxes: list[Box] = []
        for track in self._tracks:
            box = box_of_points(seen[track.id].landmarks) if track.id in seen else track.box
            if all(box_overlap(box, b) <= self.max_overlap for b in boxes):
                kept.append(track)
                boxes.append(box)
        self._tracks = kept

    def _update(self, track: _Track, observation: _Observation, time_s: float) -> TrackedFace:
        """Smooth the landmarks, move the track there, and return its face."""
        landmarks = observation.landmarks
        if track.filter is not None:
            size = float(box_size(box_of_points(landmarks)).max())
            landmarks = track.filter(landmarks, time_s, size).astype(np.float32)
        track.box = box_of_points(landmarks)
        if self.detector.checkpoint.cascade is None:  # a cascade rotates its faces itself
            track.angle = face_rotation(landmarks, self.detector.scheme.mean_face)
        track.upright_box = next_box(track.box, landmarks, track.angle)
        checkpoint, scores = self.detector.checkpoint, observation.scores[None]
        raw = make_answer(observation.landmarks[None], scores, checkpoint, self.scheme.name)
        smooth = make_answer(landmarks[None], scores, checkpoint, self.scheme.name)
        return TrackedFace(
            box=track.box,
            landmarks=smooth.landmarks[0],
            scores=raw.scores[0],
            box_score=track.box_score,
            scheme=self.scheme,
            angle=observation.angle,
            expected_errors=None if raw.expected_errors is None else raw.expected_errors[0],
            quality=observation.quality,
            id=track.id,
            raw_landmarks=raw.landmarks[0],
        )

    def _is_continuous(self, track: _Track, observation: _Observation) -> bool:
        """Whether the observation can be the track's face one frame later."""
        if not np.isfinite(observation.landmarks).all():
            return False
        new, old = box_of_points(observation.landmarks), track.box
        side, old_side = float(box_size(new).max()), float(box_size(old).max())
        shift = float(np.linalg.norm(box_centre(new) - box_centre(old)))
        near = shift <= self.max_shift * old_side
        alike = old_side / self.max_growth <= side <= self.max_growth * old_side
        low = _mean(observation.scores) < self.min_score * track.usual_score  # False without scores
        return near and alike and not low

    def _is_face(self, observation: _Observation, image: Image) -> bool:
        """Whether the landmarks can be those of a face in the image."""
        landmarks = observation.landmarks
        if not np.isfinite(landmarks).all() or not self.detector.is_face(observation.scores):
            return False
        box = box_of_points(landmarks)
        centre, (height, width) = box_centre(box), image.shape[:2]
        inside = ((centre >= -0.5) & (centre <= [width - 0.5, height - 0.5])).all()
        if box_size(box).max() < MIN_BOX_SIDE or not inside:
            return False
        mean_face = self.detector.scheme.mean_face
        return mean_face is None or shape_distance(landmarks, np.asarray(mean_face)) <= self.max_shape_distance


def _observation(found: Prediction, face: int) -> _Observation:
    return _Observation(found.landmarks[face], found.scores[face], float(found.angles[face]), found.quality_of(face))


def shape_distance(landmarks: FloatArray, mean_face: FloatArray) -> float:
    """Distance of landmarks from the mean face after the best similarity.

    Args:
        landmarks: (K, 2) px.
        mean_face: (K, 2) in any frame.

    Returns:
        Root mean square distance, in units of the mean face's root mean square radius; NaN where a landmark is missing, or all
        are in one place.

    >>> square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    >>> round(shape_distance(square * 30 + 7, square), 6)
    0.0
    """
    target = np.asarray(mean_face, np.float64)
    aligned = map_each(fit_similarities(np.asarray(landmarks)[None], target), np.asarray(landmarks, np.float64)[None])[
        0
    ]
    radius = math.sqrt(((target - target.mean(0)) ** 2).sum(1).mean())
    return math.sqrt(((aligned - target) ** 2).sum(1).mean()) / radius


def _mean(scores: NDArray[np.float32]) -> float:
    """NaN from a model without scores."""
    return float(scores.mean(dtype=np.float64))
