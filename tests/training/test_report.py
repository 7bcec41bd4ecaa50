"""report.html of a run: its numbers are those of the terminal and of the run, and its snippet runs."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewmark import TrainingData, train
from fewmark.core.text import percent
from fewmark.training.config import load_config


@pytest.fixture(scope="module")
def page(tiny_run: Path) -> str:
    return (tiny_run / "report.html").read_text(encoding="utf-8")


def test_the_report_answers(page: str) -> None:
    assert re.findall("<h2>(.*?)</h2>", page)[:4] == [
        "Is it good enough?",
        "What went wrong",
        "Worst faces",
        "What to do next",
    ]
    for row in (
        "validation faces",
        "validation faces, boxes of the face detector",
        "validation faces, packaged ibug-68",
    ):
        assert f"<td>{row}</td><td>4</td>" in page
    assert "<td>labelled faces, which it learned from</td><td>4</td>" in page
    assert "fewer than 20 faces: a rough figure" in page
    assert "spread of the annotators" in page
    assert "<td>left_eye</td><td>6</td>" in page


def test_counts_agree(page: str) -> None:
    assert "<h1>ibug-68: 4 labelled, 6 unlabelled, 4 validation faces</h1>" in page
    facts = {name: value for value, name in re.findall('class="fact"><b>(.*?)</b><span>(.*?)</span>', page)}
    assert (facts["labelled faces"], facts["validation faces"], facts["unlabelled faces"]) == ("4", "4", "6")
    assert "<td>validation</td><td>4</td>" in page
    assert "The 6 unlabelled faces of the lowest quality" in page


def test_the_nme_is_that_of_the_terminal(cli: Any, synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    lists = ["--labelled", synthetic / "few.txt", "--val", synthetic / "val.txt"]
    words = ["train", synthetic, *lists, "--scheme", "ibug-68", "--recipe", tiny_recipe, "--selection", "none"]
    printed = re.search(r"validation: NME (\S+ %)", cli(*words, "--out", tmp_path / "run").stdout)
    assert printed is not None
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"<b>{printed[1]}</b><span>validation NME" in page
    assert f"<td>validation faces</td><td>4</td><td>{printed[1]}</td>" in page
    assert f"<td>validation</td><td>4</td><td>0</td><td>{printed[1].removesuffix(' %')}</td>" in page


def test_unlabelled_faces_that_were_not_used_are_told(
    tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path
) -> None:
    import numpy as np

    from fewmark.data.images import write_image
    from fewmark.data.samples import FaceSample

    write_image(tmp_path / "empty.png", np.full((64, 64, 3), 90, np.uint8))
    unlabelled = [*tiny_data.unlabelled, FaceSample(tmp_path / "empty.png")]
    data = TrainingData(tiny_data.scheme, tiny_data.labelled, unlabelled, [])
    result = train(load_config(tiny_recipe), data, tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<b>6 of 7 given</b><span>unlabelled faces</span>" in page
    assert "1 unlabelled image left out: no face was detected." in page
    assert "No face is held out" in page
    assert result.checkpoint.counts["unlabelled"] == 6


def test_the_snippet_compares_two_labellings(page: str, synthetic: Path, tmp_path: Path) -> None:
    found = re.search("Measure it by labelling twice</summary><pre>(.*?)</pre>", page, re.DOTALL)
    assert found is not None
    lines = (synthetic / "annotations.csv").read_text(encoding="utf-8")
    for name in ("first.csv", "second.csv"):
        (synthetic / name).write_text(lines, encoding="utf-8")
    try:
        script = html.unescape(found[1])
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=synthetic, env=dict(os.environ), capture_output=True, text=True
        )
    finally:
        for name in ("first.csv", "second.csv"):
            (synthetic / name).unlink()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"NME {percent(0.0)}")


def test_as_many_faces_are_listed_as_the_advice_asks_for(
    tiny_run: Path, tiny_recipe: Path, tiny_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewmark.training.advice.LEAST_NEXT", 2)  # so that 4 labelled faces ask for 4 of 6
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    train(load_config(tiny_recipe), tiny_data, folder, resume=True)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Label the 4 unlabelled faces that the teacher judges worst" in page
    assert "The 4 unlabelled faces of the lowest quality" in page
