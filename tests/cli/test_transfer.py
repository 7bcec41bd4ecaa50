"""fewmark transfer fit, apply and evaluate, and the transfer that travels in a model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark.data.formats.io import read_faces, write_faces
from fewmark.data.samples import FaceSample
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.inference.detector import Detector
from fewmark.landmarks.scheme import load_scheme

DENSE, FIVE = load_scheme("ibug-68"), load_scheme("mtfl-5")


def five_of(dense: np.ndarray) -> np.ndarray:
    eyes = [dense[36:42].mean(0), dense[42:48].mean(0)]
    return np.stack([*eyes, dense[30], dense[48], dense[54]]).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 synthetic faces: `annotations.csv` has 68 landmarks, `five.csv` five of them; lists of 22 and 8."""
    folder = tmp_path_factory.mktemp("pairs")
    render_dataset(folder, 30, scheme=DENSE, seed=5, size=48)
    faces = read_faces(folder)
    five = [FaceSample(s.image, landmarks=five_of(s.landmarks), name=s.name) for s in faces if s.landmarks is not None]
    write_faces(folder / "five.csv", None, five, FIVE)
    names = [s.name for s in faces]
    for part, some in (("fit", names[:22]), ("test", names[22:])):
        (folder / f"{part}.txt").write_text("\n".join(some) + "\n", encoding="utf-8")
    return folder


def fit_words(data: Path, out: Path, *more: object) -> list[object]:
    words: list[object] = ["transfer", "fit", data, data / "five.csv", "--source-scheme", "ibug-68"]
    return [*words, "--target-scheme", "mtfl-5", "--list", data / "fit.txt", "--out", out, *more]


@pytest.fixture(scope="module")
def transfer(cli: Any, data: Path) -> Path:
    cli(*fit_words(data, data / "t.safetensors", "--licence", "drawn"))
    return data / "t.safetensors"


def test_fit(cli: Any, data: Path, tmp_path: Path) -> None:
    result = cli.json(*fit_words(data, tmp_path / "t.safetensors"))
    assert (result["source"], result["target"], result["normalizer"]) == ("ibug-68", "mtfl-5", "pupils")
    assert (result["n_pairs"], result["n_matched"], result["n_source"], result["n_target"]) == (22, 22, 30, 30)
    assert result["ridge"] > 0
    assert 0 < result["expected_error"] < 0.1
    assert set(result["expected_error_per_component"]) == set(FIVE.components)
    assert (result["into"], result["warnings"]) == (None, [])
    plain = cli.json(*fit_words(data, tmp_path / "t.safetensors", "--ridge", "0.5"))
    assert (plain["ridge"], plain["warnings"]) == (0.5, [])
    text = cli(*fit_words(data, tmp_path / "t.safetensors")).stdout
    for word in ("22 pairs of 30 and 30", "expected error", "nose", "pupils", "t.safetensors"):
        assert word in text


def test_too_few_pairs_warn_and_go_on(cli: Any, data: Path, tmp_path: Path) -> None:
    words = fit_words(data, tmp_path / "t.safetensors", "--ridge", "0")
    (warning,) = cli.json(*words)["warnings"]
    assert "22 pairs for 133 unknowns" in warning
    assert warning in " ".join(cli(*words).stderr.split())
    assert (tmp_path / "t.safetensors").is_file()


def test_evaluate(cli: Any, data: Path, transfer: Path, tmp_path: Path) -> None:
    words = ["transfer", "evaluate", transfer, data, data / "five.csv", "--list", data / "test.txt"]
    result = cli.json(*words)
    assert (result["n_faces"], result["normalizer"], result["n_landmarks"]) == (8, "pupils", 5)
    assert 0 < result["nme"] < 2 * result["transfer"]["expected_error"]
    assert set(result["per_component"]) == set(FIVE.components)
    assert result["contour"] is None
    text = cli(*words).stdout
    assert "NME (pupils)" in text
    assert "expected" in text
    assert "expected" not in cli(*words, "--normalizer", "points-diagonal").stdout
    back = ["transfer", "fit", data / "five.csv", data, "--source-scheme", "mtfl-5", "--target-scheme", "ibug-68"]
    cli(*back, "--out", tmp_path / "back.safetensors")
    words = ["transfer", "evaluate", tmp_path / "back.safetensors", data / "five.csv", data]
    plain, direct = cli.json(*words), cli.json(*words, "--contour-from", data)
    assert 0 < plain["contour"]["tangent"] < 0.5
    assert direct["contour"] == {"tangent": 0.0, "normal": 0.0}
    assert direct["per_component"]["nose"] == plain["per_component"]["nose"]
    assert "along it" in cli(*words).stdout


@pytest.mark.parametrize(("name", "form"), [("out.csv", None), ("out.json", None), ("out", "pts"), ("out.xml", "dlib")])
def test_apply(cli: Any, name: str, form: str | None, data: Path, transfer: Path, tmp_path: Path) -> None:
    words = ["transfer", "apply", transfer, data, tmp_path / name]
    result = cli.json(*words, *([] if form is None else ["--to", form]))
    assert (result["n_faces"], result["n_labelled"], result["n_transferred"]) == (30, 30, 30)
    assert result["transfer"]["expected_error"] < 0.1
    found = read_faces(tmp_path / name, scheme=FIVE)
    truth = read_faces(data / "five.csv", scheme=FIVE)
    for a, b in zip(found, truth, strict=True):
        assert a.landmarks is not None
        assert b.landmarks is not None
        assert np.linalg.norm(a.landmarks - b.landmarks, axis=1).mean() < 3


def test_apply_says_what_to_expect_and_what_is_lost(cli: Any, data: Path, transfer: Path, tmp_path: Path) -> None:
    faces = read_faces(data)
    points = faces[0].landmarks
    assert points is not None
    points[3] = np.nan
    unlabelled = FaceSample(faces[1].image, faces[1].box, name=faces[1].name)
    write_faces(tmp_path / "holes.csv", None, [FaceSample(faces[0].image, landmarks=points), unlabelled, faces[2]])
    text = cli("transfer", "apply", transfer, tmp_path / "holes.csv", tmp_path / "out.csv").stdout
    assert "1 face of 3 with landmarks of mtfl-5, 1 lack a landmark of ibug-68" in text
    assert "expected error" in text
    assert "by pupils" in text
    assert [s.landmarks is None for s in read_faces(tmp_path / "out.csv")] == [True, True, False]


def test_inspect(cli: Any, transfer: Path) -> None:
    text = cli("inspect", transfer).stdout
    for word in ("ibug-68, 68 landmarks", "mtfl-5, 5 landmarks", "by pupils", "22 pairs", "drawn", "five.csv"):
        assert word in text
    assert cli.json("inspect", transfer)["target"]["name"] == "mtfl-5"


@pytest.fixture(scope="module")
def model(cli: Any, data: Path, tiny_model: Path) -> Path:
    """A model of 68 landmarks that carries the transfer to five."""
    path = Path(shutil.copy(tiny_model, data / "model.safetensors"))
    cli(*fit_words(data, data / "t2.safetensors", "--into", path))
    return path


def test_a_new_file_becomes_the_packaged_model_with_the_transfer(cli: Any, data: Path, tmp_path: Path) -> None:
    own, packaged = tmp_path / "own.safetensors", resolve_model("ibug-68")
    before = packaged.read_bytes()
    cli(*fit_words(data, tmp_path / "t.safetensors", "--into", own))
    assert packaged.read_bytes() == before
    made, base = load_checkpoint(own), load_checkpoint(packaged)
    assert {t.target.name for t in made.transfers} >= {"mtfl-5"}
    assert (made.licence, made.provenance) == (base.licence, base.provenance)


def test_a_model_that_carries_the_transfer(cli: Any, model: Path, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    assert load_checkpoint(model).transfers[0].n_pairs == 22
    assert "to mtfl-5: expected error" in cli("inspect", model).stdout
    words = ["detect", model, data / "images", "--boxes", data / "annotations.csv"]
    cli.json(*words, "--out", tmp_path / "five", "--scheme", "mtfl-5", "--overlay")
    cli.json(*words, "--out", tmp_path / "own", "--scheme", "ibug-68")
    cli.json(*words, "--out", tmp_path / "none")
    five, own, none = (
        json.loads((tmp_path / n / "faces.json").read_text(encoding="utf-8")) for n in ("five", "own", "none")
    )
    assert own == none
    assert "transfer" not in own
    assert five["landmarks"] == list(FIVE.landmarks)
    assert five["transfer"]["source"] == "ibug-68"
    assert five["transfer"]["expected_error"] > 0
    detector, truth = Detector.load(model), read_faces(data)
    for image, sample in list(zip(five["pictures"], truth, strict=True))[:3]:
        assert (tmp_path / "five" / image["file"]).resolve() == sample.image.resolve()
        assert sample.box is not None
        (face,) = detector.detect(sample.image, sample.box[None], scheme="mtfl-5")
        np.testing.assert_allclose(image["faces"][0]["landmarks"], face.landmarks, atol=0.001)
        np.testing.assert_allclose(image["faces"][0]["scores"], face.scores, atol=0.0001)
        assert (image["faces"][0]["scheme"], face.scheme.name) == ("mtfl-5", "mtfl-5")
    csv = cli.json(*words, "--out", tmp_path / "csv", "--scheme", "mtfl-5", "--format", "csv")
    assert len(read_faces(csv["out"][0], scheme=FIVE)) == 30
    line = cli.error("detect", tiny_model, data / "images", "--out", tmp_path / "x", "--scheme", "mtfl-5")
    assert "finds ibug-68 and has no transfer" in line
    line = cli.error("detect", model, data / "images", "--out", tmp_path / "x", "--scheme", "wflw-98")
    assert "has transfers to mtfl-5" in line


@pytest.mark.parametrize("box", ["gt", "detect"])
def test_evaluate_a_model_in_another_scheme(cli: Any, box: str, model: Path, tiny_model: Path, data: Path) -> None:
    words = ["evaluate", model, data / "five.csv", "--box", box]
    result = cli.json(*words, "--scheme", "mtfl-5")
    assert (result["scheme"], result["n_landmarks"], result["normalizer"]) == ("mtfl-5", 5, "pupils")
    assert result["n_faces"] == 30
    assert "expected 68 landmarks" in cli.error(*words)
    assert "has no transfer" in cli.error("evaluate", tiny_model, data / "five.csv", "--scheme", "mtfl-5")


def test_bad_usage_is_2(cli: Any, data: Path, tmp_path: Path) -> None:
    for ridge in ("most", "-1", "nan"):
        cli(*fit_words(data, tmp_path / "t.safetensors", "--ridge", ridge), code=2)
    cli("transfer", "fit", data, data, "--out", "t.safetensors", code=2)
    cli("transfer", "fly", code=2)


def test_bad_input(cli: Any, data: Path, transfer: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    assert "expected a file name that ends in .safetensors" in cli.error(*fit_words(data, tmp_path / "t.json"))
    assert "or a new .safetensors file" in cli.error(*fit_words(data, out, "--into", "ibug-68"))
    model = Path(shutil.copy(tiny_model, tmp_path / "m.safetensors"))
    assert "is the model of --into" in cli.error(*fit_words(data, model, "--into", model))
    back = ["transfer", "fit", data / "five.csv", data, "--source-scheme", "mtfl-5", "--target-scheme", "ibug-68"]
    before = tiny_model.read_bytes()
    line = cli.error(*back, "--out", out, "--into", tiny_model)
    assert "expected a transfer from the model's scheme ibug-68 (68 landmarks), given one from mtfl-5 (5)" in line
    assert tiny_model.read_bytes() == before
    other = tmp_path / "other.csv"
    other.write_text(
        "file," + ",".join(f"x{i},y{i}" for i in range(5)) + "\nz.jpg" + ",1,2" * 5 + "\n", encoding="utf-8"
    )
    words = ["transfer", "fit", data, other, "--source-scheme", "ibug-68", "--target-scheme", "mtfl-5", "--out", out]
    assert "other.csv: expected the faces of" in cli.error(*words)
    words[3] = data
    assert "expected 5 landmarks" in cli.error(*words)
    one = tmp_path / "one.toml"
    one.write_text('name = "one"\nlandmarks = ["tip"]\n', encoding="utf-8")
    tips = tmp_path / "tips.csv"
    tips.write_text("file,x0,y0\n" + f"{data / 'images/000000.jpg'},3,4\n", encoding="utf-8")
    words = ["transfer", "fit", tips, data, "--source-scheme", one, "--target-scheme", "ibug-68", "--out", out]
    assert "2 landmarks or more" in cli.error(*words)
    assert "same" in cli.error("transfer", "apply", transfer, data / "five.csv", data / "five.csv")
    assert "expected 68 landmarks" in cli.error("transfer", "apply", transfer, data / "five.csv", tmp_path / "o.csv")
    bare = tmp_path / "bare.csv"
    bare.write_text("file\na.jpg\n", encoding="utf-8")
    assert "1 without landmarks" in cli.error("transfer", "apply", transfer, bare, tmp_path / "o.csv")
    assert "no such file" in cli.error("transfer", "apply", tmp_path / "none.safetensors", data, tmp_path / "o.csv")
    words = ["transfer", "evaluate", transfer, data, data / "five.csv"]
    assert "no normalizer 'box'" in cli.error(*words, "--normalizer", "box")
    assert "no component 'contour'" in cli.error(*words, "--contour-from", data / "five.csv")
    assert not out.exists()
    assert not (tmp_path / "o.csv").exists()


def test_no_torch(data: Path, transfer: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from fewmark.cli.app import app
for words in ({[str(w) for w in fit_words(data, tmp_path / "t.safetensors")]!r},
              ["transfer", "apply", {str(transfer)!r}, {str(data)!r}, {str(tmp_path / "o.csv")!r}]):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
