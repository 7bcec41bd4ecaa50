"""`fewmark detect`: formats, boxes, parallel images and images that cannot be read."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewmark.core.geometry import Image
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image, write_image


def test_detect_goes_on_after_a_bad_image(cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes((synthetic / "images" / "000000.jpg").read_bytes()[:700])
    images = [synthetic / "images" / "000000.jpg", bad, synthetic / "images" / "000001.jpg"]
    out = tmp_path / "out"
    words = ["detect", tiny_model, *images, "--out", out]
    result = cli(*words, code=1)
    assert "truncated" in result.stderr
    assert "1 of 3 images failed" in result.stderr
    data = json.loads((out / "faces.json").read_text(encoding="utf-8"))
    assert [Path(p["file"]).name for p in data["pictures"]] == ["000000.jpg", "000001.jpg"]
    assert [Path(p["file"]).name for p in data["failed"]] == ["bad.jpg"]


def test_results_do_not_depend_on_the_number_of_jobs(
    cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes((synthetic / "images" / "000003.jpg").read_bytes()[:700])
    images = sorted((synthetic / "images").glob("*.jpg"))
    words = ["detect", tiny_model, *images[:5], bad, *images[5:], "--format", "jsonl", "--overlay"]
    for jobs in (2, 5):
        result = cli(*words, "--out", tmp_path / str(jobs), "--jobs", jobs, code=1)
        assert "1 of 15 images failed" in result.stderr
    files = [sorted(p.name for p in (tmp_path / jobs).iterdir()) for jobs in "25"]
    assert files[0] == files[1]
    assert len(files[0]) == 15  # 14 overlays and the faces
    for name in files[0]:
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "5" / name).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "2" / "faces.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Path(line["file"]).name for line in lines] == [p.name for p in [*images[:5], bad, *images[5:]]]
    assert "jobs: expected 1 or more" in cli(*words, "--out", tmp_path / "0", "--jobs", 0, code=1).stderr


@pytest.mark.parametrize("form", ["json", "jsonl", "coco", "csv", "pts"])
def test_detect_with_given_boxes(cli: Any, form: str, synthetic: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["detect", tiny_model, synthetic / "images", "--boxes", synthetic / "annotations.csv", "--out", out]
    result = cli.json(*words, "--format", form, "--overlay")
    assert (result["n_pictures"], result["n_faces"], result["failed"]) == (14, 14, [])
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
        assert read_image(out / lines[0]["file"]).shape == (lines[0]["height"], lines[0]["width"], 3)
    else:
        data = json.loads((out / "faces.json").read_text(encoding="utf-8"))
        face = data["pictures"][0]["faces"][0]
        assert len(face["landmarks"]) == len(data["landmarks"]) == 68
        assert isinstance(face["quality"], float)
        assert face["occluded"] is None


def test_images_of_the_same_name_get_different_output_names(synthetic: Path, tmp_path: Path) -> None:
    from fewmark.data.image_sources import find_images

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(synthetic / "images" / "000000.jpg", tmp_path / folder / "x.jpg")
    named = find_images([tmp_path / "a" / "x.jpg", tmp_path / "b" / "x.jpg", tmp_path / "a"])
    assert [p.place for p in named] == ["x", "x-2"]
    assert [p.place for p in find_images([tmp_path])] == ["a/x", "b/x"]


PTS = "version: 1\nn_points: 68\n{\n" + "\n".join(f"{i}.5 {i}.25" for i in range(68)) + "\n}\n"


@pytest.fixture
def faces(synthetic: Path, tmp_path: Path) -> Path:
    """A folder with one image and labels of it in three formats."""
    folder = tmp_path / "faces"
    folder.mkdir()
    shutil.copy(synthetic / "images/000000.jpg", folder / "anna.jpg")
    (folder / "anna.pts").write_text(PTS, encoding="utf-8")
    points = ",".join(f"x{i},y{i}" for i in range(68)), ",".join(f"{i},{i + 1}" for i in range(68))
    for name in ("faces.csv", "annotations.csv"):
        (folder / name).write_text(f"file,{points[0]}\nanna.jpg,{points[1]}\n", encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_no_command_replaces_labels(cli: Any, faces: Path, tiny_model: Path, tmp_path: Path) -> None:
    before = contents(faces)
    copy = tmp_path / "copy.csv"
    shutil.copy(faces / "faces.csv", copy)
    for words in (
        ["detect", tiny_model, faces, "--out", faces, "--format", "pts"],
        ["detect", tiny_model, faces, "--out", faces, "--format", "csv"],
        ["convert", faces / "faces.csv", faces, "--to", "pts"],
        ["convert", faces / "faces.csv", faces, "--to", "csv"],
        ["convert", faces / "anna.pts", faces / "faces.csv"],
        ["convert", faces / "annotations.csv", faces / "anna.pts"],
    ):
        line = cli.error(*words)
        assert "exists already" in line
        assert "--force" in line
    for words in (
        ["convert", faces / "annotations.csv", faces / "anna.jpg", "--to", "csv", "--force"],
        [
            "convert",
            faces / "faces.csv",
            link_to(faces / "faces.csv", tmp_path / "linked.csv"),
            "--to",
            "csv",
            "--force",
        ],
        ["evaluate", tiny_model, faces / "faces.csv", "--plot", faces / "faces.csv"],
        ["robustness", tiny_model, faces / "faces.csv", "--out", link_to(faces / "faces.csv", tmp_path / "r.json")],
        ["export", tiny_model, "--out", link_to(tiny_model, tmp_path / "model.onnx")],
        ["scheme", "show", scheme_file(tmp_path / "mine.png"), "--out", tmp_path / "mine.png"],
    ):
        assert "an input of this command" in cli.error(*words) or "are the same" in cli.error(*words)
    assert contents(faces) == before
    assert "1 face" in cli("convert", copy, faces / "faces.csv", "--force").stdout


def link_to(target: Path, link: Path) -> Path:
    link.symlink_to(target)
    return link


def scheme_file(path: Path) -> Path:
    shutil.copy(resources.files("fewmark") / "landmarks/schemes/mtfl-5.toml", path)
    return path


def test_detecting_twice_keeps_the_earlier_results(cli: Any, faces: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["detect", tiny_model, faces / "anna.jpg", "--boxes", synthetic_boxes(tmp_path, faces), "--out"]
    cli(*words, tmp_path / "out")
    first = contents(tmp_path / "out")
    again = cli(*words, tmp_path / "out")
    assert "earlier results are kept" in again.stderr
    assert "results-2" in again.stdout
    assert first.items() <= contents(tmp_path / "out").items()
    assert json.loads((tmp_path / "out/results-2/faces.json").read_text())["pictures"]
    cli(*words, tmp_path / "out", "--force")
    cli(*words, tmp_path / "out", "--overlay", "--format", "pts")
    boxes = tmp_path / "boxes/faces.csv"
    line = cli.error(*words, boxes.parent, "--format", "csv", "--force")
    assert "faces.csv: an input of this command" in line


def synthetic_boxes(tmp_path: Path, faces: Path) -> Path:
    (tmp_path / "boxes").mkdir()
    path = tmp_path / "boxes/faces.csv"
    path.write_text(f"file,box_x0,box_y0,box_x1,box_y1\n{faces / 'anna.jpg'},5,5,55,55\n", encoding="utf-8")
    return path


def test_without_out_results_go_to_a_folder_that_is_named(
    cli: Any, faces: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("detect", tiny_model, "faces").stdout.strip().endswith(": landmarks")
    assert (tmp_path / "landmarks/faces.json").is_file()


def test_names_in_messages_stay_on_their_line(cli: Any, tiny_model: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xe1\n\x1b[31m.jpg")
    (tmp_path / name).write_bytes(b"no image")
    result = cli("detect", tiny_model, tmp_path, "--out", tmp_path / "out", code=1)
    assert r"a\udce1\n\u001b[31m.jpg: not an image" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 2
    data = json.loads((tmp_path / "out/faces.json").read_text(encoding="utf-8"))
    assert Path(data["failed"][0]["file"]).name == name


def test_standard_output_takes_every_name(tiny_model: Path, tmp_path: Path) -> None:
    """In a process of its own: the output of the tests' runner is not that of a terminal."""
    folder = os.fsencode(tmp_path) + b"/\xe1 \xc3\xa9"
    os.mkdir(folder)
    shutil.copy(Path(__file__).parents[2] / "docs/images/grace_hopper.png", os.fsdecode(folder + b"/a.png"))
    for encoding, words in (("utf-8", ["--json"]), ("ascii", ["--json", "--force"]), ("ascii", ["--force"])):
        done = subprocess.run(
            [sys.executable, "-m", "fewmark", "detect", "ibug-68", folder, "--out", folder + b"/out", *words],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if "--json" in words:
            (file,) = json.loads(done.stdout.decode(encoding))["out"]
            assert os.fsencode(file) == folder + b"/out/faces.json"
        else:
            assert rb"\udce1 " in done.stdout


def test_quiet_prints_nothing(cli: Any, faces: Path, tiny_model: Path, tmp_path: Path) -> None:
    result = cli("detect", tiny_model, faces, "--out", tmp_path / "out", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")
    assert cli.json("detect", tiny_model, faces, "--out", tmp_path / "j", "--quiet")["n_pictures"] == 1
    (faces / "bad.jpg").write_bytes(b"no image")
    assert "1 of 2 images failed" in cli("detect", tiny_model, faces, "--out", tmp_path / "b", "--quiet", code=1).stderr


@pytest.mark.parametrize(
    ("options", "expected"), [([], (14, 1)), (["--threads", 4], (4, 1)), (["--threads", 4, "--jobs", 2], (2, 2))]
)
def test_threads_are_shared_by_the_images(
    options: list[Any], expected: tuple[int, int], cli: Any, synthetic: Path, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from fewmark.inference import batch
    from fewmark.inference.detector import Detector

    seen: list[int] = []
    load, run, n_cv2 = Detector.load, batch.detect_images, cv2.getNumThreads()
    monkeypatch.setattr("fewmark.cli.detect.n_processors", lambda: 64)
    monkeypatch.setattr(Detector, "load", lambda *a, **k: (seen.append(k["threads"]), load(*a, **k))[1])
    monkeypatch.setattr(batch, "detect_images", lambda *a, **k: (seen.append(k["jobs"]), run(*a, **k))[1])
    try:
        cli("detect", tiny_model, synthetic / "images", "--out", tmp_path, *options)
        assert (seen[1], seen[0]) == expected
        if options:
            assert cv2.getNumThreads() == expected[1]
    finally:
        cv2.setNumThreads(n_cv2)


def test_devices_and_numbers_that_do_not_exist(cli: Any, faces: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["detect", tiny_model, faces, "--out", tmp_path / "out"]
    assert cli.error(*words, "--device", "gpu") == "--device: expected cpu or cuda, given 'gpu'"
    assert "--threads: expected 1 or more" in cli.error(*words, "--threads", 0)
    import torch

    if not torch.cuda.is_available():
        assert "leave it away" in cli.error(*words, "--device", "cuda")
    assert not (tmp_path / "out").exists()


def test_a_video_is_refused(cli: Any, faces: Path, tiny_model: Path, tmp_path: Path) -> None:
    mp4 = bytes([0, 0, 0, 20]) + b"ftypisom" + bytes(100)
    (tmp_path / "unknown.mkv").write_bytes(b"?")
    for name, data in (("a.mp4", mp4), ("b.jpg", mp4), ("c.avi", b"RIFF....AVI LIST"), ("d.webm", b"\x1aE\xdf\xa3")):
        (tmp_path / name).write_bytes(data)
        line = cli.error("detect", tiny_model, tmp_path / name, tmp_path / "unknown.mkv", "--out", tmp_path / "out")
        assert f"{name}: a video, expected an image" in line
        assert "fewmark track" in line
    (tmp_path / "e.mp4").write_bytes((faces / "anna.jpg").read_bytes())
    cli("detect", tiny_model, tmp_path / "e.mp4", "--out", tmp_path / "image")  # its content counts
    result = cli("detect", tiny_model, faces, tmp_path / "b.jpg", "--out", tmp_path / "both", code=1)
    assert "b.jpg: a video (MP4), expected an image; `fewmark track" in result.stderr
    assert len(json.loads((tmp_path / "both/faces.json").read_text(encoding="utf-8"))["pictures"]) == 1
    (tmp_path / "films").mkdir()
    (tmp_path / "a.mp4").rename(tmp_path / "films/a.mp4")
    for given in (tmp_path / "films", tmp_path / "films/*.mp4"):
        assert "fewmark track" in cli.error("detect", tiny_model, given, "--out", tmp_path / "out")


def test_detect_turned(cli: Any, grace_hopper: Image, tmp_path: Path) -> None:
    sideways = np.ascontiguousarray(np.rot90(grace_hopper))
    write_image(tmp_path / "sideways.png", sideways)
    counts = {}
    for option in ([], ["--turned"], ["--no-turned"]):
        out = tmp_path / f"out{'-'.join(option)}"
        counts[tuple(option)] = cli.json("detect", "ibug-68", tmp_path / "sideways.png", "--out", out, *option)[
            "n_faces"
        ]
    assert counts == {(): 1, ("--turned",): 1, ("--no-turned",): 0}
