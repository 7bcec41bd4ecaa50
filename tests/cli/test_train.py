"""`fewmark train`: lists, results, interruption, settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import describe_settings


def test_train(cli: Any, synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [
        "train",
        synthetic,
        "--labelled",
        synthetic / "few.txt",
        "--val",
        synthetic / "val.txt",
        "--scheme",
        "ibug-68",
    ]
    more = tmp_path / "images"
    more.mkdir()
    shutil.copy(synthetic / "images" / "000012.jpg", more / "other.jpg")
    words += [
        "--recipe",
        tiny_recipe,
        "--set",
        "students.unet.n_epochs=1",
        "--selection",
        "random",
        "--out",
        run,
    ]
    table = synthetic / "annotations.csv"
    (tmp_path / "pool.csv").write_text(
        "file,box_x0,box_y0,box_x1,box_y1\n" + f"{more / 'other.jpg'},5,5,60,60\n", encoding="utf-8"
    )
    assert table.is_file()
    words += ["--unlabelled", synthetic / "many.txt", tmp_path / "pool.csv"]  # two values of one option
    result = cli.json(*words)
    assert (result["n_labelled"], result["n_unlabelled"], result["n_validation"]) == (4, 7, 4)
    assert Path(result["model"]).is_file()
    assert Path(result["report"]).is_file()
    assert [r["round"] for r in result["rounds"]] == [0, 0, 1, 1]
    assert result["validation"]["normalizer"] == "outer-eye-corners"
    again = cli(*words, code=1)
    assert "add --resume" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


def test_validation_faces_may_be_unlabelled_too(synthetic: Path) -> None:
    from fewmark.data.lists import read_training_lists

    scheme = load_scheme("ibug-68")
    lists = read_training_lists(
        synthetic,
        synthetic / "few.txt",
        [synthetic / "many.txt", synthetic / "val.txt"],
        synthetic / "val.txt",
        scheme=scheme,
    )
    assert (len(lists.unlabelled), len(lists.validation)) == (10, 4)


def test_labels_of_another_scheme_are_dropped_from_other_data(synthetic: Path, tmp_path: Path) -> None:
    from fewmark.data.lists import read_training_lists

    shutil.copy(synthetic / "images" / "000012.jpg", tmp_path / "p.jpg")
    (tmp_path / "five.csv").write_text("file,x0,y0,x1,y1\np.jpg,1,2,3,4\n", encoding="utf-8")
    scheme = load_scheme("ibug-68")
    lists = read_training_lists(synthetic, synthetic / "few.txt", [tmp_path / "five.csv"], scheme=scheme)
    assert [s.landmarks for s in lists.unlabelled] == [None]


INTERRUPTED = """
import os, signal, fewmark.training.open_run as open_run
from fewmark.cli.app import main
write = open_run.append_line
def write_and_interrupt(*line):
    write(*line)
    os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins without it
open_run.append_line = write_and_interrupt
main()
"""
"""Ctrl-C after the first epoch, whatever the machine's speed."""


def test_an_interrupted_run_can_be_resumed(cli: Any, synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", synthetic, "--labelled", synthetic / "few.txt", "--unlabelled", synthetic / "many.txt"]
    words += ["--scheme", "ibug-68", "--recipe", tiny_recipe, "--out", run]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    text = done.stderr
    assert done.returncode == 130, text
    assert "Traceback" not in text
    last = text.strip().splitlines()[-1]
    assert last.startswith("stopped; go on with: fewmark train")
    assert last.endswith("--resume")
    assert not (run / "detector.safetensors").exists()
    cli(*words, "--resume")
    assert (run / "detector.safetensors").is_file()


@pytest.mark.parametrize("command", ["train", "distill"])
def test_all_settings_are_listed(cli: Any, command: str) -> None:
    text = cli(command, "--list-settings").stdout
    for setting in describe_settings():
        assert setting.name in text.replace("\n", "")
