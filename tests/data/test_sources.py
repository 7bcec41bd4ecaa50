"""Which images a person names: files, folders, globs, standard input; HEIC and AVIF."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from fewmark.core.errors import InputError
from fewmark.data.image_sources import STDIN, find_images
from fewmark.data.images import read_image, read_size

RED = Image.fromarray(np.full((32, 48, 3), (220, 20, 20), np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png", "sub/a.jpg", "sub/deep/c.jpg", ".hidden/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        RED.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_globs(folder: Path) -> None:
    assert [p.place for p in find_images([folder / "*.jpg"])] == ["a"]
    assert [p.place for p in find_images([folder / "**" / "*.jpg"])] == ["a", "sub/a", "sub/deep/c"]
    assert [p.place for p in find_images([folder / "*"])] == ["a", "b"]
    (folder / "x[1].jpg").write_bytes((folder / "a.jpg").read_bytes())
    assert [p.path.name for p in find_images([folder / "x[1].jpg"])] == ["x[1].jpg"], "a file that is there is no glob"
    with pytest.raises(InputError, match=r"\*\.gif: no image fits"):
        find_images([folder / "*.gif"])
    with pytest.raises(InputError, match="no such image"):
        find_images([folder / "none.jpg"])


def test_paths_by_standard_input(folder: Path) -> None:
    lines = f"{folder / 'a.jpg'}\r\n\n{folder / 'sub'}\n".encode()
    assert [p.place for p in find_images(["-"], io.BytesIO(lines))] == ["a", "a-2", "deep/c"]
    nul = f"{folder / 'a.jpg'}\0{folder / 'b.png'}\0".encode()
    assert [p.path.name for p in find_images([STDIN], io.BytesIO(nul))] == ["a.jpg", "b.png"]
    latin = folder / os.fsdecode(b"\xe1\x0b.jpg")
    latin.write_bytes((folder / "a.jpg").read_bytes())
    assert [p.path for p in find_images(["-"], io.BytesIO(os.fsencode(latin) + b"\n"))] == [latin]
    with pytest.raises(InputError, match="is empty"):
        find_images(["-"], io.BytesIO(b"\n"))
    with pytest.raises(InputError, match="neither an image"):
        find_images(["-"], io.BytesIO(b"\xf0\x00\xff"))
    with pytest.raises(InputError, match="given twice"):
        find_images(["-", "-"], io.BytesIO(nul))


def test_an_image_by_standard_input(folder: Path) -> None:
    data = (folder / "a.jpg").read_bytes()
    (image,) = find_images(["-"], io.BytesIO(data))
    assert (image.path, image.place, image.data) == (STDIN, "stdin", data)


@pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow with AVIF: pip install --upgrade pillow")
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    RED.save(tmp_path / "a.avif", exif=exif)
    image = read_image(tmp_path / "a.avif")
    assert image.shape == ((32, 48, 3) if orientation == 1 else (48, 32, 3))
    assert read_size(tmp_path / "a.avif") == image.shape[1::-1]
    np.testing.assert_allclose(image[16, 16], (220, 20, 20), atol=8)


def test_heic(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason='needs pillow-heif: pip install "fewmark[heic]"')
    heif.from_pillow(RED).save(tmp_path / "a.heic", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.heic")[16, 16], (220, 20, 20), atol=8)
    assert read_size(tmp_path / "a.heic") == (48, 32)
    (tmp_path / "cut.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:200])
    with pytest.raises(InputError, match=r"cut\.heic"):
        read_image(tmp_path / "cut.heic")


def quarters() -> Image.Image:
    """48 x 32 px, four colours: which way it is turned shows."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:] = (220, 20, 20), (20, 200, 20)
    image[16:, :24], image[16:, 24:] = (20, 20, 220), (220, 220, 20)
    return Image.fromarray(image)


def heic_turned(orientation: int) -> bytes:
    """As telephones write it: the container turns the image, and EXIF says the same turn."""
    heif = pytest.importorskip("pillow_heif", reason='needs pillow-heif: pip install "fewmark[heic]"')
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    heif.from_pillow(quarters()).save(file, quality=95, exif=exif.tobytes())
    data = file.getvalue()
    assert (b"irot" in data or b"imir" in data) == (orientation != 1)
    assert b"Exif" in data
    return data


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_heic_is_upright(orientation: int, tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(heic_turned(orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    quarters().save(file, "png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)), np.uint8)
    image = read_image(tmp_path / "a.heic")
    assert image.shape == upright.shape
    assert read_size(tmp_path / "a.heic") == image.shape[1::-1]
    for y, x in ((8, 8), (8, -8), (-8, 8), (-8, -8)):
        np.testing.assert_allclose(image[y, x].astype(int), upright[y, x], atol=12)


def test_exif_alone_does_not_turn_a_heic(tmp_path: Path) -> None:
    data = heic_turned(6)
    at = data.index(b"irot") + 4
    assert data[at] == 3  # quarter turns counter-clockwise
    (tmp_path / "a.heic").write_bytes(data[:at] + b"\0" + data[at + 1 :])
    assert read_image(tmp_path / "a.heic").shape == (32, 48, 3)
    assert read_size(tmp_path / "a.heic") == (48, 32)


def test_heic_without_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(bytes([0, 0, 0, 20]) + b"ftypheic" + bytes(4) + b"mif1" + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    says = r'a\.heic: is HEIC, which needs pillow-heif: pip install "pillow-heif>=[\d.]*", or convert it to JPEG$'
    for read in (read_image, read_size):
        with pytest.raises(InputError, match=says):
            read(tmp_path / "a.heic")


@pytest.mark.parametrize("suffix", ["webp", "tiff", "png"])
def test_rotated_images_of_other_kinds(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    RED.save(tmp_path / f"a.{suffix}", exif=exif)
    assert read_image(tmp_path / f"a.{suffix}").shape == (48, 32, 3)
    assert read_size(tmp_path / f"a.{suffix}") == (32, 48)
