"""fewmark: a few labelled faces and many unlabelled ones in, a facial landmark detector out.

The names below are imported when they are first used, so that `import fewmark` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewmark.core.version import __version__

if TYPE_CHECKING:
    from fewmark.core.errors import BadImageWarning, InputError
    from fewmark.data.formats.io import read_faces, write_faces
    from fewmark.data.samples import FaceSample, read_image
    from fewmark.inference.checkpoint.io import load_checkpoint, save_checkpoint
    from fewmark.inference.checkpoint.metadata import packaged_names
    from fewmark.inference.checkpoint.transfers import load_transfer, save_transfer
    from fewmark.inference.detector import Detector
    from fewmark.inference.face import Face, to_supervision
    from fewmark.landmarks.metrics import score
    from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_names
    from fewmark.landmarks.transfer import SchemeTransfer
    from fewmark.training.config import Config, load_config
    from fewmark.training.run import TrainingData, run_training
    from fewmark.video.reader import Frame, read_video
    from fewmark.video.smoothing import Smoothing
    from fewmark.video.tracker import TrackedFace, Tracker


_HOMES = {
    "BadImageWarning": "core.errors",
    "Config": "training.config",
    "Detector": "inference.detector",
    "Face": "inference.face",
    "FaceSample": "data.samples",
    "Frame": "video.reader",
    "InputError": "core.errors",
    "LandmarkScheme": "landmarks.scheme",
    "SchemeTransfer": "landmarks.transfer",
    "Smoothing": "video.smoothing",
    "TrackedFace": "video.tracker",
    "Tracker": "video.tracker",
    "TrainingData": "training.run",
    "load_checkpoint": "inference.checkpoint.io",
    "load_config": "training.config",
    "load_scheme": "landmarks.scheme",
    "load_transfer": "inference.checkpoint.transfers",
    "packaged_names": "inference.checkpoint.metadata",
    "read_faces": "data.formats.io",
    "read_image": "data.samples",
    "read_video": "video.reader",
    "run_training": "training.run",
    "save_checkpoint": "inference.checkpoint.io",
    "save_transfer": "inference.checkpoint.transfers",
    "scheme_names": "landmarks.scheme",
    "score": "landmarks.metrics",
    "to_supervision": "inference.face",
    "write_faces": "data.formats.io",
}

__all__ = [
    "BadImageWarning",
    "Config",
    "Detector",
    "Face",
    "FaceSample",
    "Frame",
    "InputError",
    "LandmarkScheme",
    "SchemeTransfer",
    "Smoothing",
    "TrackedFace",
    "Tracker",
    "TrainingData",
    "__version__",
    "load_checkpoint",
    "load_config",
    "load_scheme",
    "load_transfer",
    "packaged_names",
    "read_faces",
    "read_image",
    "read_video",
    "run_training",
    "save_checkpoint",
    "save_transfer",
    "scheme_names",
    "score",
    "to_supervision",
    "write_faces",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fewmark' has no attribute {name!r}")
    value = getattr(import_module(f"fewmark.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
