"""The one door through which images enter, and the boxes of faces."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fewmark.core.errors import InputError
from fewmark.data.images import as_rgb, decode_image, read_image, read_size
from fewmark.data.samples import FaceSample, usual_face, with_full_box
from fewmark.landmarks.missing import full_box
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme

RAMP = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3  # RGB, every pixel another


def write(path: Path, array: np.ndarray) -> Path:
    """Write an array as it is, RGB or RGBA order."""
    order = {2: array, 3: array[..., ::-1] if array.ndim == 3 else array}.get(array.ndim, array)
    if array.ndim == 3 and array.shape[2] == 4:
        order = array[..., [2, 1, 0, 3]]
    assert cv2.imwrite(str(path), np.ascontiguousarray(order))
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_colours_are_rgb(suffix: str, tmp_path: Path) -> None:
    red = np.zeros((8, 9, 3), np.uint8)
    red[..., 0] = 250
    image = read_image(write(tmp_path / f"a.{suffix}", red))
    assert (image.shape, image.dtype) == ((8, 9, 3), np.uint8)
    assert image[4, 4, 0] > 240
    assert image[4, 4, 1:].max() < 12
    assert image.flags["C_CONTIGUOUS"]


def test_grey_alpha_and_16_bit(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(write(tmp_path / "rgb.png", RAMP)), RAMP)
    grey = read_image(write(tmp_path / "grey.png", RAMP[..., 1]))
    np.testing.assert_array_equal(grey, np.repeat(RAMP[..., 1:2], 3, axis=2))
    alpha = np.dstack([RAMP, np.full(RAMP.shape[:2], 7, np.uint8)])
    np.testing.assert_array_equal(read_image(write(tmp_path / "rgba.png", alpha)), RAMP)
    deep = RAMP.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(write(tmp_path / "deep.png", deep)), RAMP)
    np.testing.assert_array_equal(
        read_image(write(tmp_path / "deep_grey.png", deep[..., 0])), np.repeat(RAMP[..., :1], 3, axis=2)
    )
    Image.fromarray(RAMP[..., 1]).convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(read_image(tmp_path / "bits.png")).tolist()) <= {0, 255}
    Image.fromarray(RAMP).convert("P").save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png").shape == RAMP.shape


def test_one_pixel(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", RAMP[:1, :1])), RAMP[:1, :1])
    assert read_size(tmp_path / "a.png") == (1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:12, :20] = (200, 30, 30)  # red top left, blue top right, green bottom left
    upright[:12, 20:] = (30, 30, 200)
    upright[12:, :20] = (30, 200, 30)
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = Image.fromarray(upright)
    stored = stored if undo is None else stored.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    image = read_image(tmp_path / "a.jpg").astype(int)
    assert image.shape == (24, 40, 3)
    assert np.abs(image[6, 10] - (200, 30, 30)).max() < 12
    assert np.abs(image[6, 30] - (30, 30, 200)).max() < 12
    assert np.abs(image[18, 10] - (30, 200, 30)).max() < 12
    assert read_size(tmp_path / "a.jpg") == (40, 24)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_images_are_refused(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = write(tmp_path / f"a.{suffix}", noise)
    data = path.read_bytes()
    for keep in (0.1, 0.5, 0.9):
        path.write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(InputError, match=f"a.{suffix}.*truncated"):
            read_image(path)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jpg.*cannot be read"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.jpg.*is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"text\.jpg.*not an image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"text\.jpg.*not an image"):
        read_size(tmp_path / "text.jpg")
    with pytest.raises(InputError, match=r"none\.jpg"):
        read_size(tmp_path / "none.jpg")
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 5, 5, 8, 2, 0, 0, 0) + b"0000IEND"
    with pytest.raises(InputError):
        decode_image(header)


def test_arrays() -> None:
    np.testing.assert_array_equal(as_rgb(RAMP / 255.0), RAMP)
    np.testing.assert_array_equal(as_rgb(RAMP[..., :1]), np.repeat(RAMP[..., :1], 3, axis=2))
    for wrong in (np.zeros((3, 4, 2)), np.zeros((0, 4, 3)), np.zeros(5), np.full((2, 2, 3), np.nan)):
        with pytest.raises(InputError, match="expected"):
            as_rgb(wrong)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        as_rgb(np.full((2, 2, 3), 255.0))
    with pytest.raises(InputError, match="int32"):
        as_rgb(np.zeros((2, 2, 3), np.int32))


def test_face_box() -> None:
    landmarks = np.array([[1, 2], [np.nan, np.nan], [5, 9]], np.float32)
    given = np.array([0, 0, 10, 10], np.float32)
    assert FaceSample(Path("a"), landmarks=landmarks).face_box().tolist() == [1, 2, 5, 9]
    assert FaceSample(Path("a"), given, landmarks).face_box() is given
    assert FaceSample(Path("a"), given, landmarks).face_box(landmarks) is given
    for bare in (
        FaceSample(Path("a.jpg")),
        FaceSample(Path("a.jpg"), landmarks=np.full((2, 2), np.nan, np.float32)),
    ):
        with pytest.raises(InputError, match=r"a\.jpg.*neither a box nor landmarks"):
            bare.face_box()


def test_partly_labelled_faces_get_the_box_of_their_full_labels() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    three = (square * 10 + 5).astype(np.float32)
    three[2] = np.nan
    sample = FaceSample(Path("a.jpg"), landmarks=three)
    assert sample.is_partly_labelled
    assert sample.face_box(square).tolist() == pytest.approx([5, 5, 15, 15])
    boxed = with_full_box(sample, square)
    assert boxed.box is not None
    assert boxed.box.tolist() == pytest.approx([5, 5, 15, 15])
    assert boxed.landmarks is three
    full = FaceSample(Path("b.jpg"), landmarks=square)
    given = replace(sample, box=np.array([0, 0, 9, 9], np.float32))
    for same in (full, given, FaceSample(Path("c.jpg")), FaceSample(Path("d.jpg"), landmarks=three[1:])):
        assert with_full_box(same, square) is same
    two = FaceSample(Path("e.jpg"), landmarks=np.where([[1], [0], [1], [0]], three, np.nan).astype(np.float32))
    for face, mean, says in (
        (two, square, "e.jpg: 1 of 4 .*at least 3"),
        (sample, None, "a.jpg: 3 of 4 .*no mean_face"),
    ):
        with pytest.raises(InputError, match=says):
            with_full_box(face, mean)


def test_the_usual_face_of_a_scheme_without_a_mean_face_is_that_of_its_full_labels() -> None:
    scheme = LandmarkScheme("square", ("a", "b", "c", "d"))
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    partly = square.copy()
    partly[0] = np.nan
    faces = [FaceSample(Path(str(i)), landmarks=p) for i, p in enumerate((partly, square * 7, square * 3 + 2))]
    usual = usual_face(faces, scheme)
    assert usual is not None
    assert full_box(partly, usual).tolist() == pytest.approx([0, 0, 1, 1], abs=1e-6)
    assert usual_face(faces[:1], scheme) is None
    assert usual_face(faces, load_scheme("ibug-68")) is not None
