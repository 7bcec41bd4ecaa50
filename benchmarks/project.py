"""A project of 100,000 faces: its status, its queue, and its page in a browser.

    python benchmarks/project.py --faces 100000 --json project.json

The images are one drawn face under many names. Times of the page are measured in headless Chromium: until the first face is seen, and from a key to the next
face, over 35 faces. Memory is the server's resident set.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fewmark import Project
from fewmark.data.images import write_image
from fewmark.data.synthetic.faces import render_face
from fewmark.project.embedding import N_LOOK
from fewmark.project.predictions import StoredPrediction

MARKS = {"status, s": 1.0, "page open, s": 1.0, "next face, ms at p95": 150.0, "memory of the server, MB": 500.0}
N_NEXT = 35


def fill(folder: Path, n: int) -> Project:
    """A project of n faces, a tenth of them labelled, with what a model says of all."""
    project = Project.create(folder, "ibug-68", objects="whole-images")
    face = render_face(np.random.default_rng(1), scheme=project.scheme, size=320)
    write_image(folder / "images/face.png", face.image)
    rng = np.random.default_rng(0)
    box = np.array([0, 0, 320, 320], np.float32)
    run = project.predictions.add_run("001", n // 10, 0.04, calibrated=True)
    with project.database.transaction():
        for i in range(n):
            name = f"images/{i:06d}.png"
            (folder / name).symlink_to("face.png")
            image = project.labels.add_image(name, i.to_bytes(16, "little"), (320, 320), "benchmark")
            assert image is not None
            number = project.labels.add_face(image, box)
            if i % 10 == 0:
                project.labels.change(number, "labelled", "placed", "benchmark", landmarks=face.landmarks)
        project.predictions.set_embeddings(
            (i + 1, rng.standard_normal(N_LOOK + 136).astype(np.float32)) for i in range(n)
        )
        project.predictions.set_predictions(
            run, (StoredPrediction(i + 1, face.landmarks, rng.gamma(2, 0.01, 68).astype(np.float32)) for i in range(n))
        )
    return project


def timed(act: Callable[[], object], repeats: int = 3) -> float:
    """Least seconds of some calls."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return min(times)


def measure_page(folder: Path) -> dict[str, float]:
    """The page's times and the server's memory."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "fewmark.web", str(folder), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().partition(": ")[2].strip()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            opened = []
            for _ in range(3):
                page = browser.new_page()
                began = time.perf_counter()
                page.goto(url)
                page.wait_for_selector("#name:not(:empty)")
                opened.append(time.perf_counter() - began)
            times = []
            for _ in range(N_NEXT - 1):
                before = page.locator("#name").inner_text()
                began = time.perf_counter()
                page.keyboard.press("n")
                page.wait_for_selector(f"#name:not(:text-is({json.dumps(before)}))")
                times.append(1000 * (time.perf_counter() - began))
            browser.close()
        memory = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())
    finally:
        server.kill()
    assert memory is not None
    return {
        "page open, s": min(opened),
        "next face, ms at p50": float(np.quantile(times, 0.5)),
        "next face, ms at p95": float(np.quantile(times, 0.95)),
        "memory of the server, MB": int(memory[1]) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        began = time.perf_counter()
        project = fill(folder, given.faces)
        found: dict[str, Any] = {"faces": given.faces, "filled, s": time.perf_counter() - began}
        found["status, s"] = timed(project.status)
        found["queue of 40, s"] = timed(lambda: project.queue(40))
        found["queue of 40 by centres, s"] = timed(lambda: project.queue(40, "centres"))
        project.close()
        found |= measure_page(folder)
    for key, value in found.items():
        mark = f"   (mark {MARKS[key]:g})" if key in MARKS else ""
        print(f"{key:28}{value:10.2f}{mark}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
