"""The page's server: faces out, labels in, and who may ask."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason='needs FastAPI: pip install "fewmark[web]"')
from fastapi.testclient import TestClient

from fewmark import Project
from fewmark.data.images import write_image
from fewmark.project.predictions import StoredPrediction
from fewmark.web.app import create_app

POINTS = [[float(k), float(2 * k)] for k in range(68)]


@pytest.fixture
def client(folder: Path) -> TestClient:
    return TestClient(create_app(folder), base_url="http://localhost:8000")


def label(**changes: Any) -> dict[str, Any]:
    return {"landmarks": POINTS, "visibility": [2] * 68, "how": "placed", "version": 0, "who": "anna", **changes}


def test_what_the_page_needs(client: TestClient) -> None:
    project = client.get("/api/project").json()
    assert len(project["scheme"]["landmarks"]) == len(project["scheme"]["colours"]) == len(project["shape"]) == 68
    assert project["anchors"] == [36, 45]
    assert project["status"]["n_unlabelled"] == 8
    queue = client.get("/api/queue", params={"n": 3}).json()
    assert len(queue) == 3
    assert "expected error" in queue[0]["reason"]
    face = client.get("/api/faces/1").json()
    assert (face["state"], face["landmarks"], face["version"]) == ("unlabelled", None, 0)
    assert len(face["prediction"]["landmarks"]) == len(face["prediction"]["errors"]) == 68
    image = client.get(f"/api/images/{face['image']}")
    assert image.headers["content-type"] == "image/jpeg"
    assert client.get("/").text.startswith("<!doctype html>")
    for name in ("main.js", "charts.js", "editor.js", "api.js", "geometry.js", "style.css", "icon.svg"):
        assert client.get(f"/{name}").status_code == 200


def test_the_overview_learns_from_what_people_did(client: TestClient, folder: Path) -> None:
    project = Project(folder)
    for name, n, nme in (("002", 100, 0.05), ("003", 200, 0.042), ("004", 400, 0.036)):
        run = project.predictions.add_run(name, n, nme, calibrated=True)
    said = [
        StoredPrediction(
            f.id, np.tile([f.id, 50.0], (68, 1)) + np.arange(68)[:, None], np.full(68, 0.01 * f.id, np.float32)
        )
        for f in project.labels.faces()
    ]
    project.predictions.set_predictions(run, said)
    for number in range(1, 4):
        assert client.put(f"/api/faces/{number}", json=label(how="accepted")).status_code == 200
    data = client.get("/api/overview").json()
    assert (data["reviews"]["n"], data["reviews"]["accepted"], "cut" in data) == (3, 3, False)
    truth, points = said[0].landmarks, np.array(POINTS)
    moved = np.linalg.norm(truth - points, axis=1).mean() / np.ptp(truth, axis=0).max()
    first = project.predictions.reviews(run)[0]
    assert (first.face, first.accepted) == (1, True)
    assert first.moved == pytest.approx(moved, rel=1e-5)
    band = np.array(data["curve"]["band"])
    assert band.shape == (len(data["curve"]["n_labels"]), 3)
    assert (np.diff(band, axis=1) >= 0).all()
    assert data["curve"]["n_labels"][-1] == 450
    near = client.get("/api/queue", params={"kind": "cut", "n": 2}).json()
    assert [i["face"] for i in near] == [4, 5]  # the middle of 1 to 8 %
    assert "the middle of all doubts" in near[0]["reason"]


def test_what_the_model_sees(client: TestClient, folder: Path, give_model: Callable[[], None]) -> None:
    assert "not where it was" in client.get("/api/faces/1/heatmap").json()["detail"]
    give_model()
    found = client.get("/api/faces/1/heatmap").json()
    x0, y0, x1, y1 = found["square"]
    box = Project(folder).labels.face(1).box
    assert box is not None
    assert x0 < box[0] < box[2] < x1
    assert x1 - x0 == pytest.approx(y1 - y0)
    data = base64.b64decode(found["picture"].partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.shape[2] == 4
    side = len(picture)
    said = Project(folder).predictions.prediction(1, 1)
    assert said is not None
    inside = (said.landmarks - 3 - [x0, y0]) / (x1 - x0) * side  # the truth, of which the run's points are 3 px off
    lit = picture[inside[:, 1].astype(int).clip(0, side - 1), inside[:, 0].astype(int).clip(0, side - 1), 3]
    assert np.median(lit) > 3 * np.median(picture[..., 3])


def test_a_label_comes_in_and_a_conflict_is_told(client: TestClient, folder: Path) -> None:
    points: list[Any] = [*POINTS]
    points[5] = None
    saved = client.put("/api/faces/1", json=label(landmarks=points)).json()
    assert (saved["state"], saved["how"], saved["version"]) == ("labelled", "placed", 1)
    assert saved["landmarks"] == points
    assert saved["visibility"][5] == 0
    late = client.put("/api/faces/1", json=label(how="fixed"))
    assert late.status_code == 409
    assert late.json()["face"]["landmarks"] == points
    assert "changed since you opened it" in late.json()["detail"]
    assert client.post("/api/faces/1/reject", json={"version": 1}).json()["state"] == "rejected"
    history = client.get("/api/faces/1/history").json()
    assert next((h["who"], h["how"]) for h in history) == ("anna", "placed")
    assert client.post("/api/faces/1/restore", json={"version": 1}).json()["landmarks"] == points
    assert Project(folder).labels.face(1).state == "labelled"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"landmarks": POINTS[:5], "visibility": [2] * 5}, "expected landmarks (68, 2)"),
        ({"landmarks": [None] * 68}, "at least one landmark"),
        ({"how": "stolen"}, "how"),
        ({"landmarks": [["a", 1]] * 68}, "landmarks"),
    ],
)
def test_a_wrong_label_is_refused_and_changes_nothing(
    client: TestClient, folder: Path, changes: dict[str, Any], words: str
) -> None:
    answer = client.put("/api/faces/1", json=label(**changes))
    assert answer.status_code == 422
    assert words in json.dumps(answer.json())
    assert Project(folder).labels.history(1) == []


def test_numbers_that_there_are_not(client: TestClient) -> None:
    assert client.get("/api/faces/99").status_code == 422
    assert "none of this number" in client.get("/api/images/99").json()["detail"]
    assert client.put("/api/faces/99", json=label()).status_code == 422


def test_an_image_that_browsers_do_not_show_is_sent_as_png(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "plain.ppm"
    write_image(tmp_path / "plain.png", np.full((30, 40, 3), 90, np.uint8))
    path.write_bytes(b"P6 40 30 255\n" + bytes(40 * 30 * 3))
    project = Project(folder)
    project.add([path])
    client = TestClient(create_app(folder), base_url="http://localhost")
    answer = client.get("/api/images/9")
    assert answer.headers["content-type"] == "image/png"
    path.unlink()
    gone = client.get("/api/images/9")
    assert gone.status_code == 404
    assert "not where it was" in gone.json()["detail"]


def test_the_label_of_the_neighbouring_frame(client: TestClient, folder: Path) -> None:
    assert "no other frame" in client.get("/api/faces/1/neighbour").json()["detail"]
    project = Project(folder)
    box = np.array([0, 0, 159, 159], np.float32)
    faces = []
    for frame in (10, 20, 21, 40):
        image = project.labels.add_image(f"clip-{frame}.png", bytes([frame]), (160, 160), "clip.mp4", frame)
        assert image is not None
        faces.append(project.labels.add_face(image, box))
        if frame in (10, 40):
            project.label(faces[-1], np.full((68, 2), frame, np.float32))
    assert client.get(f"/api/faces/{faces[2]}/neighbour").json()["landmarks"][0] == [10, 10]
    project.label(faces[1], np.full((68, 2), 20, np.float32))
    assert client.get(f"/api/faces/{faces[2]}/neighbour").json()["landmarks"][0] == [20, 20]


@pytest.mark.parametrize("path", ["/../project.sqlite", "/%2e%2e/project.toml", "/api/images/..%2f..%2fproject.sqlite"])
def test_no_path_leaves_the_page(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:8000"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-length": "99000000"}, 413),
        ({"origin": "http://localhost:8000"}, 200),
    ],
)
def test_only_the_page_itself_may_write(client: TestClient, folder: Path, headers: dict[str, str], status: int) -> None:
    content = json.dumps(label())
    answer = client.put("/api/faces/1", content=content, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    assert len(Project(folder).labels.history(1)) == (status == 200)


def test_a_body_of_unknown_length_is_refused(client: TestClient, folder: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield json.dumps(label()).encode()

    answer = client.put("/api/faces/1", content=chunks(), headers={"content-type": "application/json"})
    assert answer.status_code == 411
    assert Project(folder).labels.history(1) == []


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    for path in (Path(__file__).parents[2] / "src/fewmark/web/static").iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text


def test_beyond_this_machine_a_token_is_asked(folder: Path) -> None:
    app = create_app(folder, hosts=("localhost", "lab.example"), token="secret-word")
    client = TestClient(app, base_url="http://lab.example")
    assert client.get("/api/project").status_code == 401
    assert client.get("/api/project", params={"token": "wrong"}).status_code == 401
    assert client.get("/", params={"token": "secret-word"}).status_code == 200  # and a cookie from here on
    assert client.get("/api/project").status_code == 200
    other = TestClient(app, base_url="http://lab.example")
    assert other.get("/api/project", headers={"authorization": "Bearer secret-word"}).status_code == 200
    assert other.get("/api/project").status_code == 401


def put(url: str, number: int, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}api/faces/{number}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def test_a_server_that_is_killed_fifty_times_loses_no_edit(folder: Path, serve: Callable[..., Any]) -> None:
    version = 0
    for turn in range(50):
        server = serve(folder)
        for step in range(2):
            moved = [[x + turn, y + step] for x, y in POINTS]
            version = put(server.url, 1, label(landmarks=moved, how="fixed", version=version))["version"]
        server.kill()
        face = Project(folder).labels.face(1)
        assert face.version == version == 2 * (turn + 1)
        assert face.landmarks is not None
        assert face.landmarks.tolist() == moved


def test_a_folder_that_is_no_project_is_told(tmp_path: Path, serve: Callable[..., Any]) -> None:
    server = serve(tmp_path)
    assert server.process.wait(timeout=30) == 1
