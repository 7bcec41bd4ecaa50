"""scheme: reading, refusing, normalisers by hand, the flip; scheme_check: what it finds; scheme_image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.landmarks.scheme import (
    BetweenMeans,
    BetweenPoints,
    BoxDiagonal,
    BoxSize,
    PointsDiagonal,
    load_scheme,
    scheme_from_dict,
)
from fewmark.landmarks.scheme_check import check_scheme, mirror_residual
from fewmark.visualization.colours import DARK, landmark_colours
from fewmark.visualization.scheme import draw_scheme

SMALL: dict[str, Any] = {
    "name": "small",
    "landmarks": ["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"],
    "mirror": [1, 0, 2, 4, 3],
    "components": {"left_eye": [0], "right_eye": [1], "nose": [2], "mouth": [3, 4]},
    "chains": [[3, 4]],
    "normalizers": {"pupils": {"points": [0, 1]}},
    "default_normalizer": "pupils",
    "mean_face": [[0.0, 0.1], [1.0, 0.1], [0.5, 0.5], [0.1, 0.9], [0.9, 0.9]],
}

FACE = np.array([[0.0, 0.0], [3.0, 4.0], [2.0, 2.0], [0.0, 6.0], [8.0, 6.0]])
BOX = np.array([10.0, 10.0, 19.0, 14.0])


def small(**changed: Any) -> dict[str, Any]:
    return {k: v for k, v in {**SMALL, **changed}.items() if v is not None}


def test_normalizers_by_hand() -> None:
    assert BetweenPoints(0, 1)(FACE) == 5
    assert BetweenMeans((0, 2), (3, 4))(FACE) == pytest.approx(np.hypot(3, 5))
    assert BoxSize()(FACE, BOX) == 6
    assert BoxDiagonal()(FACE, BOX) == pytest.approx(np.sqrt(97))
    assert PointsDiagonal()(FACE) == 10


def test_a_normalizer_of_a_missing_landmark_is_nan() -> None:
    face = FACE.copy()
    face[0] = np.nan
    assert np.isnan(BetweenPoints(0, 1)(face))
    assert np.isnan(BetweenMeans((0, 2), (3, 4))(face))
    assert PointsDiagonal()(face) == pytest.approx(np.hypot(8, 4))


def test_box_normalizers_need_a_box() -> None:
    with pytest.raises(InputError, match="expected a face box"):
        BoxSize()(FACE)


def test_a_scheme_offers_its_own_and_the_box_normalizers() -> None:
    scheme = scheme_from_dict(SMALL)
    assert scheme.normalizer_names == ("pupils", "box-size", "box-diagonal", "points-diagonal")
    assert scheme.normalizer(FACE) == 5
    assert scheme.get_normalizer("points-diagonal")(FACE) == 10
    with pytest.raises(InputError, match="small has no normalizer 'outer-eye-corners'; expected one of pupils"):
        scheme.get_normalizer("outer-eye-corners")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": None}, "field 'name' is missing"),
        ({"landmarks": None}, "field 'landmarks' is missing"),
        ({"landmarks": []}, "expected at least one name"),
        ({"landmarks": ["a", "b", "b", "c", "d"]}, "names must be unique, given twice: b"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"mirror": [1, 0, 2, 4]}, "expected a permutation of 0..4"),
        ({"mirror": [1, 2, 0, 4, 3]}, "left_eye -> right_eye does not lead back"),
        ({"components": {"nose": [5]}}, r"components.nose: expected indices 0..4, given 5"),
        ({"chains": [[0, -1]]}, r"edges: expected indices 0..4, given -1"),
        (
            {"normalizers": {"pupils": {"points": [0, 9]}}},
            "normalizers.pupils: expected indices 0..4, given 9",
        ),
        (
            {"normalizers": {"ears": {"points": [0, 1]}}},
            "expected outer-eye-corners or pupils or two-landmarks, given 'ears'",
        ),
        ({"default_normalizer": "outer-eye-corners"}, "'outer-eye-corners' is not among pupils"),
        ({"mean_face": [[0, 0]] * 4}, "expected 5 finite xy pairs"),
        ({"mean_face": [[0, float("nan")]] * 5}, "expected 5 finite xy pairs"),
        ({"edges": [[0, 1, 2]]}, "does not have the format of a scheme file"),
        ({"mirror": "flip"}, "does not have the format of a scheme file"),
    ],
)
def test_a_wrong_field_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        scheme_from_dict(small(**changed), "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert "\n" not in str(caught.value)


def test_plain_data_there_and_back() -> None:
    scheme = scheme_from_dict(SMALL)
    data = scheme.to_dict()
    again = scheme_from_dict(data)
    assert again.to_dict() == data
    assert again.edges == ((3, 4),)
    assert again.normalizers == scheme.normalizers
    assert again.mirror == (1, 0, 2, 4, 3)


@given(st.integers(0, 2**16), st.integers(1, 500))
def test_flipping_landmarks_twice_changes_nothing(seed: int, width: int) -> None:
    scheme = scheme_from_dict(SMALL)
    faces = np.random.default_rng(seed).uniform(0, width, (3, 5, 2))
    faces[0, 1] = np.nan
    flipped = scheme.flip_landmarks(faces, width)
    np.testing.assert_allclose(scheme.flip_landmarks(flipped, width), faces)
    np.testing.assert_allclose(flipped[1, 0], [width - 1 - faces[1, 1, 0], faces[1, 1, 1]])


def test_a_scheme_without_a_mirror_does_not_flip() -> None:
    scheme = scheme_from_dict(small(mirror=None))
    with pytest.raises(InputError, match="small has no mirror: add `mirror`"):
        scheme.flip_landmarks(FACE, 10)
    with pytest.raises(InputError, match="no mirror to check"):
        mirror_residual(scheme, FACE)


def test_a_scheme_of_one_landmark() -> None:
    scheme = scheme_from_dict({"name": "one", "landmarks": ["nose"], "mirror": [0], "mean_face": [[0.5, 0.5]]})
    assert scheme.n_landmarks == 1
    assert draw_scheme(scheme, 128).shape == (128, 128, 3)
    assert [line.split(":")[0] for line in check_scheme(scheme)] == ["components"]


def test_a_scheme_file_of_your_own(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('name = "own"\nlandmarks = ["a", "b"]\n', encoding="utf-8")
    assert load_scheme(file).landmarks == ("a", "b")
    file.write_text("name = ", encoding="utf-8")
    with pytest.raises(InputError, match=r"own.toml: not a TOML file"):
        load_scheme(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"own.toml: cannot be read as a TOML scheme file"):
        load_scheme(file)
    with pytest.raises(InputError, match=r"'nowhere.toml': no packaged scheme or file of that name"):
        load_scheme("nowhere.toml")


def test_mirror_residual_by_hand() -> None:
    """A face that is its own flip but for one landmark, which stands 0.1 too far to the right."""
    scheme = scheme_from_dict(SMALL)
    face = np.array(SMALL["mean_face"])
    np.testing.assert_allclose(mirror_residual(scheme, face), 0, atol=1e-12)
    turned = face @ np.array([[0.9, 0.3], [-0.3, 0.9]])
    np.testing.assert_allclose(mirror_residual(scheme, turned), 0, atol=1e-12)
    face[2, 0] += 0.1
    residual = mirror_residual(scheme, face)
    # the best shift moves the flip by the mean of the differences, 0.2 / 5 along x: 0.16 is left at the nose
    assert residual[2] == pytest.approx(0.16 / np.hypot(1.0, 0.8), rel=0.02)
    assert residual.argmax() == 2
    face[0] = np.nan
    assert np.isnan(mirror_residual(scheme, face)).tolist() == [True, True, False, False, False]


def test_a_flip_is_not_undone_by_a_half_turn() -> None:
    """Two points on a line: with the identity for a mirror, only a turn by 180 degrees would fit."""
    data = {
        "name": "two",
        "landmarks": ["a", "b"],
        "mean_face": [[0, 0.5], [1, 0.5]],
        "components": {"eyes": [0, 1]},
    }
    assert check_scheme(scheme_from_dict({**data, "mirror": [1, 0]})) == []
    assert len(check_scheme(scheme_from_dict({**data, "mirror": [0, 1]}))) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"components": {"eyes": [0, 1], "mouth": [1, 2, 3, 4]}},
            "1 (right_eye) is in several: eyes, mouth",
        ),
        (
            {"components": {"eyes": [0, 1, 1], "rest": [2, 3, 4]}},
            "eyes: lists a landmark twice: 1 (right_eye)",
        ),
        ({"components": {"eyes": [0, 1]}}, "in none: landmark 2 (nose), 3 (mouth_left), 4 (mouth_right)"),
        ({"components": None}, "components: none"),
        ({"chains": [[2, 3]]}, "2 (nose), 3 (mouth_left) joins nose to mouth"),
        ({"edges": [[2, 2]]}, "2 (nose) is joined to itself"),
        ({"mirror": [1, 0, 2, 3, 4]}, "by its name expected 4 (mouth_right)"),
        ({"mirror": [2, 1, 0, 4, 3]}, "component left_eye does not go to right_eye"),
        ({"landmarks": list("abcde"), "mirror": [1, 0, 2, 3, 4]}, "mean face 3 (d) flipped misses 3 (d)"),
        ({"mean_face": None}, "mean_face: none"),
        ({"mean_face": [[3, 3]] * 5}, "all landmarks lie in one place"),
        ({"mean_face": [[0, 10], [100, 10], [50, 50], [10, 90], [90, 90]]}, "expected values from 0 to 1"),
        ({"normalizers": None, "default_normalizer": None}, "normalizers: none though there are both eyes"),
    ],
)
def test_check_scheme_finds(changed: dict[str, Any], message: str) -> None:
    assert check_scheme(scheme_from_dict(SMALL)) == []
    found = check_scheme(scheme_from_dict(small(**changed)))
    assert [line for line in found if message in line], found
    assert not [line for line in found if "\n" in line]


def test_image_shows_every_component_in_its_colour() -> None:
    scheme = scheme_from_dict(SMALL)
    image = draw_scheme(scheme, 256)
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    flat = {tuple(int(c) for c in colour) for colour in image.reshape(-1, 3)}
    colours = landmark_colours(scheme, DARK)
    for name in ("left_eye", "right_eye", "nose", "mouth"):
        assert colours[scheme.components[name][0]] in flat
    assert colours[3] == DARK[4]


def test_image_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(InputError, match="small has no mean face to draw"):
        draw_scheme(scheme_from_dict(small(mean_face=None)))
    with pytest.raises(InputError, match="at least 128 px, given 20"):
        draw_scheme(scheme_from_dict(SMALL), 20)
