"""Folders and globs: links, suffixes, and what is left out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewmark.core.errors import DataWarning, InputError
from fewmark.data.formats.io import read_faces, write_pts
from fewmark.data.image_sources import find_images
from fewmark.data.images import IMAGE_SUFFIXES, read_image, read_size

GREY = Image.fromarray(np.full((32, 48, 3), 120, np.uint8))


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    GREY.save(path, "JPEG")
    return path


def places(*paths: Path) -> list[str]:
    return [i.place for i in find_images(paths)]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    image(tmp_path / "store/b.jpg")
    image(tmp_path / "data/a.jpg")
    (tmp_path / "data/more").symlink_to(tmp_path / "store")
    (tmp_path / "data/again").symlink_to(tmp_path / "store")
    (tmp_path / "store/up").symlink_to(tmp_path / "data")
    assert places(tmp_path / "data") == ["a", "again/b"]
    assert places(tmp_path / "data/**/*.jpg") == ["a", "again/b"]
    assert places(tmp_path / "da*/**/*.jpg") == ["data/a", "data/again/b"]
    assert places(tmp_path / "data/*/*.jpg") == ["again/b"]
    assert [f.name for f in read_faces(tmp_path / "data")] == ["a.jpg", "again/b.jpg"]


def test_an_image_of_two_paths_is_found_by_its_own(tmp_path: Path) -> None:
    image(tmp_path / "z/q.jpg")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "z/q.jpg")
    for path in (tmp_path, tmp_path / "**/*", tmp_path / "*/*"):
        assert places(path) == ["z/q"]
    assert places(tmp_path, tmp_path / "b.jpg") == ["z/q"]


def test_a_linked_image_with_labels_of_its_own_is_a_second_face(tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b")):
        write_pts(tmp_path / f"{name}.pts", np.full((2, 2), i, np.float32))
    image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    assert {f.name: f.landmarks is not None and f.landmarks[0, 0] for f in read_faces(tmp_path)} == {
        "a.jpg": 0,
        "b.jpg": 1,
    }


@pytest.mark.parametrize("name", ["b.jfif", "b.JPE", "b.Jpg"])
def test_jpegs_by_other_names(name: str, tmp_path: Path) -> None:
    image(tmp_path / name)
    write_pts(tmp_path / "b.pts", np.zeros((1, 2), np.float32))
    assert places(tmp_path) == ["b"]
    assert read_faces(tmp_path)[0].landmarks is not None
    assert read_faces(tmp_path / "b.pts")[0].image.name == name


@pytest.mark.parametrize("suffix", sorted(set(IMAGE_SUFFIXES) - {".avif", ".heic", ".heif"}))
def test_every_suffix_can_be_read(suffix: str, tmp_path: Path) -> None:
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".dib": "BMP", ".jp2": "JPEG2000", ".pnm": "PPM"}
    picture = GREY.convert("1") if suffix == ".pbm" else GREY.convert("L") if suffix == ".pgm" else GREY
    picture.save(tmp_path / f"a{suffix}", kinds.get(suffix))
    assert read_image(tmp_path / f"a{suffix}").shape == (32, 48, 3)
    assert read_size(tmp_path / f"a{suffix}") == (48, 32)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "notes.txt").write_text("no one takes this for an image")
        assert places(tmp_path) == ["a"]
    for name in ("x.xcf", "y.XCF", "without", ".hidden.xcf"):
        (tmp_path / name).write_text("")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for find in (lambda: places(tmp_path), lambda: places(tmp_path / "**/*"), lambda: read_faces(tmp_path)):
        with pytest.warns(DataWarning) as told:
            assert len(find()) == 1
        texts = sorted(str(w.message).removeprefix(f"{tmp_path}/") for w in told)
        assert texts == [
            "3 files left out, no images by the suffix: .xcf (2), no suffix (1)",
            "gone.jpg: left out; a folder that may not be read or a link to nothing",
        ]
        assert all(w.filename == __file__ for w in told)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="without images"):
        find_images([tmp_path / "empty"])
