"""Faces for other libraries."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fewmark.core.errors import InputError
from fewmark.inference.face import Face, to_supervision
from fewmark.landmarks.scheme import LandmarkScheme

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
        "supervision", reason="the extra `supervision` is not installed", exc_type=ImportError
    )
    points = to_supervision([face(), face()])
    assert isinstance(points, supervision.KeyPoints)
    assert len(points) == 2
    assert len(to_supervision([])) == 0
    assert len(points[1]) == 1


def test_the_package_draws_what_was_found() -> None:
    supervision = pytest.importorskip(
        "supervision", reason="the extra `supervision` is not installed", exc_type=ImportError
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
    with pytest.raises(InputError, match=r"fewmark\[supervision\]"):
        face().to_supervision()
