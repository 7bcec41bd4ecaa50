"""From the image name in a label file to the image, whatever the machine on which it was written."""

from __future__ import annotations

import json
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from fewmark.core.errors import DataWarning
from fewmark.data.formats.io import read_faces
from fewmark.data.image_names import resolve_images
from fewmark.data.lists import select


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def write_csv(path: Path, names: list[str]) -> None:
    path.write_text("file,x0,y0\n" + "".join(f'"{n}",3,4\n' for n in names), encoding="utf-8")


def write_coco(path: Path, names: list[str]) -> None:
    images = [{"id": i, "file_name": n} for i, n in enumerate(names)]
    annotations = [{"image_id": i, "keypoints": [3, 4, 2]} for i in range(len(names))]
    path.write_text(json.dumps({"images": images, "annotations": annotations}), encoding="utf-16")


def write_dlib(path: Path, names: list[str]) -> None:
    box = '<box top="1" left="1" width="9" height="9"><part name="0" x="3" y="4"/></box>'
    images = "".join(f'<image file="{n}">{box}</image>' for n in names)
    path.write_text(f"<dataset><images>{images}</images></dataset>", encoding="utf-8")


Write = Callable[[Path, list[str]], None]
every_format = pytest.mark.parametrize(
    ("file", "write"), [("l.csv", write_csv), ("l.json", write_coco), ("l.xml", write_dlib)]
)


@every_format
def test_names_of_other_machines(file: str, write: Write, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    composed, decomposed = (unicodedata.normalize(form, "Zoë.jpg") for form in ("NFC", "NFD"))
    paths = [touch(folder / n) for n in ("anna/01.jpg", "a.jpg", decomposed, f"c/{composed}")]
    write(folder / file, ["anna\\01.jpg", "./a.jpg", composed, f".\\c\\{decomposed}"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = read_faces(folder / file)
    assert [f.image.samefile(p) for f, p in zip(faces, paths, strict=True)] == [True] * 4
    assert [f.name for f in faces] == ["anna/01.jpg", "a.jpg", composed, f"c/{composed}"]
    (tmp_path / "list.txt").write_text(f"anna\\01.jpg\nc/{decomposed}\nC:\\old\\data\\a.jpg\n", encoding="utf-16")
    assert select(faces, tmp_path / "list.txt") == [faces[0], faces[3], faces[1]]


@every_format
@pytest.mark.parametrize("old", ["/home/bob/data/", "C:\\Users\\bob\\data\\", "../photos/", "data/"])
def test_moved_folders(file: str, write: Write, old: str, tmp_path: Path) -> None:
    paths = [touch(tmp_path / n) for n in ("anna/1.jpg", "bob/1.jpg")]
    write(tmp_path / file, [f"{old}anna/1.jpg", f"{old}bob\\1.jpg"])
    with pytest.warns(DataWarning, match="2 images are found under another folder than named, e.g. "):
        assert [f.image for f in read_faces(tmp_path / file)] == paths


def test_labels_in_a_folder_of_their_own(tmp_path: Path) -> None:
    image, _ = touch(tmp_path / "images/1.jpg"), touch(tmp_path / "2.jpg")
    write_csv(touch(tmp_path / "labels/l.csv"), ["/old/images/1.jpg", "/old/images/2.jpg"])
    with pytest.warns(DataWarning, match="1 image is found"):
        first, second = read_faces(tmp_path / "labels/l.csv")
    assert first.image.samefile(image)
    assert str(second.image) == "/old/images/2.jpg", "a name alone is not looked for in the parent folder"


def test_no_guess_where_several_fit(tmp_path: Path) -> None:
    touch(tmp_path / "1.jpg")
    names = ["/old/anna/1.jpg", "/old/bob/1.jpg"]
    with pytest.warns(DataWarning, match=r"2 images are not found, and several files or names fit, e\.g\. /old/"):
        assert list(resolve_images(names, tmp_path, "l.csv").values()) == [Path(n) for n in names]
    touch(tmp_path / "old/1.jpg")
    with pytest.warns(DataWarning, match="1 image is not found"):
        resolve_images(["/data/old/1.jpg"], tmp_path, "l.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its folder is there: the image itself is gone
        assert resolve_images(["old/2.jpg", "sub/../2.jpg"], tmp_path, "l.csv")["old/2.jpg"] == tmp_path / "old/2.jpg"


def test_other_letter_case_is_told(tmp_path: Path) -> None:
    image = touch(tmp_path / "IMG/A.JPG")
    if (tmp_path / "img").exists():
        pytest.skip("needs a file system that tells letter case apart, e.g. of Linux")
    with pytest.warns(DataWarning, match=r"1 image is found in another letter case, img/a\.jpg as A\.JPG"):
        assert resolve_images(["img/a.jpg"], tmp_path, "l.csv") == {"img/a.jpg": image}
    touch(tmp_path / "IMG/a.jpg")
    touch(tmp_path / "IMG/A.jpg")
    assert resolve_images(["IMG/a.JPG"], tmp_path, "l.csv") == {"IMG/a.JPG": tmp_path / "IMG/a.JPG"}
