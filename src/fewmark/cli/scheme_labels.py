"""Labels for `scheme new`: labelled faces, their names, and what the packaged model finds in the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.data.formats.io import read_landmark_names
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.detector import Detector
from fewmark.inference.face import Face
from fewmark.landmarks.scheme_proposal import SchemeProposal, propose_scheme

REFERENCE = "ibug-68"
"""Packaged model whose landmarks tell a face's parts and its mirror image."""
MAX_FACES = 60
"""More faces change nothing."""


def propose_scheme_from(name: str, data: Path, faces: Sequence[FaceSample]) -> tuple[SchemeProposal, list[str]]:
    """Propose a scheme from the faces of a folder or label file.

    Returns:
        The proposal, and lines about faces that were not used.

    Raises:
        InputError: There is no labelled face, or see `propose_scheme`.
    """
    faces = [s for s in faces if s.is_labelled]
    if not faces:
        raise InputError(f"{data}: expected labelled faces to make a scheme from, given none")
    chosen = [faces[i] for i in np.unique(np.linspace(0, len(faces) - 1, min(len(faces), MAX_FACES)).astype(int))]
    detector = Detector.load(REFERENCE)
    pairs = [(s, face) for s in chosen if (face := _find(detector, s)) is not None]
    names: Sequence[str] | None = read_landmark_names(data) or None
    lines: list[str] = []
    source = f"proposed from {len(pairs) or len(chosen)} labelled faces of {data.name}"
    if pairs:
        if len(pairs) < len(chosen):
            lines.append(
                f"{len(chosen) - len(pairs)} of {len(chosen)} faces were not found by {REFERENCE} and not used"
            )
        labels = stack_landmarks([s for s, _ in pairs])
        found = np.stack([f.landmarks for _, f in pairs])
        proposal = propose_scheme(
            name, labels, landmark_names=names, found=found, reference=detector.scheme, source=source
        )
        return proposal, lines
    lines.append(f"no face was found by {REFERENCE}: the proposal comes from the shape of the labels alone")
    return propose_scheme(name, stack_landmarks(chosen), landmark_names=names, source=source), lines


def _find(detector: Detector, sample: FaceSample) -> Face | None:
    """The found face in which most of the labels lie; None if the image is missing or there is none."""
    assert sample.landmarks is not None
    if not sample.image.is_file():
        return None
    points = sample.landmarks[np.isfinite(sample.landmarks).all(1)]
    inside = [(_share_inside(points, f), f) for f in detector.detect(sample.image)]
    share, face = max(inside, key=lambda pair: pair[0], default=(0.0, None))
    return face if share >= 0.5 else None


def _share_inside(points: NDArray[np.float32], face: Face) -> float:
    low, high = face.landmarks.min(0), face.landmarks.max(0)
    margin = 0.3 * (high - low)
    return float(((points >= low - margin) & (points <= high + margin)).all(1).mean())
