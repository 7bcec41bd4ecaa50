"""Images that would take a machine's memory or time, or that are none: one line, and the others of a batch are answered."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fewmark import BadImageWarning, Detector
from fewmark.core.errors import InputError
from fewmark.data.image_limit import VARIABLE, count_pixels
from fewmark.data.images import read_image, write_image
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference.face_detection.base import SlimeFaceDetector
from fewmark.landmarks.scheme import load_scheme


def bomb(kind: str) -> bytes:
    """A small file that states 50,000 x 50,000 px."""
    size = (50_000).to_bytes(4, "big")
    small = np.zeros((8, 8, 3), np.uint8)
    if kind == "png":
        data = bytearray(cv2.imencode(".png", small)[1].tobytes())
        data[16:24] = size + size
    elif kind == "jpg":
        data = bytearray(cv2.imencode(".jpg", small)[1].tobytes())
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = size[2:] + size[2:]
    else:
        data = bytearray(cv2.imencode(".bmp", small)[1].tobytes())
        data[18:26] = (50_000).to_bytes(4, "little") * 2
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp"])
def test_more_pixels_than_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(bomb(kind))
    assert count_pixels(bomb(kind)) == 2_500_000_000
    with pytest.raises(InputError, match=r"bomb\.\w+: 2,500 million pixels, expected at most 250 million; reduce"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif", ".ppm"])
def test_the_limit_is_by_the_header_of_each_format(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (30, 20)).save(path)
    assert count_pixels(path.read_bytes()) == 600
    monkeypatch.setenv(VARIABLE, "600")
    assert read_image(path).shape == (20, 30, 3)
    monkeypatch.setenv(VARIABLE, "599")
    with pytest.raises(InputError, match="million pixels, expected at most"):
        read_image(path)
    monkeypatch.setenv(VARIABLE, "many")
    with pytest.raises(InputError, match=f"{VARIABLE}: expected a number of pixels, given 'many'"):
        read_image(path)


def test_a_bomb_stops_no_batch(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb("png"))
    write_image(tmp_path / "good.png", np.zeros((40, 40, 3), np.uint8))
    with pytest.warns(BadImageWarning, match="2,500 million pixels"):
        found = Detector("ibug-68-nano").detect_batch([tmp_path / "bomb.png", tmp_path / "good.png"])
    assert [len(faces) for faces in found] == [0, 0]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc, which says the memory of a process")
@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (3, 20_000)])
def test_a_line_of_pixels_takes_no_square_of_them(shape: tuple[int, int]) -> None:
    code = (
        "import re, sys\nimport numpy as np\nfrom fewmark import Detector\n"
        "h, w = int(sys.argv[1]), int(sys.argv[2])\n"
        "assert Detector('ibug-68-nano', threads=1).detect(np.zeros((h, w, 3), np.uint8)) == []\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    words = [sys.executable, "-c", code, *map(str, shape)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) < 600_000  # kB


def test_a_face_in_a_huge_image_is_found_where_it_is(tmp_path: Path) -> None:
    render_dataset(tmp_path, 1, scheme=load_scheme("ibug-68"), seed=1, size=320)
    face = read_image(next((tmp_path / "images").iterdir()))
    small = SlimeFaceDetector()(face)[0].box_xyxy
    scale = 5000 / face.shape[1]
    large = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    found = SlimeFaceDetector()(np.asarray(large, np.uint8))[0].box_xyxy
    assert found / scale == pytest.approx(small, abs=0.05 * face.shape[1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes, which this system lacks")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="given a pipe"):
        read_image(tmp_path / "a.jpg")


def test_a_gif_that_is_called_a_jpeg_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (12, 9), (250, 0, 0)).save(tmp_path / "a.jpg", format="GIF")
    assert read_image(tmp_path / "a.jpg")[0, 0].tolist() == [250, 0, 0]
