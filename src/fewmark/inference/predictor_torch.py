"""Landmarks by torch: the networks of a model file, students in an ensemble or a cascade."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fewmark.core.geometry import Box, Image
from fewmark.inference.cascade.frames import face_angle, scheme_mean_face
from fewmark.inference.cascade.predict import look
from fewmark.inference.cascade.serialization import cascade_modules
from fewmark.inference.cascade.state import FaceState
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.predictor import CropPrediction, LandmarkPredictor, Prediction
from fewmark.landmarks.label_bias import with_bias
from fewmark.models.ensemble import Ensemble, to_tensor


class TorchPredictor(LandmarkPredictor):
    """Finds the landmarks of faces.

    It may be used from many threads. A forked process runs torch on one thread: the others were not forked, and would be waited for.

    Args:
        checkpoint: whose networks are moved to the device and to evaluation mode, channels last in memory.
        device: where they run.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> None:
        super().__init__(checkpoint)
        self.device = torch.device(device)
        students, cascade = checkpoint.students, checkpoint.cascade
        self._ensemble: Ensemble | None = None
        if cascade is None:
            codecs = [s.codec for s in students]
            teacher = None if checkpoint.teacher is None else checkpoint.teacher.module
            modules = [s.module for s in students]
            self._ensemble = Ensemble(modules, codecs, checkpoint.scheme.mirror, teacher, checkpoint.bias_px)
        networks = [] if cascade is None else list(cascade_modules(cascade).values())
        for network in [self._ensemble] if self._ensemble is not None else networks:
            network.to(self.device).eval()
            for parameter in network.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def predict_crops(self, crops: NDArray[np.uint8], *, flip: bool) -> CropPrediction:
        """See `LandmarkPredictor.predict_crops`; of students."""
        assert self._ensemble is not None
        prediction = self._ensemble.predict(to_tensor(crops, self.device), flip=flip)
        quality = None if prediction.quality is None else prediction.quality.cpu().numpy()
        return CropPrediction(prediction.landmarks.cpu().numpy(), prediction.scores.cpu().numpy(), quality)

    def _look(
        self,
        images: Sequence[Image],
        boxes: Sequence[Box],
        rows: Sequence[int],
        found: Prediction,
        *,
        again: bool,
        flip: bool,
    ) -> None:
        """Of a cascade, another pass begins upright, by the angle of the landmarks of the one before."""
        cascade = self.checkpoint.cascade
        if cascade is None:
            super()._look(images, boxes, rows, found, again=again, flip=flip)
            return
        turns = "angle" in [s.name for s in cascade.stages]
        if again and turns:
            mean_face = scheme_mean_face(self.checkpoint.scheme)
            found.angles[rows] = [face_angle(found.landmarks[i], mean_face) for i in rows]
            cascade = cascade.without("angle")
        starts = [FaceState(boxes[i], angle=float(found.angles[i])) for i in rows]
        bias = self.checkpoint.label_bias
        for i, face in zip(rows, look(cascade, [images[i] for i in rows], starts, flip=flip), strict=True):
            found.landmarks[i] = face.landmarks
            if bias is not None:  # no crop whose box it could be a part of
                found.landmarks[i] = with_bias(found.landmarks[i : i + 1], bias)[0]
            if face.scores is not None:
                found.scores[i] = face.scores
            found.angles[i] = face.angle


def _after_fork() -> None:
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
