"""A scheme proposed from labelled faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_from_dict, scheme_names, scheme_to_toml
from fewmark.landmarks.scheme_check import check_scheme
from fewmark.landmarks.scheme_proposal import match_mirror, propose_scheme, thin_plate_spline

REFERENCE = load_scheme("ibug-68")


def faces(
    *schemes: LandmarkScheme, n: int = 10, turn: float = 0.0, noise: float = 0.004, seed: int = 0
) -> list[NDArray[np.float64]]:
    """Faces of several schemes in common images: mean faces in one frame, rotated, stretched (as turned heads), noisy."""
    rng = np.random.default_rng(seed)
    result: list[list[NDArray[np.float64]]] = [[] for _ in schemes]
    for _ in range(n):
        angle = rng.uniform(-20, 20) / 57.3
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        stretch = np.diag([1 - turn * rng.random(), 1.0])
        for scheme, shapes in zip(schemes, result, strict=True):
            assert scheme.mean_face is not None
            shape = scheme.mean_face + rng.normal(0, noise, scheme.mean_face.shape)
            shapes.append((shape - 0.5) @ stretch @ rotation.T * 150 + 200)
    return [np.array(shapes) for shapes in result]


@pytest.mark.parametrize("name", ["wflw-98", "scut-86", "ibug-68", "cofw-29", "mtfl-5"])
def test_the_mirror_of_a_known_scheme_is_found_from_the_labels_alone(name: str) -> None:
    scheme = load_scheme(name)
    proposal = propose_scheme("own", faces(scheme)[0])
    assert proposal.scheme.mirror == scheme.mirror
    assert not [line for line in check_scheme(proposal.scheme) if line.startswith("mirror")]


def test_found_landmarks_tell_the_parts_and_the_mirror_of_turned_heads() -> None:
    scheme = load_scheme("ibug-51")  # a part of ibug-68, whose mean face lies in a frame of its own
    whole = faces(REFERENCE, turn=0.5, noise=0.002)[0]
    proposal = propose_scheme("own", whole[:, 17:], found=whole, reference=REFERENCE)
    assert proposal.scheme.mirror == scheme.mirror
    assert {n: len(i) for n, i in proposal.scheme.components.items()} == {
        n: len(i) for n, i in scheme.components.items()
    }
    assert proposal.scheme.normalizers == scheme.normalizers
    assert proposal.scheme.default_normalizer == "outer-eye-corners"
    assert set(map(frozenset, scheme.edges)) <= set(map(frozenset, proposal.scheme.edges))
    assert check_scheme(proposal.scheme) == []
    assert proposal.doubtful == {}


def test_landmarks_of_one_place_are_doubtful() -> None:
    whole = faces(REFERENCE, noise=0.0)[0]
    labels = np.concatenate([whole, whole[:, [36, 45]]], 1)
    proposal = propose_scheme("own", labels, found=whole, reference=REFERENCE)
    assert {36, 45, 68, 69} <= set(proposal.doubtful)


def test_names_with_left_and_right_decide_the_mirror() -> None:
    scheme = load_scheme("mtfl-5")
    proposal = propose_scheme("own", faces(scheme)[0], landmark_names=scheme.landmarks)
    assert proposal.scheme.landmarks == scheme.landmarks
    assert proposal.scheme.mirror == scheme.mirror
    whole = faces(REFERENCE)[0]
    swapped = propose_scheme(
        "own", whole[:, [36, 39, 42, 45]], landmark_names=["left_a", "left_b", "right_a", "right_b"]
    )
    assert swapped.scheme.mirror == (2, 3, 0, 1)  # by position it were 3, 2, 1, 0


def test_points_without_symmetry_get_no_mirror() -> None:
    shape = np.random.default_rng(0).uniform(0, 100, (9, 2))
    proposal = propose_scheme("hand", np.stack([shape, shape + 5, shape * 1.1]))
    assert proposal.scheme.mirror is None
    assert proposal.scheme.default_normalizer == "points-diagonal"


def test_a_landmark_that_no_face_has_is_refused() -> None:
    labels = faces(load_scheme("mtfl-5"))[0]
    labels[:, 3] = np.nan
    with pytest.raises(InputError, match="landmark 3 is labelled in none of 10 faces"):
        propose_scheme("own", labels)
    with pytest.raises(InputError, match="expected 5 names of landmarks, given 1"):
        propose_scheme("own", faces(load_scheme("mtfl-5"))[0], landmark_names=["a"])


def test_exchanges_find_pairs_that_a_greedy_choice_misses() -> None:
    costs = np.full((4, 4), 99.0)
    for i, j, c in ((0, 1, 1.0), (2, 3, 9.0), (0, 2, 1.5), (1, 3, 1.5)):
        costs[i, j] = costs[j, i] = c
    assert match_mirror(costs).tolist() == [2, 3, 0, 1]


def test_a_spline_without_smoothing_goes_through_its_points() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.uniform(size=(12, 2)), rng.uniform(size=(12, 2))
    assert thin_plate_spline(source, target, source, 0.0) == pytest.approx(target, abs=1e-6)
    shift = thin_plate_spline(source, source + 3, [[0.5, 0.5]])
    assert shift == pytest.approx(np.array([[3.5, 3.5]]))


@pytest.mark.parametrize("name", scheme_names())
def test_a_scheme_written_as_toml_is_read_back(name: str, tmp_path: Path) -> None:
    scheme = load_scheme(name)
    file = tmp_path / "own.toml"
    file.write_text(scheme_to_toml(scheme), encoding="utf-8")
    assert load_scheme(file).to_dict() == scheme.to_dict()


def test_odd_names_survive_the_file(tmp_path: Path) -> None:
    data = {"name": 'a "b"', "landmarks": ["é", "x y"], "components": {"mouth, left": [0, 1]}}
    file = tmp_path / "own.toml"
    file.write_text(scheme_to_toml(scheme_from_dict(data)), encoding="utf-8")
    assert load_scheme(file).to_dict() == scheme_from_dict(data).to_dict()
