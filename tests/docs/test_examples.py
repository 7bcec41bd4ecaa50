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
    assert "1 face in the photograph, 68 landmarks" in done.stdout
    assert cv2.imread(str(tmp_path / "out" / "grace_hopper_landmarks.jpg")).shape == (600, 512, 3)
    assert (tmp_path / "out" / "run" / "report.html").stat().st_size > 5000
