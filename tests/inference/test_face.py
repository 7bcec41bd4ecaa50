"""A face: its names, pose, upright crop, drawing and files, and faces for other libraries."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewmark.core.errors import InputError
from fewmark.data.formats.pts import read_pts
from fewmark.data.synthetic.pose import Pose, Relief
from fewmark.data.synthetic.shape import mean_controls
from fewmark.inference.face import Face, to_supervision
from fewmark.landmarks.names import find_landmarks
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_names
from fewmark.video.tracker import TrackedFace
from fewmark.visualization.draw import draw_landmarks

SCHEME = LandmarkScheme("dots-2", ("red", "green"))
BOX = np.array([0, 0, 9, 9], np.float32)


def face(scheme: LandmarkScheme = SCHEME) -> Face:
    points = np.array([[1.25, 2.5], [np.nan, np.nan]], np.float32)
    return Face(BOX, points, np.array([0.5, np.nan], np.float32), 0.75, scheme)


@dataclass
class KeyPoints:
    """What the conversion needs of supervision's class."""

    xy: Any
    class_id: Any = None
    confidence: Any = None
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> KeyPoints:
        return cls(np.empty((0, 0, 2), np.float32))


@dataclass
class RenamedKeyPoints(KeyPoints):
    keypoint_confidence: Any = None
    detection_confidence: Any = None


@pytest.mark.parametrize("kind", [KeyPoints, RenamedKeyPoints])
def test_to_supervision(kind: type[KeyPoints], monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("supervision")
    module.KeyPoints = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    two = to_supervision([face(), face()])
    assert two.xy.tolist() == [[[1.25, 2.5], [0, 0]]] * 2
    scores = two.keypoint_confidence if kind is RenamedKeyPoints else two.confidence
    assert scores.tolist() == [[0.5, 0]] * 2
    if kind is RenamedKeyPoints:
        assert two.detection_confidence.tolist() == [0.75, 0.75]
    assert two.class_id.tolist() == [0, 0]
    assert two.data["class_name"].tolist() == ["dots-2"] * 2
    assert face().to_supervision().xy.shape == (1, 2, 2)
    assert len(to_supervision([]).xy) == 0
    with pytest.raises(InputError, match="one scheme, given dots-2, other"):
        to_supervision([face(), face(LandmarkScheme("other", ("a", "b")))])


def test_with_the_package() -> None:
    supervision = pytest.importorskip(
        "supervision", reason='needs supervision: pip install "fewmark[supervision]"', exc_type=ImportError
    )
    points = to_supervision([face(), face()])
    assert isinstance(points, supervision.KeyPoints)
    assert len(points) == 2
    assert len(to_supervision([])) == 0
    assert len(points[1]) == 1


def test_the_package_draws_what_was_found() -> None:
    supervision = pytest.importorskip(
        "supervision", reason='needs supervision: pip install "fewmark[supervision]"', exc_type=ImportError
    )
    scheme = LandmarkScheme("dots-4", ("a", "b", "c", "d"), edges=((0, 1), (1, 2), (2, 3)))
    xy = np.array([[20, 10], [30, 10], [np.nan, np.nan], [30, 25]], np.float32)
    found = Face(BOX, xy, np.array([0.5, 0.9, np.nan, 0.7], np.float32), 0.75, scheme)
    points = found.to_supervision()
    image = np.zeros((40, 40, 3), np.uint8)
    synthetic = supervision.VertexAnnotator(radius=1).annotate(image.copy(), points).any(-1)
    assert synthetic[10, 20]
    assert synthetic[10, 30]
    assert synthetic[25, 30]
    edges = [(a + 1, b + 1) for a, b in scheme.edges]  # supervision counts from 1
    lines = supervision.EdgeAnnotator(edges=edges, thickness=1).annotate(image.copy(), points).any(-1)
    assert lines[10, 25]
    assert not lines[:8, :18].any(), "no line leads to the missing landmark at (0, 0)"
    if "detection_confidence" in supervision.KeyPoints.__dataclass_fields__:  # 0.25 draws a dot there
        assert not synthetic[:8, :18].any()
        assert points.detection_confidence.tolist() == [0.75]
        assert to_supervision([found, replace(found, box_score=None)]).detection_confidence is None
    supervision.VertexAnnotator().annotate(image, to_supervision([]))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match='pip install "supervision>='):
        face().to_supervision()


IBUG = load_scheme("ibug-68")
MEAN = np.asarray(IBUG.mean_face, np.float64)


def mean_face(angle: float = 0.0, scale: float = 100.0) -> Face:
    """The mean face, turned counter-clockwise about (150, 130)."""
    a = np.radians(angle)
    turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    points = ((MEAN - 0.5) * scale @ turn.T + (150, 130)).astype(np.float32)
    return Face(np.array([99.6, 80.2, 200.4, 181], np.float32), points, np.ones(68, np.float32), 0.876, IBUG)


def test_repr() -> None:
    assert repr(mean_face()) == "Face(ibug-68, box 100 80 200 181 px, score 0.88)"
    assert repr(replace(mean_face(), box_score=None)) == "Face(ibug-68, box 100 80 200 181 px, box given)"
    values = {f.name: getattr(mean_face(), f.name) for f in fields(Face)}
    tracked = TrackedFace(**values, id=3, raw_landmarks=mean_face().landmarks)
    assert repr(tracked) == "TrackedFace(3, ibug-68, box 100 80 200 181 px, score 0.88)"


def test_landmarks_by_name() -> None:
    found = mean_face()
    np.testing.assert_array_equal(found["nose_tip"], found.landmarks[30])
    np.testing.assert_array_equal(found["left_eye"], found.landmarks[36:42])
    np.testing.assert_array_equal(found["subject_left_eye"], found.landmarks[42:48])  # imutils' left_eye
    np.testing.assert_array_equal(found["subject_left_eye_outer_corner"], found.landmarks[45])
    np.testing.assert_array_equal(found["subject_mouth_outer_right_corner"], found.landmarks[48])
    np.testing.assert_array_equal(found["jaw"], found.landmarks[:17])
    np.testing.assert_array_equal(found["face_oval"], found["contour"])
    np.testing.assert_array_equal(found["lips"], found["mouth"])
    for name, words in (("left_eyes", "did you mean 'left_eye'"), ("zzz", "components are contour, left_eyebrow")):
        with pytest.raises(InputError, match=words) as caught:
            found[name]
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"face\.landmarks\[36\]"):
        found[36]  # type: ignore[index]
    with pytest.raises(TypeError):
        list(found)  # type: ignore[call-overload]


@pytest.mark.parametrize("scheme", [load_scheme(n) for n in scheme_names()], ids=lambda s: s.name)
def test_left_is_the_images_left_in_every_packaged_scheme(scheme: LandmarkScheme) -> None:
    assert scheme.mean_face is not None
    assert not set(scheme.components) & set(scheme.landmarks), "a name would be both"
    sides = {n: scheme.mean_face[list(c), 0].mean() for n, c in scheme.components.items()}
    sides |= dict(zip(scheme.landmarks, scheme.mean_face[:, 0].tolist(), strict=True))
    for name, x in sides.items():
        if name.startswith("left_"):
            other = find_landmarks(scheme, f"subject_{name}")
            assert x < 0.5 < float(np.mean(scheme.mean_face[np.atleast_1d(other), 0])), name


def test_pose() -> None:
    for angle in (0.0, 40.0, -70.0):
        pose = mean_face(angle).pose
        assert pose is not None
        assert abs(pose.roll - angle) < 1
        assert abs(pose.yaw) < 3
    assert mean_face().to_dict()["pose"]["yaw"] == round(mean_face().pose.yaw, 1)  # type: ignore[union-attr]
    right = relief_face(Pose(30, 0, 0)).pose
    up, down = relief_face(Pose(0, 20, 0)).pose, relief_face(Pose(0, -20, 0)).pose
    assert right is not None and up is not None and down is not None  # noqa: PT018
    assert right.yaw > 15
    assert down.pitch < 0 < up.pitch
    assert face().pose is None  # no mean face
    assert face().to_dict()["pose"] is None
    profile = load_scheme("menpo-39")
    assert replace(face(profile), landmarks=np.zeros((39, 2), np.float32)).pose is None
    few = mean_face().landmarks.copy()
    few[3:] = np.nan
    assert replace(mean_face(), landmarks=few).pose is None


def relief_face(pose: Pose) -> Face:
    """A synthetic face without perspective, turned by a pose."""
    controls = mean_controls()
    points = Relief(controls).lift(controls[:68]) @ pose.rotation().T
    return replace(mean_face(), landmarks=(points[:, :2] * 50 + 150).astype(np.float32))


@pytest.mark.parametrize("angle", [0.0, 33.0, -120.0])
def test_an_aligned_face_is_upright_and_in_place(angle: float) -> None:
    image = np.zeros((300, 320, 3), np.uint8)
    turned = mean_face(angle)
    x, y = np.rint(turned["nose_tip"]).astype(int)
    image[y - 2 : y + 3, x - 2 : x + 3] = (250, 60, 20)
    crop = turned.aligned(image, 128, margin=0.25)
    assert crop.image.shape == (128, 128, 3)
    np.testing.assert_allclose(crop.landmarks, (MEAN - 0.5) * 128 / 1.5 + 63.5, atol=0.05)
    cx, cy = np.rint(crop.landmarks[30]).astype(int)
    np.testing.assert_allclose(crop.image[cy, cx].astype(int), (250, 60, 20), atol=12)
    back = crop.crop_from_image.inverse()(crop.landmarks)
    np.testing.assert_allclose(back, turned.landmarks, atol=0.01)
    np.testing.assert_array_equal(turned.aligned(image[..., ::-1], 128, margin=0.25, bgr=True).image, crop.image)
    some = turned.landmarks.copy()
    some[::3] = np.nan
    np.testing.assert_allclose(
        replace(turned, landmarks=some).aligned(image, 128, margin=0.25).landmarks[1], crop.landmarks[1], atol=0.05
    )


def test_an_aligned_face_without_a_mean_face() -> None:
    scheme = LandmarkScheme("four", ("a", "b", "c", "d"))
    points = np.array([[100, 80], [140, 80], [140, 120], [100, 120]], np.float32)
    four = Face(BOX, points, np.ones(4, np.float32), None, scheme)
    crop = four.aligned(np.zeros((200, 200, 3), np.uint8), 100, margin=0.0)
    np.testing.assert_allclose(crop.landmarks[[0, 2]], [[-0.5, -0.5], [99.5, 99.5]], atol=1e-3)
    assert abs(replace(four, angle=90.0).aligned(np.zeros((200, 200), np.uint8)).crop_from_image.angle + 90) < 1e-6
    for bad in (np.full((4, 2), np.nan, np.float32), np.ones((4, 2), np.float32)):
        with pytest.raises(InputError, match="two landmarks or more"):
            replace(four, landmarks=bad).aligned(np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match="size"):
        four.aligned(np.zeros((9, 9), np.uint8), 1)


def test_drawing(tmp_path: Path) -> None:
    image = np.full((300, 320, 3), (10, 90, 200), np.uint8)
    expected = draw_landmarks(image, [mean_face()], IBUG)
    np.testing.assert_array_equal(mean_face().draw(image), expected)
    assert (expected != image).any()
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(mean_face().draw(tmp_path / "a.png"), expected)
    np.testing.assert_array_equal(mean_face().draw(image[..., ::-1], bgr=True), expected)
    assert (mean_face().draw(image, numbers=True) != expected).any()


def test_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    found = mean_face()
    found.save("~/a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == found.to_dict()
    face().save(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))["landmarks"][1] is None
    found.save(tmp_path / "a.pts")
    np.testing.assert_allclose(read_pts(tmp_path / "a.pts"), found.landmarks, atol=1e-3)
    with pytest.raises(InputError, match=r"a\.png: expected a file name ending in \.json or \.pts"):
        found.save(tmp_path / "a.png")
