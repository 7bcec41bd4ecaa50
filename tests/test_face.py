"""Faces for other libraries."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fewmark.errors import InputError
from fewmark.face import Face, to_supervision
from fewmark.scheme import LandmarkScheme

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


@pytest.mark.parametrize("kind", [KeyPoints, RenamedKeyPoints])
def test_to_supervision(kind: type[KeyPoints], monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("supervision")
    module.KeyPoints = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    two = to_supervision([face(), face()])
    assert two.xy.tolist() == [[[1.25, 2.5], [0, 0]]] * 2
    scores = two.keypoint_confidence if kind is RenamedKeyPoints else two.confidence
    assert scores.tolist() == [[0.5, 0]] * 2
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


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match=r"fewmark\[supervision\]"):
        face().to_supervision()
