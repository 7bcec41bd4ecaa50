"""Images of every kind: files that carry more than an image or less, modes, and what is given instead of an image."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image as Pixels
from fewmark.data.decoders import quiet_cv2
from fewmark.data.image_ends import broken_off
from fewmark.data.images import as_rgb, decode_image, read_image, to_rgb

Y, X = np.mgrid[:96, :128]
SMOOTH = np.stack([(np.sin(X / 19) + 1) * 120, (np.cos(Y / 17) + 1) * 120, (X + Y) % 220], -1).astype(np.uint8)
NOISY = np.clip(SMOOTH + np.random.default_rng(0).normal(0, 12, SMOOTH.shape), 0, 255).astype(np.uint8)
RGB = Image.fromarray(SMOOTH)


def encoded(form: str, image: Image.Image | None = None, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(NOISY)).save(buffer, form, **settings)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF holds another, with its own end marker."""
    small = encoded("JPEG", RGB.resize((32, 24)))
    exif = b"Exif\0\0" + bytes(8) + small
    jpeg = encoded("JPEG")
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


JPEGS = {
    "baseline": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "restarts": encoded("JPEG", restart_marker_blocks=4),
    "cmyk": encoded("JPEG", RGB.convert("CMYK")),
    "grey": encoded("JPEG", RGB.convert("L")),
    "thumbnail": with_thumbnail(),
    "mpo": encoded("MPO", save_all=True, append_images=[RGB]),
}
WHOLE = JPEGS | {
    "png": encoded("PNG"),
    "webp": encoded("WEBP"),
    "bmp": encoded("BMP"),
    "gif": encoded("GIF"),
    "tiff": encoded("TIFF"),
    "tiff lzw": encoded("TIFF", compression="tiff_lzw"),
    "tiff alpha": encoded("TIFF", RGB.convert("RGBA")),
    "ppm": encoded("PPM"),
    "jp2": encoded("JPEG2000"),
}
TRAILERS = {
    "zeros": bytes(200_000),
    "no end marker": b"MotionPhoto_Data" + np.random.default_rng(1).bytes(300_000).replace(b"\xff\xd9", b"\xff\xd8"),
    "another image": encoded("JPEG", RGB.resize((64, 64))),
    "text": b"\n<x:xmpmeta>" * 20,
}


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("name", WHOLE)
def test_what_follows_an_image_is_ignored(name: str, trailer: str) -> None:
    alone = decode_image(WHOLE[name])
    np.testing.assert_array_equal(decode_image(WHOLE[name] + TRAILERS[trailer]), alone)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.75, 0.98])
@pytest.mark.parametrize("name", sorted(set(WHOLE) - {"mpo"}))
def test_an_image_that_breaks_off_is_refused(name: str, fraction: float, capfd: pytest.CaptureFixture[str]) -> None:
    half = WHOLE[name][: int(len(WHOLE[name]) * fraction)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"a\.x: .*truncated") as caught:
            decode_image(half, "a.x")
    assert "\n" not in str(caught.value)
    assert "loadsave" not in capfd.readouterr().err  # cv2's own lines


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("fraction", [0.7, 0.9])
def test_half_a_jpeg_is_not_made_whole_by_what_follows(name: str, trailer: str, fraction: float) -> None:
    first = JPEGS["baseline"] if name == "mpo" else JPEGS[name]  # half of an MPO can be its whole first image
    with pytest.raises(InputError, match="truncated"):
        decode_image(first[: int(len(first) * fraction)] + TRAILERS[trailer])


def test_only_the_first_image_of_several_must_be_whole() -> None:
    np.testing.assert_array_equal(decode_image(JPEGS["mpo"][:-500]), decode_image(JPEGS["mpo"]))


def test_a_thumbnails_end_is_not_the_images() -> None:
    data = JPEGS["thumbnail"]
    end = data.index(b"\xff\xd9") + 2
    for half in (data[:end], data[: end + 400]):
        assert broken_off(half) == "a truncated JPEG (no end marker)"


def test_an_end_marker_before_any_scan_and_markers_of_no_length() -> None:
    for bad in ("ffd8ffd9", "ffd8ffe00000ffd9", "ffd8ffd8ffd9", "ffd8"):
        assert broken_off(bytes.fromhex(bad)) is not None


def test_cv2_speaks_again_afterwards() -> None:
    logging = getattr(cv2.utils, "logging", cv2)
    level = logging.setLogLevel(3)
    try:
        inside, leave = threading.Event(), threading.Event()

        def other() -> None:
            with quiet_cv2():
                inside.set()
                leave.wait(10)

        thread = threading.Thread(target=other)
        with quiet_cv2():
            thread.start()
            inside.wait(10)
        assert logging.setLogLevel(0) == 0  # the other thread is still decoding
        leave.set()
        thread.join()
        assert logging.setLogLevel(3) == 3
    finally:
        logging.setLogLevel(level)


def with_alpha(mode: str) -> Image.Image:
    image = RGB.convert(mode)
    image.putalpha(Image.fromarray((X * 2 % 256).astype(np.uint8)))
    return image


def lab() -> Image.Image:
    to = ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(RGB, ImageCms.createProfile("sRGB"), to, outputMode="LAB")
    assert image is not None
    return image


PALETTE = RGB.quantize(64)
MODES = {
    "1": RGB.convert("1"), "L": RGB.convert("L"), "RGB": RGB, "P": PALETTE, "CMYK": RGB.convert("CMYK"),
    "YCbCr": RGB.convert("YCbCr"), "HSV": RGB.convert("HSV"), "LAB": lab(), "LA": with_alpha("LA"),
    "RGBA": with_alpha("RGBA"), "RGBX": RGB.convert("RGBX"),
}  # fmt: skip
FILES = {
    "CMYK": ("JPEG", "TIFF"), "P": ("PNG", "GIF", "TIFF", "BMP"), "1": ("PNG", "TIFF", "BMP"), "LA": ("PNG", "TIFF"),
    "RGBA": ("PNG", "TIFF"), "L": ("PNG", "TIFF", "BMP"), "LAB": ("TIFF",), "YCbCr": ("JPEG",),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_pillow_images_of_every_mode(mode: str) -> None:
    np.testing.assert_array_equal(as_rgb(MODES[mode]), np.asarray(MODES[mode].convert("RGB")))
    assert MODES[mode].mode == mode


@pytest.mark.parametrize(("mode", "form"), [(m, f) for m, forms in FILES.items() for f in forms])
def test_files_of_every_mode(mode: str, form: str) -> None:
    data = encoded(form, MODES[mode])
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_allclose(decode_image(data).astype(int), expected, atol=1)


def test_pillow_modes_that_have_no_direct_way_to_rgb() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(
            as_rgb(with_alpha("RGBA").convert("RGBa"))[:, 30:60].astype(int), SMOOTH[:, 30:60], atol=5
        )
        grey = np.asarray(RGB.convert("L"))[:, 30:60, None]
        np.testing.assert_allclose(
            as_rgb(with_alpha("LA").convert("La"))[:, 30:60].astype(int), grey.repeat(3, 2), atol=5
        )
        np.testing.assert_array_equal(as_rgb(PALETTE.convert("PA")), as_rgb(PALETTE))
        see_through = Image.open(io.BytesIO(encoded("PNG", PALETTE, transparency=bytes(range(64)))))
        np.testing.assert_array_equal(as_rgb(see_through), as_rgb(PALETTE))


def test_deep_pillow_images() -> None:
    deep = SMOOTH[..., 0].astype(np.uint16) * 257
    expected = SMOOTH[..., :1].repeat(3, 2)
    np.testing.assert_array_equal(as_rgb(Image.fromarray(deep)), expected)
    np.testing.assert_array_equal(decode_image(encoded("TIFF", Image.fromarray(deep))), expected)
    np.testing.assert_array_equal(as_rgb(Image.frombytes("I;16B", (128, 96), deep.astype(">u2").tobytes())), expected)
    unit = Image.fromarray((SMOOTH[..., 0] / 255).astype(np.float32))
    np.testing.assert_array_equal(as_rgb(unit), expected)
    np.testing.assert_array_equal(decode_image(encoded("TIFF", unit)), expected)
    for image, word in ((RGB.convert("F"), r"\[0, 1\].*divide"), (RGB.convert("I"), "mode I .*convert")):
        for call in (lambda i=image: as_rgb(i), lambda i=image: decode_image(encoded("TIFF", i))):
            with pytest.raises(InputError, match=word):
                call()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "TIFF alpha"])
def test_pillow_images_are_turned_upright_like_their_files(form: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = RGB.convert("RGBA") if "alpha" in form else RGB
    image.save(tmp_path / "a", form.split()[0], exif=exif)
    opened = Image.open(io.BytesIO((tmp_path / "a").read_bytes()))
    assert read_image(tmp_path / "a").shape == (128, 96, 3)
    np.testing.assert_allclose(as_rgb(opened).astype(int), read_image(tmp_path / "a"), atol=2)


def test_damaged_and_closed_pillow_images(tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(WHOLE["png"][:5000])
    with pytest.raises(InputError, match="truncated"):
        as_rgb(Image.open(tmp_path / "half.png"))
    (tmp_path / "a.png").write_bytes(WHOLE["png"])
    image = Image.open(tmp_path / "a.png")
    image.close()
    with pytest.raises(InputError, match="open it anew"):
        as_rgb(image)


def test_bytes_and_open_files(tmp_path: Path) -> None:
    data = WHOLE["png"]
    (tmp_path / "a.png").write_bytes(data)
    for given in (
        data,
        bytearray(data),
        memoryview(data),
        io.BytesIO(data),
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
    ):
        np.testing.assert_array_equal(to_rgb(given), NOISY)
        with (tmp_path / "a.png").open("rb") as file:
            np.testing.assert_array_equal(to_rgb(file, bgr=True), NOISY)  # a file knows its order


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.png").write_bytes(WHOLE["png"])
    np.testing.assert_array_equal(read_image("~/a.png"), NOISY)
    np.testing.assert_array_equal(read_image(Path("~/a.png")), NOISY)
    with pytest.raises(InputError, match=r"~/b\.png.*cannot be read"):
        read_image("~/b.png")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~c.png").write_bytes(WHOLE["png"])
    assert read_image("~c.png").shape == NOISY.shape


def test_bgr() -> None:
    for channels in (3, 4):
        image = np.dstack([SMOOTH[..., ::-1], SMOOTH[..., 0]])[..., :channels]
        np.testing.assert_array_equal(to_rgb(image, bgr=True), SMOOTH)
    np.testing.assert_array_equal(to_rgb(SMOOTH[..., 0], bgr=True), SMOOTH[..., :1].repeat(3, 2))
    assert np.shares_memory(to_rgb(SMOOTH), SMOOTH)


class Tensor:
    """What the conversion needs of a torch tensor."""

    def __init__(self, array: np.ndarray, *, failing: bool = False) -> None:
        self.array, self.failing = array, failing
        self.shape = array.shape

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> np.ndarray:
        if self.failing:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


def test_tensors() -> None:
    np.testing.assert_array_equal(to_rgb(Tensor(SMOOTH)), SMOOTH)  # type: ignore[arg-type]
    np.testing.assert_array_equal(to_rgb(Tensor(SMOOTH / np.float32(255))), SMOOTH)  # type: ignore[arg-type]


class Upload:
    """A file whose read is a coroutine, as web frameworks have it."""

    async def read(self) -> bytes:
        return b""


def at_end() -> io.BytesIO:
    buffer = io.BytesIO()
    RGB.save(buffer, "PNG")
    return buffer


def closed() -> io.BytesIO:
    buffer = io.BytesIO(WHOLE["png"])
    buffer.close()
    return buffer


def changed(dtype: Any, factor: float = 1) -> Pixels:
    return (SMOOTH * factor).astype(dtype)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "None.*cv2.imread"),
        ("https://example.org/a.jpg", "web address; download it first"),
        (Path("http://example.org/a.jpg"), "web address; download it first"),
        ("data:image/png;base64,iVBORw0KGgo=", "web address"),
        ("a\0b", "cannot be read"),
        ("n" * 5000, "cannot be read"),
        (b"", "empty"),
        (b"photo.jpg", "not an image"),
        (at_end(), r"seek\(0\)"),
        (closed(), "closed file"),
        (io.StringIO("text"), "binary mode"),
        (Upload(), "await"),
        ([SMOOTH, SMOOTH], "given 2 in a list; call detect_batch"),
        (("a.jpg",), "given 1 in a tuple; call detect_batch"),
        (np.stack([SMOOTH, SMOOTH]), r"\(2, 96, 128, 3\); call detect_batch"),
        (SMOOTH[None], r"give image\[0\]"),
        (SMOOTH.transpose(2, 0, 1), "channels come first.*transpose"),
        (Tensor(SMOOTH.transpose(2, 0, 1)), "channels come first.*permute"),
        (Tensor(SMOOTH, failing=True), "BFloat16"),
        (SMOOTH[..., :2], r"given shape \(96, 128, 2\)"),
        (SMOOTH[:0], r"given shape \(0, 128, 3\)"),
        (SMOOTH > 9, "given bool.*255"),
        (changed(np.int64), "given int64.*uint8"),
        (changed(np.float32), r"\[0, 1\], given 0.0 to .*divide"),
        (changed(np.float64, np.nan), "NaN"),
        (changed(complex), "complex128"),
        (np.array([None]), "expected"),
        (np.array("a.jpg"), "expected"),
        (42, "given int"),
        ({"image": SMOOTH}, "given dict"),
        ((i for i in [SMOOTH]), "given generator"),
    ],
)
def test_what_is_no_image(given: Any, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises(InputError, match=words) as caught:
            to_rgb(given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder; `fewmark detect` takes folders"):
        to_rgb(tmp_path)
