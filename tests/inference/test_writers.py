"""Results and inputs: nothing given is replaced, earlier results are kept, and one image's failure to be written is its own."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from fewmark.core.errors import InputError, OutputError
from fewmark.core.files import atomic_path, check_outputs
from fewmark.core.geometry import Image
from fewmark.data.formats.io import read_faces, write_faces
from fewmark.data.image_sources import find_images
from fewmark.data.images import write_image
from fewmark.data.samples import FaceSample
from fewmark.inference.batch import DetectionResult, detect_images
from fewmark.inference.face import Face
from fewmark.inference.writers import FaceFormat, open_results, planned_files
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme

LATIN = os.fsdecode(b"fotogr\xe1f")
FILE = {"json": "faces.json", "jsonl": "faces.jsonl", "coco": "faces.coco.json", "csv": "faces.csv"}


class Checkpoint:
    """Stands for a model's: five landmarks, no transfer."""

    scheme = load_scheme("mtfl-5")

    def scheme_of(self, name: str | None) -> LandmarkScheme:
        return self.scheme

    def transfer_to(self, name: str | None) -> None:
        return None


class Stage:
    """Stands for a detector: as many faces as the image is wide in tens of px."""

    checkpoint = Checkpoint()

    def detect(
        self, image: Image, boxes: Any = None, *, scheme: str | None = None, turned: bool | None = None
    ) -> list[Face]:
        points = np.arange(10, dtype=np.float32).reshape(5, 2)
        box = np.array([0, 0, 8, 8], np.float32)
        n = image.shape[1] // 10
        scores = np.ones(5, np.float32)
        return [Face(box, points + i, scores, box_score=1.0, scheme=self.checkpoint.scheme) for i in range(n)]


def picture(path: Path, n_faces: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((9, 10 * n_faces, 3), 90, np.uint8))[1].tobytes())
    return path


def detect(images: Sequence[Path], out: Path, **options: Any) -> DetectionResult:
    return detect_images(Stage(), find_images(images), out, **options)  # type: ignore[arg-type]


def files_of(folder: Path, form: FaceFormat) -> list[str]:
    """The images that a result has faces of."""
    if form == "pts":
        return [p.stem for p in folder.rglob("*.pts")]
    text = (folder / FILE[form]).read_text(encoding="utf-8")
    if form == "csv":
        return [row["file"] for row in csv.DictReader(text.splitlines())]
    if form == "jsonl":
        return [line["file"] for line in map(json.loads, text.splitlines()) if "faces" in line]
    data = json.loads(text)
    return [i["file_name"] for i in data["images"]] if form == "coco" else [p["file"] for p in data["pictures"]]


@pytest.mark.parametrize("form", get_args(FaceFormat))
def test_a_name_that_is_no_utf8_is_written_and_read_back(form: FaceFormat, tmp_path: Path) -> None:
    images = [picture(tmp_path / f"in/{name}.png") for name in ("a", LATIN, "z")]
    result = detect(images, tmp_path / "out", form=form, overlay=True)
    assert (result.n_faces, result.failures) == (3, {})
    assert len(files_of(tmp_path / "out", form)) == 3
    assert (tmp_path / f"out/{LATIN}_landmarks.jpg").is_file()
    if form in ("csv", "coco"):
        assert [f.image.resolve() for f in read_faces(tmp_path / "out" / FILE[form])] == images
    elif form == "pts":
        assert (tmp_path / f"out/{LATIN}.pts").is_file()
    else:
        found = [(tmp_path / "out" / f).resolve() for f in files_of(tmp_path / "out", form)]
        assert sorted(found) == sorted(images)


@pytest.mark.parametrize("form", get_args(FaceFormat))
@pytest.mark.parametrize("jobs", [1, 3])
def test_an_overlay_that_cannot_be_written_is_its_images_failure(form: FaceFormat, jobs: int, tmp_path: Path) -> None:
    longest = picture(tmp_path / f"in/{'n' * 245}.png")
    blocked = picture(tmp_path / "in/sub/b.png")
    images = [picture(tmp_path / "in/a.png"), longest, blocked, picture(tmp_path / "in/z.png")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").write_text("no folder")
    result = detect([tmp_path / "in"], tmp_path / "out", form=form, overlay=True, jobs=jobs)
    assert set(result.failures) == {longest, blocked}
    assert "shorten the name" in result.failures[longest]
    assert "a file has the name of a folder" in result.failures[blocked]
    assert all((tmp_path / f"out/{n}_landmarks.jpg").is_file() for n in "az")
    found = 3 if form == "pts" else len(images)  # b.pts cannot be written either, the other faces can
    assert (result.n_faces, len(files_of(tmp_path / "out", form))) == (found, found)


def test_a_line_break_in_a_name_stays_in_its_row(tmp_path: Path) -> None:
    image = picture(tmp_path / "in/a\nb.png")
    for form in ("csv", "coco"):
        detect([image], tmp_path / form, form=form)
        (face,) = read_faces(tmp_path / form / FILE[form])
        assert face.image.resolve() == image
    detect([image], tmp_path / "jsonl", form="jsonl")
    assert len((tmp_path / "jsonl/faces.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    images = [picture(tmp_path / f"{n}.png") for n in "ab"]
    monkeypatch.setattr("fewmark.core.files._flush", full)
    for options in ({"form": "pts"}, {"form": "jsonl", "overlay": True}, {"form": "jsonl", "overlay": True, "jobs": 2}):
        with pytest.raises(OutputError, match="No space left"):
            detect(images, tmp_path / f"out{len(options)}", **options)
    if Path("/dev/full").exists():
        for form in ("csv", "jsonl"):
            (tmp_path / form).mkdir()
            (tmp_path / form / FILE[form]).symlink_to("/dev/full")
            with pytest.raises(OutputError, match=rf"faces\.{form}: cannot be written"):
                detect(images, tmp_path / form, form=form, force=True)


def test_a_folder_that_cannot_be_written_to_is_known_before_the_first_image(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "out/faces.json").mkdir(parents=True)
    image = picture(tmp_path / "a.png")
    for form in get_args(FaceFormat):
        with pytest.raises(InputError, match="cannot be written"):
            open_results(form, tmp_path / "file", Checkpoint.scheme)
    with pytest.raises(InputError, match="is a folder"):
        detect([image], tmp_path / "out", force=True)


@pytest.mark.parametrize("form", get_args(FaceFormat))
def test_earlier_results_are_kept_without_force(form: FaceFormat, tmp_path: Path) -> None:
    one, two = picture(tmp_path / "in/one.png"), picture(tmp_path / "in/two.png", 2)
    detect([one, two], tmp_path / "out", form=form, overlay=True)
    before = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    again = detect([one, two], tmp_path / "out", form=form, overlay=True)
    assert again.folder == tmp_path / "out/results-2"
    assert {p.name: p.read_bytes() for p in again.folder.iterdir()}.keys() == {p.name for p in before}
    assert detect([one], tmp_path / "out", form="csv", overlay=True).folder == tmp_path / "out/results-3"
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()} == before
    detect([one, two], tmp_path / "out", form=form, overlay=True, force=True)
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()} == before


@pytest.mark.parametrize("label", ["two.pts", "two_1.pts"])
def test_a_label_beside_the_image_is_no_result(label: str, tmp_path: Path) -> None:
    image = picture(tmp_path / "two.png", 2)
    (tmp_path / label).write_text("by hand")
    with pytest.raises(InputError, match=rf"{label}: exists already"):
        detect([image], tmp_path, form="pts")
    assert (tmp_path / label).read_text() == "by hand"


@pytest.mark.parametrize("force", [False, True])
def test_no_result_replaces_an_input(force: bool, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.png")
    input_ = picture(folder / "a_landmarks.jpg")
    content = input_.read_bytes()
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    for out in (folder, tmp_path / "link", folder / "../in"):
        with pytest.raises(InputError, match=r"a_landmarks\.jpg: an input of this command.*--out"):
            detect([folder], out, overlay=True, force=force)
    os.link(input_, tmp_path / "faces.csv")
    with pytest.raises(InputError, match=r"faces\.csv: an input"):
        detect([folder], tmp_path, form="csv", force=force)
    (tmp_path / "b").mkdir()
    boxes = tmp_path / "b/faces.csv"
    boxes.write_text("boxes")
    with pytest.raises(InputError, match=r"faces\.csv: an input"):
        detect([folder], tmp_path / "b", form="csv", force=force, inputs=[boxes])
    assert (input_.read_bytes(), boxes.read_text()) == (content, "boxes")
    assert sorted(p.name for p in folder.iterdir()) == ["a.png", "a_landmarks.jpg"]


def test_faces_of_two_images_never_share_a_pts_file(tmp_path: Path) -> None:
    images = [picture(tmp_path / "in/a.png", 2), picture(tmp_path / "in/a_1.png")]
    for force in (False, True):
        result = detect(images, tmp_path / "out", form="pts", force=force)
        assert [p.name for p in result.files] == ["a_1-2.pts", "a_2.pts", "a_1.pts"]


def test_a_pts_file_that_appears_during_the_run_is_kept(tmp_path: Path) -> None:
    images = [picture(tmp_path / "in/a.png", 2), picture(tmp_path / "in/b.png")]
    sources = find_images(images)
    assert planned_files("pts", tmp_path / "out", sources) == [tmp_path / "out/a.pts", tmp_path / "out/b.pts"]

    class Late(Stage):
        def detect(
            self, image: Image, boxes: Any = None, *, scheme: str | None = None, turned: bool | None = None
        ) -> list[Face]:
            (tmp_path / "out/a_2.pts").write_text("by hand")
            return super().detect(image)

    result = detect_images(Late(), sources, tmp_path / "out", form="pts")  # type: ignore[arg-type]
    assert "a_2.pts: exists already" in result.failures[images[0]]
    assert [p.name for p in result.files] == ["b.pts"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_2.pts", "b.pts"]
    assert (tmp_path / "out/a_2.pts").read_text() == "by hand"


def test_an_exclusive_file_is_kept_also_on_file_systems_without_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    with atomic_path(tmp_path / "a", replace=False) as temporary:
        temporary.write_text("first")
    with (
        pytest.raises(InputError, match="exists already"),
        atomic_path(tmp_path / "b", replace=False) as temporary,
    ):
        (tmp_path / "b").write_text("meanwhile")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "first", "b": "meanwhile"}


def test_a_link_that_leads_nowhere_is_kept(tmp_path: Path) -> None:
    (tmp_path / "faces.json").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="exists already"):
        check_outputs([tmp_path / "faces.json"], [])


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'顔' * 83}.jpg"  # 253 bytes
    write_image(path, np.zeros((4, 4, 3), np.uint8))
    assert path.is_file()


def test_an_image_too_large_for_jpeg_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"70000 x 2 px cannot be written as \.jpg"):
        write_image(tmp_path / "a.jpg", np.zeros((2, 70000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fmt", "name"), [("csv", "a.csv"), ("coco", "a.json"), ("dlib", "a.xml"), ("pts", "folder")])
def test_labels_of_a_name_that_is_no_utf8_are_written_and_read_back(fmt: str, name: str, tmp_path: Path) -> None:
    image = picture(tmp_path / f"{LATIN}.png")
    points = np.arange(10, dtype=np.float32).reshape(5, 2)
    write_faces(tmp_path / name, fmt, [FaceSample(image, landmarks=points)], Checkpoint.scheme)
    (face,) = read_faces(tmp_path / name, fmt)
    assert face.image.name == image.name
    assert face.image.is_file()
    np.testing.assert_array_equal(face.landmarks, points)
