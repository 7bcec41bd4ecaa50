"""A project with what a model says, and its page in a process of its own and in a browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark import Project, load_scheme, read_faces
from fewmark.data.samples import FaceSample
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference import weights
from fewmark.project.predictions import StoredPrediction

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
N_FACES = 8


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of eight drawn faces, none labelled; a run says of each where its landmarks are, 3 px off."""
    folder = tmp_path_factory.mktemp("web")
    render_dataset(folder / "faces", N_FACES, scheme=load_scheme("ibug-68"), seed=11, size=160)
    project = Project.create(folder / "project", "ibug-68", objects="whole-images")
    truth: dict[str, FaceSample] = {s.image.name: s for s in read_faces(folder / "faces")}
    project.add([folder / "faces/images"])
    run = project.predictions.add_run("001", 0, 0.06, calibrated=True)
    said = []
    for face in project.labels.faces():
        points = truth[project.image_path(face.image).name].landmarks
        assert points is not None
        said.append(StoredPrediction(face.id, points + 3, np.full(68, 0.02 + 0.001 * face.id, np.float32)))
    project.predictions.set_predictions(run, said)
    project.close()
    return folder / "project"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the project for one test."""
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture
def give_model(folder: Path) -> Callable[[], None]:
    """Lets the project's run have a model, a packaged one, when called."""

    def give() -> None:
        target = folder / "runs/001/detector.safetensors"
        target.parent.mkdir(parents=True)
        shutil.copy(Path(weights.__path__[0]) / "ibug-68-nano.safetensors", target)

    return give


@dataclass
class Server:
    """The page's server in a process."""

    process: subprocess.Popen[str]
    url: str

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts the server of a project; all are killed in the end."""
    started: list[Server] = []

    def start(folder: Path, *options: str) -> Server:
        command = [sys.executable, "-m", "fewmark.web", str(folder), "--no-browser", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        server = Server(process, line.rpartition(": ")[2].strip().partition("#")[0])
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason='needs Playwright: pip install "fewmark[dev]"')
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium, such as Debian's: apt install chromium")
    with playwright.sync_playwright() as p:
        launched = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def on_screen() -> Callable[[Any, float, float], tuple[float, float]]:
    """Page, x, y -> where a place of the image is on the screen."""

    def find(page: Any, x: float, y: float) -> tuple[float, float]:
        found = page.evaluate(
            "([x, y]) => { const m = document.getElementById('canvas').getScreenCTM();"
            " const p = new DOMPoint(x, y).matrixTransform(m); return [p.x, p.y]; }",
            [x, y],
        )
        return found[0], found[1]

    return find


@pytest.fixture
def drag(on_screen: Callable[[Any, float, float], tuple[float, float]]) -> Callable[..., None]:
    """Page, start, end, keys -> drags from a place of the image to another, with keys held down."""

    def move(page: Any, start: tuple[float, float], end: tuple[float, float], *keys: str) -> None:
        for key in keys:
            page.keyboard.down(key)
        page.mouse.move(*on_screen(page, *start))
        page.mouse.down()
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        page.mouse.move(*on_screen(page, *middle))
        page.mouse.move(*on_screen(page, *end))
        page.mouse.up()
        for key in keys:
            page.keyboard.up(key)

    return move
