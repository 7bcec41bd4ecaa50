"""Plausibility checks of a landmark scheme: mirror against geometry, components, edges, mean face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Similarity, fit_similarity
from fewmark.landmarks.scheme import LandmarkScheme

MAX_MIRROR_ERROR = 0.08
"""Largest distance between a mirrored landmark and its counterpart, as a fraction of the face diagonal."""
ASYMMETRY = 0.01
"""Distances below this fraction of the diagonal are attributed to asymmetry of the mean face."""


def mirror_distances(scheme: LandmarkScheme, landmarks: FloatArray) -> NDArray[np.float64]:
    """Distance between each landmark of the flipped face and each landmark of the face.

    The face is flipped, its landmarks are exchanged by the mirror and aligned to the face by a similarity.

    Args:
        scheme: scheme with a mirror.
        landmarks: (K, 2) any unit, a near-frontal or mean face less than 45 degrees from upright; NaN where missing.

    Returns:
        (K, K) fractions of the diagonal of the tight box: [i, j] is the distance between the flipped landmark that the
        mirror maps to i and landmark j. A correct mirror has its smallest distances on the diagonal.

    Raises:
        InputError: the scheme has no mirror, or fewer than two distinct landmarks with counterparts are present.
    """
    if scheme.mirror is None:
        raise InputError(f"scheme {scheme.name} has no mirror to check: add `mirror` to its file")
    points = np.asarray(landmarks, np.float64)
    if points.shape != (scheme.n_landmarks, 2):
        raise InputError(f"scheme {scheme.name}: expected landmarks ({scheme.n_landmarks}, 2), given {points.shape}")
    flipped = points[list(scheme.mirror)] * (-1.0, 1.0)
    present = np.isfinite(points).all(1) & np.isfinite(flipped).all(1)
    diagonal = float(np.linalg.norm(np.ptp(points[present], axis=0))) if present.any() else 0.0
    if diagonal == 0:
        raise InputError(f"scheme {scheme.name}: expected at least two distinct landmarks to check the mirror")
    face_from_flipped = fit_similarity(flipped, points)
    if abs(face_from_flipped.angle) > 90:  # for collinear points a rotation by 180 degrees undoes a flip
        face_from_flipped = Similarity.translation(*(points[present].mean(0) - flipped[present].mean(0)))
    distances = np.linalg.norm(face_from_flipped(flipped)[:, None] - points[None], axis=-1)
    return np.asarray(distances / diagonal, np.float64)


def mirror_residual(scheme: LandmarkScheme, landmarks: FloatArray) -> NDArray[np.float64]:
    """Distance between each landmark and its counterpart in the flipped face.

    Args:
        scheme: scheme with a mirror.
        landmarks: (K, 2) any unit; see `mirror_distances`.

    Returns:
        (K,) fractions of the diagonal of the tight box; NaN where either landmark is missing. Near 0 for a correct mirror.

    Raises:
        InputError: as `mirror_distances`.
    """
    return np.diagonal(mirror_distances(scheme, landmarks)).copy()


def check_scheme(scheme: LandmarkScheme) -> list[str]:
    """Suspicious properties of a scheme, one line each; empty if there are none.

    Schemes that cannot be used at all are rejected by `load_scheme`.
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
    components_of: list[list[str]] = [[] for _ in scheme.landmarks]
    for name, indices in scheme.components.items():
        if len(set(indices)) < len(indices):
            duplicates = sorted({i for i in indices if indices.count(i) > 1})
            found.append(f"components.{name}: lists a landmark twice: {_names(scheme, duplicates)}")
        for i in set(indices):
            components_of[i].append(name)
    for i, component_names in enumerate(components_of):
        if len(component_names) > 1:
            found.append(f"components: landmark {_names(scheme, [i])} is in several: {', '.join(component_names)}")
    outside = [i for i, component_names in enumerate(components_of) if not component_names]
    if outside:
        found.append(f"components: in none: landmark {_names(scheme, outside)}")
    return found


def _check_edges(scheme: LandmarkScheme) -> list[str]:
    component_names = {i: name for name, indices in scheme.components.items() for i in indices}
    found = []
    for a, b in scheme.edges:
        if a == b:
            found.append(f"edges: landmark {_names(scheme, [a])} is joined to itself")
        elif a in component_names and b in component_names and component_names[a] != component_names[b]:
            found.append(
                f"edges: {_names(scheme, [a, b])} joins {component_names[a]} to {component_names[b]}; expected one component"
            )
    return found


def other_side(name: str) -> str:
    """Exchange left and right in a name."""
    return name.replace("left", "\0").replace("right", "left").replace("\0", "right")


def _is_one_sided(scheme: LandmarkScheme) -> bool:
    """Whether the scheme is a profile with an identity mirror: its mean face differs from its flip."""
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
        partner = index.get(other_side(name), i)
        if partner > i and scheme.mirror[i] != partner:
            found.append(
                f"mirror: {_names(scheme, [i])} goes to {_names(scheme, [scheme.mirror[i]])}; "
                f"by its name expected {_names(scheme, [partner])}"
            )
    for name, indices in scheme.components.items():
        other = scheme.components.get(other_side(name), indices)
        misplaced = [i for i in indices if scheme.mirror[i] not in other]
        if misplaced:
            found.append(f"mirror: component {name} does not go to {other_side(name)}: {_names(scheme, misplaced)}")
    if scheme.mean_face is None or np.ptp(scheme.mean_face, axis=0).max() == 0 or _is_one_sided(scheme):
        return found
    distances = mirror_distances(scheme, scheme.mean_face)
    for i, mirror in enumerate(scheme.mirror):
        distance, nearest = float(distances[i, i]), int(distances[i].argmin())
        if distance > MAX_MIRROR_ERROR or (distance > ASYMMETRY and distances[i, nearest] < distance / 2):
            line = f"mirror: on the mean face {_names(scheme, [mirror])} flipped misses {_names(scheme, [i])}"
            line += f" by {distance:.1%} of the diagonal"
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
