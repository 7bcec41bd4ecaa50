"""The pictures of the page in docs/commands.md, from a live page of a project of drawn faces: light and dark, 1280 and 390 px.

    python docs/page_images.py

Needs Chromium and `pip install "fewmark[dev]"`. The model's points are those of `ibug-68-nano`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page, sync_playwright

from fewmark import Detector, Project, read_faces
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference import weights
from fewmark.landmarks.scheme import load_scheme
from fewmark.project.training import predict_faces

IMAGES = Path(__file__).parent / "images"
MODEL = "ibug-68-nano"
N_FACES, N_LABELLED, N_REVIEWED = 36, 6, 14
GOOD = 0.02
"""Error of the model's points, of the face's size, up to which they are accepted."""
SHOTS = {
    "page_label": (1280, 760, "light", "label"),
    "page_label_phone": (390, 760, "dark", "label"),
    "page_design": (1280, 760, "light", "design"),
    "page_overview_dark": (1280, 760, "dark", "overview"),
    "page_overview_phone": (390, 760, "light", "overview"),
}
"""Name -> width, height, colour scheme, what is shown."""


def make_project(folder: Path) -> Project:
    """Drawn faces, a few of them labelled, with what the model says of all."""
    scheme = load_scheme("ibug-68")
    render_dataset(folder / "drawn", N_FACES, scheme=scheme, seed=4, size=320)
    truth = {s.image.name: s.landmarks for s in read_faces(folder / "drawn")}
    project = Project.create(folder / "faces", scheme, objects="whole-images")
    project.add([folder / "drawn/images"])
    for face in list(project.labels.faces())[:N_LABELLED]:
        points = truth[project.image_path(face.image).name]
        assert points is not None
        project.label(face.id, points)
    found = predict_faces(Detector(MODEL), list(project.labels.faces()), project.image_path)
    run = project.predictions.add_run("001", N_LABELLED, None, calibrated=found.calibrated)
    project.predictions.set_predictions(run, found.each)
    for item in project.queue(N_REVIEWED):
        said = project.predictions.prediction(run, item.face)
        points = truth[project.image_path(project.labels.face(item.face).image).name]
        assert said is not None
        assert points is not None
        error = np.linalg.norm(said.landmarks - points, axis=1).mean() / np.ptp(points, axis=0).max()
        good = error < GOOD
        project.label(item.face, said.landmarks if good else points, how="accepted" if good else "fixed")
    return project


def straightest(folder: Path) -> Path:
    """The image of the face that is most like the mean face."""
    mean = load_scheme("ibug-68").mean_face
    assert mean is not None
    faces = [s for s in read_faces(folder) if s.landmarks is not None]
    spread = [np.linalg.norm(to_unit(s.landmarks) - to_unit(mean)) for s in faces if s.landmarks is not None]
    return faces[int(np.argmin(spread))].image


def to_unit(points: np.ndarray) -> np.ndarray:
    """Points in the unit square of their box."""
    return np.asarray((points - points.min(0)) / np.ptp(points, axis=0).max())


def serve(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A page's server and its address."""
    command = [sys.executable, "-m", "fewmark.web", str(folder), "--no-browser", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, server.stdout.readline().rpartition(": ")[2].strip()


def show(page: Page, what: str) -> None:
    """Bring the page to what is to be seen."""
    if what == "design":
        page.wait_for_selector("#start option:nth-child(2)", state="attached")
        page.select_option("#start", "ibug-68")
        page.wait_for_selector("#points li:nth-child(68)")
        page.wait_for_timeout(500)
        return
    page.wait_for_selector("#name:not(:empty)")
    if what == "overview":
        page.click("#overview-button")
        page.wait_for_selector("#worst img")
        page.wait_for_timeout(1500)
    else:
        for _ in range(37):  # a corner of an eye
            page.keyboard.press("Tab")
        if page.viewport_size["width"] > 1000:
            page.keyboard.press("h")
            page.wait_for_selector(".heat:not([hidden])", state="attached")
    page.wait_for_timeout(300)


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as p:
        project = make_project(Path(name))
        model = project.model_path()
        model.parent.mkdir(parents=True)
        shutil.copy(Path(weights.__path__[0]) / f"{MODEL}.safetensors", model)
        example = straightest(Path(name) / "drawn")
        servers = [serve(project.folder), serve(Path(name) / "new", "--design", str(example))]
        (page_server, page_url), (design_server, design_url) = servers
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for shot, (width, height, scheme, what) in SHOTS.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme="dark" if scheme == "dark" else "light")
            page.goto(design_url if what == "design" else page_url)
            show(page, what)
            png = np.frombuffer(page.screenshot(), np.uint8)
            image = cv2.imdecode(png, cv2.IMREAD_COLOR)
            assert image is not None
            cv2.imwrite(str(IMAGES / f"{shot}.webp"), image, [cv2.IMWRITE_WEBP_QUALITY, 82])
            page.close()
        browser.close()
        for server in (page_server, design_server):
            server.kill()


if __name__ == "__main__":
    main()
