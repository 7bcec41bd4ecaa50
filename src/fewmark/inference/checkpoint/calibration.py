"""A calibration in a model file that stands already."""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.inference.checkpoint.metadata import METADATA_KEY, read_metadata
from fewmark.landmarks.calibration import ErrorCalibration


def put_calibration(model: str | Path, calibration: ErrorCalibration) -> None:
    """Put a calibration into a model file; one that is there is replaced, and all else stays as it is.

    Args:
        model: a .safetensors file that fewmark wrote.
        calibration: of as many landmarks as the model's scheme has.

    Raises:
        InputError: no such file, no model, another number of landmarks, or the file cannot be read or written.
    """
    if not Path(model).is_file():
        raise InputError(
            f"{model}: expected a model file to put the calibration into; copy a packaged model to a file first"
        )
    if Path(model).suffix == ".onnx":
        raise InputError(f"{model}: is exported; put the calibration into its .safetensors file and export that again")
    data = read_metadata(model)
    data["calibration"] = calibration.to_dict()
    n_landmarks = len(data["scheme"]["landmarks"])
    ErrorCalibration.from_dict(data["calibration"], n_landmarks)
    try:
        tensors = safetensors.numpy.load_file(model)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{model}: its tensors cannot be read ({error}); copy the file again") from error
    raw = safetensors.numpy.save(tensors, {METADATA_KEY: json.dumps(data, ensure_ascii=False, allow_nan=False)})
    with atomic_path(model) as temporary:
        temporary.write_bytes(raw)
