"""Facial landmarks in any annotation scheme: detect them, and train detectors from a few labelled faces and many unlabelled ones.

Detect
    >>> import fewmark
    >>> detector = fewmark.Detector.load("ibug-68")
    >>> faces = detector.detect("photo.jpg")            # doctest: +SKIP
    >>> faces[0].landmarks.shape, faces[0].expected_errors.shape  # doctest: +SKIP
    ((68, 2), (68,))

    `packaged_names()` lists the packaged models. `detect` returns a list of `Face`, empty if there is none. `read_image` reads
    a file as `detect` does. `Tracker` follows the faces of a video (`read_video`), each a `TrackedFace`. `draw_landmarks`
    draws them. `to_supervision` converts faces for the library supervision. An image of a batch that cannot be used is a
    `BadImageWarning`. `export_onnx` writes a model that runs without torch.

Label and read
    `read_faces` and `write_faces` know CSV, COCO, dlib XML and .pts files; a labelled or unlabelled face is a `FaceSample`.
    What they leave out is told by a `DataWarning`.
    `LandmarkScheme` says what the landmarks mean: `scheme_names()` lists the packaged schemes, `load_scheme` reads one.

Work in a folder
    A `Project` holds images, labels with every change, models and what they say; it tells what to label next.

Train
    `train` runs TS3's rounds or the coarse-to-fine cascade; `distill` trains a small model on the predictions of larger ones.
    Both take a `Config` (`load_config("laptop")`) and `TrainingData`, and write a run folder with the model file, metrics and
    a report. `load_checkpoint` and `save_checkpoint` read and write a model file.

Measure
    `evaluate` measures a detector on labelled faces: NME, AUC, failure rate. `score` compares landmarks that you have with
    their truth.

Other schemes
    A `SchemeTransfer` converts landmarks of one scheme to another: `fit_transfer` fits one on faces labelled in both,
    `save_transfer` and `load_transfer` keep it.

Frames: landmarks and boxes are x, y in image pixels, (0, 0) is the centre of the top-left pixel. Images are RGB. A missing
landmark is a row of NaN. What cannot be used raises `InputError`, whose message names the file, what was expected and
what was given.

Every name is imported when it is first used: `import fewmark` costs nothing, and detection with a packaged model needs no torch.
Modules below are internal; only the names listed here are kept stable. Modules of version 0.1 can still be imported by their old names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewmark.core import moved
from fewmark.core.lazy import attach
from fewmark.core.version import __version__ as __version__

if TYPE_CHECKING:
    from fewmark.core.errors import BadImageWarning as BadImageWarning
    from fewmark.core.errors import DataWarning as DataWarning
    from fewmark.core.errors import InputError as InputError
    from fewmark.data.formats.io import read_faces as read_faces
    from fewmark.data.formats.io import write_faces as write_faces
    from fewmark.data.images import read_image as read_image
    from fewmark.data.relabelling import fit_transfer as fit_transfer
    from fewmark.data.samples import FaceSample as FaceSample
    from fewmark.evaluation.evaluate import evaluate as evaluate
    from fewmark.inference.checkpoint.io import load_checkpoint as load_checkpoint
    from fewmark.inference.checkpoint.io import save_checkpoint as save_checkpoint
    from fewmark.inference.checkpoint.metadata import packaged_names as packaged_names
    from fewmark.inference.checkpoint.transfers import load_transfer as load_transfer
    from fewmark.inference.checkpoint.transfers import save_transfer as save_transfer
    from fewmark.inference.detector import Detector as Detector
    from fewmark.inference.export.onnx import export_onnx as export_onnx
    from fewmark.inference.face import Face as Face
    from fewmark.inference.face import to_supervision as to_supervision
    from fewmark.landmarks.metrics import score as score
    from fewmark.landmarks.scheme import LandmarkScheme as LandmarkScheme
    from fewmark.landmarks.scheme import load_scheme as load_scheme
    from fewmark.landmarks.scheme import scheme_names as scheme_names
    from fewmark.landmarks.transfer import SchemeTransfer as SchemeTransfer
    from fewmark.project.project import Project as Project
    from fewmark.training.config import load_config as load_config
    from fewmark.training.faces import TrainingData as TrainingData
    from fewmark.training.run import distill as distill
    from fewmark.training.run import train as train
    from fewmark.training.settings import Config as Config
    from fewmark.video.reader import read_video as read_video
    from fewmark.video.tracker import TrackedFace as TrackedFace
    from fewmark.video.tracker import Tracker as Tracker
    from fewmark.visualization.draw import draw_landmarks as draw_landmarks

moved.install()

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "core.errors": ["BadImageWarning", "DataWarning", "InputError"],
        "data.formats.io": ["read_faces", "write_faces"],
        "data.images": ["read_image"],
        "data.samples": ["FaceSample"],
        "evaluation.evaluate": ["evaluate"],
        "inference.checkpoint.io": ["load_checkpoint", "save_checkpoint"],
        "inference.checkpoint.metadata": ["packaged_names"],
        "inference.checkpoint.transfers": ["load_transfer", "save_transfer"],
        "inference.detector": ["Detector"],
        "data.relabelling": ["fit_transfer"],
        "inference.export.onnx": ["export_onnx"],
        "visualization.draw": ["draw_landmarks"],
        "inference.face": ["Face", "to_supervision"],
        "landmarks.metrics": ["score"],
        "landmarks.scheme": ["LandmarkScheme", "load_scheme", "scheme_names"],
        "landmarks.transfer": ["SchemeTransfer"],
        "project.project": ["Project"],
        "training.config": ["load_config"],
        "training.faces": ["TrainingData"],
        "training.run": ["distill", "train"],
        "training.settings": ["Config"],
        "video.reader": ["read_video"],
        "video.tracker": ["TrackedFace", "Tracker"],
        "core.version": ["__version__"],
    },
)
