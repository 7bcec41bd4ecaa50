"""A whole data set's labels in another scheme, the contour from elsewhere, and what is measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats
from fewmark.data.pairs import match_faces
from fewmark.data.relabelling import contour_of, fit_transfer, relabel_faces, score_landmarks, score_transfer
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import BetweenPoints, LandmarkScheme
from fewmark.landmarks.transfer import SchemeTransfer

SOURCE = LandmarkScheme("triangle", ("left", "right", "tip"))
TARGET = LandmarkScheme(
    "chin-5",
    ("left", "right", "jaw_left", "chin", "jaw_right"),
    components={"eyes": (0, 1), "contour": (2, 3, 4)},
    normalizers={"outer-eye-corners": BetweenPoints(0, 1)},
    default_normalizer="outer-eye-corners",
)


def points(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Eyes 100 px apart and a tip; the contour follows the tip."""
    rng = np.random.default_rng(seed)
    x = np.array([[0.0, 0.0], [100.0, 0.0], [50.0, 60.0]]) + 5 * rng.normal(size=(n, 3, 2))
    chin = 2 * x[:, 2] - x[:, :2].mean(1)
    y = np.stack([x[:, 0], x[:, 1], chin + (x[:, 0] - x[:, 1]) / 2, chin, chin + (x[:, 1] - x[:, 0]) / 2], 1)
    return x, y


def samples(landmarks: Floats, **changes: object) -> list[FaceSample]:
    return [
        replace(FaceSample(Path(f"/data/{i}.jpg"), landmarks=p.astype(np.float32), name=f"{i}.jpg"), **changes)  # type: ignore[arg-type]
        for i, p in enumerate(landmarks)
    ]


def test_a_transfer_is_fitted_on_two_lists_of_faces() -> None:
    x, y = points(30)
    fitted = fit_transfer(samples(x), samples(y[:25]), SOURCE, TARGET, ridge=0.0, licence="ours")
    direct = SchemeTransfer.fit(SOURCE, TARGET, x[:25].astype(np.float32), y[:25].astype(np.float32))
    assert (fitted.n_pairs, fitted.licence) == (25, "ours")
    np.testing.assert_allclose(fitted.matrix, direct.matrix, atol=1e-9)
    with pytest.raises(InputError, match="chin-5: expected the faces of triangle under the same file names"):
        fit_transfer(samples(x[:1]), samples(y, image=Path("/other/z.jpg"), name="z.jpg"), SOURCE, TARGET)


@pytest.fixture(scope="module")
def transfer() -> SchemeTransfer:
    return SchemeTransfer.fit(SOURCE, TARGET, *points(30))


def test_relabelled_faces(transfer: SchemeTransfer) -> None:
    x, y = points(5, seed=1)
    faces = samples(x, group="ann", box=np.array([0, 0, 9, 9], np.float32), occluded=np.array([True, False, False]))
    faces[1] = replace(faces[1], landmarks=None)
    holes = x[2].astype(np.float32)
    holes[0] = np.nan
    faces[2] = replace(faces[2], landmarks=holes)
    found = relabel_faces(transfer, faces)
    assert [s.name for s in found] == [s.name for s in faces]
    assert [s.landmarks is None for s in found] == [False, True, True, False, False]
    for i in (0, 3, 4):
        np.testing.assert_allclose(found[i].landmarks, y[i], atol=0.01)
    assert {(s.group, s.occluded is None, s.box is not None) for s in found} == {("ann", True, True)}
    assert [s.landmarks for s in relabel_faces(transfer, faces[1:2])] == [None]


def test_the_contour_from_elsewhere(transfer: SchemeTransfer) -> None:
    x, y = points(4, seed=1)
    faces = samples(x)
    faces[3] = replace(faces[3], landmarks=None)
    direct = samples(y + 7)[::-1]
    found = relabel_faces(transfer, faces, direct)
    np.testing.assert_allclose(found[1].landmarks, np.concatenate([y[1, :2], y[1, 2:] + 7]), atol=0.01)
    assert found[3].landmarks is None
    keep = contour_of(transfer, faces[:3], direct)
    assert np.isnan(keep[:, :2]).all()
    np.testing.assert_allclose(keep[:, 2:], y[:3, 2:] + 7, atol=1e-4)


def test_the_score_and_its_contour(transfer: SchemeTransfer) -> None:
    """By hand: eyes 100 px apart and a straight level contour, moved by (3, -4)."""
    _, y = points(3, seed=2)
    y[:, 0], y[:, 1] = [0, 0], [100, 0]
    y[:, 2:] = [[0, 90], [50, 90], [100, 90]]
    wrong = y.copy()
    wrong[:, 2:] += [3, -4]
    pairs = match_faces(samples(y[:, :3]), samples(y))
    found = score_landmarks(TARGET, wrong, pairs)
    assert found.score.nme == pytest.approx(0.03)
    assert found.score.per_component["contour"] == pytest.approx(0.05)
    assert (found.tangent, found.normal) == (pytest.approx(0.03), pytest.approx(0.04))
    assert (found.tangent_per_landmark.tolist(), found.normal_per_landmark.tolist()) == (
        pytest.approx([0.03] * 3),
        pytest.approx([0.04] * 3),
    )
    assert found.by_part == pytest.approx({"all": 0.03, "contour": 0.05, "tangent": 0.03, "normal": 0.04, "inner": 0.0})
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["contour"] == {"tangent": pytest.approx(0.03), "normal": pytest.approx(0.04)}
    assert "per_face" not in data
    box = score_landmarks(TARGET, wrong, pairs, "points-diagonal")
    assert box.tangent == pytest.approx(3 / math.hypot(100, 90))


def test_every_inner_landmark_weighs_alike_whatever_its_component() -> None:
    """By hand: eyes 100 px apart; the two eyes 6 px off, a nose of one landmark 0 px off; and a contour point alone 3 px off."""
    scheme = replace(TARGET, components={"eyes": (0, 1), "nose": (3,)})
    y = np.array([[[0.0, 0.0], [100.0, 0.0], [0.0, 90.0], [50.0, 90.0], [100.0, 90.0]]])
    wrong = y.copy()
    wrong[0, [0, 1], 1] += 6
    wrong[0, 2, 0] += 3
    found = score_landmarks(scheme, wrong, match_faces(samples(y), samples(y)))
    assert found.inner == pytest.approx(0.04)
    assert found.score.nme == pytest.approx(0.03)
    assert len(found.tangent_per_landmark) == len(found.normal_per_landmark) == 0
    bare = score_landmarks(replace(TARGET, components={}), wrong, match_faces(samples(y), samples(y)))
    assert [name for name, value in bare.by_part.items() if not math.isnan(value)] == ["all"]


def test_the_score_of_a_transfer(transfer: SchemeTransfer) -> None:
    x, y = points(6, seed=3)
    pairs = match_faces(samples(x), samples(y))
    assert score_transfer(transfer, pairs).score.nme < 1e-5
    direct = score_transfer(transfer, pairs, contour_from=samples(y + np.array([0, 8.0])))
    assert direct.score.per_component["eyes"] < 1e-5
    assert direct.score.per_component["contour"] == pytest.approx(0.08, rel=0.1)
    bare = replace(TARGET, components={"eyes": (0, 1)})
    without = score_transfer(SchemeTransfer.fit(SOURCE, bare, x, y, ridge=0.1), pairs)
    assert math.isnan(without.tangent)
    assert without.to_dict()["contour"] is None


def test_bad_requests(transfer: SchemeTransfer) -> None:
    x, y = points(4, seed=1)
    with pytest.raises(InputError, match=r"0.jpg: expected 3 landmarks of scheme triangle, given 5"):
        relabel_faces(transfer, samples(y))
    with pytest.raises(InputError, match=r"3.jpg: expected its contour .*given none"):
        relabel_faces(transfer, samples(x), samples(y)[:3])
    with pytest.raises(InputError, match=r"0.jpg: expected its contour .*given 3 landmarks"):
        relabel_faces(transfer, samples(x), samples(x))
    bare = replace(TARGET, components={"eyes": (0, 1)})
    with pytest.raises(InputError, match=r"scheme chin-5 has no component 'contour'.*eyes"):
        relabel_faces(SchemeTransfer.fit(SOURCE, bare, x, y, ridge=0.1), samples(x), samples(y))
