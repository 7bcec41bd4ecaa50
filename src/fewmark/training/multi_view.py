"""Multi-view prediction: landmarks averaged over detectors and views, and how much these disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, Similarity, box_centre, box_of_points, box_size, warp_image
from fewmark.data.crops import FILL
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample
from fewmark.inference.detector import Detector

ROTATION = 15.0
"""Largest in-plane rotation of a view to either side, degrees."""
SCALE, SHIFT = 0.08, 0.03
"""Largest change of a view's box and its largest shift, fractions of the box."""
WINDOW = 2.2
"""Side of a rotated window over that of the box."""
N_IMAGES = 32
"""Images in memory at a time."""


@dataclass(frozen=True, eq=False)
class MultiViewPrediction:
    """Prediction on N faces over all views.

    Attributes:
        landmarks: (N, K, 2) image px, the mean.
        scores: (N, K) mean scores of the upright views.
        disagreement: (N, K) standard deviation over detectors and views, fraction of the longer side of the landmarks' box.
        quality: (N,) quality of the first view by the models' own quality networks (TS3, Eq. 3), a mean over those that have
            one; NaN where none has.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    disagreement: NDArray[np.float32]
    quality: NDArray[np.float32]


def predict_multi_view(
    detectors: Sequence[Detector],
    samples: Sequence[FaceSample],
    *,
    n_views: int,
    seed: int,
) -> MultiViewPrediction:
    """Predict the landmarks of faces, averaged over detectors and views.

    The first view is the image itself, in the tight box of the landmarks of a pass before; every further one is the face rotated
    by up to `ROTATION` degrees, in a box scaled and shifted a little. Each is averaged with its flip where the scheme has a mirror.

    Args:
        detectors: Detectors of one scheme.
        samples: N faces with boxes or landmarks.
        n_views: Views per detector, 1 or more.
        seed: Seed of the views.

    Raises:
        InputError: An image cannot be read, a face has neither box nor landmarks, or the detectors' schemes differ.

    Source: Radosavovic et al., Data distillation, CVPR 2018 (one label from many transformations).
    """
    scheme = detectors[0].scheme
    for d in detectors[1:]:
        if d.scheme.landmarks != scheme.landmarks:
            raise InputError(f"models of one scheme are expected, given {scheme.name} and {d.scheme.name}")
    n, k = len(samples), scheme.n_landmarks
    landmarks, scores = np.empty((n, k, 2), np.float32), np.empty((n, k), np.float32)
    disagreement, quality = np.empty((n, k), np.float32), np.full(n, np.nan, np.float32)
    for start in range(0, n, N_IMAGES):
        part = samples[start : start + N_IMAGES]
        images = [read_image(s.image) for s in part]
        boxes = [s.face_box() for s in part]
        views, upright_scores, qualities = [], [], []
        for d in detectors:
            first = d.predictor.predict(images, boxes, 1, flip=False).landmarks
            upright = d.predictor.predict(images, [box_of_points(p) for p in first], 1, flip=True)
            views.append(upright.landmarks)
            upright_scores.append(upright.scores)
            if np.isfinite(upright.quality).all():
                qualities.append(upright.quality)
            tight = [box_of_points(p) for p in upright.landmarks]
            for view in range(1, n_views):
                rngs = [np.random.default_rng([seed, view, start + i]) for i in range(len(part))]
                maps = [_rotated(b, rng) for b, rng in zip(tight, rngs, strict=True)]
                windows = [
                    warp_image(p, m, (_side(b), _side(b)), fill=FILL)
                    for p, m, b in zip(images, maps, tight, strict=True)
                ]
                near = [
                    _perturbed(box_of_points(m(p)), rng)
                    for m, p, rng in zip(maps, upright.landmarks, rngs, strict=True)
                ]
                found = d.predictor.predict(windows, near, 1, flip=True).landmarks
                views.append(np.stack([m.inverse()(p) for m, p in zip(maps, found, strict=True)]).astype(np.float32))
        stack = np.stack(views)
        mean = stack.mean(0)
        rows = slice(start, start + len(part))
        landmarks[rows], scores[rows] = mean, np.mean(upright_scores, axis=0)
        sizes = np.array([box_size(box_of_points(p)).max() for p in mean])
        disagreement[rows] = np.sqrt(((stack - mean) ** 2).sum(-1).mean(0)) / sizes[:, None]
        if qualities:
            quality[rows] = np.mean(qualities, axis=0)
    return MultiViewPrediction(landmarks, scores, disagreement, quality)


def _side(box_xyxy: Box) -> int:
    """Side of the window around a box, px."""
    return int(max(8.0, WINDOW * float(box_size(box_xyxy).max())))


def _rotated(box_xyxy: Box, rng: np.random.Generator) -> Similarity:
    """The map from the image to a rotated window around the box, of the image's scale."""
    middle = np.full(2, (_side(box_xyxy) - 1) / 2)
    return Similarity.about(box_centre(box_xyxy), middle, angle=float(rng.uniform(-ROTATION, ROTATION)))


def _perturbed(box_xyxy: Box, rng: np.random.Generator) -> Box:
    """The box, shifted and scaled a little."""
    middle, half = box_centre(box_xyxy), box_size(box_xyxy) / 2
    side = float(2 * half.max())
    middle = middle + rng.uniform(-SHIFT, SHIFT, 2) * side
    half = half * rng.uniform(1 - SCALE, 1 + SCALE)
    return np.concatenate([middle - half, middle + half]).astype(np.float32)
