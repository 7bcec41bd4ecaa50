"""The faces of a run as its networks see them: boxes, crops, normalising lengths, hidden labels, synthetic faces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box
from fewmark.data.crops import REACH, CachedFace, CropRule, cache_face, cache_faces
from fewmark.data.formats.csv import read_csv
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample, face_name, usual_face, with_full_box
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.face_detection.base import SlimeFaceDetector, adapt_box, box_overlap, fit_box_adapter
from fewmark.landmarks.scheme import BoxDiagonal, BoxSize, LandmarkScheme
from fewmark.training.events import Validation
from fewmark.training.launch import first_process
from fewmark.training.runner import RunContext

N_BOX_FACES = 200
"""Labelled faces on which the face detector's boxes are compared with the true ones."""
MIN_OVERLAP = 0.3
"""Least overlap (intersection over union) at which a detected box is that of a labelled face."""
DEFAULT_BOX_FROM_DETECTOR = (0.0, 0.0, 1.0)
"""The adapter that leaves boxes as they are."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The faces of a run. Partly labelled faces without a box get that of their full labels, see `with_full_box`.

    Attributes:
        scheme: Scheme of all labels.
        labelled: L; every face has at least one landmark.
        unlabelled: U; labels that they may have are read by the oracle and the report alone, and tell which detected face each is.
        validation: Held-out labelled faces to measure on; they train nothing.

    Raises:
        InputError: A labelled face has too few landmarks for its box, and no box.
    """

    scheme: LandmarkScheme
    labelled: Sequence[FaceSample]
    unlabelled: Sequence[FaceSample]
    validation: Sequence[FaceSample]

    def __post_init__(self) -> None:
        parts = {name: list(getattr(self, name)) for name in ("labelled", "validation")}
        if not any(s.is_partly_labelled for part in parts.values() for s in part):
            return
        mean_face = usual_face([*parts["labelled"], *parts["validation"]], self.scheme)
        for name in ("labelled", "validation"):
            object.__setattr__(self, name, [with_full_box(s, mean_face) for s in parts[name]])

    @property
    def n_faces(self) -> int:
        """Number of faces in all parts."""
        return len(self.labelled) + len(self.unlabelled) + len(self.validation)

    def hash(self, models: Sequence[Checkpoint] = ()) -> str:
        """A hash of names, boxes and labels, and of the models that are distilled or started from."""
        digest = hashlib.sha256()
        for model in models:
            metadata = model.to_metadata()
            metadata.pop("students")  # unknown for an exported model
            metadata.pop("flip")  # also in its config; earlier versions had no such field
            digest.update(json.dumps(metadata, sort_keys=True).encode())
        for part in (self.labelled, self.unlabelled, self.validation):
            for s in part:
                digest.update(f"{s.name or s.image.name}|".encode())
                for array in (s.box, s.landmarks if part is not self.unlabelled else None):
                    digest.update(b"-" if array is None else np.asarray(array, np.float32).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class PreparedFaces:
    """The faces of the rounds.

    Attributes:
        labelled: L.
        unlabelled: U, without the labels that some may have.
        unlabelled_samples: (U,) the same with their boxes, and the labels that some may have.
        truth: (U, K, 2) those labels, px of the upright crops, NaN where there is none.
        validation: Held-out faces, or None.
        box_from_detector: Adapter from the packaged face detector's boxes to those of L.
    """

    labelled: list[CachedFace]
    unlabelled: list[CachedFace]
    unlabelled_samples: list[FaceSample]
    truth: NDArray[np.float32]
    validation: Validation | None
    box_from_detector: tuple[float, float, float]

    @property
    def names(self) -> list[str]:
        """(U,) names of the unlabelled faces."""
        return [face_name(s) for s in self.unlabelled_samples]


def check_labelled(samples: Sequence[FaceSample], part: str) -> None:
    """Check that every face has a landmark.

    Args:
        samples: Faces of one list.
        part: Name of the list, for messages.

    Raises:
        InputError: One has none.
    """
    for s in samples:
        if not s.is_labelled:
            raise InputError(
                f"{part} list: {s.name or s.image}: the face has no landmarks; label it or take it out of the list"
            )


def note_missing_mirror(scheme: LandmarkScheme, flip: float, context: RunContext) -> None:
    """Note that no flips are learned, where the settings ask for some (with probability `flip`) and the scheme has no mirror."""
    if scheme.mirror is None and flip:
        text = f"scheme {scheme.name} has no mirror: no flips are learned; give `mirror` in the scheme file for them"
        context.emit({"kind": "note", "text": text})


def prepare_faces(data: TrainingData, rule: CropRule) -> PreparedFaces:
    """Read the images and keep a window of each face.

    Args:
        data: The faces; an unlabelled one without a box is detected, see `with_boxes`.
        rule: Crop of the networks.

    Raises:
        InputError: An image cannot be read, or its labels do not fit the scheme.
    """
    k = data.scheme.n_landmarks
    cached, adapter = cache_labelled(data.labelled, rule, k)
    unlabelled = with_boxes(data.unlabelled, adapter)
    truth, blank = _hide_labels(cache_faces(unlabelled, rule, k), k)
    return PreparedFaces(cached, blank, unlabelled, truth, hold_out(data.validation, rule, data.scheme), adapter)


def hold_out(samples: Sequence[FaceSample], rule: CropRule, scheme: LandmarkScheme) -> Validation | None:
    """Labelled faces to measure on, or None where there are none."""
    faces = cache_faces(samples, rule, scheme.n_landmarks)
    return Validation(faces, _crop_lengths(samples, faces, scheme)) if faces else None


def cache_labelled(
    samples: Sequence[FaceSample], rule: CropRule, n_landmarks: int, *, reach: float = REACH
) -> tuple[list[CachedFace], tuple[float, float, float]]:
    """Read labelled faces once: a window of each, and the box adapter that they give.

    Args:
        samples: Labelled faces.
        rule: Crop of the networks.
        n_landmarks: K.
        reach: See `fewmark.data.crops.cache_face`.

    Returns:
        The cached faces, and the adapter from the packaged face detector's boxes to theirs; the identity where it finds none.

    Raises:
        InputError: See `cache_face`.
    """
    face_detector = SlimeFaceDetector()
    cached: list[CachedFace] = []
    detected: list[Box] = []
    true: list[Box] = []
    last_path, image = None, None
    for index, s in enumerate(samples):
        if image is None or s.image != last_path:
            image, last_path = read_image(s.image), s.image
        cached.append(cache_face(s, rule, n_landmarks, image, reach=reach))
        if index < N_BOX_FACES:
            box = s.face_box()
            best = max(face_detector(image), key=lambda f: box_overlap(f.box_xyxy, box), default=None)
            if best is not None and box_overlap(best.box_xyxy, box) > MIN_OVERLAP:
                detected.append(best.box_xyxy)
                true.append(box)
    adapter = fit_box_adapter(np.stack(detected), np.stack(true)) if detected else DEFAULT_BOX_FROM_DETECTOR
    return cached, adapter


def with_boxes(samples: Sequence[FaceSample], adapter: tuple[float, float, float]) -> list[FaceSample]:
    """Give unlabelled faces without a box the adapted box of the largest detected face.

    Labels that such a face may have, for an oracle or a report, tell which detected face it is, and nothing of its box. An image in
    which no face is detected is left out: it cannot be cropped.
    """
    face_detector = SlimeFaceDetector()
    result = []
    for s in samples:
        if s.box is None:
            boxes = [f.box_xyxy for f in face_detector(read_image(s.image))]
            if s.landmarks is not None:
                shares = [_points_inside(s.landmarks, b) for b in boxes]
                boxes = [boxes[int(np.argmax(shares))]] if any(shares) else []
            if not boxes:
                continue
            s = replace(s, box=adapt_box(boxes[0], adapter))
        result.append(s)
    return result


def _points_inside(landmarks: NDArray[np.float32], box_xyxy: Box) -> int:
    """Number of the known landmarks (K, 2) that lie in a box."""
    low, high = box_xyxy.reshape(2, 2)
    return int(((landmarks >= low) & (landmarks <= high)).all(1).sum())


def render_synthetic(n: int, scheme: LandmarkScheme, *, size: int, context: RunContext) -> list[FaceSample]:
    """Render synthetic faces, or read them from the context's folder: rendering takes longer than reading.

    Args:
        n: Number of faces.
        scheme: Scheme of the landmarks.
        size: Side of an image, px.
        context: A context with a folder.

    Returns:
        The faces; none where the scheme cannot be rendered (it has no mean face, or is one of profiles), of which an event tells:
        the networks then start from random weights.
    """
    folder = context.file("synthetic")
    if not n or folder is None:
        return []
    labels = folder / "annotations.csv"

    def render() -> None:
        if not labels.is_file():
            render_dataset(folder, n, scheme=scheme, seed=context.seed, size=size)

    problem = first_process(context.fabric, render)
    if problem is not None:
        context.emit({"kind": "note", "text": f"no synthetic faces ({problem}); networks start from random weights"})
        return []
    return read_csv(labels)


def _hide_labels(faces: Sequence[CachedFace], k: int) -> tuple[NDArray[np.float32], list[CachedFace]]:
    """The labels of unlabelled faces (U, K, 2), and the faces without them."""
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
