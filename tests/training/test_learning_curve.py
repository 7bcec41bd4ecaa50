"""The learning curve: what is fitted, and the runs behind it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark import Project, TrainingData
from fewmark.core.errors import InputError
from fewmark.project.curve import curve_folder
from fewmark.training.config import load_config
from fewmark.training.curve_runs import label_counts, measure_learning_curve
from fewmark.training.learning_curve import CurvePoint, LearningCurve


def power_law(rng: np.random.Generator, noise: float, slope: float = 0.2) -> LearningCurve:
    points = [
        CurvePoint(n, draw, float(0.08 * n**-slope * np.exp(noise * rng.standard_normal())))
        for n in (25, 50, 100)
        for draw in range(3)
    ]
    return LearningCurve(points)


def test_a_power_law_is_found() -> None:
    curve = power_law(np.random.default_rng(0), 0.0)
    low, middle, high = curve.nme(200)
    assert low < middle < high
    assert middle == pytest.approx(0.08 * 200**-0.2, rel=0.01)
    assert curve.gain(100, 50)[1] == pytest.approx(1 - 1.5**-0.2, rel=0.1)
    assert curve.nme(np.array([25.0, 50.0])).shape == (2, 3)


def test_the_band_holds_the_truth_as_often_as_it_says() -> None:
    inside = []
    for seed in range(150):
        low, _, high = power_law(np.random.default_rng(seed), 0.05).gain(100, 50)
        inside.append(low <= 1 - 1.5**-0.2 <= high)
    assert 0.7 < np.mean(inside) < 0.9


def test_where_labels_buy_nothing_the_band_says_so() -> None:
    low, _, high = power_law(np.random.default_rng(4), 0.05, slope=0.0).gain(100, 50)
    assert low < 0 < high


def test_too_few_runs_and_wrong_counts_are_refused() -> None:
    with pytest.raises(InputError, match="three runs"):
        LearningCurve([CurvePoint(10, 0, 0.1), CurvePoint(20, 0, 0.1)])
    with pytest.raises(InputError, match="two numbers of labels"):
        LearningCurve([CurvePoint(10, d, 0.1) for d in range(4)])
    assert label_counts(100, [60, 20]) == [20, 60]
    for counts in ([20], [1, 20], [20, 101]):
        with pytest.raises(InputError, match="from 2 to 100"):
            label_counts(100, counts)


def test_few_labels_without_validation_faces_are_refused(
    tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--val"):
        measure_learning_curve(load_config(tiny_recipe), replace(tiny_data, validation=[]), tmp_path)


def test_the_command(cli: Any, synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    arguments = ["curve", str(synthetic), "--scheme", "ibug-68", "--out", str(tmp_path / "curve")]
    arguments += [
        "--labelled",
        str(synthetic / "few.txt"),
        "--val",
        str(synthetic / "val.txt"),
        "--recipe",
        str(tiny_recipe),
    ]
    arguments += ["--count", "2", "--count", "4", "--set", "semi.selection=none", "--more", "3"]
    first = cli(*arguments, "--json")
    assert first.exit_code == 0, first.stderr
    numbers = json.loads(first.stdout)
    assert [(r["n_labels"], r["draw"]) for r in numbers["runs"]] == [(2, 0), (4, 0), (2, 1), (4, 1)]
    assert numbers == json.loads((tmp_path / "curve/curve.json").read_text(encoding="utf-8")) | {
        "picture": numbers["picture"]
    }
    assert "polygon" in Path(numbers["picture"]).read_text(encoding="utf-8")
    settings = [load_config(tmp_path / f"curve/0004_labels_draw{d}/config.toml") for d in (0, 1)]
    assert settings[0].run.seed != settings[1].run.seed
    # what is done is not done again
    models = sorted((tmp_path / "curve").glob("*/detector.safetensors"))
    assert len(models) == 4
    for model in models:
        model.unlink()
    second = cli(*arguments)
    assert second.exit_code == 0, second.stderr
    assert "3 more labels: NME" in second.stdout
    assert not any(m.exists() for m in models)


def test_the_command_on_a_project(cli: Any, synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    project = Project.create(tmp_path / "p", "ibug-68", objects="whole-images")
    project.add([synthetic])
    project.labels.hold_out(4)
    assert project.status().gain is None
    arguments = ["curve", str(tmp_path / "p"), "--recipe", str(tiny_recipe), "--count", "2", "--count", "4"]
    arguments += ["--set", "semi.selection=none", "--start", ""]
    found = cli(*arguments, "--json")
    assert found.exit_code == 0, found.stderr
    numbers = json.loads(found.stdout)
    status = project.status()
    assert [(p.n_labels, p.draw, round(p.nme, 6)) for p in status.curve_points] == [
        (r["n_labels"], r["draw"], round(r["nme"], 6)) for r in numbers["runs"]
    ]
    assert status.gain is not None
    assert status.gain[0] <= status.gain[1] <= status.gain[2]
    assert status.runs == []
    folder = Path(numbers["picture"]).parent
    assert folder.parent == tmp_path / "p/curves"
    project.reject(1)
    assert curve_folder(tmp_path / "p", project.labels.last_change()) != folder  # other labels, other runs
    wrong = cli(*arguments, "--scheme", "ibug-68", code=1)
    assert "leave out --scheme" in wrong.stderr
