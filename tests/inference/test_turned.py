"""Faces on their side and upside down: boxes mapped back, directions merged, and a photograph rotated."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image
from fewmark.inference.detector import Detector
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import DetectedFace, FaceDetector, FullImage, SlimeFaceDetector, adapt_box
from fewmark.inference.face_detection.directions import box_before_turns, detect_in_direction, upright_box
from fewmark.inference.predictor import Prediction
from fewmark.inference.search import FaceRequest, FoundFace, best_of_directions, merge_directions

ANGLES = {1: 90.0, 2: 180.0, 3: -90.0}  # np.rot90's turns -> angle of an upright face afterwards


class Counted:
    """A face detector that counts its calls."""

    def __init__(self, face_detector: FaceDetector) -> None:
        self.face_detector, self.n_calls = face_detector, 0

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        self.n_calls += 1
        return self.face_detector(image)


def finds_white(image: NDArray[np.uint8]) -> list[DetectedFace]:
    y, x = np.nonzero(image[..., 0] == 255)
    return [DetectedFace(np.array([x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5], np.float32), 0.9, 0.0)]


def before(points: NDArray[np.float32], turns: int, image: Image) -> NDArray[np.float64]:
    """Points (K, 2) of np.rot90(image, turns) in the image."""
    height, width = image.shape[:2]
    x, y = np.asarray(points, np.float64).T
    return {
        0: np.c_[x, y],
        1: np.c_[width - 1 - y, x],
        2: np.c_[width - 1 - x, height - 1 - y],
        3: np.c_[y, height - 1 - x],
    }[turns]


def assert_same(found: Face, upright: Face, turns: int, image: Image) -> None:
    size = float(np.ptp(upright.landmarks, 0).max())
    errors = np.linalg.norm(before(found.landmarks, turns, image) - upright.landmarks, axis=1)
    assert errors.mean() < 0.01 * size
    assert abs((found.angle - upright.angle - ANGLES.get(turns, 0.0) + 180) % 360 - 180) < 15


@pytest.mark.parametrize("direction", [0.0, 90.0, 180.0, -90.0])
def test_boxes_of_rotated_images_are_mapped_back_exactly(direction: float) -> None:
    image = np.zeros((30, 50, 3), np.uint8)
    image[4:11, 20:41] = 255
    (face,) = detect_in_direction(finds_white, image, direction)
    assert face.box_xyxy.tolist() == [19.5, 3.5, 40.5, 10.5]
    assert face.angle == direction
    (unknown,) = detect_in_direction(FullImage(), image, direction)
    assert unknown.box_xyxy.tolist() == [-0.5, -0.5, 49.5, 29.5]
    assert unknown.angle is None


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_box_is_adapted_in_the_direction_of_its_face(turns: int) -> None:
    rotated, adapter, size = np.array([10, 20, 26, 24], np.float32), (0.25, -0.5, 2.0), (90, 70)
    direction = (-90.0 * turns + 180) % 360 - 180
    there = box_before_turns(adapt_box(rotated, adapter), turns, size)
    np.testing.assert_allclose(adapt_box(box_before_turns(rotated, turns, size), adapter, direction), there, atol=1e-4)


def test_a_box_on_its_side_is_turned_about_its_centre() -> None:
    box = np.array([10, 20, 26, 24], np.float32)
    assert upright_box(box, -90).tolist() == upright_box(box, 100).tolist() == [16, 14, 20, 30]
    assert upright_box(box, 180).tolist() == upright_box(box, 20).tolist() == box.tolist()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_photograph_on_its_side_and_upside_down(grace_hopper: Image, turns: int) -> None:
    detector = Detector.load("ibug-68")
    (upright,) = detector.detect(grace_hopper)
    image = np.ascontiguousarray(np.rot90(grace_hopper, turns))
    for found in (detector.detect(image), detector.detect(image, turned=True), detector.detect_batch([image])[0]):
        assert len(found) == 1
        assert_same(found[0], upright, turns, grace_hopper)
        assert found[0].box_score is not None
        assert found[0].box_score > 0.8
        x0, y0, x1, y1 = found[0].box.tolist()
        corners = before(np.array([[x0, y0], [x1, y1]], np.float32), turns, grace_hopper)
        np.testing.assert_allclose(np.sort(corners, 0).ravel(), upright.box, atol=4)
    for face in detector.detect(image, turned=False):
        assert abs(face.angle) <= 60


def test_upright_and_rotated_faces_in_one_image(grace_hopper: Image) -> None:
    face = grace_hopper[60:400, 120:460]
    page = np.full((360, 1460, 3), 120, np.uint8)
    for turns in range(4):
        page[10:350, 10 + 365 * turns : 350 + 365 * turns] = np.rot90(face, turns)
    detector = Detector.load("ibug-68")
    upright, *_ = detector.detect(page, turned=False)
    assert upright.landmarks[:, 0].max() < 365
    found = sorted(detector.detect(page, turned=True), key=lambda f: float(f.box[0]))
    assert len(found) == 4
    for turns, each in enumerate(found):
        moved = replace(each, landmarks=each.landmarks - np.float32([10 + 365 * turns, 10]))
        assert_same(moved, replace(upright, landmarks=upright.landmarks - np.float32(10)), turns, face)


def test_only_doubtful_images_are_searched_in_other_directions(grace_hopper: Image) -> None:
    counted = Counted(SlimeFaceDetector())
    detector = Detector.load("ibug-68", face_detector=counted)
    sideways, empty = np.ascontiguousarray(np.rot90(grace_hopper)), np.full((90, 120, 3), 120, np.uint8)
    for image, turned, n in (
        (grace_hopper, None, 1),
        (grace_hopper, True, 4),
        (grace_hopper, False, 1),
        (sideways, None, 4),
        (sideways, False, 1),
        (empty, None, 4),
    ):
        counted.n_calls = 0
        detector.detect(image, turned=turned)
        assert counted.n_calls == n
    whole = FullImage()
    assert len(Detector.load("ibug-68", face_detector=whole).detect(sideways[170:350, 110:330], turned=True)) == 1


def test_an_image_rotated_by_half_a_right_angle_is_searched_too(grace_hopper: Image) -> None:
    counted = Counted(SlimeFaceDetector())
    detector = Detector.load("ibug-68", face_detector=counted)
    matrix = cv2.getRotationMatrix2D((256, 300), 45, 0.7)
    image = np.asarray(cv2.warpAffine(grace_hopper, matrix, (512, 600), borderValue=(120, 120, 120)), np.uint8)
    (face,) = detector.detect(image)
    assert abs(face.angle - 45) < 15
    assert counted.n_calls == 4


def test_a_face_found_upright_is_not_turned_over(grace_hopper: Image) -> None:
    image = np.ascontiguousarray(np.rot90(grace_hopper, 2))
    height, width = image.shape[:2]
    box = np.array([width - 353, height - 333, width - 180, height - 119], np.float32)

    def finds(angle: float | None) -> FaceDetector:
        return lambda image: [DetectedFace(box, 0.9, angle)]

    (turned,) = Detector.load("ibug-68", face_detector=finds(None)).detect(image, turned=False)
    assert abs(turned.angle) > 150
    detector = Detector.load("ibug-68", face_detector=finds(0.0), keep_unlikely=True)
    (upright,) = detector.detect(image, turned=False)
    assert abs(upright.angle) <= 60


def found_face(x: float, direction: float, score: float, side: float = 20.0) -> FoundFace:
    box = np.array([x, 0, x + side, side], np.float32)
    request = FaceRequest(0, np.zeros((9, 9, 3), np.uint8), box, score, 2, direction, direction)
    scores = np.full((1, 3), score, np.float32)
    prediction = Prediction(np.zeros((1, 3, 2), np.float32), scores, np.zeros(1), np.zeros(1, np.float32))
    return FoundFace(request, prediction, score)


def test_directions_without_a_certain_face_are_left_out() -> None:
    upright, doubtful = found_face(0, 0.0, 0.8), found_face(50, 90.0, 0.9)
    assert merge_directions([upright, doubtful]) == [upright]
    certain, weak = found_face(100, 180.0, 1.1), found_face(150, 180.0, 0.3, side=30)
    assert merge_directions([upright, doubtful, certain, weak]) == [certain, weak]
    assert len(merge_directions([upright, certain, found_face(200, 0.0, 1.0)])) == 3
    assert merge_directions([]) == []


def test_without_a_certain_face_another_direction_wins_by_a_margin() -> None:
    turned = found_face(50, 90.0, 0.9)
    assert merge_directions([found_face(0, 0.0, 0.7), turned]) == [turned]
    assert merge_directions([turned]) == [turned]
    assert merge_directions([found_face(50, 90.0, 0.8)]) == []
    assert turned not in merge_directions([found_face(0, 0.0, 0.8), turned])


def test_a_face_found_in_two_directions_is_kept_once() -> None:
    a, b = found_face(0, 0.0, 0.96), found_face(6, 180.0, 0.97)
    assert merge_directions([a, b]) == [a]
    turned, other = found_face(0, 90.0, 0.96), found_face(6, 180.0, 0.97)
    assert merge_directions([turned, other]) == [other]
    clearer = found_face(6, 180.0, 1.2)
    assert merge_directions([a, clearer]) == [clearer]
    assert len(merge_directions([a, found_face(14, 180.0, 0.97)])) == 2
    assert best_of_directions([a.request, b.request]) == [1]
    twins = [found_face(0, 90.0, 0.96), found_face(1, 90.0, 0.8)]
    assert merge_directions(twins) == twins  # of one direction: the face detector's word


def test_a_failing_search_fails_its_image_alone(grace_hopper: Image) -> None:
    packaged = SlimeFaceDetector()

    def fails_on_small(image: NDArray[np.uint8]) -> list[DetectedFace]:
        if image.shape[0] == 40:
            raise InputError("too small")
        return packaged(image)

    detector = Detector.load("ibug-68-nano", face_detector=fails_on_small)
    images, failures = [np.zeros((50, 40, 3), np.uint8), grace_hopper], dict[int, InputError]()
    faces = detector.detect_batch(images, on_error=failures.__setitem__)
    assert list(failures) == [0]  # when it lies on its side
    assert [len(f) for f in faces] == [0, 1]
    with pytest.raises(InputError, match="too small"):
        detector.detect(images[0])
    assert math.isclose(float(faces[1][0].landmarks[0, 0]), float(detector.detect(images[1])[0].landmarks[0, 0]))
