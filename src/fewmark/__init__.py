"""fewmark: a few labelled faces and many unlabelled ones in, a facial landmark detector out.

The names below are imported when they are first used, so that `import fewmark` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewmark.checkpoint import load_checkpoint, save_checkpoint
    from fewmark.checkpoint_metadata import packaged_names
    from fewmark.config import Config, load_config
    from fewmark.data.formats import read_faces, write_faces
    from fewmark.data.samples import FaceSample, read_image
    from fewmark.detector import Detector
    from fewmark.errors import BadPictureWarning, InputError
    from fewmark.face import Face, to_supervision
    from fewmark.metrics import score
    from fewmark.scheme import LandmarkScheme, load_scheme, scheme_names
    from fewmark.smoothing import Smoothing
    from fewmark.tracking import TrackedFace, Tracker
    from fewmark.training import TrainingData, run_training
    from fewmark.transfer import SchemeTransfer
    from fewmark.transfer_file import load_transfer, save_transfer
    from fewmark.video_in import Frame, read_video

__version__ = "0.1.0"

_HOMES = {
    "BadPictureWarning": "errors",
    "Config": "config",
    "Detector": "detector",
    "Face": "face",
    "FaceSample": "data.samples",
    "Frame": "video_in",
    "InputError": "errors",
    "LandmarkScheme": "scheme",
    "SchemeTransfer": "transfer",
    "Smoothing": "smoothing",
    "TrackedFace": "tracking",
    "Tracker": "tracking",
    "TrainingData": "training",
    "load_checkpoint": "checkpoint",
    "load_config": "config",
    "load_scheme": "scheme",
    "load_transfer": "transfer_file",
    "packaged_names": "checkpoint_metadata",
    "read_faces": "data.formats",
    "read_image": "data.samples",
    "read_video": "video_in",
    "run_training": "training",
    "save_checkpoint": "checkpoint",
    "save_transfer": "transfer_file",
    "scheme_names": "scheme",
    "score": "metrics",
    "to_supervision": "face",
    "write_faces": "data.formats",
}

__all__ = [
    "BadPictureWarning",
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
