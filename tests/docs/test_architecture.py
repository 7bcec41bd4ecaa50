"""The architecture page says what is so: rooms, layers, arrows, and the three journeys in the order in which a run takes them."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import fewmark
from fewmark.data.lists import read_training_lists

ROOT = Path(__file__).parents[2]
PACKAGE = Path(fewmark.__file__).parent


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs/architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["architecture"] = module  # its dataclass looks its own module up
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()


@pytest.fixture(scope="module")
def house() -> Any:
    return SCRIPT.Architecture.read()


def test_no_rule_is_broken(house: Any) -> None:
    assert list(house.faults()) == []


def test_the_page_is_up_to_date(house: Any) -> None:
    text = SCRIPT.PAGE.read_text(encoding="utf-8")
    assert SCRIPT.page_with_tables(text, house) == text, "run python docs/architecture.py"


def test_every_room_says_what_it_holds(house: Any) -> None:
    for room in house.rooms:
        assert len(SCRIPT.paragraph(room)) > 40, room


@pytest.mark.parametrize(
    ("imports", "fault"),
    [
        ({"fewmark.core.a": ["fewmark.data.b"], "fewmark.data.b": []}, "points up"),
        ({"fewmark.training.a": ["fewmark.video.b"], "fewmark.video.b": []}, "within a layer"),
        ({"fewmark.core.a": ["fewmark.core.b"], "fewmark.core.b": ["fewmark.core.a"]}, "circle"),
        ({"fewmark.attic.a": []}, "named by no layer"),
    ],
)
def test_a_broken_rule_is_told(imports: dict[str, list[str]], fault: str) -> None:
    read = SCRIPT.Architecture.read()
    other = SCRIPT.Architecture(read.layers, {m: frozenset(t) for m, t in imports.items()}, dict.fromkeys(imports, 9))
    assert [f for f in other.faults() if fault in f]


def test_a_long_file_is_told() -> None:
    read = SCRIPT.Architecture.read()
    other = SCRIPT.Architecture(read.layers, {"fewmark.core.a": frozenset()}, {"fewmark.core.a": 401})
    assert list(other.faults()) == ["fewmark.core.a: 401 lines, at most 400"]


def first_calls(run: Callable[[], object], start: str = "") -> list[str]:
    """The package's functions that a run enters, FILE:FUNCTION, in the order of their first entries, in every thread.

    Args:
        start: FILE:FUNCTION whose first entry begins the record; "" for all.
    """
    found: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(str(PACKAGE)):
            place = f"{Path(file).relative_to(PACKAGE).as_posix()}:{frame.f_code.co_qualname}"
            if found or not start or place == start:
                found[place] = None

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(found)


def check_journey(name: str, calls: Sequence[str]) -> None:
    steps = [step.place for step in SCRIPT.JOURNEYS[name]]
    missing = [s for s in steps if s not in calls]
    assert not missing, f"{name}: no run enters {missing}"
    assert steps == sorted(steps, key=calls.index), f"{name}: entered in another order"
    files = [s.partition(":")[0] for s in steps]
    left = [f for i, f in enumerate(files) if i == 0 or files[i - 1] != f]
    assert len(left) == len(set(left)), f"{name}: goes back to a file that it had left"


def test_an_image_to_landmarks() -> None:
    def run() -> None:
        face = fewmark.Detector.load("ibug-68-nano").detect(ROOT / "docs/images/grace_hopper.png")[0]
        assert face.landmarks.shape == (68, 2)

    check_journey("An image to landmarks", first_calls(run))


def test_a_label_file_to_a_loss(synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    calls = first_calls(lambda: train(synthetic, tiny_recipe, tmp_path / "run"))
    check_journey("A label file to a loss", calls)


def test_a_pseudo_label_to_the_next_round(synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    name = "A pseudo label to the next round"
    calls = first_calls(lambda: train(synthetic, tiny_recipe, tmp_path / "run"), start=SCRIPT.JOURNEYS[name][0].place)
    check_journey(name, calls)


def train(faces: Path, recipe: Path, folder: Path) -> None:
    scheme = fewmark.load_scheme("ibug-68")
    lists = read_training_lists(faces, faces / "few.txt", [faces / "many.txt"], faces / "val.txt", scheme=scheme)
    data = fewmark.TrainingData(scheme, lists.labelled, lists.unlabelled, lists.validation)
    fewmark.train(fewmark.load_config(recipe), data, folder)
