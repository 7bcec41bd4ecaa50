"""Checks of a landmark scheme that a parser cannot make: the mirror as geometry, components, edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Similarity, fit_similarity
from fewmark.landmarks.scheme import LandmarkScheme

MAX_MIRROR_ERROR = 0.08
"""A mirrored landmark that misses its partner by more than this share of the face's diagonal is wrong."""
NOTICEABLE = 0.01
"""Misses below this share of the diagonal are the mean face's own asymmetry."""


def mirror_distances(scheme: LandmarkScheme, landmarks: FloatArray) -> NDArray[np.float64]:
    """How far each landmark of the flipped face lies from each landmark of the face.

    The face is flipped, its landmarks are renamed by the mirror and laid on the face by the best similarity.

    Args:
        scheme: with a mirror.
        landmarks: (K, 2) any unit, a near-frontal face or a mean of many, less than 45 degrees from upright;
            NaN where missing.

    Returns:
        (K, K) share of the diagonal of the landmarks' tight box: [i, j] is how far the flipped landmark
        that the mirror puts at i lies from landmark j. A good mirror has the small ones on the diagonal.

    Raises:
        InputError: the scheme has no mirror, or fewer than two different landmarks are there with partners.
    """
    if scheme.mirror is None:
        raise InputError(f"scheme {scheme.name} has no mirror to check: add `mirror` to its file")
    points = np.asarray(landmarks, np.float64)
    if points.shape != (scheme.n_landmarks, 2):
        raise InputError(f"scheme {scheme.name}: expected landmarks ({scheme.n_landmarks}, 2), given {points.shape}")
    flipped = points[list(scheme.mirror)] * (-1.0, 1.0)
    seen = np.isfinite(points).all(1) & np.isfinite(flipped).all(1)
    diagonal = float(np.linalg.norm(np.ptp(points[seen], axis=0))) if seen.any() else 0.0
    if diagonal == 0:
        raise InputError(f"scheme {scheme.name}: expected two different landmarks at least to check the mirror on")
    face_from_flipped = fit_similarity(flipped, points)
    if abs(face_from_flipped.angle) > 90:  # a half turn undoes a flip where the points lie on a line
        face_from_flipped = Similarity.translation(*(points[seen].mean(0) - flipped[seen].mean(0)))
    distances = np.linalg.norm(face_from_flipped(flipped)[:, None] - points[None], axis=-1)
    return np.asarray(distances / diagonal, np.float64)


def mirror_residual(scheme: LandmarkScheme, landmarks: FloatArray) -> NDArray[np.float64]:
    """How badly the scheme's mirror fits a face, per landmark.

    Args:
        scheme: with a mirror.
        landmarks: (K, 2) any unit, see `mirror_distances`.

    Returns:
        (K,) distance between each landmark and its partner in the flipped face, as a share of the diagonal of
        the landmarks' tight box; NaN where one of the two is missing. About 0 for a right mirror.

    Raises:
        InputError: as `mirror_distances`.
    """
    return np.diagonal(mirror_distances(scheme, landmarks)).copy()


def check_scheme(scheme: LandmarkScheme) -> list[str]:
    """What a person should look at in a scheme, one line each; an empty list means that nothing was found.

    A scheme that cannot be used at all does not get this far: `load_scheme` refuses it.
    """
    return [
        *_check_components(scheme),
        *_check_edges(scheme),
        *_check_mirror(scheme),
        *_check_measures(scheme),
    ]


def _names(scheme: LandmarkScheme, indices: list[int]) -> str:
    shown = ", ".join(f"{i} ({scheme.landmarks[i]})" for i in indices[:4])
    return shown if len(indices) <= 4 else f"{shown} and {len(indices) - 4} more"


def _check_components(scheme: LandmarkScheme) -> list[str]:
    if not scheme.components:
        return ["components: none; group the landmarks into contour, left_eye, mouth, ... to get errors per part"]
    found = []
    homes: list[list[str]] = [[] for _ in scheme.landmarks]
    for name, indices in scheme.components.items():
        if len(set(indices)) < len(indices):
            twice = sorted({i for i in indices if indices.count(i) > 1})
            found.append(f"components.{name}: lists a landmark twice: {_names(scheme, twice)}")
        for i in set(indices):
            homes[i].append(name)
    for i, home in enumerate(homes):
        if len(home) > 1:
            found.append(f"components: landmark {_names(scheme, [i])} is in more than one: {', '.join(home)}")
    outside = [i for i, home in enumerate(homes) if not home]
    if outside:
        found.append(f"components: in none: landmark {_names(scheme, outside)}")
    return found


def _check_edges(scheme: LandmarkScheme) -> list[str]:
    home = {i: name for name, indices in scheme.components.items() for i in indices}
    found = []
    for a, b in scheme.edges:
        if a == b:
            found.append(f"edges: landmark {_names(scheme, [a])} is joined to itself")
        elif a in home and b in home and home[a] != home[b]:
            found.append(f"edges: {_names(scheme, [a, b])} joins {home[a]} to {home[b]}; expected one component")
    return found


def _other_side(name: str) -> str:
    """The name with left and right exchanged."""
    return name.replace("left", "\0").replace("right", "left").replace("\0", "right")


def _is_one_sided(scheme: LandmarkScheme) -> bool:
    """Whether this is a profile whose landmarks keep their places: its mean face is not like its flip."""
    if scheme.mean_face is None or scheme.mirror != tuple(range(scheme.n_landmarks)):
        return False
    face = scheme.mean_face.astype(np.float64)
    flipped = (face.min(0) + face.max(0)) * (1, 0) + face * (-1, 1)
    nearest = np.linalg.norm(flipped[:, None] - face[None], axis=-1).min(1)
    return bool(np.median(nearest) > 0.02 * np.linalg.norm(np.ptp(face, axis=0)))


def _check_mirror(scheme: LandmarkScheme) -> list[str]:
    if scheme.mirror is None:
        return []
    found = []
    index = {name: i for i, name in enumerate(scheme.landmarks)}
    for i, name in enumerate(scheme.landmarks):
        partner = index.get(_other_side(name), i)
        if partner > i and scheme.mirror[i] != partner:
            found.append(
                f"mirror: {_names(scheme, [i])} goes to {_names(scheme, [scheme.mirror[i]])}; "
                f"by its name expected {_names(scheme, [partner])}"
            )
    for name, indices in scheme.components.items():
        other = scheme.components.get(_other_side(name), indices)
        stray = [i for i in indices if scheme.mirror[i] not in other]
        if stray:
            found.append(f"mirror: component {name} does not go to {_other_side(name)}: {_names(scheme, stray)}")
    if scheme.mean_face is None or np.ptp(scheme.mean_face, axis=0).max() == 0 or _is_one_sided(scheme):
        return found
    distances = mirror_distances(scheme, scheme.mean_face)
    for i, mirror in enumerate(scheme.mirror):
        off, nearest = float(distances[i, i]), int(distances[i].argmin())
        if off > MAX_MIRROR_ERROR or (off > NOTICEABLE and distances[i, nearest] < off / 2):
            line = f"mirror: on the mean face {_names(scheme, [mirror])} flipped misses {_names(scheme, [i])}"
            line += f" by {off:.1%} of the diagonal"
            found.append(line + (f"; {_names(scheme, [nearest])} is nearer" if nearest != i else ""))
    return found


def _check_measures(scheme: LandmarkScheme) -> list[str]:
    found = []
    if scheme.mean_face is None:
        found.append("mean_face: none; without it the mirror cannot be checked, nor the scheme drawn or synthesised")
    elif (np.ptp(scheme.mean_face, axis=0) == 0).all() and scheme.n_landmarks > 1:
        found.append("mean_face: all landmarks lie in one place")
    elif scheme.mean_face.min() < -1e-3 or scheme.mean_face.max() > 1 + 1e-3:
        found.append(
            "mean_face: expected values from 0 to 1 (the longer side of its tight box), given "
            f"{scheme.mean_face.min():.3g} to {scheme.mean_face.max():.3g}"
        )
    if not scheme.normalizers and {"left_eye", "right_eye"} <= set(scheme.components):
        found.append("normalizers: none though there are both eyes; add outer-eye-corners or pupils")
    return found
