"""The faces of a whole image: found upright, and in the other directions where the upright ones leave doubts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import Box, Image, box_size, wrap_angle
from fewmark.inference.face_detection.base import FaceDetector, adapt_box, share_inside
from fewmark.inference.face_detection.directions import OTHER_DIRECTIONS, detect_in_direction, upright_box
from fewmark.inference.predictor import LOW_CONFIDENCE, MIN_GAIN, LandmarkPredictor, Prediction

CERTAIN = 0.95
"""Fraction of the lowest mean score of a held-out face from which a face is certain: it shows that its direction is one of the
image's. Set on HELEN's training faces, group photographs and collages of MTFL; raised from 0.9 after `ibug-68-nano` turned over a face
of AFW, so AFW's figures in docs/results.md are not those of unseen images."""
TILTED = 30.0
"""Degrees. A face that is rotated by more shows that the image may be rotated."""
_SAME = 0.5  # of the smaller box, by which finds of two directions overlap if they are of one face


@dataclass(frozen=True, eq=False)
class FaceRequest:
    """A face whose landmarks are wanted.

    Attributes:
        image_index: Index of its image in the batch.
        image: (H, W, 3) RGB.
        box: (4,) image px, of the kind that the model was trained on.
        box_score: The face detector's score; None for a given box.
        n_passes: Most passes.
        direction: Direction in which it was found, degrees counter-clockwise, a multiple of 90.
        angle: The face detector's angle, see `DetectedFace`.
    """

    image_index: int
    image: Image
    box: Box
    box_score: float | None
    n_passes: int
    direction: float = 0.0
    angle: float | None = None

    @property
    def start(self) -> float:
        """The angle from which its landmarks are predicted."""
        return self.direction if self.angle is None else self.angle


@dataclass(frozen=True, eq=False)
class FoundFace:
    """A face and the networks' prediction for it.

    Attributes:
        request: The face.
        prediction: Of this face alone.
        level: Mean score as a fraction of the lowest mean score of a held-out face; 1 from a model without calibration.
    """

    request: FaceRequest
    prediction: Prediction
    level: float

    @property
    def certain(self) -> bool:
        """Whether its scores are as high as those of faces found well."""
        return not self.level < CERTAIN  # NaN is no doubt

    @property
    def scores(self) -> NDArray[np.float32]:
        """(K,) confidence of the model's own landmarks."""
        scores: NDArray[np.float32] = self.prediction.scores[0]
        return scores


def request_faces(
    face_detector: FaceDetector,
    box_from_detector: tuple[float, float, float] | None,
    image: Image,
    directions: Sequence[float],
    n_passes: int,
    image_index: int = 0,
) -> list[FaceRequest]:
    """Run the face detector in some directions.

    Args:
        face_detector: Finds upright faces.
        box_from_detector: See `adapt_box`; None: the boxes are used as they are.
        image: (H, W, 3) RGB.
        directions: Degrees counter-clockwise, multiples of 90.
        n_passes: See `FaceRequest`.
        image_index: See `FaceRequest`.
    """
    requests = []
    for direction in directions:
        for f in detect_in_direction(face_detector, image, direction):
            angle = direction if f.angle is None else f.angle
            box = f.box_xyxy if box_from_detector is None else adapt_box(f.box_xyxy, box_from_detector, angle)
            requests.append(FaceRequest(image_index, image, box, f.score, n_passes, direction, f.angle))
    return requests


def given_faces(
    image: Image, boxes_xyxy: NDArray[np.float32], n_passes: int, image_index: int = 0
) -> list[FaceRequest]:
    """The requests for boxes (N, 4) that a user gave."""
    return [FaceRequest(image_index, image, box, None, n_passes) for box in boxes_xyxy]


def find_each(
    images: Iterable[int],
    search: Callable[[int, Sequence[float]], list[FaceRequest]],
    predictor: LandmarkPredictor,
    *,
    flip: bool | None = None,
    turned: bool | None = None,
) -> dict[int, list[FoundFace]]:
    """Find the faces of several images; their crops share batches.

    Args:
        images: Their indices.
        search: Runs the face detector on an image, by its index, in some directions.
        predictor: Predicts the landmarks.
        flip: See `LandmarkPredictor.predict`.
        turned: Search in the other directions; None: where `may_be_rotated`.
    """
    found: dict[int, list[FoundFace]] = {i: [] for i in images}
    for face in predict_requests(predictor, [r for i in found for r in search(i, (0.0,))], flip=flip):
        found[face.request.image_index].append(face)
    if turned is False:
        return found
    more = [i for i, faces in found.items() if turned or may_be_rotated(predictor, faces, flip=flip)]
    for face in predict_requests(predictor, [r for i in more for r in search(i, OTHER_DIRECTIONS)], flip=flip):
        found[face.request.image_index].append(face)
    return {i: merge_directions(faces) for i, faces in found.items()}


def predict_requests(
    predictor: LandmarkPredictor, requests: Sequence[FaceRequest], *, flip: bool | None = None
) -> list[FoundFace]:
    """Predict the landmarks of each face, from the direction in which it was found."""
    found = predictor.predict(
        [r.image for r in requests],
        [upright_box(r.box, r.start) for r in requests],
        [r.n_passes for r in requests],
        flip=flip,
        angles=[r.start for r in requests],
        directed=[r.angle is not None for r in requests],
    )
    calibration = predictor.checkpoint.calibration
    least = None if calibration is None else calibration.min_score
    rows = [found.row(i) for i in range(len(requests))]
    levels = [1.0 if not least else float(p.scores[0].mean()) / least for p in rows]
    return [FoundFace(r, p, level) for r, p, level in zip(requests, rows, levels, strict=True)]


def may_be_rotated(predictor: LandmarkPredictor, faces: Sequence[FoundFace], *, flip: bool | None = None) -> bool:
    """Whether an image may have faces that are not upright.

    It may if no face is certain, a certain one is rotated by more than `TILTED`, or an uncertain one would look better in another
    direction.

    Args:
        predictor: Of the faces.
        faces: All that were found upright in one image.
        flip: See `LandmarkPredictor.predict`.
    """
    directed = [f for f in faces if f.request.angle is not None]
    if not any(f.certain for f in faces):
        return True
    if any(f.certain and abs(wrap_angle(float(f.prediction.angles[0]))) > TILTED for f in directed):
        return True
    requests = [(f.request, f.scores) for f in directed if not f.certain]
    return any(predictor.looks_rotated(r.image, r.box, scores, r.n_passes, flip=flip) for r, scores in requests)


def merge_directions(faces: Sequence[FoundFace]) -> list[FoundFace]:
    """The faces of one image from all directions, each once, without those of directions in which none is certain.

    If none is certain at all, one other direction is kept if its best face scores clearly higher than those found upright, else these.

    Args:
        faces: Of one image.

    Returns:
        The largest first, if there are several directions; else the same.
    """
    directions = {f.request.direction for f in faces}
    if directions <= {0.0}:
        return list(faces)
    trusted = {f.request.direction for f in faces if f.certain}
    if not trusted:
        best = max(faces, key=lambda f: f.level)
        upright = max((f.level for f in faces if f.request.direction == 0), default=0.0)
        trusted = {best.request.direction if best.level > max(LOW_CONFIDENCE, MIN_GAIN * upright) else 0.0}
    faces = [f for f in faces if f.request.direction in trusted]
    return [faces[i] for i in best_of_directions([f.request for f in faces], [_rank(f) for f in faces])]


def _rank(face: FoundFace) -> tuple[float, float]:
    """By the landmarks' scores, then the face detector's; a certain upright face loses only by a margin."""
    gain = MIN_GAIN if face.request.direction == 0 and face.certain else 1.0
    return gain * float(np.nan_to_num(face.scores).mean()), face.request.box_score or 0.0


def best_of_directions(requests: Sequence[FaceRequest], ranks: Sequence[tuple[float, ...]] | None = None) -> list[int]:
    """Each face of an image once, where it was found in several directions.

    Args:
        requests: Of one image.
        ranks: Of each, the highest is the best; None: the face detector's scores.

    Returns:
        Indices of the kept ones, the largest first; from a single direction, all as they are.
    """
    if len({r.direction for r in requests}) < 2:
        return list(range(len(requests)))
    order = ranks or [(r.box_score or 0.0,) for r in requests]
    kept: list[int] = []
    for i in sorted(range(len(requests)), key=lambda i: order[i], reverse=True):
        box, direction = requests[i].box, requests[i].direction
        if all(requests[j].direction == direction or share_inside(box, requests[j].box) < _SAME for j in kept):
            kept.append(i)
    return sorted(kept, key=lambda i: -float(box_size(requests[i].box).prod()))
