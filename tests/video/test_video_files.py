"""Video files of all containers: frame rates, uneven times, wrong heads, cut ends and damage, alike by both readers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.video.containers import Container, read_container
from fewmark.video.files import frame_rate
from fewmark.video.reader import Frame, Video, read_video
from fewmark.video.writer import VideoWriter

av = pytest.importorskip("av", reason="needs PyAV: pip install av")

EVEN = np.arange(40) / 25
UNEVEN = np.cumsum([0, *np.random.default_rng(0).integers(10, 120, 39)]) / 1000
BACKENDS = ("av", "cv2")


def noise(i: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    image = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
    image[:, : size[1] // 2] = 40 + 3 * i
    return image


def write(path: Path, codec: str, times: Any, rate: int = 1000, pix: str = "yuv420p", **options: str) -> Path:
    """A file of frames at times, s; `rate` is the resolution of times."""
    with av.open(str(path), "w", options=options) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix
        stream.codec_context.time_base = Fraction(1, rate)
        for i, time_s in enumerate(times):
            frame = av.VideoFrame.from_ndarray(noise(i), format="rgb24")
            frame.pts, frame.time_base = round(time_s * rate), Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def by(backend: str, path: Path) -> tuple[list[Frame], Video]:
    video = read_video(path, backend=backend)  # type: ignore[arg-type]
    return list(video), video


def browser_webm(path: Path) -> Path:
    """A recording as browsers write it: no frame rate, no duration, no length of segment and clusters."""
    data = bytearray(write(path, "libvpx", UNEVEN, live="1").read_bytes())
    for name in (b"\x23\xe3\x83", b"\x44\x89"):
        if (at := data.find(name, 0, 400)) > 0:
            total = len(name) + 1 + (data[at + len(name)] & 0x7F)
            data[at : at + total] = bytes([0xEC, 0x80 | (total - 2)]) + bytes(total - 2)
    path.write_bytes(data)
    return path


def avi(path: Path, *, rate: tuple[int, int] = (1, 25), n_listed: int = 40) -> Path:
    """MJPEG whose head states a rate (scale, rate) and a number of frames."""
    data = bytearray(write(path, "mjpeg", EVEN, rate=25, pix="yuvj420p").read_bytes())
    head, stream = data.find(b"avih"), data.find(b"strh")
    struct.pack_into("<I", data, head + 8 + 16, n_listed)
    struct.pack_into("<II", data, stream + 8 + 20, *rate)
    struct.pack_into("<I", data, stream + 8 + 32, n_listed)
    path.write_bytes(data)
    return path


def cut(path: Path, fraction: float = 0.6) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data)) | 1])
    return path


WHOLE: dict[str, Callable[[Path], Path]] = {
    "even.mp4": lambda p: write(p, "mpeg4", EVEN, rate=25, movflags="faststart"),
    "uneven.mp4": lambda p: write(p, "mpeg4", UNEVEN, movflags="faststart"),
    "pieces.mp4": lambda p: write(p, "mpeg4", EVEN, rate=25, movflags="frag_keyframe+empty_moov"),
    "uneven.webm": lambda p: write(p, "libvpx", UNEVEN),
    "browser.webm": browser_webm,
    "uneven.mkv": lambda p: write(p, "mpeg4", UNEVEN),
    "even.avi": avi,
    "mpeg4.avi": lambda p: write(p, "mpeg4", EVEN, rate=25),
    "even.ts": lambda p: write(p, "mpeg2video", EVEN, rate=25),
    "uneven.gif": lambda p: write(p, "gif", np.round(UNEVEN, 2), rate=100, pix="rgb8"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_both_readers_give_the_true_times_and_a_rate_of_them(name: str, tmp_path: Path) -> None:
    path = WHOLE[name](tmp_path / name)
    true = EVEN if "uneven" not in name and "browser" not in name else UNEVEN
    for backend in BACKENDS:
        frames, video = by(backend, path)
        assert len(frames) == 40
        np.testing.assert_allclose([f.time_s for f in frames], true, atol=0.011 if "gif" in name else 2e-3)
        assert video.notes == []
        assert video.n_frames in (None, 40)
        if true is EVEN:
            assert video.fps == pytest.approx(25)
        else:
            assert 10 < video.fps < 25  # 17 frames a second, and long pauses do not count


@pytest.mark.parametrize("name", WHOLE)
def test_both_readers_note_that_a_file_is_cut_off(name: str, tmp_path: Path) -> None:
    path = cut(WHOLE[name](tmp_path / name))
    for backend in BACKENDS:
        frames, video = by(backend, path)
        assert 10 < len(frames) < 39
        note = " ".join(video.notes)
        assert f"{name}: cut off: it ends after {len(frames)} frames, the last at {frames[-1].time_s:.2f} s" in note
        assert "the rest is missing" in note


def test_a_cut_file_without_its_index_says_so(tmp_path: Path) -> None:
    path = cut(write(tmp_path / "a.mp4", "mpeg4", EVEN, rate=25))
    for backend in BACKENDS:
        with pytest.raises(InputError, match="it is cut off"):
            by(backend, path)


@pytest.mark.parametrize(
    ("rate", "fps", "note"),
    [
        ((0, 0), 25, ""),
        ((1, 0), 25, ""),
        ((1, 1000), 1000, ""),
        ((1, 90000), 25, "90000 frames a second; 25 are assumed"),
    ],
)
def test_rates_that_an_avi_states(rate: tuple[int, int], fps: float, note: str, tmp_path: Path, cli: Any) -> None:
    path = avi(tmp_path / "a.avi", rate=rate)
    for backend in BACKENDS:
        frames, video = by(backend, path)
        assert len(frames) == 40
        assert video.fps == pytest.approx(fps)
        assert frames[-1].time_s == pytest.approx(39 / fps, rel=1e-3)
        assert [note in n for n in video.notes] == [True] * bool(note)


def test_counts_that_an_avi_states(tmp_path: Path) -> None:
    for listed, note in ((0, ""), (4000, "only 40 frames, the last at 1.56 s, could be read; the file lists 4000")):
        for backend in BACKENDS:
            frames, video = by(backend, avi(tmp_path / "a.avi", n_listed=listed))
            assert len(frames) == 40
            assert [note in n for n in video.notes] == [True] * bool(note)


def test_damage_inside_is_left_out_and_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "mpeg4", EVEN, rate=25)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    path.write_bytes(data)
    for backend in BACKENDS:
        frames, video = by(backend, path)
        assert 30 < len(frames) < 40
        assert frames[-1].time_s == pytest.approx(EVEN[-1])  # up to the end
        assert f"damaged: {40 - len(frames)} frame" in video.notes[0]


def test_damage_that_ends_a_webm_is_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.webm", "libvpx", UNEVEN)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    for backend in BACKENDS:
        frames, video = by(backend, path)
        assert len(frames) < 40
        assert "a.webm: damaged" in video.notes[0]


def test_one_frame(tmp_path: Path) -> None:
    for name, codec in (("a.webm", "libvpx"), ("a.mp4", "mpeg4")):
        for backend in BACKENDS:
            frames, video = by(backend, write(tmp_path / name, codec, [0.0]))
            assert [f.time_s for f in frames] == [0.0]
            assert (video.fps, video.notes) == (25, [])


def test_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.rate, frame.pts = 44100, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    for backend in BACKENDS:
        with pytest.raises(InputError, match="only sound"):
            by(backend, tmp_path / "a.mp4")


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_phones_videos_are_upright(quarters: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "mpeg4", EVEN[:3], rate=25)
    data, one = path.read_bytes(), 0x10000
    matrix = {1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 3: (0, -one, one, 0)}[quarters]  # clockwise
    unit, turned = (struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000) for a, b, c, d in ((one, 0, 0, one), matrix))
    at = data.index(unit, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + len(turned) :])
    true = np.rot90(noise(0), -quarters).astype(int)
    for backend in BACKENDS:
        image = by(backend, path)[0][0].image
        assert image.shape == true.shape
        assert np.abs(cv2.blur(image, (9, 9)) - cv2.blur(true.astype(np.uint8), (9, 9)).astype(int)).mean() < 12


def test_an_image_is_not_a_video_whatever_its_name(tmp_path: Path) -> None:
    for form in (".jpg", ".png", ".webp"):
        (tmp_path / f"photo{form[1:]}").write_bytes(cv2.imencode(form, noise(0))[1].tobytes())
        with pytest.raises(InputError, match="fewmark detect"):
            read_video(tmp_path / f"photo{form[1:]}")
    (tmp_path / "photo.bin").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(InputError, match="fewmark detect"):
        read_video(tmp_path / "photo.bin")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_overlay_of_uneven_frames_lasts_as_long(backend: str, tmp_path: Path, cli: Any) -> None:
    path = cut(browser_webm(tmp_path / "a.webm"), 0.8)
    done = cli("track", "ibug-68", path, "--out", tmp_path / "r", "--overlay", "--backend", backend, "--json")
    assert "a.webm: cut off" in done.stderr
    summary = cli.json("track", "ibug-68", path, "--out", tmp_path / "r", "--overlay", "--backend", backend, "--force")
    assert "a.webm: cut off" in summary["notes"][0]
    film, _ = by("av", tmp_path / "r/overlay.mp4")
    assert film[-1].time_s == pytest.approx(summary["last_frame_s"], abs=1 / summary["fps"])


@pytest.mark.parametrize("size", [(53, 97), (53, 98), (54, 97), (15, 17), (1, 1), (481, 641)])
def test_a_written_video_has_the_size_of_its_frames(size: tuple[int, int], tmp_path: Path) -> None:
    ramp = np.linspace(0, 200, size[1], dtype=np.uint8)[None, :, None]
    for fps in (0.1, 29.97, 1000.0):
        with VideoWriter(tmp_path / "a.mp4", fps) as film:
            for i in range(5):
                film.write(np.broadcast_to(ramp, (*size, 3)) + np.uint8(10 * i), i / fps)
        for backend in BACKENDS:
            frames, _ = by(backend, tmp_path / "a.mp4")
            assert frames[0].image.shape == (*size, 3)
            assert np.abs(frames[0].image - ramp.astype(int)).mean() < 4
            assert len(frames) / frame_rate([f.time_s for f in frames]) == pytest.approx(5 / fps, rel=1e-3)


def test_rates_of_times() -> None:
    assert frame_rate([0, 0.033, 0.067, 0.1], stated=1000) == pytest.approx(30)
    assert frame_rate(np.arange(99) * 1001 / 30000, stated=30000 / 1001) == 30000 / 1001
    assert frame_rate([0.4, 0, 0.2, 60, 60.2]) == pytest.approx(5)  # in any order, past a pause
    assert (frame_rate([]), frame_rate([1.0], 90000), frame_rate([1.0, 1.0], 30)) == (25, 25, 30)


def test_padding_and_unknown_containers_are_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "mpeg4", EVEN[:3], rate=25)
    path.write_bytes(path.read_bytes() + bytes(99))
    assert read_container(path) == Container("mp4", has_table=True)
    (tmp_path / "b.bin").write_bytes(b"anything")
    assert read_container(tmp_path / "b.bin") == Container()
