"""`fewmark detect`: formats, boxes, parallel images and images that cannot be read."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image


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
        assert read_image(lines[0]["file"]).shape == (lines[0]["height"], lines[0]["width"], 3)
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
