"""The whole way in a browser: a scheme is drawn, three faces are labelled, a model is trained, reviewed and trained again, labels leave."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark import Project

SIX = {"left eye": [(50, 60), (70, 62)], "right eye": [(95, 62), (115, 60)], "mouth": [(60, 110), (105, 111)]}


def fewmark(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "fewmark", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def moved_point(page: Any, k: int, dx: float, dy: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where a point of the shown face is, and where it is to be."""
    x, y = page.evaluate(f"window.fewmark.editor.points[{k}]")
    return (x, y), (x + dx, y + dy)


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def draw_scheme(page: Any, click: Callable[[float, float], None]) -> None:
    page.wait_for_selector("#start option:nth-child(2)", state="attached")
    for component, places in SIX.items():
        page.fill("#component", component)
        for x, y in places:
            click(x, y)
    page.fill("#name", "mine-6")
    page.click("#propose")
    page.wait_for_timeout(500)
    page.select_option("#first", "0")
    page.select_option("#second", "3")
    page.click("#save")
    page.wait_for_selector("#state:has-text('Made')")


def train(page: Any, folder: Path, n_before: int) -> None:
    """Train from the overview, and come back to the queue of the new model."""
    page.click("#overview-button")
    page.click("#train")
    page.wait_for_selector("#training:text-is('trained')", timeout=240_000)
    assert len(Project(folder).predictions.runs()) == n_before + 1
    page.click('[data-list="queue"]')
    page.wait_for_selector("#reason:has-text('views disagree by')")


def test_from_no_scheme_to_a_second_model(
    browser: Any, made: Path, tmp_path: Path, tiny_recipe: Path, serve: Callable[..., Any], on_screen: Any, drag: Any
) -> None:
    images, folder = made.parent / "faces/images", tmp_path / "mine"
    example = min(images.iterdir())
    designer = serve(folder, "--design", str(example), "--objects", "whole-images")
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(designer.url)

    def click(x: float, y: float) -> None:
        page.mouse.click(*on_screen(page, x, y))

    draw_scheme(page, click)
    assert designer.process.wait(timeout=30) == 0  # its work is done
    project = Project(folder)
    assert project.scheme.mirror == (3, 2, 1, 0, 5, 4)
    assert project.scheme.landmarks[0] == "left_eye_0"
    drawn = project.labels.face(1).landmarks
    assert drawn is not None
    assert np.abs(drawn - [place for places in SIX.values() for place in places]).max() < 0.25
    fewmark("add", folder, images)
    assert json.loads(fewmark("status", folder, "--json"))["n_unlabelled"] == 7

    server = serve(
        folder,
        "--recipe",
        str(tiny_recipe),
        "--set",
        "semi.rounds=0",
        "--set",
        "teacher.source=labelled",
        "--start",
        "",
    )
    page.goto(server.url)
    page.wait_for_selector("#name:not(:empty)")
    press(page, "s")  # the shape of the example by two clicks, one point dragged
    click(48, 58)
    click(112, 63)
    drag(page, *moved_point(page, 4, 3, -2))
    by_hand = page.evaluate("window.fewmark.face.face")
    placed = np.array(page.evaluate("window.fewmark.editor.points"))
    press(page, "Enter", "s")
    click(52, 61)
    click(113, 60)
    press(page, "Tab", "Tab", "Control+ArrowDown", "Shift+ArrowLeft", "Enter")  # and by keys
    page.wait_for_selector('#saved[data-state="saved"]')
    saved = Project(folder).labels.face(by_hand).landmarks
    assert saved is not None
    assert saved == pytest.approx(placed, abs=0.01)
    assert json.loads(fewmark("status", folder, "--json"))["n_labelled"] == 3

    train(page, folder, 0)
    accepted = page.evaluate("window.fewmark.face.face")
    press(page, "Enter")
    page.wait_for_selector(f"#name:not(:has-text('Face {accepted} '))")
    fixed = page.evaluate("window.fewmark.face.face")
    drag(page, *moved_point(page, 0, 2, 1))
    press(page, "Enter")
    page.wait_for_selector('#saved[data-state="saved"]')
    assert [Project(folder).labels.face(n).how for n in (accepted, fixed)] == ["accepted", "fixed"]
    (first,) = Project(folder).predictions.reviews(1)[:1]
    assert first.face in (accepted, fixed)
    train(page, folder, 1)
    assert [r.n_labelled for r in Project(folder).predictions.runs()] == [3, 5]
    page.close()
    assert errors == []

    fewmark("export", folder, "--to", "coco", "--out", tmp_path / "labels.json")
    exported = json.loads((tmp_path / "labels.json").read_text())
    assert len([a for a in exported["annotations"] if a["num_keypoints"] == 6]) == 5
    assert json.loads(fewmark("status", folder, "--json"))["n_labelled"] == 5
