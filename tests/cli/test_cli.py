"""The command line: the words, the JSON, the exit codes, and how fast help comes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from fewmark import __version__, packaged_names
from fewmark.cli.app import app
from fewmark.cli.progress import TrainingDisplay, duration
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import describe_settings, load_config
from fewmark.training.semi.rounds import RoundRecord
from fewmark.training.work_plan import plan_training


def call(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def told(*words: object) -> Any:
    return json.loads(call(*words, "--json").stdout)


def commands(command: Any, path: str = "fewmark") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


ALL = dict(commands(typer.main.get_command(app)))


def test_the_verbs() -> None:
    top = {
        "calibrate",
        "convert",
        "detect",
        "distill",
        "evaluate",
        "export",
        "inspect",
        "robustness",
        "scheme",
        "track",
        "train",
        "transfer",
    }
    assert ALL.keys() == {
        "fewmark",
        *(f"fewmark {v}" for v in top),
        *(f"fewmark scheme {v}" for v in ("list", "show", "check")),
        *(f"fewmark transfer {v}" for v in ("fit", "apply", "evaluate")),
    }


@pytest.mark.parametrize("verb", ALL)
def test_every_verb_has_help_for_every_option(verb: str) -> None:
    assert ALL[verb].help
    for option in ALL[verb].params:
        assert option.help, f"{verb} {option.opts}"
    assert "Usage:" in call(*verb.split()[1:], "--help").stdout


def test_help_and_version_and_schemes_need_no_torch() -> None:
    code = """
import sys
from typer.testing import CliRunner
from fewmark.cli.app import app
for words in (["--version"], ["train", "--help"], ["scheme", "list"], ["scheme", "show", "ibug-68"]):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
assert "torch" not in sys.modules and "lightning_fabric" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_without_torch_a_packaged_model_runs_and_training_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['torch'] = None; from fewmark.cli.app import app; app(sys.argv[1:])"
    image = Path(__file__).parents[2] / "docs/images/grace_hopper.png"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", hidden, *words], capture_output=True, text=True, timeout=120)

    found = run("detect", "ibug-68", str(image), "--out", str(tmp_path / "found"), "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["n_faces"] >= 1
    refused = run("export", "ibug-68", "--out", str(tmp_path / "a.onnx"))
    assert refused.returncode == 1
    assert "fewmark[train]" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, fewmark; assert not {'torch', 'numpy', 'cv2', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_package_gives_its_public_names() -> None:
    import fewmark

    for name in fewmark.__all__:
        assert getattr(fewmark, name) is not None
    assert set(fewmark.__all__) <= set(dir(fewmark))
    with pytest.raises(AttributeError, match="no_such"):
        _ = fewmark.no_such


def test_version() -> None:
    assert __version__ in call("--version").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["train", "data"],
        ["evaluate"],
        ["nonsense"],
        ["detect", "m", "p", "--out", "o", "--format", "xml"],
        ["evaluate", "m", "d", "--box", "mine"],
    ],
)
def test_bad_usage_is_2(words: list[str]) -> None:
    call(*words, code=2)


def test_train(synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
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
    result = told(*words)
    assert (result["n_labelled"], result["n_unlabelled"], result["n_validation"]) == (4, 7, 4)
    assert Path(result["model"]).is_file()
    assert Path(result["report"]).is_file()
    assert [r["round"] for r in result["rounds"]] == [0, 0, 1, 1]
    assert result["validation"]["normalizer"] == "outer-eye-corners"
    again = call(*words, code=1)
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


def test_stopping_leaves_a_run_that_goes_on(synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", synthetic, "--labelled", synthetic / "few.txt", "--unlabelled", synthetic / "many.txt"]
    words += ["--scheme", "ibug-68", "--recipe", tiny_recipe, "--out", run]
    process = subprocess.Popen(
        [sys.executable, "-m", "fewmark", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job begins without it
    )
    deadline = time.monotonic() + 240
    while not (run / "metrics.jsonl").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=240)
    assert process.returncode == 130, text
    assert "Traceback" not in text
    last = text.strip().splitlines()[-1]
    assert last.startswith("stopped; go on with: fewmark train")
    assert last.endswith("--resume")
    assert not (run / "detector.safetensors").exists()
    call(*words, "--resume")
    assert (run / "detector.safetensors").is_file()


def test_evaluate(synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    lists = ["--list", synthetic / "val.txt", synthetic / "more.txt"]
    result = told("evaluate", tiny_model, synthetic, *lists, "--normalizer", "pupils", "--plot", tmp_path / "c.csv")
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


def test_evaluate_prints_its_normaliser(synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--plot", tmp_path / "c.html"]
    text = call(*words).stdout
    assert "outer-eye-corners" in text
    assert "%" in text
    assert "<svg" in (tmp_path / "c.html").read_text(encoding="utf-8")
    one = told("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt")
    assert set(one["lists"]) == {"val"}
    assert told("evaluate", tiny_model, synthetic)["n_faces"] == 14


@pytest.mark.parametrize("box", ["detect", "column"])
def test_evaluate_with_other_boxes(box: str, synthetic: Path, tiny_model: Path) -> None:
    result = told("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--box", box)
    assert result["box"] == box
    assert 0 <= result["n_undetected"] <= result["n_faces"] == 4


def test_evaluate_draws_the_curve(synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    call("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--plot", tmp_path / "c.png")
    assert read_image(tmp_path / "c.png").shape[0] > 300
    wrong = call(
        "evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--plot", tmp_path / "c.bmp", code=1
    )
    assert ".html" in wrong.stderr


def test_detect_goes_on_after_a_bad_image(synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes((synthetic / "images" / "000000.jpg").read_bytes()[:700])
    images = [synthetic / "images" / "000000.jpg", bad, synthetic / "images" / "000001.jpg"]
    out = tmp_path / "out"
    words = ["detect", tiny_model, *images, "--out", out]
    result = call(*words, code=1)
    assert "truncated" in result.stderr
    assert "1 of 3 images failed" in result.stderr
    data = json.loads((out / "faces.json").read_text(encoding="utf-8"))
    assert [Path(p["file"]).name for p in data["images"]] == ["000000.jpg", "000001.jpg"]
    assert [Path(p["file"]).name for p in data["failed"]] == ["bad.jpg"]


def test_detect_says_the_same_with_any_number_of_jobs(synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes((synthetic / "images" / "000003.jpg").read_bytes()[:700])
    images = sorted((synthetic / "images").glob("*.jpg"))
    words = ["detect", tiny_model, *images[:5], bad, *images[5:], "--format", "jsonl", "--overlay"]
    for jobs in (2, 5):
        result = call(*words, "--out", tmp_path / str(jobs), "--jobs", jobs, code=1)
        assert "1 of 15 images failed" in result.stderr
    files = [sorted(p.name for p in (tmp_path / jobs).iterdir()) for jobs in "25"]
    assert files[0] == files[1]
    assert len(files[0]) == 15  # 14 overlays and the faces
    for name in files[0]:
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "5" / name).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "2" / "faces.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Path(line["file"]).name for line in lines] == [p.name for p in [*images[:5], bad, *images[5:]]]
    assert "jobs: expected 1 or more" in call(*words, "--out", tmp_path / "0", "--jobs", 0, code=1).stderr


@pytest.mark.parametrize("form", ["json", "jsonl", "coco", "csv", "pts"])
def test_detect_with_given_boxes(form: str, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["detect", tiny_model, synthetic / "images", "--boxes", synthetic / "annotations.csv", "--out", out]
    result = told(*words, "--format", form, "--overlay")
    assert (result["n_images"], result["n_faces"], result["failed"]) == (14, 14, [])
    assert len(list(out.glob("*_landmarks.jpg"))) == 14
    if form in ("csv", "coco"):
        faces = read_faces(out / ("faces.csv" if form == "csv" else "faces.coco.json"))
        truth = read_faces(synthetic)
        assert [f.image.resolve() for f in faces] == [t.image.resolve() for t in truth]
        for face, true in zip(faces, truth, strict=True):
            np.testing.assert_allclose(face.box, true.box, atol=1e-3)
        if form == "csv":
            rows = list(csv.DictReader((out / "faces.csv").open(encoding="utf-8", newline="")))
            quality = [float(row["quality"]) for row in rows]
        else:
            quality = [a["quality"] for a in json.loads((out / "faces.coco.json").read_text("utf-8"))["annotations"]]
        assert len(quality) == 14
        assert len(set(quality)) > 1
    elif form == "pts":
        assert len(list(out.glob("*.pts"))) == 14
    elif form == "jsonl":
        lines = [json.loads(line) for line in (out / "faces.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [(len(line["faces"]), line["scheme"]) for line in lines] == [(1, "ibug-68")] * 14
        assert read_image(lines[0]["file"]).shape == (lines[0]["height"], lines[0]["width"], 3)
    else:
        data = json.loads((out / "faces.json").read_text(encoding="utf-8"))
        face = data["images"][0]["faces"][0]
        assert len(face["landmarks"]) == len(data["landmarks"]) == 68
        assert isinstance(face["quality"], float)
        assert face["occluded"] is None


def test_images_of_one_name_get_places_of_their_own(synthetic: Path, tmp_path: Path) -> None:
    from fewmark.data.image_sources import find_images

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(synthetic / "images" / "000000.jpg", tmp_path / folder / "x.jpg")
    named = find_images([tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg", tmp_path / "a"])
    assert [p.place for p in named] == ["x", "x-2"]
    assert [p.place for p in find_images([tmp_path])] == ["a/x", "b/x"]


def test_inspect_a_model(tiny_model: Path) -> None:
    data = told("inspect", tiny_model)
    assert data["scheme"]["name"] == "ibug-68"
    assert data["counts"]["labelled"] == 4
    text = call("inspect", tiny_model).stdout
    for word in ("ibug-68, 68 landmarks", "licence", "provenance", "4 labelled", "compact", "M parameters"):
        assert word in text


def test_inspect_lists_the_packaged_models() -> None:
    assert "ibug-68" in call("inspect").stdout
    data = told("inspect")
    assert [m["name"] for m in data] == packaged_names()
    assert all(m["licence"] and m["n_parameters"] for m in data)


def test_inspect_labels(synthetic: Path, tmp_path: Path) -> None:
    data = told("inspect", synthetic)
    assert (data["n_faces"], data["n_landmarks"], data["n_missing"], data["findings"]) == (14, 68, 0, [])
    (tmp_path / "a.csv").write_text("file,x0,y0,x1,y1\nnone.jpg,1,2,,\n", encoding="utf-8")
    data = told("inspect", tmp_path / "a.csv")
    assert (data["n_missing"], len(data["findings"])) == (1, 1)
    assert "none.jpg" in call("inspect", tmp_path / "a.csv").stdout


def test_schemes(tmp_path: Path) -> None:
    names = [s["name"] for s in told("scheme", "list")]
    assert "ibug-68" in names
    assert "ibug-68" in call("scheme", "list").stdout
    shown = told("scheme", "show", "ibug-68", "--out", tmp_path / "s.png")
    assert (shown["n_landmarks"], len(shown["landmarks"])) == (68, 68)
    assert read_image(tmp_path / "s.png").shape == (1024, 1024, 3)
    assert told("scheme", "check", "ibug-68")["findings"] == []
    (tmp_path / "bad.toml").write_text('name = "bad"\nlandmarks = ["a", "a"]\n', encoding="utf-8")
    assert "bad.toml" in call("scheme", "check", tmp_path / "bad.toml", code=1).stderr


def test_convert_there_and_back(synthetic: Path, tmp_path: Path) -> None:
    words = ["--scheme", "ibug-68"]
    call("convert", synthetic, tmp_path / "a.json", *words)
    call("convert", tmp_path / "a.json", tmp_path / "a.xml", "--from", "coco", "--to", "dlib", *words)
    assert told("convert", tmp_path / "a.xml", tmp_path / "a.csv", *words)["n_faces"] == 14
    for face, true in zip(read_faces(tmp_path / "a.csv"), read_faces(synthetic), strict=True):
        assert face.image.resolve() == true.image.resolve()
        np.testing.assert_allclose(face.landmarks, true.landmarks, atol=0.501)  # dlib's are whole px
    assert "same" in call("convert", tmp_path / "a.csv", tmp_path / "a.csv", code=1).stderr


def test_words_after_a_listing_option(synthetic: Path, tiny_model: Path) -> None:
    """They belong to it only once the required arguments are there; an option in between ends it."""
    before = told("evaluate", "--list", synthetic / "val.txt", tiny_model, synthetic)
    after = told("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--box", "gt")
    twice = told("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--list", synthetic / "more.txt")
    assert before == after
    assert set(twice["lists"]) == {"val", "more", "full"}


def test_the_work_plan_names_the_trainings_of_a_run(tiny_run: Path) -> None:
    epochs = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [e["name"] for e in epochs if e["kind"] == "epoch"]
    scheme = load_scheme("ibug-68")
    plan = plan_training(load_config(tiny_run / "config.toml"), scheme, 4, 6)
    assert plan.order == list(dict.fromkeys(names))
    synthetic = plan_training(load_config(tiny_run / "config.toml", ["synthetic.faces=9"]), scheme, 4, 6)
    assert synthetic.order[:2] == ["synthetic_unet", "synthetic_hourglass"]
    assert synthetic.total > plan.total


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display(terminal: bool) -> None:
    config = load_config("laptop", ["semi.rounds=1"])
    plan = plan_training(config, load_scheme("ibug-68"), 20, 100)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    about = {"name": "round0_unet", "student": "unet", "round": 0}
    with TrainingDisplay(console, plan) as display:
        display({"kind": "reading", "n_faces": 120})
        display({"kind": "training", "n_faces": 20, **about})
        assert plan.seconds_left() is None
        display({"kind": "epoch", "epoch": 1, "n_epochs": 8, "loss": 0.5, "seconds": 2.0, **about})
        first = plan.seconds_left()
        display(
            {
                "kind": "epoch",
                "epoch": 2,
                "n_epochs": 8,
                "loss": None,
                "seconds": 4.0,
                "val_nme": 0.05,
                **about,
            }
        )
        second = plan.seconds_left()
        record = RoundRecord(0, "unet", 0.05, 0.04)
        display({"kind": "round", "round": 0, "records": [record]})
        display({"kind": "done", "seconds": 75.0})
    assert first is not None
    assert second is not None
    assert first - second == pytest.approx(2.0)
    text = stream.getvalue()
    assert "done in 1:15 min" in text
    assert "5.00 %" in text
    assert "about" in text
    assert terminal == ("pseudo labels" in text)  # the table of rounds stands above the bar
    assert terminal or "round 0: unet, epoch 2 of 8, validation NME 5.00 %" in text
    assert duration(3700) == "1:01 h"


@pytest.mark.parametrize("command", ["train", "distill"])
def test_all_settings_are_listed(command: str) -> None:
    text = call(command, "--list-settings").stdout
    for setting in describe_settings():
        assert setting.name in text.replace("\n", "")


def test_numbered_image_is_an_image(tmp_path: Path) -> None:
    call("scheme", "show", "mtfl-5", "--out", tmp_path / "five.jpg")
    assert cv2.imread(str(tmp_path / "five.jpg")) is not None
