"""Overlays, sheets, charts and the report."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewmark.core.errors import InputError
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.visualization.answers import Answers
from fewmark.visualization.ced import ced_points
from fewmark.visualization.charts import line_chart, nice_ticks, scatter_chart
from fewmark.visualization.colours import BRIGHT, landmark_colours
from fewmark.visualization.draw import draw_landmarks, face_tile
from fewmark.visualization.labels import magnify_for
from fewmark.visualization.report import image_uri, write_report

SCHEME = LandmarkScheme(
    "three",
    ("a", "b", "c"),
    components={"left_eyebrow": (0,), "left_eye": (1,), "mouth": (2,)},
    edges=((0, 1), (1, 2)),
)
POINTS = np.array([[20.0, 20.0], [80.0, 20.0], [50.0, 80.0]])
GREY = np.full((100, 120, 3), 128, np.uint8)


def test_the_dots_are_where_the_points_are() -> None:
    before = GREY.copy()
    synthetic = draw_landmarks(GREY, [POINTS], SCHEME)
    assert (before == GREY).all(), "the image itself is left as it is"
    for (x, y), colour in zip(POINTS.astype(int), landmark_colours(SCHEME), strict=True):
        np.testing.assert_allclose(synthetic[y, x].astype(int), colour, atol=40)
    assert (synthetic[20, 45:55] != 128).any(), "the edge between a and b"
    assert (synthetic[90:] == 128).all()
    assert (synthetic[:, 100:] == 128).all()


@given(st.floats(10, 90), st.floats(10, 90))
def test_a_dot_is_centred_on_its_point(x: float, y: float) -> None:
    scheme = LandmarkScheme("one", ("a",))
    change = np.abs(draw_landmarks(GREY, [np.array([[x, y]])], scheme).astype(float) - 128).sum(-1)
    yy, xx = np.mgrid[:100, :120]
    centre = (change * xx).sum() / change.sum(), (change * yy).sum() / change.sum()
    np.testing.assert_allclose(centre, (x, y), atol=0.25)


def test_missing_points_and_their_edges_are_not_drawn() -> None:
    gone = POINTS.copy()
    gone[0] = np.nan
    synthetic = draw_landmarks(GREY, [gone], SCHEME)
    assert (synthetic[15:25, 15:75] == 128).all()
    assert (synthetic[80, 50] != 128).any()
    assert (draw_landmarks(GREY, [np.full((3, 2), np.nan)], SCHEME) == 128).all()
    assert (draw_landmarks(GREY, [], SCHEME) == 128).all()


@pytest.mark.parametrize("shift", [[-500.0, 0.0], [0.0, 9e5], [-19.0, -19.0]])
def test_points_outside_the_image(shift: list[float]) -> None:
    assert draw_landmarks(GREY, [POINTS + shift], SCHEME, numbers=True).shape == GREY.shape


def test_numbers_and_truth_leave_ink() -> None:
    plain = draw_landmarks(GREY, [POINTS], SCHEME)
    assert (draw_landmarks(GREY, [POINTS], SCHEME, numbers=True) != plain).any()
    assert (draw_landmarks(GREY, [POINTS], SCHEME, names=True) != plain).any()
    true = draw_landmarks(GREY, [POINTS], SCHEME, truth=[POINTS + 12])
    assert (true[32, 32] > 200).all()
    with pytest.raises(ValueError, match=r"\(3, 2\)"):
        draw_landmarks(GREY, [POINTS[:2]], SCHEME)


def test_components_have_their_colours() -> None:
    scheme = load_scheme("ibug-68")
    colours = landmark_colours(scheme)
    assert len(set(colours)) == 5
    assert colours[0] == BRIGHT[0] != colours[17]
    assert colours[19] == colours[24] != colours[37] == colours[44]


def test_a_tile_shows_the_face() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    image[100:140, 200:240] = 255
    box = np.array([200, 100, 239, 139], np.float32)
    tile = face_tile(image, np.full((3, 2), np.nan), SCHEME, size=80, margin=0.5, box_xyxy=box)
    assert tile.shape == (80, 80, 3)
    assert tile[40, 40].min() == 255
    assert tile[3, 3].max() == 0
    assert tile[:, :18].max() == 0
    assert face_tile(image, np.full((3, 2), np.nan), SCHEME, size=50).shape == (50, 50, 3)
    assert face_tile(image, np.full((3, 2), 9.0), SCHEME, size=50).shape == (50, 50, 3)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_in_the_range(low: float, length: float) -> None:
    high = low + length
    ticks = nice_ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), length)
    assert all(low - slack <= t <= high + slack for t in ticks)
    assert len(ticks) <= 7


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(svg)
    lines = root.iter("{http://www.w3.org/2000/svg}polyline")
    return [[tuple(float(v) for v in p.split(",")) for p in line.attrib["points"].split()] for line in lines]  # type: ignore[misc]


def test_a_line_rises_where_its_numbers_rise() -> None:
    chart = line_chart({"a < b": [(0, 1), (1, 2), (2, 4)]}, title="T", x_label="epoch", y_label="NME, %")
    (line,) = polylines(chart)
    xs, ys = zip(*line, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11)
    assert ys[0] - ys[1] == pytest.approx((ys[1] - ys[2]) / 2, abs=0.11)
    assert "epoch" in chart
    assert "NME, %" in chart


def test_gaps_break_a_line_and_nothing_is_said_to_be_nothing() -> None:
    points = [(0, 1.0), (1, 2.0), (2, float("nan")), (3, 1.0), (4, 2.0)]
    assert [len(p) for p in polylines(line_chart({"a": points}, title="", x_label="x", y_label="y"))] == [
        2,
        2,
    ]
    assert "no data" in line_chart({}, title="", x_label="x", y_label="y")
    same = line_chart({"a": [(1, 3.0)]}, title="", x_label="x", y_label="y")
    assert "nan" not in same
    assert scatter_chart({"a": points}, title="", x_label="x", y_label="y").count("<circle") == 4


class Tags(HTMLParser):
    """Checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None: ...


def test_report(tmp_path: Path) -> None:
    path = tmp_path / "run" / "report.html"
    write_report(
        path,
        title="dots <10 %>",
        config={"recipe": "laptop"},
        rounds=[
            {"round": 0, "n_selected": 0, "val_nme": {"cpm": 0.0612, "ensemble": 0.05}},
            {"round": 1, "n_selected": 12, "val_nme": {"cpm": None}, "pseudo_nme": {"selected": 0.031}},
        ],
        metrics=[
            {"part": "cpm", "training": "round 0", "epoch": e, "loss": 1 / (e + 1), "val_nme": None} for e in range(3)
        ],
        ced={"common": np.array([0.01, 0.02, 0.03, np.nan])},
        best=[(GREY, "a.png 1.00 %")],
        worst=[(GREY, 'b"<.png')],
        quality=[{"round": 1, "quality": np.array([0.1, 0.9]), "error": np.array([0.1, 0.02])}],
        facts={"NME": "4.00 %"},
    )
    page = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.headings == [
        "Worst faces",
        "Best faces",
        "Rounds",
        "Accuracy",
        "Quality predicted by the teacher",
        "Training",
        "Settings",
    ]
    assert "dots &lt;10 %&gt;" in page
    assert "6.12" in page
    assert "3.10" in page
    # three found of four: mean 2.00, AUC (7/8 + 6/8 + 5/8 + 0) / 4 = 56.2 %, one failure in four
    assert "<td>common</td><td>4</td><td>1</td><td>2.00</td><td>2.00</td><td>56.2</td><td>25.0</td>" in page
    assert "rank correlation -1.00: the teacher judges well" in page  # the cloud slopes down
    assert page.count('<details class="face"><summary><img') == 2  # a click enlarges
    assert not re.search(r"""(src|href)=["'](?!data:)""", page), "nothing is fetched"
    assert "<script" not in page


def test_a_last_training_on_labels_is_told(tmp_path: Path) -> None:
    rounds = [{"round": i, "n_selected": n, "val_nme": {"cpm": 0.05}} for i, n in enumerate((0, 12, 0))]
    for shown, told in ((rounds, True), (rounds[:2], False)):
        write_report(tmp_path / "report.html", title="rounds", config={}, rounds=shown)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert ("The last training is on labels alone." in page) is told


def test_an_empty_report(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", title="nothing yet", config={})
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_the_sign_of_the_teachers_rank_is_that_of_the_cloud(tmp_path: Path) -> None:
    error = np.linspace(0.02, 0.1, 12)
    for quality, said in (
        (-error, "-1.00: the teacher judges well"),
        (error, "+1.00: the teacher judges the wrong way"),
    ):
        rows = [{"round": 1, "quality": quality, "error": error}]
        write_report(tmp_path / "r.html", title="t", config={}, quality=rows)
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        assert said in page
        dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="2.6"', page)]
        left, right = min(dots), max(dots)
        assert (right[1] > left[1]) == ("well" in said)  # y of an SVG grows downwards


def test_answers(tmp_path: Path) -> None:
    """An empty section is left out; errors per component and landmark are those of the first score."""
    rng = np.random.default_rng(0)
    true = np.stack([POINTS] * 6).astype(np.float64)
    wrong = true + rng.normal(0, 0.4, true.shape)
    wrong[:, 2, 0] += 9
    result = score(wrong, true, SCHEME, boxes=np.array([[0, 0, 100, 100.0]] * 6), normalizer="box-size")
    answers = Answers(
        SCHEME,
        {"validation faces": result},
        remarks=["rough <20"],
        how_to="label twice",
        face=POINTS,
        others={"packaged": {}},
        advice=[("few faces", "hold out more")],
        label_next=["a.jpg", "b&.jpg"],
    )
    write_report(tmp_path / "r.html", title="t", config={}, answers=answers)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.headings == ["Is it good enough?", "What went wrong", "What to do next", "Settings"]
    worst = page.index("<th>worst landmarks</th>")
    assert page[worst:].index(f"2 {SCHEME.landmarks[2]}") < page[worst:].index(f"0 {SCHEME.landmarks[0]}")
    assert f"<td>{100 * result.nme:.2f} %</td><td>{100 * result.standard_error:.2f} %</td>" in page
    assert "rough &lt;20" in page
    assert "b&amp;.jpg" in page
    assert f"2 {SCHEME.landmarks[2]}: {100 * result.per_landmark[2]:.2f} %</title>" in page


def test_many_points_do_not_hide_the_face() -> None:
    """Points are drawn the smaller the more there are: they cover about the same."""
    covered = {}
    for k in (68, 189):
        scheme = LandmarkScheme("many", tuple(f"p{i}" for i in range(k)))
        points = np.stack(np.meshgrid(np.linspace(40, 460, 21), np.linspace(40, 460, 9)), -1).reshape(-1, 2)[:k]
        points[-1] = 460, 460
        image = np.full((500, 500, 3), 128, np.uint8)
        covered[k] = (draw_landmarks(image, [points], scheme) != image).any(2).mean()
    assert covered[189] < 1.3 * covered[68]


def test_ced_and_images() -> None:
    assert ced_points(np.array([np.nan]), 0.08) == [(0.0, 0.0), (8.0, 0.0)]
    assert image_uri(GREY).startswith("data:image/jpeg;base64,")


def test_labels_magnify_small_faces() -> None:
    image, (points,) = magnify_for("numbers", GREY, [POINTS])
    assert image.shape == (600, 720, 3)
    np.testing.assert_allclose(points, (POINTS + 0.5) * 6 - 0.5)
    assert magnify_for("none", GREY, [POINTS])[0] is GREY
    assert magnify_for("names", GREY, [])[0] is GREY
    wide = np.zeros((100, 5000, 3), np.uint8)
    assert magnify_for("names", wide, [POINTS])[0] is wide
    assert draw_landmarks(GREY, [POINTS + 9e5], SCHEME, names=True).shape == GREY.shape


def test_images_of_other_kinds_are_drawn_on_a_copy() -> None:
    expected = draw_landmarks(GREY, [POINTS], SCHEME)
    palette = Image.fromarray(GREY).quantize(4)
    np.testing.assert_array_equal(draw_landmarks(palette, [POINTS], SCHEME), expected)
    np.testing.assert_array_equal(draw_landmarks(GREY[..., 0], [POINTS], SCHEME), expected)
    np.testing.assert_array_equal(draw_landmarks(GREY.astype(np.uint16) * 257, [POINTS], SCHEME), expected)
    assert (GREY == 128).all()
    with pytest.raises(InputError, match="given str"):
        draw_landmarks("a.jpg", [POINTS], SCHEME)
