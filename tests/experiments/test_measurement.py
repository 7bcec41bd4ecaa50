"""The experiments' shared helpers, and that every experiment can be loaded."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from measurement import cpu_ms, make_parser, markdown_table, percent, write_json

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.py")), ids=lambda p: p.stem)
def test_every_experiment_loads_and_has_a_description(path: Path) -> None:
    module = importlib.import_module(path.stem)
    assert module.__doc__
    assert module.__doc__.splitlines()[0].endswith((".", ":"))


def test_the_description_is_the_first_line_and_data_is_required() -> None:
    parser = make_parser("One line.\n\nMore.", data="a folder")
    assert parser.description == "One line."
    assert parser.parse_args(["--data", "faces"]).data == Path("faces")
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert vars(make_parser(None, data="").parse_args([])) == {}


def test_tables_and_percentages() -> None:
    table = markdown_table(["", "NME"], [["ibug-68", percent(0.0712)], ["", percent(float("nan"))]])
    assert table.splitlines() == ["| | NME |", "|---|---|", "| ibug-68 | 7.12 % |", "| | - |"]
    assert percent(None) == "-"
    assert percent(0.5, 0, "") == "50"


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "numbers.json", {"nme": np.float64("nan"), "n": np.int64(3)})
    assert json.loads((tmp_path / "new" / "numbers.json").read_text()) == {"nme": None, "n": 3}


def test_time_is_the_mean_over_items_of_the_least_call() -> None:
    calls: list[int] = []
    assert cpu_ms(calls.append, [4, 7], repeats=3) >= 0
    assert calls == [4, 7] * 3
