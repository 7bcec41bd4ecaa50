"""The page in a browser: by mouse and by keys, with a lost connection, and in two tabs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark import Project

Drag = Callable[..., None]
OnScreen = Callable[[Any, float, float], tuple[float, float]]


@pytest.fixture
def page(browser: Any, folder: Path, serve: Callable[..., Any]) -> Iterator[Any]:
    """The page of a project in a fresh browser, and its errors."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(serve(folder).url)
    page.wait_for_selector("#name:not(:empty)")
    yield page
    context.close()
    assert errors == []


def face_of(page: Any) -> int:
    return int(page.evaluate("window.fewmark.face.face"))


def points(page: Any) -> np.ndarray[Any, Any]:
    return np.array(page.evaluate("window.fewmark.editor.points"), np.float64)


def saved(page: Any) -> None:
    page.wait_for_selector('#saved[data-state="saved"]')


@pytest.mark.parametrize("presses", [0, 4, 9, -4])
def test_a_dragged_point_lands_where_it_is_dropped_at_every_zoom(
    page: Any, folder: Path, presses: int, drag: Drag
) -> None:
    number, before = face_of(page), points(page)
    page.keyboard.press("Tab")  # the first point
    for _ in range(abs(presses)):
        page.keyboard.press("+" if presses > 0 else "-")
    at = before[0]
    target = (float(at[0] + (1.5 if presses > 0 else 9)), float(at[1] - (0.75 if presses > 0 else 6)))
    drag(page, tuple(at), target)
    saved(page)
    face = Project(folder).labels.face(number)
    assert face.landmarks is not None
    assert np.abs(face.landmarks[0] - target).max() < 0.25
    assert np.abs(face.landmarks[1:] - before[1:]).max() < 0.001
    assert (face.state, face.how) == ("labelled", "fixed")


def test_a_component_and_the_whole_shape_move_together(page: Any, folder: Path, drag: Drag) -> None:
    before = points(page)
    tip = tuple(before[30])
    drag(page, tip, (tip[0] + 8, tip[1] + 4), "Shift")
    after = points(page)
    assert np.abs(after[27:36] - before[27:36] - [8, 4]).max() < 0.3
    assert np.abs(np.delete(after, np.r_[27:36], 0) - np.delete(before, np.r_[27:36], 0)).max() < 1e-6
    tip = tuple(after[30])
    drag(page, tip, (tip[0] - 8, tip[1] - 4), "Alt")
    assert np.abs(points(page) - after + [8, 4]).max() < 0.3


def test_everything_by_keys_alone(page: Any, folder: Path) -> None:
    first, before = face_of(page), points(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Control+ArrowDown")
    assert points(page)[1] == pytest.approx(before[1] + [0.5, 5])
    page.keyboard.press("Shift+ArrowLeft")  # its component, the contour
    assert points(page)[16] == pytest.approx(before[16] - [0.5, 0])
    page.keyboard.press("z")
    assert points(page)[16] == pytest.approx(before[16])
    page.keyboard.press("y")
    assert points(page)[16] == pytest.approx(before[16] - [0.5, 0])
    page.keyboard.press("o")
    page.keyboard.press("Tab")
    page.keyboard.press("m")
    page.keyboard.press("]")
    saved(page)
    face = Project(folder).labels.face(first)
    assert face.visibility is not None
    assert face.visibility[:4].tolist() == [2, 1, 0, 2]
    assert face.landmarks is not None
    assert np.isnan(face.landmarks[2]).all()
    page.keyboard.press("Enter")  # next unlabelled
    second = face_of(page)
    assert second != first
    page.keyboard.press("x")
    third = face_of(page)
    assert third not in (first, second)
    page.keyboard.press("Enter")  # the model's points, as they are
    saved(page)
    project = Project(folder)
    assert project.labels.face(second).state == "rejected"
    assert project.labels.face(third).how == "accepted"
    page.keyboard.press("p")
    assert face_of(page) == third
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    assert "not a face" in page.locator("#keys").inner_text()


def test_the_order_of_the_queue_is_chosen(page: Any) -> None:
    for kind, words in (("random", "drawn at random"), ("cut", "the middle of all doubts"), ("best", "expected error")):
        page.select_option("#kind", kind)
        page.wait_for_selector(f"#reason:has-text('{words}')")
    page.click('[data-list="all"]')
    page.wait_for_selector("#kinds", state="hidden")
    page.wait_for_selector("#faces li:nth-child(8)")
    assert page.locator("#message").inner_text() == ""


def test_all_faces_are_read_some_at_a_time(page: Any) -> None:
    page.route("**/api/faces?*", lambda route: route.continue_(url=route.request.url.replace("n=200", "n=5")))
    page.click('[data-list="all"]')
    page.wait_for_selector("#faces li:nth-child(5):last-child")
    page.wait_for_selector("#faces button[data-face='1'][aria-current='true']")
    page.wait_for_selector("#name:has-text('Face 1 ')")
    seen = []
    for _ in range(8):
        seen.append(face_of(page))
        page.keyboard.press("n")
        page.wait_for_timeout(150)
    assert seen == list(range(1, 9))
    assert page.locator("#faces button").count() == 8
    assert "the end of the list" in page.locator("#message").inner_text()


def test_what_the_model_sees_is_laid_over_the_face(page: Any, give_model: Callable[[], None]) -> None:
    give_model()
    page.click("#name")
    page.keyboard.press("h")
    page.wait_for_selector(".heat:not([hidden])", state="attached", timeout=60_000)
    assert page.evaluate("document.querySelector('.heat').getAttribute('href')").startswith("data:image/png")
    page.keyboard.press("n")
    page.wait_for_selector(".heat:not([hidden])", state="attached", timeout=60_000)
    page.keyboard.press("h")
    page.wait_for_selector(".heat[hidden]", state="attached")


def test_undo_of_all_edits_leaves_no_label(page: Any, folder: Path) -> None:
    number = face_of(page)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    saved(page)
    assert Project(folder).labels.face(number).state == "labelled"
    page.keyboard.press("z")
    page.keyboard.press("z")
    saved(page)
    face = Project(folder).labels.face(number)
    assert (face.state, face.landmarks) == ("unlabelled", None)
    page.keyboard.press("y")
    saved(page)
    assert Project(folder).labels.face(number).state == "labelled"


def test_a_shape_is_placed_by_two_clicks(page: Any, folder: Path, on_screen: OnScreen) -> None:
    number, shape = face_of(page), np.array(page.evaluate("window.fewmark.editor.project.shape"))
    page.keyboard.press("s")
    assert "left eye outer corner" in page.locator("#point").inner_text().lower()
    eyes = [(50.0, 70.0), (110.0, 64.0)]
    for eye in eyes:
        page.mouse.click(*on_screen(page, *eye))
    saved(page)
    face = Project(folder).labels.face(number)
    assert face.landmarks is not None
    assert np.abs(face.landmarks[[36, 45]] - eyes).max() < 0.3
    stretch = np.linalg.norm(face.landmarks[8] - face.landmarks[27]) / np.linalg.norm(shape[8] - shape[27])
    assert stretch == pytest.approx(np.hypot(60, 6) / np.linalg.norm(shape[45] - shape[36]), rel=0.01)


def test_a_lost_connection_loses_nothing(page: Any, folder: Path) -> None:
    number = face_of(page)
    page.route("**/api/faces/*", lambda route: route.abort() if route.request.method == "PUT" else route.continue_())
    page.keyboard.press("Tab")
    page.keyboard.press("Control+ArrowRight")
    page.keyboard.press("Control+ArrowRight")
    page.wait_for_selector('#saved[data-state="waiting"]')
    assert Project(folder).labels.history(number) == []
    wanted = points(page)[0]
    page.unroute("**/api/faces/*")
    page.reload()  # what waits is in the browser, not in the page
    page.wait_for_selector("#name:not(:empty)")
    saved(page)
    face = Project(folder).labels.face(number)
    assert face.landmarks is not None
    assert face.landmarks[0] == pytest.approx(wanted, abs=0.01)


def test_two_tabs_on_one_face(page: Any, folder: Path) -> None:
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#name:not(:empty)")
    assert face_of(page) == face_of(other)
    number = face_of(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Control+ArrowRight")
    saved(page)
    mine = points(page)
    other.keyboard.press("Tab")
    other.keyboard.press("Control+ArrowLeft")
    other.wait_for_selector("#message:not(:empty)")
    assert "changed since you opened it" in other.locator("#message").inner_text()
    assert points(other) == pytest.approx(mine, abs=0.01)  # it shows what the first tab saved
    face = Project(folder).labels.face(number)
    assert face.landmarks is not None
    assert face.landmarks == pytest.approx(mine, abs=0.01)
    assert len(Project(folder).labels.history(number)) == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("accept", "reject", "next", "saved", "help-button"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def accept_four(browser: Any, url: str) -> Any:
    """A page on which four faces were accepted."""
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector("#name:not(:empty)")
    for _ in range(4):
        page.keyboard.press("Enter")
        saved(page)
    return page


def test_the_loop_closes(browser: Any, folder: Path, tiny_recipe: Path, serve: Callable[..., Any]) -> None:
    """Accept, fix, train from the page, and look at what the new model says."""
    server = serve(folder, "--recipe", str(tiny_recipe), "--set", "semi.rounds=0", "--start", "")
    page = accept_four(browser, server.url)
    first = page.evaluate("window.fewmark.face.prediction.landmarks[0]")
    page.click("#overview-button")
    page.wait_for_selector("#worst img")
    assert "labelled" in page.locator("#standing").inner_text()
    page.click("#train")
    assert page.locator("#train").is_disabled()
    page.wait_for_selector("#training:text-is('trained')", timeout=240_000)
    project = Project(folder)
    assert [r.n_labelled for r in project.predictions.runs()] == [0, 4]
    assert (project.folder / "runs/002/report.html").is_file()
    page.click('[data-list="queue"]')
    for _ in range(100):
        if page.evaluate("window.fewmark.face.prediction.landmarks[0]") != first:
            break
        page.wait_for_timeout(100)
    said = project.predictions.prediction(2, face_of(page))
    assert said is not None
    assert page.evaluate("window.fewmark.face.prediction.landmarks[0]") == pytest.approx(said.landmarks[0], abs=0.01)
    page.close()


def test_a_training_is_stopped_from_the_page(
    browser: Any, folder: Path, tiny_recipe: Path, serve: Callable[..., Any]
) -> None:
    options = ["--set", "semi.rounds=0", "--set", "students.unet.n_epochs=100000", "--start", ""]
    server = serve(folder, "--recipe", str(tiny_recipe), *options)
    page = accept_four(browser, server.url)
    page.click("#overview-button")
    page.click("#train")
    page.wait_for_selector("#training:has-text('epoch')", timeout=240_000)
    page.click("#stop")
    page.wait_for_selector("#training:has-text('stopped')", timeout=60_000)
    assert not page.locator("#train").is_disabled()
    assert len(Project(folder).predictions.runs()) == 1
    page.close()
