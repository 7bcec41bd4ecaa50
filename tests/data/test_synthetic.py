"""Synthetic faces: exact landmarks, in every scheme that shows both eyes, from a seed alone."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_of_points
from fewmark.data.images import read_image
from fewmark.data.synthetic.appearance import sample_appearance
from fewmark.data.synthetic.brush import lid, smooth
from fewmark.data.synthetic.faces import _hidden, _lay_face, render_dataset, render_face, render_faces
from fewmark.data.synthetic.pose import (
    EXTENT,
    X0,
    Y0,
    Camera,
    Pose,
    Relief,
    face_from_image,
    project_visible,
    sample_pose,
    spread_contour,
)
from fewmark.data.synthetic.shape import (
    IBUG_MIRROR,
    Expression,
    Outline,
    face_controls,
    mean_controls,
    painted_controls,
    sample_expression,
    scheme_weights,
)
from fewmark.data.synthetic.skin import paint_face
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_names

DRAWN_SCHEMES = [name for name in scheme_names() if name != "menpo-39"]
poses = st.builds(Pose, st.floats(-45, 45), st.floats(-25, 25), st.floats(-30, 30))
expressions = st.builds(
    Expression,
    gap=st.floats(0, 0.6),
    smile=st.floats(-0.5, 1),
    brow_raise=st.floats(-0.05, 0.1),
    eyes=st.floats(0.04, 1.5).map(lambda e: (e, e)),
    pucker=st.floats(0, 1),
)


@pytest.fixture(scope="module")
def ibug() -> LandmarkScheme:
    return load_scheme("ibug-68")


# --- shape


@given(expressions)
@settings(max_examples=40)
def test_the_mean_person_is_mirror_symmetric(expression: Expression) -> None:
    face = face_controls(None, expression)[:68]
    flipped = face[list(IBUG_MIRROR)] * (-1, 1)
    np.testing.assert_allclose(flipped, face, atol=1e-12)


def test_our_mirror_is_the_schemes(ibug: LandmarkScheme) -> None:
    assert ibug.mirror == IBUG_MIRROR


def test_the_mean_face_agrees_with_the_schemes(ibug: LandmarkScheme) -> None:
    """Theirs is the mean of real labels; ours is what a camera makes that mean of."""
    assert ibug.mean_face is not None
    ours, theirs = mean_controls()[:68], ibug.mean_face.astype(np.float64)
    design = np.column_stack([theirs, np.ones(68)])
    affine, *_ = np.linalg.lstsq(design, ours, rcond=None)
    assert np.abs(design @ affine - ours).max() < 0.07  # of half the face's width


@given(st.floats(0, 0.6), st.floats(-0.5, 1))
@settings(max_examples=40)
def test_the_mouth_opens_by_the_gap(gap: float, smile: float) -> None:
    face = face_controls(None, Expression(gap=gap, smile=smile))
    assert face[66, 1] - face[62, 1] == pytest.approx(gap, abs=1e-9)


def test_eyes_open_and_shut_one_by_one() -> None:
    def openings(eyes: tuple[float, float]) -> tuple[float, float]:
        p = face_controls(None, Expression(eyes=eyes))
        return (
            float(p[[40, 41], 1].mean() - p[[37, 38], 1].mean()),
            float(p[[46, 47], 1].mean() - p[[43, 44], 1].mean()),
        )

    wink_left, wink_right = openings((0.04, 1.0))
    assert 0 < wink_left < 0.02 < 0.08 < wink_right
    assert openings((1.4, 1.4))[0] > openings((1.0, 1.0))[0] > openings((0.5, 0.5))[0]


def test_features_are_painted_on_both_sides_alike_and_the_hairline_where_it_is() -> None:
    controls = face_controls(None, Expression())
    painted = painted_controls(controls)
    np.testing.assert_allclose(painted[list(IBUG_MIRROR)] * (-1, 1), painted[:68], atol=1e-12)
    np.testing.assert_array_equal(painted[68:], controls[68:])
    assert 0 < np.abs(painted - controls).max() < 0.06


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_a_random_face_keeps_its_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = face_controls(rng, sample_expression(rng))
    about = p[:17] - (0, 0.25)
    assert (np.diff(np.arctan2(about[:, 0], about[:, 1])) > 0).all(), "the contour goes round the face's centre"
    assert p[17:27, 1].max() < p[30, 1] < p[33, 1] < p[57, 1] < p[8, 1], "brows, nose, mouth, chin from above"
    assert p[66, 1] - p[62, 1] > -0.03  # shut lips and the scatter of labels
    upper, lower = p[[37, 38, 43, 44], 1], p[[41, 40, 47, 46], 1]
    assert (lower - upper > -0.03).all()


# --- pose


@given(poses)
@settings(max_examples=20)
def test_a_flip_turns_the_other_way(pose: Pose) -> None:
    controls = face_controls(None, Expression())
    relief = Relief(controls)
    one = project_visible(relief, Camera(pose.rotation(), 6.0, 100.0, np.zeros(2)), controls[:68])[0]
    other = Camera(Pose(-pose.yaw, pose.pitch, -pose.roll).rotation(), 6.0, 100.0, np.zeros(2))
    two = project_visible(relief, other, controls[:68])[0]
    np.testing.assert_allclose(two[list(IBUG_MIRROR)] * (-1, 1), one, atol=1e-3)


def test_signs_of_the_angles() -> None:
    controls = face_controls(None, Expression())
    relief = Relief(controls)

    def nose(pose: Pose) -> np.ndarray:
        p = project_visible(relief, Camera(pose.rotation(), 8.0, 100.0, np.zeros(2)), controls[:68])[0]
        return p[30] - (p[36] + p[45]) / 2

    assert nose(Pose(yaw=30))[0] > 20
    assert abs(nose(Pose())[0]) < 0.5
    assert nose(Pose(pitch=20))[1] < nose(Pose())[1] - 5
    assert nose(Pose(roll=20))[0] > 10, "counter-clockwise: what is below moves to the right"


def test_the_far_contour_stays_on_the_visible_edge() -> None:
    """A point of the contour that is turned away moves to the silhouette."""
    controls = face_controls(None, Expression())
    relief = Relief(controls)
    camera = Camera(Pose(yaw=40).rotation(), 8.0, 100.0, np.zeros(2))
    seen, _ = project_visible(relief, camera, controls[:68])
    x, y = np.meshgrid(np.linspace(-1, 1, 80), np.linspace(0.0, 0.9, 40))
    grid = np.stack([x, y], -1).reshape(-1, 2)
    grid = grid[Outline(controls).fraction(grid) < 1]
    surface = camera(relief.lift(grid))
    for k in (13, 14, 15):  # the nose points to the right, so the right side is the far one
        level = np.abs(surface[:, 1] - seen[k, 1]) < 4
        cheek = level & (np.abs(grid[:, 0]) > 0.45)
        assert surface[cheek, 0].max() < seen[k, 0] + 2.5
    fixed_rim = camera(relief.lift(controls[13:16]))
    assert (seen[13:16, 0] > fixed_rim[:, 0] + 5).all(), "and without that move it would lie inside"


def test_contour_labels_divide_what_is_seen_of_it() -> None:
    """On a line that a turn has stretched on one side, the landmarks keep the steps that they have from the front."""
    rest = np.column_stack([np.arange(9.0), np.zeros(9)])
    seen = np.column_stack([[0, 0.3, 0.7, 1.2, 2.0, 4.5, 6.7, 8.5, 10.0], np.zeros(9)])
    at = np.column_stack([seen * 2, np.ones(9)])
    moved, places = spread_contour(seen, at, rest)
    np.testing.assert_allclose(np.diff(moved[:5, 0]), 0.5, atol=0.02)  # from the ear to the chin
    np.testing.assert_allclose(np.diff(moved[4:, 0]), 2.0, atol=0.02)  # and on to the other ear
    np.testing.assert_allclose(moved[[0, 4, 8]], seen[[0, 4, 8]], atol=1e-9)
    np.testing.assert_allclose(places[:, :2], moved * 2, atol=1e-9)
    np.testing.assert_allclose(spread_contour(rest, at, rest)[0], rest, atol=1e-9)


@pytest.mark.parametrize("n", [16, 17])
def test_a_contour_with_and_without_a_landmark_at_the_chin(n: int) -> None:
    t = np.linspace(0, np.pi, n)
    rest = np.column_stack([-np.cos(t), np.sin(t)])
    moved, _ = spread_contour(rest * 50, np.column_stack([rest, t]), rest)
    np.testing.assert_allclose(moved, rest * 50, atol=0.1)


@pytest.mark.parametrize("k", [19, 27, 33, 37, 45, 48, 51, 57, 62])
def test_what_is_painted_at_a_landmark_is_seen_there(k: int) -> None:
    controls = face_controls(None, Expression())
    relief = Relief(controls)
    n, unit = 240, 480 / EXTENT
    camera = Camera(Pose(12, -6, 17).rotation(), 6.0, 70.0, np.array([(n - 1) / 2, 95.0]))
    seen, at = project_visible(relief, camera, controls)
    texture = np.zeros((480, 480, 3), np.uint8)
    spot = (at[k, :2] - (X0, Y0)) * unit - 0.5
    cv2.circle(texture, np.rint(spot * 16).astype(int).tolist(), 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    image = np.zeros((n, n, 3), np.uint8)
    outline = smooth(np.concatenate([seen[:17], seen[:67:-1]]))
    first, depth = _lay_face(image, texture, unit, relief, camera, outline, 0.6)
    assert not _hidden(np.zeros((n, n), np.uint8), depth, first, seen, camera.depth(at))[k]
    weight = image[..., 0].astype(float)
    centroid = np.array([weight.sum(0) @ np.arange(n), weight.sum(1) @ np.arange(n)]) / weight.sum()
    assert np.linalg.norm(centroid - seen[k]) < 0.6  # the dot lies on a curved surface


def test_rays_come_back_to_the_landmarks() -> None:
    """From a landmark in the image back to the face and forward again: the same place."""
    errors = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        controls = face_controls(rng, sample_expression(rng))
        relief = Relief(controls)
        camera = Camera(sample_pose(rng).rotation(), 6.0, 70.0, np.array([119.5, 95.0]))
        seen, at = project_visible(relief, camera, controls[17:68])
        x, y, depth = (
            cv2.resize(m, (240, 240), interpolation=cv2.INTER_LINEAR)
            for m in face_from_image(relief, camera, (0, 0), (80, 80), 3)
        )
        column, row = seen.astype(np.float32).T.reshape(2, 1, -1)
        found = [cv2.remap(m, column, row, cv2.INTER_LINEAR)[0] for m in (x, y, depth)]
        back = camera(relief.lift(np.column_stack(found[:2])))
        visible = found[2] < camera.depth(at) + 0.1
        errors.append(np.linalg.norm(back - seen, axis=1)[visible])
    every = np.concatenate(errors)
    assert len(every) > 450
    assert np.median(every) < 0.05
    assert np.quantile(every, 0.95) < 0.3


def test_hidden_by_a_cover_and_by_the_nose() -> None:
    cover = np.zeros((40, 40), np.uint8)
    cover[:, 20:] = 255
    surface = np.zeros((10, 10), np.float32)
    surface[9, 0] = 1.0  # something near, in the lower left
    seen = np.array([(5.0, 5.0), (30.0, 5.0), (1.0, 38.0)])
    assert _hidden(cover, surface, (0, 0), seen, np.zeros(3)).tolist() == [False, True, True]


# --- paint


def test_the_parts_are_painted_where_their_landmarks_are() -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        controls = face_controls(rng, Expression(gap=0.4))
        appearance = replace(sample_appearance(rng), gaze=np.zeros(2), moustache=0.0, beard=0.0, eyeshadow=0.0)
        texture, unit = paint_face(rng, controls, appearance, 480)
        p = (controls - (X0, Y0)) * unit - 0.5
        grey = cv2.cvtColor(texture, cv2.COLOR_RGB2GRAY).astype(float)

        def mean_inside(outline: np.ndarray, image: np.ndarray = grey) -> float:
            mask = np.zeros(image.shape, np.uint8)
            cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
            return float(image[mask > 0].mean())

        beside_nose = p[31] + np.array([(-30, -8), (-20, -8), (-20, 2), (-30, 2)])
        cheek = mean_inside(beside_nose)
        for eye in (p[36:42], p[42:48]):
            mid = eye.mean(0)
            x, y = mid.astype(int)
            assert grey[y - 6 : y + 5, x - 5 : x + 6].min() < 0.5 * cheek, "the pupil is dark"
            saturation = cv2.cvtColor(texture, cv2.COLOR_RGB2HSV)[..., 1].astype(float)
            shrunk = (np.concatenate([lid(eye[:4]), lid(eye[[3, 4, 5, 0]])]) - mid) * (0.8, 0.8) + mid
            mask = cv2.fillPoly(np.zeros(grey.shape, np.uint8), [np.rint(shrunk).astype(np.int32)], 1)
            white = np.quantile(saturation[mask > 0], 0.25)  # beside the iris
            assert white < mean_inside(beside_nose, saturation), "the white is pale"
        nostril = (p[31] * 0.45 + p[32] * 0.55) - (0, 0.025 * unit)
        assert mean_inside(nostril + np.array([(-2, -1), (2, -1), (2, 1), (-2, 1)])) < 0.75 * cheek
        hole = (p[62] * 0.35 + p[66] * 0.65) + np.array([(-3, -2), (3, -2), (3, 2), (-3, 2)])
        lip = (p[57] + p[66]) / 2 + np.array([(-3, -1), (3, -1), (3, 1), (-3, 1)])
        difference = np.abs(
            [
                mean_inside(hole, texture[..., c].astype(float)) - mean_inside(lip, texture[..., c].astype(float))
                for c in range(3)
            ]
        )
        assert difference.max() > 15, "the open mouth is not of the lips' colour"


def test_images_change_at_the_contour(ibug: LandmarkScheme) -> None:
    """Across the labelled contour the image changes more than a little further inside."""
    at_edge, inside = [], []
    for face in render_faces(8, ibug, 3, size=160):
        grey = cv2.GaussianBlur(cv2.cvtColor(face.image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
        centre = face.landmarks[27:36].mean(0)
        for k in range(1, 16):
            if face.occluded[k]:
                continue
            out = face.landmarks[k] - centre
            unit = out / np.linalg.norm(out)
            for shift, found in ((0.0, at_edge), (-9.0, inside)):
                ends = face.landmarks[k] + np.outer((shift - 3, shift + 3), unit)
                a, b = (grey[tuple(np.clip(np.rint(e[::-1]), 0, 159).astype(int))] for e in ends)
                found.append(abs(float(a - b)))
    assert np.mean(at_edge) > 2 * np.mean(inside)


# --- whole faces


def test_a_seed_repeats_and_another_differs(ibug: LandmarkScheme) -> None:
    one, two = (list(render_faces(2, ibug, 5, size=64)) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
    third = next(render_faces(1, ibug, 6, size=64))
    assert (third.image != one[0].image).any()
    assert (one[0].landmarks != one[1].landmarks).any()


@pytest.mark.parametrize("name", DRAWN_SCHEMES)
def test_every_scheme_with_both_eyes(name: str, ibug: LandmarkScheme) -> None:
    scheme = load_scheme(name)
    face = render_face(np.random.default_rng(4), scheme=scheme, size=96, pose=Pose(15, 5, 8))
    reference = render_face(np.random.default_rng(4), scheme=ibug, size=96, pose=Pose(15, 5, 8))
    np.testing.assert_array_equal(face.image, reference.image)
    np.testing.assert_array_equal(face.box, reference.box)
    assert face.landmarks.shape == (scheme.n_landmarks, 2)
    assert face.occluded.shape == (scheme.n_landmarks,)
    assert face.landmarks.dtype == np.float32
    assert np.isfinite(face.landmarks).all()
    width = reference.box[2] - reference.box[0]
    for part, ours in (("left_eye", slice(36, 42)), ("right_eye", slice(42, 48)), ("mouth", slice(48, 60))):
        theirs = face.landmarks[list(scheme.components[part])]
        theirs_middle = (theirs.min(0) + theirs.max(0)) / 2
        mine = reference.landmarks[ours]
        assert np.linalg.norm(theirs_middle - (mine.min(0) + mine.max(0)) / 2) < 0.06 * width


def test_shared_names_give_the_same_points(ibug: LandmarkScheme) -> None:
    inner = load_scheme("ibug-51")
    np.testing.assert_array_equal(scheme_weights(inner), np.eye(68, 75)[17:])


@pytest.mark.parametrize("name", DRAWN_SCHEMES)
def test_schemes_follow_every_move_of_the_face(name: str) -> None:
    """Weights of a thin-plate spline reproduce shifts, scalings and turns exactly."""
    weights = scheme_weights(load_scheme(name))
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-8)
    controls = mean_controls()
    turned = controls @ np.array([[0.9, 0.3], [-0.2, 1.1]]) + (0.1, -0.2)
    np.testing.assert_allclose(
        weights @ turned, (weights @ controls) @ np.array([[0.9, 0.3], [-0.2, 1.1]]) + (0.1, -0.2), atol=1e-8
    )


@pytest.mark.parametrize("name", ["wflw-98", "lapa-106", "scut-86"])
def test_other_contours_lie_on_the_drawn_edge(name: str) -> None:
    scheme = load_scheme(name)
    controls = face_controls(None, Expression())
    contour = (scheme_weights(scheme) @ controls)[list(scheme.components["contour"])]
    fraction = Outline(controls).fraction(contour)
    assert np.median(np.abs(fraction - 1)) < 0.02


def test_a_scheme_of_its_own_needs_only_a_mean_face(ibug: LandmarkScheme) -> None:
    corners = LandmarkScheme(
        "four", ("a", "b", "c", "d"), mean_face=np.array([(0, 0), (1, 0), (0.5, 0.5), (0.5, 1)], np.float32)
    )
    face = render_face(np.random.default_rng(0), scheme=corners, size=64, pose=Pose())
    assert face.landmarks[0, 0] < face.landmarks[2, 0] < face.landmarks[1, 0]
    assert face.landmarks[0, 1] < face.landmarks[2, 1] < face.landmarks[3, 1]


def test_boxes_and_labels_are_inside(ibug: LandmarkScheme) -> None:
    for face in render_faces(6, ibug, 8, size=80):
        assert face.image.shape == (80, 80, 3)
        assert face.image.dtype == np.uint8
        assert face.landmarks.min() > -0.5
        assert face.landmarks.max() < 79.5
        np.testing.assert_array_equal(face.box, box_of_points(face.landmarks))
        side = float(max(face.box[2:] - face.box[:2]))
        assert 0.49 * 80 < side < 0.87 * 80
        assert face.image.std() > 3


def test_poses_and_covers_spread() -> None:
    rng = np.random.default_rng(0)
    synthetic = [sample_pose(rng) for _ in range(400)]
    yaw, pitch, roll = np.array([(p.yaw, p.pitch, p.roll) for p in synthetic]).T
    assert np.abs(yaw).max() == 50
    assert np.abs(pitch).max() <= 25
    assert np.abs(roll).max() <= 30
    assert 17 < yaw.std() < 23
    assert abs(yaw.mean()) < 4
    faces = list(render_faces(12, load_scheme("mtfl-5"), 2, size=48))
    shares = [f.occluded.mean() for f in faces]
    assert 0 < np.mean(shares) < 0.5


def test_bad_requests(ibug: LandmarkScheme, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"scheme bare: .*mean_face"):
        render_face(rng, scheme=LandmarkScheme("bare", ("a",)))
    with pytest.raises(InputError, match=r"menpo-39.*both eyes"):
        render_face(rng, scheme=load_scheme("menpo-39"))
    with pytest.raises(InputError, match="at least 16 px, given 8"):
        render_face(rng, scheme=ibug, size=8)
    with pytest.raises(InputError, match="at least 0, given -1"):
        render_dataset(tmp_path, -1, scheme=ibug, seed=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        render_dataset(tmp_path / "file", 1, scheme=ibug, seed=0)


# --- data sets


def test_a_data_set_on_disk(ibug: LandmarkScheme, tmp_path: Path) -> None:
    table = render_dataset(tmp_path / "drawn", 3, scheme=ibug, seed=9, size=64)
    assert sorted(p.name for p in table.parent.iterdir()) == ["annotations.csv", "images"]
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["file"] for r in rows] == [f"images/{i:06d}.jpg" for i in range(3)]
    assert len({r["group"] for r in rows}) == 3
    for row, face in zip(rows, render_faces(3, ibug, 9, size=64), strict=True):
        written = np.array([(float(row[f"x{i}"]), float(row[f"y{i}"])) for i in range(68)])
        np.testing.assert_allclose(written, face.landmarks, atol=6e-4)
        assert [row[f"v{i}"] == "0" for i in range(68)] == face.occluded.tolist()
        np.testing.assert_allclose([float(row[f"box_{c}"]) for c in ("x0", "y0", "x1", "y1")], face.box, atol=6e-3)
        image = read_image(table.parent / row["file"])
        assert np.abs(image.astype(int) - face.image).mean() < 6, "RGB order and JPEG quality"


def test_an_unlabelled_data_set(ibug: LandmarkScheme, tmp_path: Path) -> None:
    table = render_dataset(tmp_path, 2, scheme=ibug, seed=1, size=48, labelled=False)
    header = table.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header == ["file", "group", "box_x0", "box_y0", "box_x1", "box_y1"]


def test_drawing_is_quick(ibug: LandmarkScheme) -> None:
    next(render_faces(1, ibug, 0))
    start = time.process_time()
    for _ in render_faces(5, ibug, 1):
        pass
    assert (time.process_time() - start) / 5 < 0.4  # 0.035 s measured on a busy core
