"""Landmarks by torch, from an ensemble of students or a cascade."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, Image
from fewmark.inference.cascade.frames import face_angle, scheme_mean_face
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.predict import run_cascade
from fewmark.inference.cascade.serialization import cascade_modules
from fewmark.inference.cascade.state import FaceState
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.predictor import CropPrediction, LandmarkPredictor, Prediction, next_box
from fewmark.landmarks.label_bias import apply_label_bias
from fewmark.models.ensemble import Ensemble, to_tensor


class TorchPredictor(LandmarkPredictor):
    """Predicts landmarks by torch.

    Safe to use from many threads. A forked process runs torch on one thread: waiting for the others, which were not forked, would
    never end.

    Args:
        checkpoint: Its networks are moved to the device, to evaluation mode and to channels-last memory.
        device: Where the networks run.
        threads: CPU threads of the whole process; None: unchanged.

    Raises:
        InputError: torch has no such device.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device | str = "cpu", *, threads: int | None = None
    ) -> None:
        super().__init__(checkpoint)
        self.device = _checked(device)
        if threads is not None:
            torch.set_num_threads(threads)
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
        """See `LandmarkPredictor`; students only."""
        assert self._ensemble is not None
        prediction = self._ensemble.predict(to_tensor(crops, self.device), flip=flip)
        quality = None if prediction.quality is None else prediction.quality.cpu().numpy()
        return CropPrediction(prediction.landmarks.cpu().numpy(), prediction.scores.cpu().numpy(), quality)

    def _run_pass(
        self,
        images: Sequence[Image],
        boxes_xyxy: Sequence[Box],
        rows: Sequence[int],
        angles: NDArray[np.float64],
        *,
        refines: bool,
        flip: bool,
    ) -> Prediction:
        """See `LandmarkPredictor`; a refinement pass of a cascade skips the angle stage."""
        cascade = self.checkpoint.cascade
        if cascade is None:
            return super()._run_pass(images, boxes_xyxy, rows, angles, refines=refines, flip=flip)
        if refines and _finds_angle(cascade):
            cascade = cascade.without("angle")
        starts = [FaceState(boxes_xyxy[i], angle=float(angles[i])) for i in rows]
        found = Prediction.empty(angles[rows], self.checkpoint.scheme.n_landmarks)
        bias = self.checkpoint.label_bias
        for j, face in enumerate(run_cascade(cascade, [images[i] for i in rows], starts, flip=flip)):
            found.landmarks[j] = face.landmarks
            if bias is not None:  # relative to the landmarks' box: there is no crop with a box of known size
                found.landmarks[j] = apply_label_bias(found.landmarks[j : j + 1], bias)[0]
            if face.scores is not None:
                found.scores[j] = face.scores
            found.angles[j] = face.angle
        return found

    def _next_crop(self, box_xyxy: Box, found: Prediction, i: int) -> tuple[Box, float] | None:
        """See `LandmarkPredictor`; a cascade starts again from the upright face, at the angle of its landmarks."""
        cascade = self.checkpoint.cascade
        if cascade is None:
            return super()._next_crop(box_xyxy, found, i)
        angle = float(found.angles[i])
        if _finds_angle(cascade):
            angle = face_angle(found.landmarks[i], scheme_mean_face(self.checkpoint.scheme))
        return next_box(box_xyxy, found.landmarks[i]), angle


def _finds_angle(cascade: Cascade) -> bool:
    return "angle" in [stage.name for stage in cascade.stages]


def _after_fork() -> None:
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _checked(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"device {device!s}: torch {torch.__version__} cannot use it here ({reason}); give one that it has, or leave it away for the CPU"
        ) from error
    return found
