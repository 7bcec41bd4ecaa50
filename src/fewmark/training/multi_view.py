"""Landmarks of faces as several detectors see them from several sides: their mean, and how far they lie apart."""

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

TURN = 15.0
"""Degrees to each side by which a look may turn the face."""
SCALE, SHIFT = 0.08, 0.03
"""Parts of a box by which a look may scale it and move it."""
REACH = 2.2
"""Side of the turned window over that of the box."""
_IMAGES = 32  # in memory at a time


@dataclass(frozen=True, eq=False)
class MultiViewPrediction:
    """What is known of N faces after many looks.

    Attributes:
        landmarks: (N, K, 2) image px, the mean.
        scores: (N, K) mean scores of the upright looks.
        spread: (N, K) how far the looks lie from their mean (root mean square), as a part of the longer side of the landmarks'
            box.
        quality: (N,) the word of the models' own quality teachers on the first look (TS3, Eq. 3), a mean over those that have one;
            NaN where none has.
    """

    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]
    spread: NDArray[np.float32]
    quality: NDArray[np.float32]


def predict_multi_view(
    detectors: Sequence[Detector],
    samples: Sequence[FaceSample],
    *,
    n_views: int,
    seed: int,
) -> MultiViewPrediction:
    """The landmarks of faces, averaged over detectors and looks.

    The first look is at the image as it is, in the tight box of the landmarks that a look before found there; every
    further one at the face turned by up to `TURN` degrees, in a box moved and scaled a little. Each is averaged with its
    flip where the scheme has a mirror.

    Args:
        detectors: of one scheme.
        samples: N faces with boxes or landmarks.
        n_views: of each detector, 1 or more.
        seed: of the turns.

    Raises:
        InputError: an image cannot be read, a face has neither box nor landmarks, or the detectors' schemes differ.

    Source: Radosavovic et al., Data distillation, CVPR 2018 (one label from many transformations).
    """
    scheme = detectors[0].scheme
    for d in detectors[1:]:
        if d.scheme.landmarks != scheme.landmarks:
            raise InputError(f"models of one scheme are expected, given {scheme.name} and {d.scheme.name}")
    n, k = len(samples), scheme.n_landmarks
    landmarks, scores = np.empty((n, k, 2), np.float32), np.empty((n, k), np.float32)
    spread, quality = np.empty((n, k), np.float32), np.full(n, np.nan, np.float32)
    for start in range(0, n, _IMAGES):
        part = samples[start : start + _IMAGES]
        images = [read_image(s.image) for s in part]
        boxes = [s.face_box() for s in part]
        seen, sure, judged = [], [], []
        for d in detectors:
            before = d.predictor.predict(images, boxes, 1, flip=False).landmarks
            plain = d.predictor.predict(images, [box_of_points(p) for p in before], 1, flip=True)
            seen.append(plain.landmarks)
            sure.append(plain.scores)
            if np.isfinite(plain.quality).all():
                judged.append(plain.quality)
            tight = [box_of_points(p) for p in plain.landmarks]
            for look in range(1, n_views):
                rngs = [np.random.default_rng([seed, look, start + i]) for i in range(len(part))]
                maps = [_turn(b, rng) for b, rng in zip(tight, rngs, strict=True)]
                windows = [
                    warp_image(p, m, (_side(b), _side(b)), fill=FILL)
                    for p, m, b in zip(images, maps, tight, strict=True)
                ]
                near = [_moved(box_of_points(m(p)), rng) for m, p, rng in zip(maps, plain.landmarks, rngs, strict=True)]
                found = d.predictor.predict(windows, near, 1, flip=True).landmarks
                seen.append(np.stack([m.inverse()(p) for m, p in zip(maps, found, strict=True)]).astype(np.float32))
        stack = np.stack(seen)
        mean = stack.mean(0)
        rows = slice(start, start + len(part))
        landmarks[rows], scores[rows] = mean, np.mean(sure, axis=0)
        sizes = np.array([box_size(box_of_points(p)).max() for p in mean])
        spread[rows] = np.sqrt(((stack - mean) ** 2).sum(-1).mean(0)) / sizes[:, None]
        if judged:
            quality[rows] = np.mean(judged, axis=0)
    return MultiViewPrediction(landmarks, scores, spread, quality)


def _side(box_xyxy: Box) -> int:
    """Of the window round a box, px."""
    return int(max(8.0, REACH * float(box_size(box_xyxy).max())))


def _turn(box_xyxy: Box, rng: np.random.Generator) -> Similarity:
    """From the image to a window round the box, turned; as fine as the image."""
    middle = np.full(2, (_side(box_xyxy) - 1) / 2)
    return Similarity.about(box_centre(box_xyxy), middle, angle=float(rng.uniform(-TURN, TURN)))


def _moved(box_xyxy: Box, rng: np.random.Generator) -> Box:
    middle, half = box_centre(box_xyxy), box_size(box_xyxy) / 2
    side = float(2 * half.max())
    middle = middle + rng.uniform(-SHIFT, SHIFT, 2) * side
    half = half * rng.uniform(1 - SCALE, 1 + SCALE)
    return np.concatenate([middle - half, middle + half]).astype(np.float32)
