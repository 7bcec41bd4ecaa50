"""Landmarks by ONNX Runtime: the network of an exported model, in as many threads and processes as there are."""

from __future__ import annotations

import base64
import binascii
import ctypes
import importlib.util
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from fewmark.core.errors import InputError
from fewmark.inference.checkpoint.metadata import read_metadata, require
from fewmark.inference.checkpoint.model import Checkpoint, checkpoint_from_metadata
from fewmark.inference.checkpoint.onnx_metadata import TENSORS_KEY, file_hash, read_properties
from fewmark.inference.predictor import CropPrediction, LandmarkPredictor

_ERRORS_AND_FATAL = 3  # of ONNX Runtime's levels of log messages
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxPredictor(LandmarkPredictor):
    """Finds the landmarks of faces by an exported model.

    A session is safe to use from many threads. It does not survive a fork and cannot be pickled, so every process makes its
    own, at its first call.

    Args:
        path: an .onnx file that `fewmark export` wrote; read now.
        threads: of the CPU; None: one a core.

    Raises:
        InputError: no such file, a truncated or a foreign one, one of another format version, one whose weights are
            missing, or onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        self.path, self.threads = Path(path).absolute(), threads
        super().__init__(load_exported(path))
        self._model = self.path.read_bytes()
        self._sessions: dict[int, Any] = {}  # process -> its session
        # a file of an older version has no quality
        self._outputs = [output.name for output in self._session().get_outputs()]
        _predictors.add(self)

    def predict_crops(self, crops: NDArray[np.uint8], *, flip: bool) -> CropPrediction:
        """See `LandmarkPredictor.predict_crops`."""
        feed: dict[str, Any] = {"crops": crops}
        if self.checkpoint.scheme.mirror is not None:
            feed["flip"] = np.array(flip)
        found = dict(zip(self._outputs, self._session().run(self._outputs, feed), strict=True))
        return CropPrediction(found["landmarks"], found["scores"], found.get("quality"))

    def _session(self) -> Any:
        process = os.getpid()
        if process not in self._sessions:
            session = make_session(self._model, self.path, self.threads)
            self._sessions.setdefault(process, session)  # another thread may have been faster
        return self._sessions[process]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _predictors.add(self)

    def _forget(self) -> None:
        """Leave the sessions of the process before a fork as they are: to end one is to wait for threads that are not here."""
        for session in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        self._sessions = {}


_predictors: weakref.WeakSet[OnnxPredictor] = weakref.WeakSet()


def _after_fork() -> None:
    for locator in list(_predictors):
        locator._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def load_exported(path: str | Path) -> Checkpoint:
    """What an exported model says about itself; its `students` are none, and its `flip` is the file's.

    Raises:
        InputError: see `OnnxPredictor`.
    """
    data, where = read_metadata(path), str(path)
    tensors: dict[str, NDArray[Any]] = {}
    try:
        if carried := read_properties(path).get(TENSORS_KEY):
            tensors = safetensors.numpy.load(base64.b64decode(carried, validate=True))
    except (SafetensorError, binascii.Error) as error:
        raise InputError(
            f"{path}: what it carries beside the network cannot be read ({error}); copy it again"
        ) from error
    checkpoint = checkpoint_from_metadata(data, tensors, where)
    export = require(data, "export", where)
    weights = None if export.get("weights") is None else Path(path).absolute().parent / export["weights"]
    if weights is not None and (not weights.is_file() or file_hash(weights) != export.get("source")):
        given = "another file of that name" if weights.is_file() else "none"
        raise InputError(
            f"{path}: expected {weights.name}, whose weights it shares, beside it, given {given}; export it again"
        )
    model = {**checkpoint.config.get("model", {}), "flip": bool(require(export, "flip", where))}
    checkpoint.config = {**checkpoint.config, "model": model}
    return checkpoint


def find_onnx_export(model: Path) -> Path | None:
    """The exported model beside a model file: NAME.onnx beside NAME.safetensors, if it was made from just this file, answers
    as it does (no int8), and onnxruntime is installed."""
    beside = model.with_suffix(".onnx")
    if not beside.is_file() or importlib.util.find_spec("onnxruntime") is None:
        return None
    try:
        export = read_metadata(beside).get("export", {})
    except InputError:
        return None
    same = export.get("int8") is None and export.get("source") == file_hash(model)
    return beside if same else None


def make_session(model: bytes, path: Path, threads: int | None) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: the ONNX file.
        path: where it lies, for its weights where they are in another file, and for messages.
        threads: see `OnnxPredictor`.

    Raises:
        InputError: onnxruntime is not installed, or it cannot run the model.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise InputError(f'{path}: an .onnx file needs onnxruntime: pip install "fewmark[onnx]"') from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_AND_FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent))
    kinds = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except tuple(getattr(state, kind) for kind in kinds) as error:
        raise InputError(
            f"{path}: ONNX Runtime {onnxruntime.__version__} cannot run it ({error}); export the model again, or install a "
            "newer onnxruntime"
        ) from error
