"""`fewmark evaluate`: scores of lists, normalizers, boxes and error curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark.data.formats.csv import write_csv
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image, write_image


def test_evaluate(cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    lists = ["--list", synthetic / "val.txt", synthetic / "more.txt"]
    result = cli.json("evaluate", tiny_model, synthetic, *lists, "--normalizer", "pupils", "--plot", tmp_path / "c.csv")
    wanted = {
        "nme", "auc", "failure_rate", "normalizer", "threshold", "n_faces", "n_landmarks", "n_missing",
        "n_undetected", "box",
    }  # fmt: skip
    assert wanted <= result.keys()
    assert (result["normalizer"], result["threshold"], result["box"]) == ("pupils", 0.08, "gt")
    assert set(result["lists"]) == {"val", "more", "full"}
    assert [result["lists"][n]["n_faces"] for n in ("val", "more", "full")] == [4, 4, 6]  # 2 are in both
    assert result["nme"] == result["lists"]["full"]["nme"]
    assert all(wanted <= part.keys() for part in result["lists"].values())
    rows = (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "list,nme,share"
    assert rows[-1].startswith("full,")
    assert rows[-1].endswith(",1")


def test_evaluate_prints_its_normaliser(cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--plot", tmp_path / "c.html"]
    text = cli(*words).stdout
    assert "outer-eye-corners" in text
    assert "%" in text
    assert "<svg" in (tmp_path / "c.html").read_text(encoding="utf-8")
    one = cli.json("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt")
    assert set(one["lists"]) == {"val"}
    assert cli.json("evaluate", tiny_model, synthetic)["n_faces"] == 14


@pytest.mark.parametrize("box", ["detect", "column"])
def test_evaluate_with_other_boxes(cli: Any, box: str, synthetic: Path, tiny_model: Path) -> None:
    result = cli.json("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--box", box)
    assert result["box"] == box
    assert 0 <= result["n_undetected"] <= result["n_faces"] == 4


def test_evaluate_draws_the_curve(cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "fewmark[plot]"')
    cli("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--plot", tmp_path / "c.png")
    assert read_image(tmp_path / "c.png").shape[0] > 300
    wrong = cli(
        "evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--plot", tmp_path / "c.bmp", code=1
    )
    assert ".html" in wrong.stderr


def test_evaluate_shows_both_boxes_components_and_the_worst_faces(cli: Any, synthetic: Path, tiny_model: Path) -> None:
    words = ["evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt"]
    result, alone = cli.json(*words), cli.json(*words, "--box", "detect")
    assert "detect" not in alone
    assert (result["box"], result["detect"]["box"]) == ("gt", "detect")
    assert result["detect"] == alone
    worst = [f["nme"] for f in result["worst"]]
    assert worst == sorted(worst, reverse=True)
    assert len(worst) == 4
    assert result["median"] == pytest.approx((worst[1] + worst[2]) / 2)
    assert result["nme"] == pytest.approx(sum(worst) / 4)
    assert {f["name"] for f in result["worst"]} == set((synthetic / "val.txt").read_text().split())
    assert len(alone["undetected"]) == alone["n_undetected"]
    text = cli(*words).stdout
    for part in (
        "│ true ",
        "│ detected ",
        "detected boxes",
        "median",
        "left_eye",
        result["worst"][0]["name"],
    ):
        assert part in text
    text = cli(*words, "--box", "gt").stdout
    assert "detected boxes" not in text


def test_faces_that_are_not_found_are_named(cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    seen, hidden = read_faces(synthetic)[:2]
    write_image(tmp_path / "grey.png", np.full((64, 64, 3), 120, np.uint8))
    write_csv(tmp_path / "two.csv", [seen, replace(hidden, image=tmp_path / "grey.png", name="grey.png")])
    result = cli.json("evaluate", tiny_model, tmp_path / "two.csv", "--box", "detect")
    assert (result["undetected"], result["n_undetected"]) == (["grey.png"], 1)
    assert "not found: grey.png" in cli("evaluate", tiny_model, tmp_path / "two.csv").stdout


def test_the_worst_faces_of_lists_that_share_faces(cli: Any, synthetic: Path, tiny_model: Path) -> None:
    lists = [synthetic / "val.txt", synthetic / "more.txt"]
    result = cli.json("evaluate", tiny_model, synthetic, "--list", *lists, "--box", "gt")
    each = {
        name: cli.json("evaluate", tiny_model, synthetic, "--list", path, "--box", "gt")["worst"]
        for name, path in (("val", lists[0]), ("more", lists[1]))
    }
    known = {f["name"]: f["nme"] for part in each.values() for f in part}
    assert len(known) == 6
    highest = sorted(known.items(), key=lambda f: -f[1])[:5]
    assert [(f["name"], f["nme"]) for f in result["worst"]] == [(n, pytest.approx(e, rel=1e-4)) for n, e in highest]
