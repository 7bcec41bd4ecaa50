"""Bad input, one by one: one clear line that names the file, exit code 1, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.data.images import read_image
from fewmark.inference.checkpoint.io import load_checkpoint, save_checkpoint
from fewmark.inference.detector import Detector


@pytest.fixture
def data(synthetic: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic faces that a test may spoil."""
    folder = tmp_path / "data"
    shutil.copytree(synthetic, folder)
    return folder


def train(data: Path, recipe: Path, out: Path, **lists: object) -> list[object]:
    words: list[object] = ["train", data, "--scheme", "ibug-68", "--recipe", recipe, "--out", out]
    for name, value in {"labelled": data / "few.txt", "unlabelled": data / "many.txt", **lists}.items():
        words += [f"--{name}", value]
    return words


def change_rows(data: Path, change: Callable[[list[str]], list[str]]) -> None:
    table = data / "annotations.csv"
    rows = [row.split(",") for row in table.read_text(encoding="utf-8").splitlines()]
    table.write_text("\n".join(",".join(change(row)) for row in rows) + "\n", encoding="utf-8")


def test_a_label_file_with_67_points(cli: Any, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    change_rows(data, lambda row: row[:140] + row[142:-1])  # without x67, y67 and v67
    line = cli.error(*train(data, tiny_recipe, tmp_path / "run"), progress=True)
    assert "annotations.csv" in line
    assert "68" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("value", "said"), [("nan", "half a point"), ("inf", "inf"), ("left", "left")])
def test_a_cell_that_is_no_number(
    cli: Any, value: str, said: str, data: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    change_rows(data, lambda row: [*row[:8], value, *row[9:]] if "000002" in row[0] else row)
    line = cli.error(*train(data, tiny_recipe, tmp_path / "run"), progress=True)
    for word in ("annotations.csv", "row 4", "x1", said):
        assert word in line


def test_points_outside_the_image_are_found(cli: Any, data: Path) -> None:
    change_rows(data, lambda row: [*row[:8], "900", *row[9:]] if "000002" in row[0] else row)
    (finding,) = cli.json("inspect", data, "--scheme", "ibug-68")["findings"]
    for word in ("images/000002.jpg", "contour", "900", "outside"):
        assert word in finding


def test_an_empty_list(cli: Any, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    (data / "none.txt").write_text("\n# nothing\n", encoding="utf-8")
    line = cli.error(*train(data, tiny_recipe, tmp_path / "run", labelled=data / "none.txt"), progress=True)
    assert "none.txt: the list is empty" in line


def test_a_list_of_unknown_faces(cli: Any, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    (data / "odd.txt").write_text("nobody.jpg\n", encoding="utf-8")
    line = cli.error(*train(data, tiny_recipe, tmp_path / "run", labelled=data / "odd.txt"), progress=True)
    assert "odd.txt" in line
    assert "nobody.jpg" in line


@pytest.mark.parametrize("other", ["unlabelled", "val"])
def test_labelled_faces_in_another_list(cli: Any, other: str, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    (data / "both.txt").write_text("images/000009.jpg\nimages/000003.jpg\n", encoding="utf-8")
    line = cli.error(*train(data, tiny_recipe, tmp_path / "run", **{other: data / "both.txt"}), progress=True)
    for word in ("few.txt", "both.txt", f"--{other}", "images/000003.jpg"):
        assert word in line


def test_an_unlabelled_face_given_twice(cli: Any, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    words = train(data, tiny_recipe, tmp_path / "run")
    line = cli.error(*words, "--unlabelled", data / "more.txt")
    assert "more.txt" in line
    assert "given 2" in line


def test_a_labelled_face_without_landmarks(cli: Any, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    change_rows(data, lambda row: [*row[:6], *[""] * (len(row) - 6)] if "000001" in row[0] else row)
    line = cli.error(*train(data, tiny_recipe, tmp_path / "run"), progress=True)
    for word in ("few.txt", "images/000001.jpg", "without landmarks"):
        assert word in line


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing"])
def test_unusable_images(cli: Any, damage: str, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    image = data / "images" / "000005.jpg"
    raw = image.read_bytes()
    image.unlink()
    if damage != "missing":
        image.write_bytes({"truncated": raw[: len(raw) // 2], "empty": b"", "text": b"a photograph"}[damage])
    out = tmp_path / "run"
    line = cli.error(*train(data, tiny_recipe, out), progress=True)
    assert "000005.jpg" in line
    assert not (out / "detector.safetensors").exists()


def test_settings_and_schemes_that_do_not_exist(cli: Any, data: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    words = train(data, tiny_recipe, tmp_path / "run")
    assert "no such setting" in cli.error(*words, "--set", "semi.round=2")
    assert "ibug-67" in cli.error(*words, "--scheme", "ibug-67")
    assert "packaged are" in cli.error(*words, "--recipe", "huge")


def test_normalisers_that_a_scheme_does_not_have(cli: Any, synthetic: Path, tiny_model: Path) -> None:
    line = cli.error("evaluate", tiny_model, synthetic, "--normalizer", "nose")
    assert "nose" in line
    assert "outer-eye-corners" in line


def test_data_of_another_scheme_than_the_model(cli: Any, tiny_model: Path, tmp_path: Path, synthetic: Path) -> None:
    shutil.copy(synthetic / "images" / "000000.jpg", tmp_path / "p.jpg")
    (tmp_path / "two.csv").write_text("file,x0,y0,x1,y1\np.jpg,1,2,3,4\n", encoding="utf-8")
    line = cli.error("evaluate", tiny_model, tmp_path / "two.csv")
    assert "two.csv" in line
    assert "68" in line


def test_model_files(cli: Any, tiny_model: Path, tmp_path: Path, synthetic: Path) -> None:
    raw = tiny_model.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["fewmark"])
    inner["format_version"] = 99
    header["__metadata__"]["fewmark"] = json.dumps(inner)
    new = json.dumps(header).encode()
    other = tmp_path / "other.safetensors"
    other.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(raw[: len(raw) // 2])
    text = tmp_path / "text.safetensors"
    text.write_text("not a model", encoding="utf-8")
    image = synthetic / "images" / "000000.jpg"
    for file, words in (
        (other, ("format_version", "99", "newer")),
        (cut, ("truncated",)),
        (text, ("safetensors",)),
        (tmp_path / "none.safetensors", ("check the path",)),
    ):
        for verb in (
            ["inspect", file],
            ["detect", file, image, "--out", tmp_path / "o"],
            ["evaluate", file, synthetic],
        ):
            line = cli.error(*verb)
            assert file.name in line
            if verb[0] != "inspect" or file.exists():
                for word in words:
                    assert word in line
    assert not (tmp_path / "o").exists()


def test_boxes_that_do_not_fit(cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    image = synthetic / "images" / "000000.jpg"
    words = ["detect", tiny_model, image, "--out", tmp_path / "o", "--boxes", tmp_path / "b.csv", "--force"]
    (tmp_path / "b.csv").write_text(f"file\n{image}\n", encoding="utf-8")
    assert "b.csv: row 2" in cli.error(*words)
    (tmp_path / "b.csv").write_text(f"file,box_x0,box_y0,box_x1,box_y1\n{image},900,900,990,990\n", encoding="utf-8")
    assert "000000.jpg: box 0" in cli(*words, code=1).stderr
    (tmp_path / "b.csv").write_text("file,box_x0,box_y0,box_x1,box_y1\nelse.jpg,1,1,9,9\n", encoding="utf-8")
    assert "add a row" in cli(*words, code=1).stderr


def test_images_of_every_kind(cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The same face, however it is stored, has the same landmarks; an image of 1x1 has no face."""
    rgb = read_image(synthetic / "images" / "000000.jpg")
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[..., ::-1])
    Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 99, np.uint8)])).save(tmp_path / "rgba.png")
    cv2.imwrite(str(tmp_path / "deep.png"), rgb[..., ::-1].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(rgb))).save(tmp_path / "turned.png", exif=exif)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "dot.png"), rgb[:1, :1])
    names = ["rgb", "rgba", "deep", "turned", "grey"]
    (tmp_path / "b.csv").write_text(
        "file,box_x0,box_y0,box_x1,box_y1\n" + "".join(f"{n}.png,10,10,50,50\n" for n in names),
        encoding="utf-8",
    )
    out = tmp_path / "out"
    words = ["detect", tiny_model, *(tmp_path / f"{n}.png" for n in names), "--boxes", tmp_path / "b.csv"]
    cli(*words, "--out", out)
    images = json.loads((out / "faces.json").read_text(encoding="utf-8"))["pictures"]
    points = [np.array(p["faces"][0]["landmarks"]) for p in images]
    for found in points[1:4]:
        np.testing.assert_allclose(found, points[0], atol=0.02)
    repeated = Detector.load(tiny_model).detect(np.repeat(grey[..., None], 3, 2), np.array([[10, 10, 50, 50.0]]))
    np.testing.assert_allclose(points[4], repeated[0].landmarks, atol=0.02)
    assert (
        "0 faces in 1 image, no face in 1"
        in cli("detect", tiny_model, tmp_path / "dot.png", "--out", out, "--force").stdout
    )


def test_folders_without_images(cli: Any, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    for path in (tmp_path / "bare", tmp_path / "nowhere"):
        line = cli.error("detect", tiny_model, path, "--out", tmp_path / "o")
        assert path.name in line


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_disk_that_fills_up(
    cli: Any, call: str, synthetic: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, labels, text = tmp_path / "m.safetensors", tmp_path / "l.csv", tmp_path / "t.txt"
    for file in (model, labels, text):
        file.write_text("old", encoding="utf-8")
    checkpoint = load_checkpoint(tiny_model)

    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match=r"m\.safetensors: cannot be written .*No space left"):
        save_checkpoint(model, checkpoint)
    with pytest.raises(InputError, match=r"t\.txt: cannot be written"):
        write_text(text, "new")
    assert "l.csv: cannot be written (No space left on device)" in cli.error("convert", synthetic, labels, "--force")
    monkeypatch.undo()
    for file in (model, labels, text):
        assert file.read_text(encoding="utf-8") == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["l.csv", "m.safetensors", "t.txt"]


def test_a_folder_that_may_not_be_written(cli: Any, synthetic: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder", encoding="utf-8")
    assert "cannot be written" in cli.error("convert", synthetic, tmp_path / "file" / "a.csv")
