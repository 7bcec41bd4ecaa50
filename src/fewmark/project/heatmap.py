"""Where a model sees landmarks: its highest heatmap at each place of a face's crop."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box
from fewmark.data.crops import cut_from_image
from fewmark.data.images import read_image
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.face_detection.base import adapt_box
from fewmark.models.ensemble import Ensemble, to_tensor


@dataclass(frozen=True, eq=False)
class FaceHeatmap:
    """The heatmaps of a face, all landmarks in one.

    Attributes:
        values: (h, w) from 0 to 1: 1 is where a landmark's heatmap has its peak, and where the model is in doubt a peak is wide.
        square: (4,) x0, y0, x1, y1 of the crop that they cover, image px.
    """

    values: NDArray[np.float32]
    square: Box


@torch.inference_mode()
def face_heatmap(model: Path, image: Path, box_xyxy: Box) -> FaceHeatmap:
    """What a model sees in a face.

    Args:
        model: A file of students.
        image: The picture.
        box_xyxy: (4,) the face's box by the face detector, image px.

    Raises:
        InputError: The model's file is not there, or it is a cascade, which has no heatmaps of the whole face.
    """
    if not model.is_file():
        raise InputError(f"{model}: the model is not where it was; put it back, or train again")
    checkpoint, ensemble = _load(model, model.stat().st_mtime_ns)
    crop_from_image = checkpoint.crop.crop_from_image(
        adapt_box(box_xyxy, checkpoint.box_from_detector or (0.0, 0.0, 1.0))
    )
    size = checkpoint.crop.size
    crop = cut_from_image(read_image(image), crop_from_image, size)
    maps = ensemble.codec.peak_normalised(ensemble(to_tensor(crop[None])))
    corners = crop_from_image.inverse()(np.array([[-0.5, -0.5], [size - 0.5, size - 0.5]]))
    return FaceHeatmap(maps[0].amax(0).clamp(0, 1).numpy(), np.asarray(corners, np.float32).reshape(4))


@lru_cache(maxsize=1)
def _load(model: Path, changed: int) -> tuple[Checkpoint, Ensemble]:
    del changed  # a part of the key: a model that is written anew is read anew
    checkpoint = load_checkpoint(model)
    if not checkpoint.students:
        raise InputError(
            f"{model}: expected a model of students, given a cascade, which has no heatmaps of the whole face"
        )
    modules, codecs = zip(*((s.module, s.codec) for s in checkpoint.students), strict=True)
    return checkpoint, Ensemble(modules, codecs).eval()
