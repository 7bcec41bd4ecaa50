"""Videos in and out, broken ones, and `fewmark track` on a tiny one."""

from __future__ import annotations

import csv
import json
import os
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.data.synthetic.faces import render_faces
from fewmark.landmarks.scheme import load_scheme
from fewmark.video.reader import Frame, Video, camera_number, read_video
from fewmark.video.writer import VideoWriter

FPS = 12.5


def bars(n: int, size: tuple[int, int] = (96, 128)) -> list[NDArray[np.uint8]]:
    """A grey image whose upper left quarter is red, brighter from frame to frame."""
    frames = []
    for i in range(n):
        image = np.full((*size, 3), 20 + 5 * i, np.uint8)
        image[: size[0] // 2, : size[1] // 2] = (200, 20, 20)
        frames.append(image)
    return frames


def write_video(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    if path.suffix == ".mp4":
        with VideoWriter(path, FPS) as film:
            for i, frame in enumerate(frames):
                film.write(frame, i / FPS)
    else:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, frames[0].shape[1::-1])
        for frame in frames:
            writer.write(frame[..., ::-1])
        writer.release()
    return path


def backends() -> list[str]:
    try:
        import av  # noqa: F401
    except ImportError:
        return ["cv2"]
    return ["cv2", "av"]


@pytest.fixture(params=backends())
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def frames_of(path: Path, backend: str) -> tuple[list[Frame], Video]:
    video = read_video(path, backend=backend)  # type: ignore[arg-type]
    return list(video), video


def test_frames_come_with_their_times(tmp_path: Path, backend: str) -> None:
    frames, video = frames_of(write_video(tmp_path / "a.mp4", bars(20)), backend)
    assert video.fps == pytest.approx(FPS)
    assert video.n_frames == 20
    assert video.notes == []
    assert [f.index for f in frames] == list(range(20))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(20) / FPS, atol=1e-3)
    for frame, true in zip(frames, bars(20), strict=True):
        assert np.abs(frame.image.astype(int) - true).mean() < 12  # RGB, and the right frame
        assert frame.image[10, 10, 0] > 150 > frame.image[10, 10, 2]


def test_a_video_that_is_stored_lying_comes_upright(tmp_path: Path, backend: str) -> None:
    path = write_video(tmp_path / "a.mp4", bars(3))
    data = path.read_bytes()
    unit = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)  # to be shown a quarter clockwise
    at = data.index(unit, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + len(turned) :])
    image = frames_of(path, backend)[0][0].image
    assert image.shape == (128, 96, 3)
    assert image[10, 85, 0] > 150 > image[10, 85, 2]  # upper left became upper right
    assert abs(int(image[10, 10, 0]) - int(image[10, 10, 2])) < 40


def test_a_video_that_is_cut_off_gives_what_it_has(tmp_path: Path, backend: str) -> None:
    path = write_video(tmp_path / "a.avi", bars(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, video = frames_of(path, backend)
    assert 3 < len(frames) < 28
    assert "a.avi" in " ".join(video.notes)


def test_a_track_of_an_odd_size_has_an_overlay_of_that_size(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "frames"
    path.mkdir()
    for i, image in enumerate(bars(6, (53, 97))):
        cv2.imwrite(str(path / f"{i}.png"), image[..., ::-1])
    assert cli.json("track", "ibug-68", path, "--out", tmp_path / "r", "--overlay", "--fps", 4)["fps"] == 4
    for backend in backends():
        frames, _ = frames_of(tmp_path / "r/overlay.mp4", backend)
        assert frames[0].image.shape == (53, 97, 3)
        assert len(frames) == 12  # each twice: fewer than 5 frames a second are repeated
        assert frames[-1].time_s == pytest.approx(11 / 8)


def test_what_is_no_video(tmp_path: Path, backend: str) -> None:
    cut = write_video(tmp_path / "cut.mp4", bars(9))
    cut.write_bytes(cut.read_bytes()[:-400])  # its table stands at the end
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    cv2.imwrite(str(tmp_path / "photo.png"), bars(1)[0])
    for name, says in (
        ("cut.mp4", "cut off"),
        ("text.mp4", "cannot be opened"),
        ("empty.mp4", "empty"),
        ("none.mp4", "no such video"),
        ("folder", "a folder without"),
        ("photo.png", "an image; expected a video"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            read_video(tmp_path / name, backend=backend)  # type: ignore[arg-type]
        assert name in str(caught.value)
    with pytest.raises(InputError, match="fps is for a folder"):
        read_video(cut, fps=25)
    with pytest.raises(InputError, match="above 0"):
        read_video(tmp_path / "folder", fps=0)


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", bars(2))
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match='pip install "av>='):
        read_video(path, backend="av")


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(InputError, match="camera 97: not there"):
        read_video(97)
    assert camera_number("2") == 2
    assert camera_number("2.mp4") is None


def test_a_folder_is_read_by_the_numbers_in_its_names(tmp_path: Path) -> None:
    for name, value in (("f10.png", 100), ("f2.png", 20), ("f1.png", 10), (".f0.png", 0)):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), value, np.uint8))
    (tmp_path / "f3.png").write_bytes(b"no image")
    video = read_video(tmp_path, fps=10)
    frames = list(video)
    assert [int(f.image[0, 0, 0]) for f in frames] == [10, 20, 100]
    assert [round(f.time_s, 6) for f in frames] == [0, 0.1, 0.3]
    assert len(video.notes) == 1
    assert "f3.png" in video.notes[0]


def test_times_rise_whatever_the_source_gives() -> None:
    image = bars(1)[0]
    video = Video("x", iter([(5.0, image), (5.0, image), (4.0, image), (6.0, image)]), 10.0, None, [])
    np.testing.assert_allclose([f.time_s for f in video], [0, 0.1, 0.2, 1.0])


def test_a_written_video_plays_at_the_speed_of_its_times(tmp_path: Path) -> None:
    frames = bars(4, (33, 47))
    with VideoWriter(tmp_path / "a.mp4", 10) as film:
        for frame, time_s in zip([*frames, frames[0][:20, :20]], (3.0, 3.1, 3.4, 3.41, 90.0), strict=True):
            film.write(frame, time_s)
    assert "gap of 87 s before 90.00 s" in film.notes[0]
    written, _ = frames_of(tmp_path / "a.mp4", "cv2")
    assert len(written) == 6  # 0, 1, 2 three times, 3 left out, and the last after a gap that is not filled
    assert written[0].image.shape == (33, 47, 3)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(InputError, match=r"\.mp4"):
        VideoWriter(tmp_path / "a.avi", 10)
    with pytest.raises(InputError, match="frames a second"):
        VideoWriter(tmp_path / "a.mp4", 0)


@pytest.fixture(scope="module")
def synthetic_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 frames of a synthetic face that goes to the right."""
    face = list(render_faces(7, load_scheme("ibug-68"), 3, size=120))[6]
    frames = []
    for i in range(16):
        image = np.full((160, 240, 3), 110, np.uint8)
        image[20:140, 20 + 4 * i : 140 + 4 * i] = face.image
        frames.append(image)
    return write_video(tmp_path_factory.mktemp("video") / "face.mp4", frames)


def test_track(cli: Any, synthetic_video: Path, tmp_path: Path) -> None:
    words = ["track", "ibug-68", synthetic_video, "--out", tmp_path / "r", "--overlay"]
    summary = cli.json(*words, "--every", 4, "--max-faces", 1)
    assert summary == json.loads((tmp_path / "r/summary.json").read_text(encoding="utf-8"))
    assert summary["n_frames"] == summary["n_faces"] == 16
    assert summary["n_tracks"] == 1
    assert summary["notes"] == []
    assert summary["jitter"] == {"smoothed": None, "raw": None, "n_still_windows": 0}
    lines = [json.loads(s) for s in (tmp_path / "r/faces.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(s["frame"], s["id"]) for s in lines] == [(i, 1) for i in range(16)]
    assert lines[5]["time_s"] == pytest.approx(5 / FPS)
    assert np.array(lines[5]["landmarks"]).shape == (68, 2)
    moved = np.mean(lines[15]["landmarks"], axis=0) - np.mean(lines[5]["landmarks"], axis=0)
    assert moved == pytest.approx([40, 0], abs=5)
    film, _ = frames_of(tmp_path / "r/overlay.mp4", "cv2")
    assert len(film) == 16
    assert film[0].image.shape == (160, 240, 3)


def test_track_replaces_neither_the_video_nor_earlier_results(cli: Any, synthetic_video: Path, tmp_path: Path) -> None:
    video = tmp_path / "overlay.mp4"
    video.write_bytes(synthetic_video.read_bytes())
    words = ["track", "ibug-68", video, "--overlay", "--seconds", 0.1, "--out"]
    for force in ([], ["--force"]):
        assert "overlay.mp4: an input of this command" in cli.error(*words, tmp_path, *force)
    assert video.read_bytes() == synthetic_video.read_bytes()
    cli(*words, tmp_path / "out")
    first = (tmp_path / "out/faces.jsonl").read_bytes()
    assert cli.json(*words, tmp_path / "out")["out"] == str(tmp_path / "out/results-2")
    assert (tmp_path / "out/results-2/overlay.mp4").is_file()
    assert (tmp_path / "out/faces.jsonl").read_bytes() == first
    cli(*words, tmp_path / "out", "--force")


def test_a_video_whose_name_is_no_utf8(cli: Any, synthetic_video: Path, tmp_path: Path, backend: str) -> None:
    video = tmp_path / os.fsdecode(b"b\xe1.mp4")
    video.write_bytes(synthetic_video.read_bytes())
    out = tmp_path / os.fsdecode(b"out\xe1")
    cli("track", "ibug-68", video, "--out", out, "--overlay", "--seconds", 0.3, "--backend", backend)
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["source"] == str(video)
    assert len(frames_of(out / "overlay.mp4", "cv2")[0]) == 4


def test_track_to_csv_of_a_part(cli: Any, synthetic_video: Path, tmp_path: Path) -> None:
    done = cli(
        "track", "ibug-68", synthetic_video, "--out", tmp_path, "--format", "csv", "--no-smooth", "--seconds", 0.3
    )
    assert "1 track in 4 frames" in done.stdout
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["time_s"] for r in rows] == ["0.0", "0.08", "0.16", "0.24"]
    assert len(rows[0]) == 10 + 68 * 2 + 68
    assert float(rows[0]["x30"]) > 20
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["smoothing"] is None


def test_track_reports_what_is_wrong(cli: Any, synthetic_video: Path, tmp_path: Path) -> None:
    for words, says in (
        (["ibug-68", tmp_path / "none.mp4"], "no such video"),
        (["ibug-68", "96"], "camera 96: not there"),
        (["ibug-68", synthetic_video, "--every", 0], "every"),
        (["ibug-68", synthetic_video, "--scheme", "wings"], "wings"),
        (["ibug-68", synthetic_video, "--seconds", 0], "seconds"),
    ):
        assert says in cli.error("track", *words, "--out", tmp_path / "x")
        assert not (tmp_path / "x/faces.jsonl").exists()
