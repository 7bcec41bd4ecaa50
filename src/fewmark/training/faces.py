"""The faces of a run as its networks see them: boxes, crops, lengths, labels out of sight, and synthetic faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from fewmark.data.crops import CachedFace, CropRule, cache_faces
from fewmark.data.formats.csv import read_csv
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference.face_detection.base import SlimeFaceDetector, adapt_box, box_overlap, fit_box_adapter
from fewmark.landmarks.scheme import BoxDiagonal, BoxSize, LandmarkScheme
from fewmark.training.events import Event, Validation
from fewmark.training.launch import first_process

N_BOX_FACES = 200
"""Labelled faces on which the face detector's boxes are compared with the true ones."""
DEFAULT_BOX_FROM_DETECTOR = (0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class PreparedFaces:
    """What the rounds are given.

    Attributes:
        labelled: L.
        unlabelled: U, without the labels that some may carry.
        truth: (U, K, 2) these labels, px of the upright crops, NaN where there is none.
        validation: held out, or None.
        box_from_detector: how the packaged face detector's boxes relate to those of L.
    """

    labelled: list[CachedFace]
    unlabelled: list[CachedFace]
    truth: NDArray[np.float32]
    validation: Validation | None
    box_from_detector: tuple[float, float, float]


def prepare_faces(
    labelled: Sequence[FaceSample],
    unlabelled: Sequence[FaceSample],
    validation: Sequence[FaceSample],
    rule: CropRule,
    scheme: LandmarkScheme,
) -> PreparedFaces:
    """Read the images and keep a window of each face.

    Args:
        unlabelled: a face without a box is looked for, see `with_boxes`.
        validation: all with landmarks.

    Raises:
        InputError: an image cannot be read, or its labels do not fit the scheme.
    """
    k = scheme.n_landmarks
    adapter = fit_adapter(labelled)
    cached = cache_faces(labelled, rule, k)
    truth, blank = _hide_labels(cache_faces(with_boxes(unlabelled, adapter), rule, k), k)
    return PreparedFaces(cached, blank, truth, hold_out(validation, rule, scheme), adapter)


def hold_out(samples: Sequence[FaceSample], rule: CropRule, scheme: LandmarkScheme) -> Validation | None:
    """Labelled faces to measure on, or None where there are none."""
    faces = cache_faces(samples, rule, scheme.n_landmarks)
    return Validation(faces, _crop_lengths(samples, faces, scheme)) if faces else None


def fit_adapter(samples: Sequence[FaceSample]) -> tuple[float, float, float]:
    """How the packaged face detector's boxes relate to the boxes of these labelled faces; the identity if it finds none."""
    face_detector = SlimeFaceDetector()
    found, true = [], []
    for s in list(samples)[:N_BOX_FACES]:
        box = s.face_box()
        best = max(face_detector(read_image(s.image)), key=lambda f: box_overlap(f.box_xyxy, box), default=None)
        if best is not None and box_overlap(best.box_xyxy, box) > 0.3:
            found.append(best.box_xyxy)
            true.append(box)
    return fit_box_adapter(np.stack(found), np.stack(true)) if found else DEFAULT_BOX_FROM_DETECTOR


def with_boxes(samples: Sequence[FaceSample], adapter: tuple[float, float, float]) -> list[FaceSample]:
    """Faces that have neither box nor landmarks get the box of the largest face that is found, adapted.

    An image in which no face is found is left out: it cannot be cropped.
    """
    face_detector = SlimeFaceDetector()
    result = []
    for s in samples:
        if s.box is None and s.landmarks is None:
            faces = face_detector(read_image(s.image))
            if not faces:
                continue
            s = replace(s, box=adapt_box(faces[0].box_xyxy, adapter))
        result.append(s)
    return result


def render_training_faces(
    n: int, folder: Path, scheme: LandmarkScheme, *, size: int, seed: int, fabric: Fabric, emit: Callable[[Event], None]
) -> list[FaceSample]:
    """Faces synthetic in the scheme, kept in a folder: drawing them takes longer than reading them.

    Args:
        size: of an image's side, px.

    Returns:
        None of them where the scheme cannot be synthetic (it has no mean face, or is one of profiles): the networks then start
        from random weights, and the run says so.
    """
    if not n:
        return []
    labels = folder / "annotations.csv"

    def draw() -> None:
        if not labels.is_file():
            render_dataset(folder, n, scheme=scheme, seed=seed, size=size)

    problem = first_process(fabric, draw)
    if problem is not None:
        emit({"kind": "note", "text": f"no synthetic faces ({problem}); networks start from random weights"})
        return []
    return read_csv(labels)


def _hide_labels(faces: Sequence[CachedFace], k: int) -> tuple[NDArray[np.float32], list[CachedFace]]:
    """Labels that unlabelled faces happen to carry, apart from the faces, which lose them."""
    truth = np.stack([f.landmarks for f in faces]) if faces else np.zeros((0, k, 2), np.float32)
    blank = np.full((k, 2), np.nan, np.float32)
    return truth, [replace(f, landmarks=blank) for f in faces]


def _crop_lengths(
    samples: Sequence[FaceSample], faces: Sequence[CachedFace], scheme: LandmarkScheme
) -> NDArray[np.float64]:
    """(V,) normalising lengths, px of the upright crops."""
    normalizer = scheme.normalizer
    lengths = []
    for s, f in zip(samples, faces, strict=True):
        box = s.face_box() if isinstance(normalizer, BoxSize | BoxDiagonal) else None
        assert s.landmarks is not None
        lengths.append(normalizer(s.landmarks, box) * f.crop_from_image.scale)
    values = np.asarray(lengths, np.float64)
    return np.where(values > 0, values, np.nan)
