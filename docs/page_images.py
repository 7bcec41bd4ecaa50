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
from fewmark.landmarks.scheme import load_scheme
from fewmark.project.training import predict_faces

IMAGES = Path(__file__).parent / "images"
MODEL = "ibug-68-nano"
N_FACES, N_LABELLED = 24, 6
SHOTS = {
    "page_label": (1280, 760, "light", "label"),
    "page_label_phone": (390, 760, "dark", "label"),
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
    return project


def show(page: Page, what: str) -> None:
    """Bring the page to what is to be seen."""
    page.wait_for_selector("#name:not(:empty)")
    if what == "overview":
        page.click("#overview-button")
        page.wait_for_selector("#worst img")
        page.wait_for_timeout(1500)
    else:
        for _ in range(37):  # a corner of an eye
            page.keyboard.press("Tab")
    page.wait_for_timeout(300)


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as p:
        project = make_project(Path(name))
        command = [sys.executable, "-m", "fewmark.web", str(project.folder), "--no-browser"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = server.stdout.readline().rpartition(": ")[2].strip()
        browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for shot, (width, height, scheme, what) in SHOTS.items():
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme="dark" if scheme == "dark" else "light")
            page.goto(url)
            show(page, what)
            png = np.frombuffer(page.screenshot(), np.uint8)
            image = cv2.imdecode(png, cv2.IMREAD_COLOR)
            assert image is not None
            cv2.imwrite(str(IMAGES / f"{shot}.webp"), image, [cv2.IMWRITE_WEBP_QUALITY, 82])
            page.close()
        browser.close()
        server.kill()


if __name__ == "__main__":
    main()
