"""What a detector says of labelled faces: the landmarks that metrics and reports compare with the true ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, box_of_points, box_size
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import box_overlap

BoxKind = Literal["gt", "detect", "column"]

_IMAGES = 64  # images in memory at a time


def predict_samples(
    detector: Detector,
    samples: Sequence[FaceSample],
    box: BoxKind = "gt",
    *,
    flip: bool | None = None,
    passes: int | None = None,
    scheme: str | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the detector says of labelled faces, and how sure it is.

    Args:
        detector: its scheme is the labels', or it carries a transfer to that.
        samples: labelled faces.
        box: "gt" the tight box of the true landmarks, "column" the box that the label file gives, "detect"
            the found face that overlaps the true box most.
        flip: see `Detector.detect`.
        passes: see `Detector.detect`.
        scheme: see `Detector.detect`; for another than the model's, "gt" is the tight box of the model's own landmarks
            as the mean face places it within that of the true ones.

    Returns:
        landmarks (N, K, 2) image px and scores (N, K); NaN where "detect" finds no face that overlaps the true box, or one that
        `Detector.is_face` takes for none.

    Raises:
        InputError: an unknown kind of box, a face without labels or with other than K of them, or "column"
            without a box.
    """
    if box not in ("gt", "detect", "column"):
        raise InputError(f"box: expected gt, detect or column, given {box!r}")
    k = detector.checkpoint.scheme_of(scheme).n_landmarks
    transfer = detector.checkpoint.transfer_to(scheme)
    predicted = np.full((len(samples), k, 2), np.nan, np.float32)
    scores = np.full((len(samples), k), np.nan, np.float32)
    for part in _chunks(len(samples), _IMAGES):
        rows: list[int] = []
        images: list[NDArray[np.uint8]] = []
        boxes: list[Box] = []
        last: tuple[Path, NDArray[np.uint8]] | None = None
        for i in part:
            sample = samples[i]
            true_box = labelled_box(sample, k, box)
            if transfer is not None and box != "column":
                true_box = transfer.source_box(true_box)
            if last is None or last[0] != sample.image:
                last = (sample.image, read_image(sample.image))
            found = true_box
            if box == "detect":
                candidates = [b for b, _ in detector.detect_faces(last[1])]
                overlaps = [box_overlap(b, true_box) for b in candidates]
                if not overlaps or max(overlaps) <= 0:
                    continue
                found = candidates[int(np.argmax(overlaps))]
            rows.append(i)
            images.append(last[1])
            boxes.append(found)
        n_passes = [passes or (2 if box == "detect" else 1)] * len(rows)
        located = detector.locate(images, boxes, n_passes, flip=flip)
        predicted[rows] = located.landmarks if transfer is None else transfer.apply(located.landmarks)
        scores[rows] = located.scores if transfer is None else transfer.apply_scores(located.scores)
        if box == "detect":
            none = [i for i, sure in zip(rows, located.scores, strict=True) if not detector.is_face(sure)]
            predicted[none], scores[none] = np.nan, np.nan
    return predicted, scores


def evaluate_samples(
    detector: Detector,
    samples: Sequence[FaceSample],
    box: BoxKind = "gt",
    *,
    flip: bool | None = None,
    passes: int | None = None,
    scheme: str | None = None,
) -> NDArray[np.float32]:
    """The landmarks alone of `predict_samples`: (N, K, 2) image px."""
    return predict_samples(detector, samples, box, flip=flip, passes=passes, scheme=scheme)[0]


def labelled_box(sample: FaceSample, k: int, kind: BoxKind = "gt") -> Box:
    """The box of a labelled face: (4,) image px.

    Args:
        sample: with K landmarks.
        k: how many landmarks are expected.
        kind: "column" the box that the label file gives, else the tight box of the landmarks.

    Raises:
        InputError: the face has no landmarks or other than `k`, all in one place, or "column" without a box.
    """
    if sample.landmarks is None or not np.isfinite(sample.landmarks).all(1).any():
        raise InputError(f"{sample.image}: expected a labelled face, given one without landmarks")
    if len(sample.landmarks) != k:
        raise InputError(f"{sample.image}: expected {k} landmarks as the scheme has, given {len(sample.landmarks)}")
    if kind != "column":
        true_box = box_of_points(sample.landmarks)
        if not box_size(true_box).max() > 0:
            raise InputError(f"{sample.image}: the true landmarks are one point, which has no box; use --box column")
        return true_box
    if sample.box is None:
        raise InputError(
            f"{sample.image}: --box column needs box_x0,box_y0,box_x1,box_y1 in the label file, given none"
        )
    if not np.isfinite(sample.box).all() or not box_size(sample.box).max() > 0:
        raise InputError(f"{sample.image}: expected a box with an extent, given {sample.box.tolist()}")
    return sample.box


def _chunks(n: int, size: int) -> Iterator[range]:
    for start in range(0, n, size):
        yield range(start, min(n, start + size))
