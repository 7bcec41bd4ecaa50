"""`fewmark inspect`, `convert` and `scheme`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewmark import packaged_names
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.landmarks.scheme import load_scheme


def test_inspect_a_model(cli: Any, tiny_model: Path) -> None:
    data = cli.json("inspect", tiny_model)
    assert data["scheme"]["name"] == "ibug-68"
    assert data["counts"]["labelled"] == 4
    text = cli("inspect", tiny_model).stdout
    for word in ("ibug-68, 68 landmarks", "licence", "provenance", "4 labelled", "compact", "M parameters"):
        assert word in text


def test_inspect_lists_the_packaged_models(cli: Any) -> None:
    assert "ibug-68" in cli("inspect").stdout
    data = cli.json("inspect")
    assert [m["name"] for m in data] == packaged_names()
    assert all(m["licence"] and m["n_parameters"] for m in data)


def test_inspect_labels(cli: Any, synthetic: Path, tmp_path: Path) -> None:
    data = cli.json("inspect", synthetic)
    assert (data["n_faces"], data["n_landmarks"], data["n_missing"], data["findings"]) == (14, 68, 0, [])
    (tmp_path / "a.csv").write_text("file,x0,y0,x1,y1\nnone.jpg,1,2,,\n", encoding="utf-8")
    data = cli.json("inspect", tmp_path / "a.csv")
    assert (data["n_missing"], len(data["findings"])) == (1, 1)
    assert "none.jpg" in cli("inspect", tmp_path / "a.csv").stdout


def test_schemes(cli: Any, tmp_path: Path) -> None:
    names = [s["name"] for s in cli.json("scheme", "list")]
    assert "ibug-68" in names
    assert "ibug-68" in cli("scheme", "list").stdout
    shown = cli.json("scheme", "show", "ibug-68", "--out", tmp_path / "s.png")
    assert (shown["n_landmarks"], len(shown["landmarks"])) == (68, 68)
    assert read_image(tmp_path / "s.png").shape == (1024, 1024, 3)
    assert cli.json("scheme", "check", "ibug-68")["findings"] == []
    (tmp_path / "bad.toml").write_text('name = "bad"\nlandmarks = ["a", "a"]\n', encoding="utf-8")
    assert "bad.toml" in cli("scheme", "check", tmp_path / "bad.toml", code=1).stderr


def test_convert_there_and_back(cli: Any, synthetic: Path, tmp_path: Path) -> None:
    words = ["--scheme", "ibug-68"]
    cli("convert", synthetic, tmp_path / "a.json", *words)
    cli("convert", tmp_path / "a.json", tmp_path / "a.xml", "--from", "coco", "--to", "dlib", *words)
    assert cli.json("convert", tmp_path / "a.xml", tmp_path / "a.csv", *words)["n_faces"] == 14
    for face, true in zip(read_faces(tmp_path / "a.csv"), read_faces(synthetic), strict=True):
        assert face.image.resolve() == true.image.resolve()
        np.testing.assert_allclose(face.landmarks, true.landmarks, atol=0.501)  # dlib's are whole px
    assert "same" in cli("convert", tmp_path / "a.csv", tmp_path / "a.csv", code=1).stderr


def test_numbered_image_is_an_image(cli: Any, tmp_path: Path) -> None:
    cli("scheme", "show", "mtfl-5", "--out", tmp_path / "five.jpg")
    assert cv2.imread(str(tmp_path / "five.jpg")) is not None


def test_a_scheme_is_proposed_from_ten_labelled_faces(cli: Any, shared_data: Any, tmp_path: Path) -> None:
    table = shared_data("webmorph189") / "annotations.csv"
    rows = table.read_text(encoding="utf-8").splitlines()[:11]
    own = tmp_path / "own.csv"
    text = "\n".join(rows).replace("\nlondon/", f"\n{table.parent}/london/").replace(",subset,", ",group,")
    own.write_text(text + "\n", encoding="utf-8")
    said = cli("scheme", "new", "mine", "--from", own, "--out", tmp_path / "mine.toml").stdout
    assert "189 landmarks, from 10 labelled faces" in said
    assert read_image(tmp_path / "mine.png").shape == (1024, 1024, 3)
    mine, known = load_scheme(tmp_path / "mine.toml"), load_scheme("webmorph-189")
    assert mine.mirror is not None
    assert known.mirror is not None
    assert sum(a != b for a, b in zip(mine.mirror, known.mirror, strict=True)) <= 6  # two edges of closed lips coincide
    assert len(mine.components["left_eye"]) == len(mine.components["right_eye"]) > 20
    assert mine.normalizers.keys() == known.normalizers.keys()
    assert "no findings" in cli("scheme", "check", tmp_path / "mine.toml").stdout
    assert "--force" in cli.error("scheme", "new", "mine", "--from", own, "--out", tmp_path / "mine.toml")


def test_names_in_a_coco_file_are_those_of_the_new_scheme(cli: Any, synthetic: Path, tmp_path: Path) -> None:
    cli("convert", synthetic, tmp_path / "a.json", "--scheme", "ibug-68")
    facts = cli.json("scheme", "new", "own", "--from", tmp_path / "a.json", "--out", tmp_path / "own.toml")
    known = load_scheme("ibug-68")
    assert load_scheme(tmp_path / "own.toml").landmarks == known.landmarks
    assert facts["mirror"] == list(known.mirror or ())


def test_what_a_folder_leaves_out_is_one_line(cli: Any, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "b.xcf").write_text("")
    line = "1 file left out, no image by the suffix: .xcf (1)"
    result = cli("inspect", tmp_path, "--json")
    assert result.stderr.strip() == line
    assert json.loads(result.stdout)["findings"] == [line]
    assert cli("convert", tmp_path, tmp_path / "a.csv").stderr.strip() == line
    assert [x.rstrip() for x in cli("inspect", tmp_path).stdout.splitlines()[-2:]] == ["findings  1", f"- {line}"]


def test_equal_findings_are_one_line(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "file,x0,y0\n" + "".join(f"gone{i}.jpg,1,2\n" for i in range(102)), encoding="utf-8"
    )
    result = cli("inspect", tmp_path / "a.csv")
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("- ")]
    assert line.startswith("- 102 images cannot be read: ")
    assert [f"gone{i}.jpg" in line for i in range(3)] == [True, True, False]
    assert len(cli.json("inspect", tmp_path / "a.csv")["findings"]) == 102


def test_labels_of_another_size(cli: Any, tiny_model: Path, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))
    points = ",".join(f"x{i},y{i}" for i in range(68))
    row = ",".join(["1", "2"] * 68)
    (tmp_path / "a.csv").write_text(f"file,width,height,{points}\na.png,30,40,{row}\n", encoding="utf-8")
    said = "a.png: labels of 30 x 40 px, the upright image has 40 x 30"
    assert said in cli.error("evaluate", tiny_model, tmp_path / "a.csv")
    assert f"1 image is of another size than the labels say: {said}" in cli("inspect", tmp_path / "a.csv").stdout


@pytest.mark.parametrize("value", ["0", "-1"])
def test_missing_landmarks_by_a_value(value: str, cli: Any, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((30, 40, 3), np.uint8))
    (tmp_path / "a.csv").write_text(f"file,x0,y0,x1,y1\na.png,5,6,{value},{value}\n", encoding="utf-8")
    said = f"1 landmark of 1 face is exactly at ({value}, {value})"
    assert said in cli.json("inspect", tmp_path / "a.csv")["findings"][0]
    assert said in cli("convert", tmp_path / "a.csv", tmp_path / "b.xml").stderr
    data = cli.json("inspect", tmp_path / "a.csv", "--missing", value)
    assert (data["n_missing"], data["findings"]) == (1, [])
    cli("convert", tmp_path / "a.csv", tmp_path / "c.csv", "--missing", value)
    assert read_faces(tmp_path / "c.csv")[0].landmarks[1].tolist() == pytest.approx([np.nan] * 2, nan_ok=True)


def test_a_scheme_from_labels_with_missing_landmarks(cli: Any, tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((90, 90, 3), np.uint8))
    rows = [f"a.png,{20 + i},20,{60 + i},20,{40 + i},60" for i in range(4)] + ["a.png,21,20,0,0,41,60"]
    (tmp_path / "a.csv").write_text("\n".join(["file,x0,y0,x1,y1,x2,y2", *rows]) + "\n", encoding="utf-8")
    words = ["scheme", "new", "b", "--from", tmp_path / "a.csv", "--out"]
    assert "1 landmark of 1 face is exactly at (0, 0)" in cli(*words, tmp_path / "b.toml").stderr
    told = cli(*words, tmp_path / "c.toml", "--missing", "0")
    assert "exactly at" not in told.stderr
    left, right = ([load_scheme(tmp_path / f).mean_face[i] for i in (0, 1)] for f in ("b.toml", "c.toml"))
    assert np.ptp(right, axis=0)[1] < 0.01 < np.ptp(left, axis=0)[1]  # the two are level without the missing one


def test_a_missing_landmark_is_not_transferred(cli: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = np.array([[20, 20], [60, 20], [40, 40], [25, 60], [55, 60]])
    rows = ["file," + ",".join(f"x{i},y{i}" for i in range(5))]
    for n in range(8):
        points = (base + rng.normal(0, 2, (5, 2))).round(1)
        rows.append(f"{n}.png," + ",".join(f"{v:g}" for v in points.ravel()))
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.zeros((80, 80, 3), np.uint8))
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    hidden = rows[8].split(",")
    hidden[1:3] = ["0", "0"]
    (tmp_path / "b.csv").write_text("\n".join([*rows[:8], ",".join(hidden)]) + "\n", encoding="utf-8")
    schemes = ["--source-scheme", "mtfl-5", "--target-scheme", "mtfl-5"]
    cli("transfer", "fit", tmp_path / "a.csv", tmp_path / "a.csv", *schemes, "--out", tmp_path / "t.safetensors")
    applied = cli.json(
        "transfer", "apply", tmp_path / "t.safetensors", tmp_path / "b.csv", tmp_path / "o.csv", "--missing", "0"
    )
    assert (applied["n_faces"], applied["n_transferred"]) == (8, 7)
    fitted = cli.json(
        "transfer",
        "fit",
        tmp_path / "b.csv",
        tmp_path / "a.csv",
        *schemes,
        "--out",
        tmp_path / "u.safetensors",
        "--missing",
        "0",
    )
    assert fitted["n_pairs"] == 7


def test_a_scheme_file_without_its_suffix_is_suggested(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text('name = "own"\nlandmarks = ["a", "b"]\n', encoding="utf-8")
    assert "scheme 'own': no packaged scheme or file of that name; did you mean own.toml?" in cli.error(
        "scheme", "check", "own"
    )
    assert "did you mean ibug-68?" in cli.error("scheme", "check", "ibug-86")


def test_inspect_a_run(cli: Any, tiny_run: Path, tmp_path: Path) -> None:
    data = cli.json("inspect", tiny_run)
    assert (data["finished"], data["recipe"], data["scheme"]) == (True, "laptop-64", "ibug-68")
    assert "crop.size" in data["changed_settings"]
    assert data["accuracy"][0]["nme"] > 0
    text = re.sub(r"\s+", "", cli("inspect", tiny_run).stdout)  # long paths are wrapped
    for word in (
        "finished",
        "laptop-64, ",
        "settings changed: crop.size",
        "detector.safetensors",
        "NME",
        "report.html",
    ):
        assert word.replace(" ", "") in text
    for name in ("config.toml", "metrics.jsonl"):
        (tmp_path / name).write_bytes((tiny_run / name).read_bytes())
    data = cli.json("inspect", tmp_path)
    assert (data["finished"], data["model"], data["n_trainings"]) == (False, None, 8)
    assert "not finished, 8 trainings done, last validation NME" in cli("inspect", tmp_path).stdout


@pytest.mark.parametrize("form", ["json", "jsonl", "coco", "csv"])
def test_results_of_detect_are_labels(form: str, cli: Any, tiny_model: Path, synthetic: Path, tmp_path: Path) -> None:
    cli(
        "detect",
        tiny_model,
        synthetic / "images",
        "--out",
        tmp_path,
        "--format",
        form,
        "--face-detector",
        "whole",
        "--keep-all",
    )
    (file,) = tmp_path.iterdir()
    for source in (file, tmp_path):
        data = cli.json("inspect", source, "--scheme", "ibug-68")
        assert (data["n_faces"], data["n_with_box"], data["findings"]) == (14, 14, [])
        assert cli.json("convert", source, tmp_path / "x/back.csv", "--force")["n_faces"] == 14
