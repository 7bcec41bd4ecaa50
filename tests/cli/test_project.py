"""The commands of a project folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def folder(cli: Any, synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("projects") / "faces"
    assert "68 landmarks" in cli("init", path, "--scheme", "ibug-68", "--objects", "whole-images").stdout
    return path


def test_what_comes_next_is_told_at_every_step(cli: Any, folder: Path, synthetic: Path, tiny_recipe: Path) -> None:
    assert f"next: fewmark add {folder}" in cli("status", folder).stdout
    added = cli("add", folder, synthetic / "images").stdout
    assert added.startswith("14 new images, 14 faces\n")
    assert "next: fewmark label" in added
    added = cli("add", folder, synthetic, "--who", "anna").stdout
    assert added.startswith("0 new images, 0 faces, 14 labels\n")
    assert "known already" not in added
    assert "next: fewmark train" in added
    status = cli.json("status", folder)
    assert (status["n_images"], status["n_labelled"], status["n_by_how"]) == (14, 14, {"imported": 14})
    trained = cli.json("train", folder, "--recipe", tiny_recipe, "--set", "semi.rounds=0", "--start", "")
    assert trained["n_labelled"] == 14
    assert Path(trained["report"]).is_file()
    assert cli.json("status", folder)["runs"][0]["name"] == "001"
    assert cli.json("evaluate", folder, synthetic)["n_faces"] == 14  # a project is its last model, too
    assert cli.json("export", folder, "--to", "coco", "--out", folder / "exports.json")["n_faces"] == 14


def test_backup(cli: Any, folder: Path, tmp_path: Path) -> None:
    assert cli.json("backup", folder, "--out", tmp_path / "b.sqlite")["bytes"] > 0
    assert "exists" in cli.error("backup", folder, "--out", tmp_path / "b.sqlite")


def test_bad_requests(cli: Any, folder: Path, tmp_path: Path) -> None:
    assert "fewmark init" in cli.error("status", tmp_path)
    assert "leave out --scheme" in cli.error("train", folder, "--scheme", "ibug-68")
    assert "--scheme" in cli("train", tmp_path / "few.csv", code=2).stderr
    assert "--out" in cli("train", tmp_path / "few.csv", "--scheme", "ibug-68", code=2).stderr
    assert "empty folder" in cli.error("init", folder, "--scheme", "ibug-68")
    assert "no such image" in cli.error("add", folder, tmp_path / "nothing.jpg")
    assert "a training with 100 labels or more" in cli.error("evaluate", folder)
    assert "needs 30 labels" in cli.error("curve", folder)
    cli("init", tmp_path / "new", "--scheme", "ibug-68")
    assert "there is no model yet" in cli.error("evaluate", tmp_path / "new")
    assert "--out FILE is missing" in cli.error("export", folder, "--to", "csv")
