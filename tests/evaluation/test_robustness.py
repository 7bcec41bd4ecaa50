"""Perturbed faces: labels and images move together, and the numbers are those by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_centre, box_of_points, box_size
from fewmark.data.crops import CropRule
from fewmark.data.samples import FaceSample
from fewmark.data.synthetic.pose import Camera, Pose, Relief, project_visible, sample_pose
from fewmark.data.synthetic.shape import face_controls, sample_expression, scheme_weights
from fewmark.evaluation.evaluate import FULL, evaluate, evaluate_lists
from fewmark.evaluation.perturbation import DIRECTIONS, Perturbation, perturb
from fewmark.evaluation.robustness import KINDS, SHIFTS, Curve, Level, measure_robustness
from fewmark.evaluation.robustness_report import check_output, summary_lines, write_robustness
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.head_pose import head_poses
from fewmark.inference.predictor import CropPrediction, LandmarkPredictor
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_names

Floats = NDArray[np.float64]

SCHEME = LandmarkScheme("corners-2", ("red", "green"))  # normalised by the diagonal of the points' box
RULE = CropRule(size=64, margin=0.5)


class SeesColours(LandmarkPredictor):
    """Each landmark is the middle of its colour: exact, wherever the image's dots are."""

    def predict_crops(self, crops: NDArray[np.uint8], *, flip: bool) -> CropPrediction:
        rgb = crops.astype(np.float64)
        yy, xx = np.mgrid[: crops.shape[1], : crops.shape[2]]
        points = []
        for one, other in ((0, 1), (1, 0)):
            weight = np.clip(rgb[..., one] - rgb[..., other] - 20, 0, None)
            total = weight.sum((1, 2)) + 1e-9
            points.append(np.stack([(weight * xx).sum((1, 2)) / total, (weight * yy).sum((1, 2)) / total], -1))
        landmarks = np.stack(points, 1).astype(np.float32)
        return CropPrediction(landmarks, np.ones(landmarks.shape[:2], np.float32), None)


class SeesNothing(LandmarkPredictor):
    """Every landmark is the crop's centre, which is the box's."""

    def predict_crops(self, crops: NDArray[np.uint8], *, flip: bool) -> CropPrediction:
        k = self.checkpoint.scheme.n_landmarks
        middle = (self.checkpoint.crop.size - 1) / 2
        return CropPrediction(
            np.full((len(crops), k, 2), middle, np.float32), np.ones((len(crops), k), np.float32), None
        )


def detector(kind: type[LandmarkPredictor], scheme: LandmarkScheme = SCHEME) -> Detector:
    checkpoint = Checkpoint(scheme, [], RULE)
    return Detector(checkpoint, predictor=kind(checkpoint))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[FaceSample]:
    """Three images with a red and a green dot each."""
    folder = tmp_path_factory.mktemp("dots")
    samples = []
    for i, (x, y, dx, dy) in enumerate([(320, 300, 70, 60), (300, 330, -75, 50), (310.4, 290.7, 60, -80)]):
        points = np.array([[x - dx, y - dy], [x + dx, y + dy]])
        image = np.full((640, 640, 3), 120, np.uint8)
        yy, xx = np.mgrid[:640, :640]
        for (px, py), colour in zip(points, ((250, 120, 120), (120, 250, 120)), strict=True):
            cover = np.clip(12.5 - np.hypot(xx - px, yy - py), 0, 1)[..., None]
            image = np.rint(image * (1 - cover) + np.array(colour) * cover).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), image[..., ::-1])
        samples.append(FaceSample(folder / f"{i}.png", None, points.astype(np.float32), name=f"{i}.png"))
    return samples


def test_a_perfect_detector_is_perfect_under_every_perturbation(faces: list[FaceSample]) -> None:
    result = measure_robustness(detector(SeesColours), faces)
    assert {(c.kind, c.passes) for c in result.curves} == {
        *((k, n) for k in ("shift", "scale", "rotation") for n in (1, 2)),
        ("size", 1),
    }
    for curve in result.curves:
        for level in curve.levels:
            worst = level.nme if level.worst_nme is None else level.worst_nme
            small = 0.01 if curve.kind == "size" and level.value < 40 else 0.004  # of the diagonal of some 190 px
            assert worst < small, (curve.kind, curve.passes, level)
            assert level.failure_rate == 0
            assert level.n_faces == 3
    assert len(result.notes) == 2  # this scheme has no mirror: no yaw, no roll
    assert all("mirror" in n for n in result.notes)


def test_unperturbed_is_what_evaluate_measures(faces: list[FaceSample]) -> None:
    blind = detector(SeesNothing)
    score = evaluate(blind, faces)
    result = measure_robustness(blind, faces)
    assert result.unperturbed.nme == score.nme == pytest.approx(0.5, abs=1e-5)
    assert result.unperturbed.failure_rate == score.failure_rate == 1
    assert (result.normalizer, result.n_faces) == (score.normalizer, score.n_faces)
    for kind, value in (("shift", 0), ("scale", 1), ("rotation", 0)):
        (level,) = (v for v in result.curve(kind, 1).levels if v.value == value)  # type: ignore[arg-type]
        assert level.nme == score.nme
        assert level.ratio == 1


def test_lists_are_evaluated_each_and_together(faces: list[FaceSample]) -> None:
    perfect = detector(SeesColours)
    scores = evaluate_lists(perfect, {"a": faces[:2], "b": faces[1:]})
    assert {name: s.n_faces for name, s in scores.items()} == {"a": 2, "b": 2, FULL: 3}
    assert scores["b"].nme == evaluate(perfect, faces[1:]).nme
    assert evaluate(perfect, faces, threshold=1e-9).failure_rate == 1
    with pytest.raises(InputError, match="normali"):
        evaluate(perfect, faces, normalizer="inches")
    with pytest.raises(InputError, match="transfer"):
        evaluate(perfect, faces, scheme="ibug-68")


def test_the_box_centre_as_an_answer_is_off_by_the_shift(faces: list[FaceSample]) -> None:
    square = [replace(faces[0], landmarks=np.array([[250, 250], [350, 350]], np.float32))]
    curve = measure_robustness(detector(SeesNothing), square, kinds=["shift"]).curve("shift")
    assert [v.value for v in curve.levels] == list(SHIFTS)
    for level in curve.levels:
        offsets = 100 * level.value * np.array(list(DIRECTIONS.values()))
        both = [np.hypot(*(offsets + corner).T) for corner in ((50, 50), (-50, -50))]
        by_direction = np.mean(both, 0) / math.hypot(100, 100)
        assert level.nme == pytest.approx(by_direction.mean(), abs=1e-6)
        if level.value:
            assert level.worst_nme == pytest.approx(by_direction.max(), abs=1e-6)
            assert level.worst_direction in ("up right", "down left")  # away from both corners
    scaled = measure_robustness(detector(SeesNothing), square, kinds=["scale"]).curve("scale")
    assert all(v.nme == pytest.approx(0.5, abs=1e-6) for v in scaled.levels)


@settings(max_examples=25)
@given(st.sampled_from(["rotation", "size"]), st.floats(20, 170), st.floats(300, 340), st.floats(30, 80))
def test_a_perturbed_face_has_its_box_and_its_labels(kind: str, value: float, x: float, side: float) -> None:
    landmarks = np.array([[x - side, 300], [x + side, 310], [x, 300 - side / 2], [np.nan, np.nan]])
    image = np.random.default_rng(0).integers(0, 255, (640, 640, 3), np.uint8)
    seen, box, new_from_image = perturb(Perturbation(kind, value), image, landmarks, RULE)  # type: ignore[arg-type]
    moved = new_from_image(landmarks)
    np.testing.assert_allclose(box, box_of_points(moved), atol=1e-4)
    need = box_size(box).max() * (1 + 2 * RULE.margin) / 2
    low, high = box_centre(box) - need, box_centre(box) + need
    assert (low > 0).all()
    assert (high < np.array(seen.shape[1::-1]) - 1).all()
    if kind == "rotation":
        assert new_from_image.angle == pytest.approx(value)
        assert new_from_image.scale == pytest.approx(1)
        across = moved[1] - moved[0]
        assert math.degrees(math.atan2(-across[1], across[0])) == pytest.approx(
            value - math.degrees(math.atan2(10, 2 * side))
        )
    else:
        assert box_size(box).max() == pytest.approx(min(value, 2 * side), abs=1e-3)


def test_a_large_face_is_reduced_before_it_is_rotated() -> None:
    landmarks = np.array([[100.0, 100], [1100, 1100]])
    seen, box, _ = perturb(Perturbation("rotation", 90), np.zeros((1300, 1300, 3), np.uint8), landmarks, RULE)
    assert box_size(box).max() == pytest.approx(400, abs=0.01)
    assert max(seen.shape) < 1300


def test_the_tolerated_shift() -> None:
    def curve(*ratios: float) -> Curve:
        levels = [Level(0.1 * i, "", 0.03 * r, 0.0, r, 9) for i, r in enumerate(ratios)]
        return Curve("shift", 1, tuple(levels))

    assert curve(1.0, 1.05, 1.25, 1.1).rise_at() == pytest.approx(0.125)
    assert curve(1.0, 1.05, 1.0).rise_at() is None
    assert curve(1.2, 1.5).rise_at() == 0
    assert curve(1.0, math.inf).rise_at() == pytest.approx(0.1)
    assert curve(1.0, 1.5).rise_at(0.25) == pytest.approx(0.05)
    assert curve(math.nan, math.nan).rise_at() is None


def synthetic_shapes(scheme: LandmarkScheme, poses: list[Pose]) -> Floats:
    """(N, K, 2) px of synthetic faces, each another's."""
    rng = np.random.default_rng(4)
    shapes = []
    for pose in poses:
        controls = face_controls(rng, sample_expression(rng))
        relief = Relief(controls, nose=float(rng.uniform(0.75, 1.2)))
        camera = Camera(pose.rotation(), float(rng.uniform(4, 14)), 100.0, np.array([200.0, 200.0]))
        shapes.append(project_visible(relief, camera, scheme_weights(scheme) @ controls)[0])
    return np.stack(shapes)


@pytest.mark.parametrize("name", [n for n in scheme_names() if load_scheme(n).mirror is not None])
def test_head_poses_of_synthetic_faces(name: str) -> None:
    scheme = load_scheme(name)
    rng = np.random.default_rng(1)
    poses = [sample_pose(rng) for _ in range(40)]
    true = np.array([[p.yaw, p.pitch, p.roll] for p in poses])
    shapes = synthetic_shapes(scheme, poses)
    found = head_poses(shapes, scheme)
    clear = np.abs(true[:, 0]) > 15
    assert clear.sum() > 10
    assert (np.sign(found[clear, 0]) == np.sign(true[clear, 0])).all()
    for i, (least, most) in enumerate(((0.93, 9.5), (0.6, 9), (0.97, 2.5))):
        assert np.corrcoef(found[:, i], true[:, i])[0, 1] > least
        assert (found[:, i] - true[:, i]).std() < most
    flipped = head_poses(scheme.flip_landmarks(shapes, 400), scheme)
    # a scheme's mean face is symmetric to its rounding
    np.testing.assert_allclose(flipped * [-1, 1, -1], found, atol=1.5)


def test_head_poses_do_not_depend_on_place_size_and_roll() -> None:
    scheme = load_scheme("ibug-68")
    shapes = synthetic_shapes(scheme, [Pose(30, 5, 0), Pose(-30, -5, 0), Pose(5, 0, 0)])
    found = head_poses(shapes, scheme)
    turn = np.array([[math.cos(2.8), math.sin(2.8)], [-math.sin(2.8), math.cos(2.8)]])
    again = head_poses(3 * shapes @ turn.T - 1e3, scheme)
    np.testing.assert_allclose(again[:, :2], found[:, :2], atol=0.01)
    turned = (again[:, 2] - found[:, 2] - math.degrees(2.8) + 180) % 360 - 180
    np.testing.assert_allclose(turned, 0, atol=0.01)
    missing = shapes.copy()
    missing[0, 20:60:2] = np.nan
    missing[1, 3:] = np.nan
    missing[2] = 7.0
    found = head_poses(missing, scheme)
    assert found[0, 0] > 15
    assert np.isnan(found[1:]).all()


def test_poses_group_the_faces(faces: list[FaceSample]) -> None:
    scheme = load_scheme("mtfl-5")
    shapes = synthetic_shapes(scheme, [Pose(0), Pose(38), Pose(-38)])
    samples = [FaceSample(faces[0].image, None, s.astype(np.float32)) for s in shapes]
    result = measure_robustness(detector(SeesNothing, scheme), samples, kinds=["yaw", "roll"])
    yaw = result.curve("yaw").levels
    assert [v.n_faces for v in yaw] == [1, 2]
    assert yaw[1].label == "30° and more"
    assert sum(v.n_faces * v.nme for v in yaw) / 3 == pytest.approx(result.unperturbed.nme)
    assert sum(v.n_faces for v in result.curve("roll").levels) == 3
    assert result.tolerated_shift == {}
    with pytest.raises(InputError, match="shift with 1 passes was not measured"):
        result.curve("shift")


def test_bad_input(faces: list[FaceSample]) -> None:
    blind = detector(SeesNothing)
    for samples, options, says in (
        ([], {}, "given none"),
        ([replace(faces[0], landmarks=None)], {}, "without landmarks"),
        ([replace(faces[0], landmarks=np.zeros((3, 2), np.float32))], {}, "expected 2 landmarks"),
        ([replace(faces[0], landmarks=np.ones((2, 2), np.float32))], {}, "one point"),
        (faces, {"kinds": ["wind"]}, "kinds: expected some of shift, scale, rotation, size, yaw, roll, given 'wind'"),
        (faces, {"normalizer": "nose"}, "no normalizer 'nose'"),
        (faces, {"threshold": 0.0}, "threshold: expected a fraction above 0"),
    ):
        with pytest.raises(InputError, match=says):
            measure_robustness(blind, samples, **options)  # type: ignore[arg-type]
    for kind, value, direction, says in (
        ("wind", 1.0, "", "expected shift, scale, rotation, size"),
        ("scale", 0.0, "", "above 0"),
        ("rotation", math.nan, "", "finite"),
        ("shift", 0.1, "", "a direction"),
        ("size", 9.0, "up", "a direction"),
    ):
        with pytest.raises(InputError, match=says):
            Perturbation(kind, value, direction)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected \(N, 68, 2\)"):
        head_poses(np.zeros((1, 5, 2)), load_scheme("ibug-68"))
    with pytest.raises(InputError, match="mean face"):
        head_poses(np.zeros((1, 2, 2)), LandmarkScheme("two", ("a", "b"), mirror=(1, 0)))
    with pytest.raises(InputError, match=r"ends in \.html, \.json, \.png"):
        check_output("a.txt")


def test_written_files(faces: list[FaceSample], tmp_path: Path) -> None:
    result = measure_robustness(detector(SeesColours), faces, kinds=["shift", "rotation"])
    for name in ("a.html", "a.json", "a.png"):
        write_robustness(tmp_path / name, result, title="Robustness of <m>", context={"model": "m"})
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert page.count("<table") == 4
    assert "Robustness of &lt;m&gt;" in page
    for name in ("once", "once, worst", "twice", "twice, worst", "unperturbed"):
        assert f">{name}<" in page, "the legend is whole"
    data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert data["model"] == "m"
    assert data["unperturbed"]["n_faces"] == 3
    assert [c["kind"] for c in data["curves"]] == ["shift", "shift", "rotation", "rotation"]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert summary_lines(result)[0].startswith("unperturbed: NME ")


def test_the_command(cli: Any, synthetic: Path, tmp_path: Path) -> None:
    page, numbers = tmp_path / "r.html", tmp_path / "r.json"
    words = ["robustness", "ibug-68", synthetic, "--list", synthetic / "few.txt", synthetic / "val.txt", "--limit", "1"]
    words += ["--out", page, numbers]
    result = cli.json(*words)
    assert result == json.loads(numbers.read_text(encoding="utf-8"))
    assert (result["model"], result["lists"], result["n_faces"]) == ("ibug-68", ["few", "val"], 1)
    assert list(dict.fromkeys(c["kind"] for c in result["curves"])) == list(KINDS)
    assert "<svg" in page.read_text(encoding="utf-8")
    for bad, says in ((["--limit", "0"], "1 or more"), (["--out", "r.gif"], ".html"), (["--normalizer", "x"], "x")):
        assert says in cli.error(*words[:3], *bad)
