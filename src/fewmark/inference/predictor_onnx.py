"""Landmarks by ONNX Runtime, from an exported model; safe in threads and in forked and spawned processes."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.install import install_hint
from fewmark.inference.checkpoint.exported import ExportedModel, read_exported
from fewmark.inference.predictor import CropPrediction, LandmarkPredictor

_LOG_ERRORS = 3  # ONNX Runtime's log level: errors and fatal ones
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxPredictor(LandmarkPredictor):
    """Predicts landmarks by an exported model.

    A session is safe to use from many threads. It does not survive a fork and cannot be pickled, so each process makes its own, at
    its first call.

    Args:
        model: An .onnx file that `fewmark export` wrote, or one that is already in memory.
        threads: CPU threads; None: one per core.

    Raises:
        InputError: The file is missing, truncated, not written by fewmark or of another format version, its weights are missing, or
            onnxruntime is not installed.
    """

    def __init__(self, model: str | Path | ExportedModel, *, threads: int | None = None) -> None:
        exported = model if isinstance(model, ExportedModel) else read_exported(model)
        super().__init__(exported.checkpoint())
        self.path, self.threads = exported.path.absolute(), threads
        self._model = exported.graph
        self._sessions: dict[int, Any] = {}  # process -> its session
        # exports of older versions have no quality
        self._outputs = [output.name for output in self._session().get_outputs()]
        _predictors.add(self)

    def predict_crops(self, crops: NDArray[np.uint8], *, flip: bool) -> CropPrediction:
        """See `LandmarkPredictor.predict_crops`."""
        if not len(crops):  # graphs of older versions and of group norms cannot
            k = self.checkpoint.scheme.n_landmarks
            quality = np.empty(0, np.float32) if "quality" in self._outputs else None
            return CropPrediction(np.empty((0, k, 2), np.float32), np.empty((0, k), np.float32), quality)
        feed: dict[str, Any] = {"crops": crops}
        if self.checkpoint.scheme.mirror is not None:
            feed["flip"] = np.array(flip)
        found = dict(zip(self._outputs, self._session().run(self._outputs, feed), strict=True))
        return CropPrediction(found["landmarks"], found["scores"], found.get("quality"))

    def _session(self) -> Any:
        process = os.getpid()
        if process not in self._sessions:
            session = make_session(self._model, self.path, self.threads)
            self._sessions.setdefault(process, session)  # unless another thread was faster
        return self._sessions[process]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _predictors.add(self)

    def _leak_sessions(self) -> None:
        """Leak the parent process's sessions: ending one would wait for threads that the fork did not copy."""
        for session in self._sessions.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
        self._sessions = {}


_predictors: weakref.WeakSet[OnnxPredictor] = weakref.WeakSet()


def _after_fork() -> None:
    for predictor in list(_predictors):
        predictor._leak_sessions()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def find_onnx_export(model: Path) -> ExportedModel | None:
    """The export alongside a model file: NAME.onnx next to NAME.safetensors.

    Returns:
        None unless onnxruntime is installed and the export was made from just this file, without quantization.
    """
    path = model.with_suffix(".onnx")
    if not path.is_file() or importlib.util.find_spec("onnxruntime") is None:
        return None
    try:
        exported = read_exported(path)
        return exported if exported.export.get("int8") is None and exported.is_from(model) else None
    except InputError:
        return None


def make_session(model: bytes, path: Path, threads: int | None) -> Any:
    """Start an ONNX Runtime session on the CPU.

    Args:
        model: Contents of the ONNX file.
        path: The file; its folder holds the weights if they are in another file.
        threads: See `OnnxPredictor`.

    Raises:
        InputError: onnxruntime is not installed, or it cannot run the model.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise InputError(f"{path}: an .onnx file needs onnxruntime: {install_hint('', 'onnxruntime')}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
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
