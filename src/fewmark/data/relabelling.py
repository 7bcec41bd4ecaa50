"""Scheme transfers on labelled faces: fitting, label conversion and scoring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats
from fewmark.data.pairs import FacePairs, match_faces
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.landmarks.metrics import (
    Score,
    contour_errors,
    nme_per_component,
    nme_per_landmark,
    normalising_lengths,
    score,
)
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.landmarks.transfer import SchemeTransfer

CONTOUR = "contour"


@dataclass(frozen=True, eq=False)
class TransferScore:
    """Errors of transferred landmarks.

    Attributes:
        score: Score over all landmarks.
        tangent: Mean error along the true contour, by the normaliser of the score; NaN if the scheme has no contour.
        normal: Mean error across the true contour.
        inner: Mean error of all components except the contour, weighted by their numbers of landmarks; NaN if the
            scheme has none.
        tangent_per_landmark: (C,) error of each contour landmark along the true contour; empty without a contour.
        normal_per_landmark: (C,) error of each contour landmark across the true contour.
    """

    score: Score
    tangent: float
    normal: float
    inner: float
    tangent_per_landmark: Floats
    normal_per_landmark: Floats

    @property
    def by_part(self) -> dict[str, float]:
        """Mean errors of all, contour (also along and across it) and inner landmarks, as fractions; NaN for absent parts."""
        return {
            "all": self.score.nme,
            "contour": self.score.per_component.get(CONTOUR, math.nan),
            "tangent": self.tangent,
            "normal": self.normal,
            "inner": self.inner,
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data for JSON, without the values per face and landmark."""
        data = {k: v for k, v in self.score.to_dict().items() if k not in ("per_face", "per_landmark")}
        known = math.isfinite(self.tangent)
        return {**data, CONTOUR: {"tangent": self.tangent, "normal": self.normal} if known else None}


def fit_transfer(
    source_faces: Sequence[FaceSample],
    target_faces: Sequence[FaceSample],
    source: LandmarkScheme,
    target: LandmarkScheme,
    *,
    ridge: float | Literal["auto"] = "auto",
    provenance: str = "",
    licence: str = "",
) -> SchemeTransfer:
    """Fit a transfer on faces that are labelled in two schemes.

    Args:
        source_faces: Faces labelled in the scheme to convert from, e.g. from `read_faces`.
        target_faces: The same faces labelled in the scheme to convert to; matched by image, see `match_faces`.
        source: Scheme of `source_faces`.
        target: Scheme of `target_faces`.
        ridge: Ridge penalty; "auto": chosen by cross-validation over persons, scenes or videos.
        provenance: Origin of the faces, kept with the transfer.
        licence: Licence of the faces, kept with the transfer.

    Returns:
        The transfer, with `expected_error` estimated on held-out faces.

    Raises:
        InputError: See `match_faces` and `SchemeTransfer.fit`.

    Source: Deep convolutional coarse-to-fine cascade, section 3.4, Eq. 1 and 2.
    """
    pairs = match_faces(source_faces, target_faces, (source.name, target.name))
    return fit_transfer_on_pairs(pairs, source, target, ridge=ridge, provenance=provenance, licence=licence)


def fit_transfer_on_pairs(
    pairs: FacePairs,
    source: LandmarkScheme,
    target: LandmarkScheme,
    *,
    ridge: float | Literal["auto"] = "auto",
    provenance: str = "",
    licence: str = "",
) -> SchemeTransfer:
    """Fit a transfer on matched faces; see `fit_transfer`."""
    return SchemeTransfer.fit(
        source,
        target,
        pairs.source_points,
        pairs.target_points,
        ridge=ridge,
        groups=pairs.groups,
        boxes_xyxy=pairs.boxes,
        provenance=provenance,
        licence=licence,
    )


def relabel_faces(
    transfer: SchemeTransfer, samples: Sequence[FaceSample], contour_from: Sequence[FaceSample] | None = None
) -> list[FaceSample]:
    """Convert the landmarks of faces to the target scheme.

    Boxes, groups and names are kept; occlusion labels are dropped. Unlabelled faces stay unlabelled, and faces with a
    missing source landmark lose all landmarks except a given contour.

    Args:
        transfer: Transfer from the scheme of the samples.
        samples: Faces labelled in the source scheme.
        contour_from: The same faces with landmarks predicted directly in the target scheme; their contour replaces that
            of the transfer.

    Raises:
        InputError: A face has the wrong number of landmarks; or see `contour_of`.
    """
    labelled = [s for s in samples if s.is_labelled]
    keep = None if contour_from is None else contour_of(transfer, labelled, contour_from)
    for s in labelled:
        if s.landmarks is not None and len(s.landmarks) != transfer.source.n_landmarks:
            raise InputError(
                f"{s.name or s.image}: expected {transfer.source.n_landmarks} landmarks of scheme {transfer.source.name}, "
                f"given {len(s.landmarks)}"
            )
    found = transfer.apply(stack_landmarks(labelled), keep=keep) if labelled else np.empty((0, 0, 2))
    points = {id(s): p.astype(np.float32) for s, p in zip(labelled, found, strict=True) if np.isfinite(p).all(1).any()}
    return [replace(s, landmarks=points.get(id(s)), occluded=None) for s in samples]


def contour_of(transfer: SchemeTransfer, samples: Sequence[FaceSample], direct: Sequence[FaceSample]) -> Floats:
    """Collect the directly predicted contours of faces for `SchemeTransfer.apply`: (N, Kt, 2) image px, NaN elsewhere.

    Args:
        transfer: Transfer to the scheme of `direct`.
        samples: N faces.
        direct: The same faces, possibly among others, with landmarks of the target scheme.

    Raises:
        InputError: The target scheme has no component `contour`, or a face is not in `direct`.
    """
    scheme = transfer.target
    if CONTOUR not in scheme.components:
        raise InputError(
            f"scheme {scheme.name} has no component {CONTOUR!r} to predict directly; its components are "
            f"{', '.join(scheme.components) or 'none'}"
        )
    pairs = match_faces(samples, direct, ("DATA", "the faces with the contour"))
    found = {id(a): b.landmarks for a, b in zip(pairs.source, pairs.target, strict=True)}
    indices = list(scheme.components[CONTOUR])
    keep = np.full((len(samples), scheme.n_landmarks, 2), np.nan)
    for row, s in zip(keep, samples, strict=True):
        points = found.get(id(s))
        if points is None or len(points) != scheme.n_landmarks:
            given = "none" if points is None else f"{len(points)} landmarks"
            raise InputError(
                f"{s.name or s.image}: expected its contour among the directly found faces ({scheme.n_landmarks} landmarks "
                f"of scheme {scheme.name}), given {given}"
            )
        row[indices] = points[indices]
    return keep


def score_transfer(
    transfer: SchemeTransfer,
    pairs: FacePairs,
    *,
    contour_from: Sequence[FaceSample] | None = None,
    normalizer: str | None = None,
) -> TransferScore:
    """Score a transfer on faces labelled in both schemes.

    Args:
        transfer: Transfer from the scheme of `pairs.source` to that of `pairs.target`.
        pairs: Faces not used to fit the transfer.
        contour_from: See `relabel_faces`.
        normalizer: Normaliser of the target scheme; None for its default.

    Raises:
        InputError: See `relabel_faces` and `score`.
    """
    keep = None if contour_from is None else contour_of(transfer, pairs.source, contour_from)
    predicted = transfer.apply(pairs.source_points, keep=keep)
    return score_landmarks(transfer.target, predicted, pairs, normalizer)


def score_landmarks(
    scheme: LandmarkScheme, predicted: Floats, pairs: FacePairs, normalizer: str | None = None
) -> TransferScore:
    """Score landmarks of the target scheme from any source.

    Args:
        scheme: Scheme of the landmarks.
        predicted: (N, Kt, 2) image px, predicted landmarks of `pairs`.
        pairs: Faces with the true landmarks.
        normalizer: Normaliser of the target scheme; None for its default.
    """
    true, boxes = pairs.target_points, pairs.boxes
    whole = score(predicted, true, scheme, boxes=boxes, normalizer=normalizer)
    sizes = {name: len(indices) for name, indices in scheme.components.items() if name != CONTOUR}
    n_inner = sum(sizes.values())
    inner = sum(whole.per_component[name] * k for name, k in sizes.items()) / n_inner if n_inner else math.nan
    indices = list(scheme.components.get(CONTOUR, ()))
    if len(indices) < 3:
        return TransferScore(whole, math.nan, math.nan, inner, np.empty(0), np.empty(0))
    lengths = normalising_lengths(true, boxes, scheme.get_normalizer(whole.normalizer))
    part = {CONTOUR: tuple(range(len(indices)))}
    along, across = contour_errors(predicted[:, indices], true[:, indices])
    tangent, normal = (nme_per_component(e, lengths, part)[CONTOUR] for e in (along, across))
    return TransferScore(
        whole, tangent, normal, inner, nme_per_landmark(along, lengths), nme_per_landmark(across, lengths)
    )
