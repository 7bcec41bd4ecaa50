"""Tracks over frames: by a stand-in whose faces are given, and by the packaged detector on synthetic faces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, Similarity, box_centre, box_of_points, box_size, warp_image
from fewmark.data.synthetic.faces import render_face, render_faces
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import DetectedFace, box_overlap
from fewmark.inference.predictor import Prediction
from fewmark.inference.search import FaceRequest
from fewmark.landmarks.scheme import load_scheme
from fewmark.video.tracker import TrackedFace, Tracker, shape_distance

SCHEME = load_scheme("ibug-68")
MEAN = np.asarray(SCHEME.mean_face, np.float64)
BLANK = np.zeros((240, 320, 3), np.uint8)


@dataclass
class Stage:
    """Stands in for a detector: `faces` are shown (centre, side); landmarks are right where a box overlaps one, else nonsense."""

    faces: list[tuple[tuple[float, float], float]] = field(default_factory=list)
    scores: float = 0.9
    found: bool = True
    n_views: int = 0
    scheme: Any = SCHEME
    calibration: Any = None
    quality: float = math.nan
    least_score: float = 0.0
    cascade: Any = None

    @property
    def checkpoint(self) -> Any:
        return self

    def transfer_to(self, scheme: str | None) -> None:
        return None

    def scheme_of(self, scheme: str | None) -> Any:
        return SCHEME

    def points(self) -> list[NDArray[np.float64]]:
        return [(MEAN - 0.5) * side + centre for centre, side in self.faces]

    def is_face(self, scores: NDArray[np.float32]) -> bool:
        return not float(scores.mean()) < self.least_score

    def search(self, image: NDArray[np.uint8], directions: Sequence[float]) -> list[FaceRequest]:
        if 0.0 not in directions:
            return []
        self.n_views += 1
        points = sorted(self.points(), key=lambda p: -float(box_size(box_of_points(p)).max()))
        return [FaceRequest(0, image, box_of_points(p), 0.8, 2) for p in points] if self.found else []

    @property
    def predictor(self) -> Any:
        return self

    def predict(
        self,
        images: Sequence[Any],
        boxes: Sequence[Box],
        n_passes: int | Sequence[int],
        *,
        flip: bool,
        angles: Any = None,
        directed: Any = None,
    ) -> Prediction:
        landmarks, scores = np.zeros((len(boxes), 68, 2), np.float32), np.full((len(boxes), 68), np.nan, np.float32)
        for i, box in enumerate(boxes):
            near = max(self.points(), key=lambda p: box_overlap(box, box_of_points(p)), default=None)
            seen = near is not None and box_overlap(box, box_of_points(near)) > 0.2
            landmarks[i] = near if seen and near is not None else (MEAN - 0.5) * box_size(box).max() + box_centre(box)
            scores[i] = self.scores if seen else self.scores / 2
        return Prediction(landmarks, scores, np.zeros(len(boxes)), np.full(len(boxes), self.quality, np.float32))


def ids(faces: Sequence[TrackedFace]) -> list[int]:
    return [f.id for f in faces]


def test_ids_stay_while_faces_move_and_the_face_detector_runs_seldom() -> None:
    stage = Stage()
    tracker = Tracker(stage, every=10)  # type: ignore[arg-type]
    for i in range(30):
        stage.faces = [((60.0 + 3 * i, 80.0), 60.0), ((250.0 - 2 * i, 170.0), 40.0)][: 2 if i >= 5 else 1]
        faces = tracker(BLANK, i / 25)
        assert ids(faces) == ([1] if i < 10 else [1, 2])
        assert np.abs(faces[0].raw_landmarks - stage.points()[0]).max() < 1e-3
        assert np.abs(faces[0].landmarks - faces[0].raw_landmarks).max() < 6
    assert faces[0].quality is None
    assert stage.n_views == 3
    assert tracker.n_tracks == 2
    assert faces[0].box_score == 0.8


def test_quality_is_that_of_the_frame() -> None:
    stage = Stage([((100.0, 100.0), 60.0)])
    tracker = Tracker(stage)  # type: ignore[arg-type]
    for i in range(3):
        stage.quality = i / 2
        (face,) = tracker(BLANK, i / 25)
        assert face.quality == i / 2
        assert face.to_dict()["occluded"] is None


def test_a_face_that_is_hidden_keeps_its_id_and_one_that_left_does_not() -> None:
    stage = Stage([((100.0, 100.0), 60.0)])
    tracker = Tracker(stage, patience=5)  # type: ignore[arg-type]
    seen = []
    for i in range(40):
        stage.faces = [] if 5 <= i < 10 or 20 <= i < 30 else [((100.0 + (i >= 10) * 15, 100.0), 60.0)]
        seen.append(ids(tracker(BLANK, i / 25)))
    assert seen == [[1]] * 5 + [[]] * 5 + [[1]] * 10 + [[]] * 10 + [[2]] * 10


def test_a_face_found_again_is_not_smoothed_with_its_past() -> None:
    stage = Stage([((100.0, 100.0), 60.0)])
    tracker = Tracker(stage)  # type: ignore[arg-type]
    tracker(BLANK, 0.0)
    stage.faces = []
    tracker(BLANK, 0.04)
    stage.faces = [((120.0, 100.0), 60.0)]
    (face,) = tracker(BLANK, 0.08)
    assert face.id == 1
    np.testing.assert_array_equal(face.landmarks, face.raw_landmarks)


def test_two_tracks_on_one_face_become_one() -> None:
    stage = Stage([((80.0, 100.0), 60.0), ((220.0, 100.0), 60.0)])
    tracker = Tracker(stage, every=100)  # type: ignore[arg-type]
    assert ids(tracker(BLANK, 0.0)) == [1, 2]
    for i in range(1, 15):
        stage.faces = [((80.0 + 8 * i, 100.0), 60.0), ((220.0 - 3 * i, 100.0), 60.0)][: 2 if i < 8 else 1]
        faces = tracker(BLANK, i / 25)
    assert ids(faces) == [1]
    stage.faces.append(((230.0, 200.0), 40.0))
    tracker.every = 1
    assert ids(tracker(BLANK, 1.0)) == [1, 3]


def test_a_model_without_scores_asks_the_face_detector() -> None:
    stage = Stage([((100.0, 100.0), 60.0)], scores=float("nan"))
    tracker = Tracker(stage, every=10, patience=3)  # type: ignore[arg-type]
    seen = [ids(tracker(BLANK, i / 25)) for i in range(10)]
    stage.faces = []  # what it answers then has the shape of a face
    seen += [ids(tracker(BLANK, i / 25)) for i in range(10, 20)]
    assert seen == [[1]] * 10 + [[]] * 10


def test_what_is_seen_once_and_never_again_is_no_face() -> None:
    stage = Stage([((100.0, 100.0), 60.0)])
    tracker = Tracker(stage, every=5, patience=1)  # type: ignore[arg-type]
    seen = []
    for i in range(12):
        stage.found = i < 5
        seen.append(ids(tracker(BLANK, i / 25)))
    assert seen == [[1]] * 5 + [[]] * 7
    stage.found = True
    tracker(BLANK, 9.0)
    stage.found = False  # a track that was confirmed once more lives by its scores
    stage.n_views = 0
    tracker.every = 1
    stage.found = True
    tracker(BLANK, 9.1)
    stage.found = False
    assert ids(tracker(BLANK, 9.2)) == [2]


def test_the_largest_faces_are_followed() -> None:
    stage = Stage([((60.0, 60.0), 30.0), ((160.0, 120.0), 70.0), ((260.0, 180.0), 50.0)])
    faces = Tracker(stage, max_faces=2)(BLANK, 0.0)  # type: ignore[arg-type]
    assert [round(float(box_size(f.box).max())) for f in faces] == [70, 50]


@pytest.mark.parametrize(
    ("setting", "step", "scores", "followed"),
    [
        ({"max_shift": 0.2}, 24.0, 0.9, False),  # of 60 px
        ({"max_shift": 0.5}, 24.0, 0.9, True),
        ({"min_score": 0.95}, 0.0, 0.8, False),
        ({"min_score": 0.8}, 0.0, 0.8, True),
        ({"max_shape_distance": 0.0}, 0.0, 0.9, False),
    ],
)
def test_thresholds_decide_when_the_face_detector_runs(
    setting: dict[str, float], step: float, scores: float, followed: bool
) -> None:
    stage = Stage([((100.0, 100.0), 60.0)])
    tracker = Tracker(stage, every=100, **setting)  # type: ignore[arg-type]
    tracker(BLANK, 0.0)
    stage.n_views, stage.faces, stage.scores = 0, [((100.0 + step, 100.0), 60.0)], scores
    tracker(BLANK, 0.04)
    assert stage.n_views == (0 if followed else 1)


def test_overlapping_tracks_and_detections() -> None:
    stage = Stage([((100.0, 100.0), 60.0), ((130.0, 100.0), 60.0)])  # an overlap of about a third
    for most, expected in ((0.5, [1, 2]), (0.2, [1])):
        assert ids(Tracker(stage, max_overlap=most)(BLANK, 0.0)) == expected  # type: ignore[arg-type]
    for least, expected in ((0.1, [1]), (0.9, [2])):
        stage = Stage([((100.0, 100.0), 60.0)])
        tracker = Tracker(stage, patience=1, min_overlap=least, max_shift=0.0)  # type: ignore[arg-type]
        tracker(BLANK, 0.0)
        stage.faces = [((120.0, 100.0), 60.0)]
        assert ids(tracker(BLANK, 0.04)) == expected


def test_bad_input() -> None:
    for bad in ({"every": 0}, {"max_faces": 0}, {"patience": -1}, {"max_growth": 0.5}, {"min_score": math.nan}):
        with pytest.raises(InputError, match=next(iter(bad))):
            Tracker(Stage(), **bad)  # type: ignore[arg-type]
    tracker = Tracker(Stage())  # type: ignore[arg-type]
    tracker(BLANK, 0.0)
    with pytest.raises(InputError, match="time_s"):
        tracker(BLANK, 0.0)
    with pytest.raises(InputError, match="RGB"):
        tracker(np.zeros((4, 4, 2), np.uint8), 1.0)
    tracker.reset()
    assert tracker(BLANK, 0.0) == []
    with pytest.raises(InputError, match="has no transfer"):
        Tracker(Detector.load("ibug-68"), scheme="wings")


def test_distance_to_the_mean_face() -> None:
    assert shape_distance(MEAN @ np.array([[0.0, 30.0], [-30.0, 0.0]]) + 9, MEAN) == pytest.approx(0, abs=1e-9)
    assert shape_distance(np.random.default_rng(0).normal(0, 1, (68, 2)), MEAN) > 0.8
    assert np.isnan(shape_distance(np.zeros((68, 2)), MEAN))


def test_a_synthetic_face_crosses_the_image() -> None:
    face = list(render_faces(7, SCHEME, 3, size=120))[6]

    def scene(i: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        x, y = 30 + 6 * i, 40 + i
        image = np.full((220, 340, 3), 110, np.uint8)
        image[y : y + 120, x : x + 120] = face.image
        return image, face.landmarks + np.array([x, y], np.float32)

    tracks = [Tracker(Detector.load("ibug-68"), flip=False) for _ in range(2)]
    for i in range(14):
        image, true = scene(i)
        if i == 8:
            image = np.full_like(image, 110)
        (found, again) = (t(image, i / 25) for t in tracks)
        assert ids(found) == ids(again) == ([] if i == 8 else [1])
        for a, b in zip(found, again, strict=True):
            np.testing.assert_array_equal(a.landmarks, b.landmarks)
            side = float(box_size(box_of_points(true)).max())
            assert float(np.linalg.norm(a.raw_landmarks - true, axis=1).mean()) < 0.06 * side
            assert float(np.linalg.norm(a.landmarks - a.raw_landmarks, axis=1).mean()) < 0.05 * side


def test_what_the_landmarks_take_for_no_face_is_not_followed() -> None:
    stage = Stage([((100.0, 100.0), 60.0)], least_score=0.95)
    tracker = Tracker(stage)  # type: ignore[arg-type]
    assert [tracker(BLANK, i / 25) for i in range(3)] == [[], [], []]
    stage.least_score = 0.5
    assert ids(tracker(BLANK, 1.0)) == [1]


def test_a_rotated_face_is_followed_without_the_face_detector() -> None:
    face = render_face(np.random.default_rng(5), scheme=load_scheme("ibug-68"))
    height, width = face.image.shape[:2]
    side = math.ceil(math.hypot(height, width)) + 2
    middle = ((side - 1) / 2, (side - 1) / 2)
    turn = Similarity.about(((width - 1) / 2, (height - 1) / 2), middle, angle=80.0)
    image = warp_image(face.image, turn, (side, side), fill=(124, 116, 104))
    calls = []

    def find(image: NDArray[np.uint8]) -> list[DetectedFace]:
        calls.append(image)
        return [DetectedFace(box_of_points(turn(face.landmarks)), 0.9)]

    loaded = Detector.load("ibug-68-nano")
    checkpoint = replace(loaded.checkpoint, box_from_detector=None)
    detector = Detector(checkpoint, face_detector=find, predictor=loaded.predictor)
    tracker = Tracker(detector, every=100)
    for i in range(8):
        (seen,) = tracker(image, i / 25)
        assert abs(seen.angle - 80) < 15
        assert np.linalg.norm(seen.landmarks - detector.detect(image)[0].landmarks, axis=1).mean() < 0.02 * side / 2
        calls.pop()  # detect's own
    assert len(calls) == 1


def test_frames_of_cv2_are_turned_to_rgb(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage([((100.0, 100.0), 60.0)])
    seen: list[list[int]] = []
    search = stage.search
    monkeypatch.setattr(stage, "search", lambda image, d: (seen.append(image[0, 0].tolist()), search(image, d))[1])
    blue = np.full((*BLANK.shape[:2], 3), (250, 20, 10), np.uint8)
    Tracker(stage)(blue, 0.0, bgr=True)  # type: ignore[arg-type]
    Tracker(stage)(blue, 0.0)  # type: ignore[arg-type]
    assert seen == [[10, 20, 250], [250, 20, 10]]


def test_a_video_on_its_side_is_followed(grace_hopper: NDArray[np.uint8]) -> None:
    image = np.ascontiguousarray(np.rot90(grace_hopper)[150:400, 90:370])
    tracker = Tracker(Detector.load("ibug-68-nano"), every=3)
    for i in range(10):
        assert [(f.id, abs(f.angle - 90) < 15) for f in tracker(image, i / 25)] == [(1, True)]
