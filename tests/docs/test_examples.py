"""The complete programs in examples/ run, on little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_examples_are_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 120


def test_the_demo_runs(tiny_recipe: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "fewmark[plot]"')
    words = ["--out", tmp_path / "out", "--recipe", tiny_recipe, "--model", tiny_model, "--faces", 4, 4, 2]
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "2 held-out faces" in done.stdout
    assert "outer-eye-corners" in done.stdout
    for words in (
        "What was learned",
        "from 4 labelled faces alone",
        "rounds with pseudo labels of 4",
        "What to type next",
    ):
        assert words in done.stdout, words
    assert done.stdout.count("in the photograph, 68 landmarks by") == 2
    assert cv2.imread(str(tmp_path / "out" / "grace_hopper_landmarks.jpg")).shape == (640, 2 * 516, 3)
    commands = [line.split() for line in done.stdout.replace("\\\n", "").splitlines() if line.startswith("  fewmark ")]
    assert [c[1] for c in commands] == ["detect", "train", "scheme"]
    for word in (w for w in commands[1] if w.startswith(str(tmp_path)) and "labels-only" not in w):
        assert Path(word).exists(), word
    assert (tmp_path / "out" / "run" / "report.html").stat().st_size > 5000
