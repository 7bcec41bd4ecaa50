"""The scheme designer: from clicks on one face to a project with its first label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason='needs FastAPI: pip install "fewmark[web]"')
from fastapi.testclient import TestClient

from fewmark import Detector, Project
from fewmark.core.geometry import Image
from fewmark.data.images import write_image
from fewmark.web.design import create_design_app, place_of_points

EYES_AND_MOUTH = [(50.0, 60.0), (70.0, 62.0), (95.0, 62.0), (115.0, 60.0), (60.0, 110.0), (105.0, 111.0)]


@pytest.fixture
def example(made: Path) -> Path:
    return sorted((made.parent / "faces/images").iterdir())[0]


def drawn(**changes: Any) -> dict[str, Any]:
    names = ["left_eye_0", "left_eye_1", "right_eye_0", "right_eye_1", "mouth_0", "mouth_1"]
    components = {"left_eye": [0, 1], "right_eye": [2, 3], "mouth": [4, 5]}
    pairs = {"mirror": [3, 2, 1, 0, 5, 4], "normalizer": [0, 3]}
    return {
        "name": "mine-6",
        "landmarks": names,
        "points": EYES_AND_MOUTH,
        "components": components,
        **pairs,
        **changes,
    }


def test_a_drawing_becomes_a_project(example: Path, tmp_path: Path) -> None:
    ended: list[bool] = []
    app = create_design_app(tmp_path / "p", example, objects="whole-images", on_made=lambda: ended.append(True))
    client = TestClient(app, base_url="http://localhost")
    design = client.get("/api/design").json()
    assert (design["width"], design["place"]) == (160, [32, 32, 128, 128])
    assert "ibug-68" in client.get("/api/design").json()["schemes"]
    assert len(client.get("/api/design/schemes/ibug-68").json()["mean_face"]) == 68
    proposal = client.post("/api/design/proposal", json=drawn(mirror=None, components={})).json()
    assert proposal["mirror"] == [3, 2, 1, 0, 5, 4]
    made = client.post("/api/design", json=drawn(closed=["mouth"]))
    assert made.status_code == 200, made.json()
    project = Project(tmp_path / "p")
    scheme = project.scheme
    assert scheme.landmarks == tuple(drawn()["landmarks"])
    assert scheme.mirror == (3, 2, 1, 0, 5, 4)
    assert scheme.edges == ((0, 1), (2, 3), (4, 5))
    assert scheme.default_normalizer == "two-landmarks"
    assert scheme.normalizer(np.array(EYES_AND_MOUTH)) == pytest.approx(65)
    assert scheme.mean_face is not None
    assert scheme.mean_face[[0, 3], 0].sum() == pytest.approx(1, abs=1e-3)  # symmetric
    face = project.labels.face(1)
    assert face.landmarks is not None
    assert face.landmarks.tolist() == [list(p) for p in EYES_AND_MOUTH]


def test_a_mean_face_is_put_on_the_face(tmp_path: Path, grace_hopper: Image) -> None:
    write_image(tmp_path / "grace.png", grace_hopper)
    x0, y0, x1, y1 = place_of_points(tmp_path / "grace.png", "faces")
    (face,) = Detector("ibug-68-nano").detect(grace_hopper)
    low, high = face.landmarks.min(0), face.landmarks.max(0)
    side = (high - low).max()
    assert x1 - x0 == pytest.approx(y1 - y0, abs=0.01)
    assert x1 - x0 == pytest.approx(side, rel=0.2)
    assert np.abs(np.array([x0 + x1, y0 + y1]) / 2 - (low + high) / 2).max() < 0.15 * side


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"landmarks": ["a", "a", "b", "c", "d", "e"]}, "a"),
        ({"mirror": [1, 2, 3, 4, 5, 0]}, "mirror"),
        ({"points": EYES_AND_MOUTH[:1], "landmarks": ["a"]}, "two points or more"),
    ],
)
def test_a_drawing_that_is_no_scheme_is_told(
    example: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    client = TestClient(create_design_app(tmp_path / "p", example), base_url="http://localhost")
    answer = client.post("/api/design", json=drawn(**changes))
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert not (tmp_path / "p").exists()
