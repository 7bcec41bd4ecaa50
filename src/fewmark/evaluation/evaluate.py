"""Measure a detector on labelled faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.json import json_value
from fewmark.data.samples import FaceSample, face_name, stack_landmarks
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.metrics import THRESHOLD, Score, score

FULL = "full"
"""Name of all lists together."""
N_WORST = 5
"""Number of the worst faces that are named."""


def evaluate(
    detector: Detector,
    samples: Sequence[FaceSample],
    *,
    box: BoxKind = "gt",
    normalizer: str | None = None,
    threshold: float = THRESHOLD,
    flip: bool | None = None,
    passes: int | None = None,
    scheme: str | None = None,
) -> Score:
    """Measure a detector on labelled faces: NME, AUC and failure rate.

    Args:
        detector: Finds the landmarks.
        samples: Labelled faces, e.g. from `read_faces`.
        box: Which box to crop around: "gt" the tight box of the true landmarks, "detect" the detected face, "column" the box in the
            label file; see `predict_samples`.
        normalizer: Name of the scheme's normaliser; None: its default.
        threshold: NME (a fraction) up to which AUC is taken, and above which a face counts as a failure.
        flip: See `Detector.detect`.
        passes: See `Detector.detect`.
        scheme: Annotation scheme of the labels; None: the model's.

    Raises:
        InputError: The normaliser or scheme is unknown, or see `predict_samples` and `score`.
    """
    lists = {"": samples}
    return evaluate_lists(
        detector,
        lists,
        box=box,
        normalizer=normalizer,
        threshold=threshold,
        flip=flip,
        passes=passes,
        scheme=scheme,
    )[""]


def evaluate_lists(
    detector: Detector,
    lists: Mapping[str, Sequence[FaceSample]],
    *,
    box: BoxKind = "gt",
    normalizer: str | None = None,
    threshold: float = THRESHOLD,
    flip: bool | None = None,
    passes: int | None = None,
    scheme: str | None = None,
) -> dict[str, Score]:
    """Measure a detector on several lists of labelled faces, and on all their faces together; see `evaluate`.

    Args:
        detector: See `evaluate`.
        lists: Name -> labelled faces. A face in several lists is predicted, and counted among all, once.
        box: See `evaluate`.
        normalizer: See `evaluate`.
        threshold: See `evaluate`.
        flip: See `evaluate`.
        passes: See `evaluate`.
        scheme: See `evaluate`.

    Returns:
        One score per list, in order, and `FULL` last if there are several lists.

    Raises:
        InputError: See `evaluate`.
    """
    target = detector.checkpoint.scheme_of(scheme)
    target.get_normalizer(normalizer or target.default_normalizer)
    samples = all_faces(lists)
    index_of = {_key(s): i for i, s in enumerate(samples)}
    rows = {name: [index_of[_key(s)] for s in part] for name, part in lists.items()}
    found = predict_samples(detector, samples, box, flip=flip, passes=passes, scheme=scheme).landmarks
    if len(lists) > 1:
        rows[FULL] = list(range(len(samples)))
    true = stack_landmarks(samples)
    boxes = np.stack([s.face_box(target.mean_face) for s in samples])
    return {
        name: score(found[r], true[r], target, boxes=boxes[r], normalizer=normalizer, threshold=threshold)
        for name, r in rows.items()
    }


def all_faces(lists: Mapping[str, Sequence[FaceSample]]) -> list[FaceSample]:
    """The faces of several lists, each face once, in the order of `FULL`."""
    faces: dict[tuple[Path, str], FaceSample] = {}
    for part in lists.values():
        for s in part:
            faces.setdefault(_key(s), s)
    return list(faces.values())


def _key(sample: FaceSample) -> tuple[Path, str]:
    return sample.image, sample.name


def summary(result: Score, box: str) -> dict[str, Any]:
    """Convert a score to plain data for JSON, without the values per face."""
    data = {**result.to_dict(), "median": json_value(result.median)}
    wanted = ("nme", "median", "auc", "failure_rate", "normalizer", "threshold", "n_faces", "n_landmarks", "n_missing")
    return {
        **{name: data[name] for name in wanted},
        "n_undetected": data["n_undetected"],
        "n_left_out": data["n_left_out"],
        "box": box,
        "per_component": data["per_component"],
    }


def named_faces(result: Score, samples: Sequence[FaceSample]) -> dict[str, Any]:
    """The faces to look at, as plain data: `worst`, those of the highest NME with `name` and `nme`, and the names of `undetected`.

    Args:
        result: Score of the faces.
        samples: The same faces, in the same order.
    """
    return {
        "worst": [
            {"name": face_name(samples[i]), "nme": float(result.per_face[i])} for i in result.worst_faces(N_WORST)
        ],
        "undetected": [face_name(samples[i]) for i in np.flatnonzero(np.isinf(result.per_face)).tolist()],
    }
