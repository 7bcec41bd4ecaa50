"""Human labels that the model and the other labels contradict: swapped sides, a shifted component, a point that jumped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import FloatArray, box_of_points, box_size
from fewmark.landmarks.scheme import LandmarkScheme

FAR = 4.0
"""Times the usual distance from which a landmark is named as doubtful."""
MOST_NAMED = 8
SWAPPED = 0.5
"""Two landmarks are taken for swapped where exchanging them leaves less than this share of their distance from the model's."""


@dataclass(frozen=True)
class LabelDoubt:
    """A label that may be wrong.

    Attributes:
        face: Number of the face.
        doubt: How many times the usual distance its worst landmark or component is from the model's.
        landmarks: Indices of the landmarks in doubt, the worst first.
        reason: In words for a person.
    """

    face: int
    doubt: float
    landmarks: tuple[int, ...]
    reason: str


def doubtful_labels(
    numbers: Sequence[int], labels: FloatArray, predicted: FloatArray, errors: FloatArray, scheme: LandmarkScheme
) -> list[LabelDoubt]:
    """All labelled faces by the doubt about their labels, the most doubtful first.

    A landmark's offset from the model's counts against those of its neighbours along the edges: along a contour, honest labels are off
    together. It counts relative to what is usual for the landmark in all labels, and to the root of the error that the model expects in this
    face; so a face that is hard for the model is not doubted for it. Points of a component that moved together count by their common
    offset, which is usually small.

    Args:
        numbers: N numbers of faces.
        labels: (N, K, 2) image px, NaN where missing.
        predicted: (N, K, 2) image px, by a model; it may have learned from these labels.
        errors: (N, K) what the model says of its errors, fractions of the landmarks' box's longer side.
        scheme: Scheme of both.
    """
    labels, predicted = np.asarray(labels, np.float64), np.asarray(predicted, np.float64)
    sides = np.array([box_size(box_of_points(p)).max() for p in predicted])
    offsets = (labels - predicted) / sides[:, None, None]
    offsets = offsets - np.nanmedian(offsets, axis=0)
    distance = np.linalg.norm(_against_neighbours(offsets, scheme), axis=2)
    usual = np.maximum(np.nanmedian(distance, axis=0), 1e-4)
    expected = np.asarray(errors, np.float64) / np.maximum(np.nanmedian(errors, axis=0), 1e-6)
    hard = np.sqrt(np.maximum(1.0, expected))
    single = distance / (usual * hard)
    parts = {name: list(indices) for name, indices in scheme.components.items() if len(indices) > 2}
    names, groups = list(parts), list(parts.values())
    shifts = np.stack([_shift(offsets, hard, group) for group in groups], 1) if groups else np.zeros((len(labels), 0))
    found = []
    for i, number in enumerate(numbers):
        worst = [int(k) for k in np.argsort(-np.nan_to_num(single[i])) if np.nan_to_num(single[i, k]) > FAR][
            :MOST_NAMED
        ]
        doubt = float(np.nan_to_num(single[i]).max())
        reason = (
            _named(scheme, worst, "out of line with the model and its neighbours") if worst else "nothing stands out"
        )
        if groups and shifts[i].max() > doubt:
            which = int(shifts[i].argmax())
            doubt, worst = float(shifts[i, which]), list(groups[which])
            reason = f"{names[which].replace('_', ' ')}: shifted as a whole"
        swapped = _swapped(labels[i], predicted[i], scheme, worst)
        if swapped:
            reason = _named(scheme, swapped, "left and right may be exchanged")
            worst = swapped
        found.append(LabelDoubt(number, doubt, tuple(worst), reason))
    return sorted(found, key=lambda d: (-d.doubt, d.face))


def _against_neighbours(offsets: NDArray[np.float64], scheme: LandmarkScheme) -> NDArray[np.float64]:
    """Offsets (N, K, 2) without the mean of those of the landmarks that an edge joins to each; a landmark without edges keeps its own."""
    neighbours: list[list[int]] = [[] for _ in range(scheme.n_landmarks)]
    for a, b in scheme.edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    result = offsets.copy()
    for k, others in enumerate(neighbours):
        if others:
            result[:, k] -= _mean_of_present(offsets[:, others])
    return result


def _shift(offsets: NDArray[np.float64], hard: NDArray[np.float64], group: Sequence[int]) -> NDArray[np.float64]:
    """(N,) the common offset of a component's points, relative to the usual one."""
    mean = np.linalg.norm(_mean_of_present(offsets[:, group]), axis=1) / hard[:, group].mean(1)
    return np.asarray(mean / max(float(np.median(mean)), 1e-4))


def _mean_of_present(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2) mean of offsets (N, M, 2) of landmarks that are not missing; 0 where all are."""
    present = np.isfinite(offsets)
    return np.asarray(np.where(present, offsets, 0).sum(1) / np.maximum(present.sum(1), 1))


def _swapped(
    label: NDArray[np.float64], predicted: NDArray[np.float64], scheme: LandmarkScheme, doubted: Sequence[int]
) -> list[int]:
    """Doubted landmarks that would be near the model's if they were exchanged with their mirror images."""
    if scheme.mirror is None:
        return []
    found = []
    for k in doubted:
        other = scheme.mirror[k]
        now = np.linalg.norm(label[[k, other]] - predicted[[k, other]], axis=1).sum()
        exchanged = np.linalg.norm(label[[other, k]] - predicted[[k, other]], axis=1).sum()
        if other != k and exchanged < SWAPPED * now:
            found.append(k)
    return found


def _named(scheme: LandmarkScheme, indices: Sequence[int], what: str) -> str:
    names = [scheme.landmarks[k].replace("_", " ") for k in indices[:3]]
    more = f" and {len(indices) - 3} more" if len(indices) > 3 else ""
    return f"{', '.join(names)}{more}: {what}"
