"""Propose a scheme from labelled faces: mirror, components, edges and mean face of K landmarks of unknown meaning."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Floats, Similarity, fit_similarity
from fewmark.core.procrustes import in_unit_square, mean_shape
from fewmark.landmarks.scheme import BetweenMeans, BetweenPoints, LandmarkScheme, Normalizer
from fewmark.landmarks.scheme_check import MAX_MIRROR_ERROR, other_side

SMOOTHING = 0.01
"""Weight of a thin-plate spline's bending against the distances to its points."""
DOUBTFUL = 0.08
"""Distance of a mirrored landmark from its counterpart, as a fraction of the face, from which the pair is worth a look."""
LONGEST_EDGE = 2.5
"""Longest edge between consecutive landmarks, in median steps of their component."""
FAR = 0.15
"""Distance from every component, as a fraction of the reference's mean face, from which a landmark is of none of them: `OTHER`."""
OTHER = "other"
_N_SWEEPS = 50


@dataclass(frozen=True, eq=False)
class SchemeProposal:
    """A proposed scheme, and what to look at.

    Attributes:
        scheme: The scheme; its mirror is None where the faces show no symmetry.
        doubtful: Indices of the landmarks whose counterpart is worth a look, each with that of the next best counterpart.
        n_faces: Faces that it comes from.
    """

    scheme: LandmarkScheme
    doubtful: dict[int, int]
    n_faces: int


def propose_scheme(
    name: str,
    labels: FloatArray,
    *,
    landmark_names: Sequence[str] | None = None,
    found: FloatArray | None = None,
    reference: LandmarkScheme | None = None,
    source: str = "",
) -> SchemeProposal:
    """Propose a scheme from labelled faces.

    Args:
        name: Name of the scheme.
        labels: (N, K, 2) image px, NaN where missing; every landmark must be present in at least one face.
        landmark_names: K names; None: made from the components.
        found: (N, R, 2) image px: landmarks of a known scheme that a detector found in the same faces. They tell a face's parts and
            its own mirror image, whatever its pose. None: the labels' mean shape alone, for upright faces or other objects.
        reference: The known scheme, with mirror, components and mean face; needed with `found`.
        source: Origin of the scheme.

    Raises:
        InputError: No face is complete enough, or the names do not fit.
    """
    labels = np.asarray(labels, np.float64)
    n, k = labels.shape[:2]
    if landmark_names is not None and len(landmark_names) != k:
        raise InputError(f"scheme {name}: expected {k} names of landmarks, given {len(landmark_names)}")
    absent = np.flatnonzero(~np.isfinite(labels).all(2).any(0))
    if len(absent):
        raise InputError(f"scheme {name}: landmark {absent[0]} is labelled in none of {n} faces; label it in one")
    if found is not None and reference is not None:
        costs, mean = _by_reference(labels, np.asarray(found, np.float64), reference)
    else:
        costs, mean = _by_mean_shape(name, labels)
    mirror = match_mirror(costs)
    named = {} if landmark_names is None else _named_pairs(landmark_names)
    mirror = _with_pairs(mirror, named)
    residuals = costs[np.arange(k), mirror]
    symmetric = bool(named) or float(np.median(residuals)) < MAX_MIRROR_ERROR / 2
    if symmetric:
        mean = _symmetric(mean, mirror)
    components = _components(mean, mirror, reference if found is not None else None)
    names = tuple(landmark_names) if landmark_names is not None else _make_names(k, components, mirror)
    normalizers = _normalizers(mean, components, mirror, reference) if symmetric and found is not None else {}
    return SchemeProposal(
        LandmarkScheme(
            name=name,
            landmarks=names,
            mirror=tuple(mirror.tolist()) if symmetric else None,
            components=components,
            edges=_edges(mean, components, mirror if symmetric else np.arange(k)),
            normalizers=normalizers,
            default_normalizer="outer-eye-corners" if normalizers else "points-diagonal",
            mean_face=in_unit_square(mean).astype(np.float32),
            source=source,
            inferred=True,
        ),
        doubtful=_doubtful(costs, mirror, residuals) if symmetric else {},
        n_faces=n,
    )


def match_mirror(costs: FloatArray) -> NDArray[np.int64]:
    """The permutation m with m[m[i]] = i whose sum of costs[i, m[i]] is small: greedily, then by exchanges until none helps.

    Args:
        costs: (K, K) distance between the mirror image of landmark i and landmark j.
    """
    c = np.asarray(costs, np.float64)
    c = (c + c.T) / 2
    k = len(c)
    rows, columns = np.triu_indices(k)
    mirror = np.full(k, -1)
    for o in np.argsort(c[rows, columns], kind="stable"):
        i, j = rows[o], columns[o]
        if mirror[i] < 0 and mirror[j] < 0:
            mirror[i], mirror[j] = j, i
    for _ in range(_N_SWEEPS):
        changed = False
        for i, j in itertools.combinations(range(k), 2):
            group = {i, int(mirror[i]), j, int(mirror[j])}
            if len(group) == 1 or mirror[i] == j:
                group = {i, j}
            best = min(
                _pairings(sorted(group)), key=lambda pairs: sum((1 if a == b else 2) * c[a, b] for a, b in pairs)
            )
            before = sum(c[a, mirror[a]] for a in group)
            if sum((1 if a == b else 2) * c[a, b] for a, b in best) < before - 1e-12:
                for a, b in best:
                    mirror[a], mirror[b] = b, a
                changed = True
        if not changed:
            break
    return mirror


def _pairings(group: Sequence[int]) -> list[list[tuple[int, int]]]:
    """All ways to pair the members of a group, each with another or itself."""
    if not group:
        return [[]]
    first, rest = group[0], list(group[1:])
    ways = [[(first, first), *w] for w in _pairings(rest)]
    for other in rest:
        ways += [[(first, other), *w] for w in _pairings([r for r in rest if r != other])]
    return ways


def _by_reference(labels: FloatArray, found: FloatArray, reference: LandmarkScheme) -> tuple[Floats, Floats]:
    """(K, K) distances between mirror images and landmarks, and the (K, 2) mean in the frame of the reference's mean face.

    A face's mirror map is the thin-plate spline that moves each found landmark to its counterpart, so pose and expression are in it.
    """
    if reference.mirror is None or reference.mean_face is None:
        raise InputError(f"scheme {reference.name}: expected a mirror and a mean face, given none")
    swap = list(reference.mirror)
    frontal = _symmetric(reference.mean_face, swap)
    distances, places = [], []
    for points, known in zip(labels, found, strict=True):
        centre, side = known.mean(0), np.ptp(known, axis=0).max()
        p, q = (points - centre) / side, (known - centre) / side
        mirrored = thin_plate_spline(q, q[swap], p)
        distances.append(np.linalg.norm(mirrored[:, None] - p[None], axis=-1))
        places.append(thin_plate_spline(q, frontal, p))
    return np.nanmean(distances, axis=0), np.nanmean(places, axis=0)


def thin_plate_spline(
    source: FloatArray, target: FloatArray, points: FloatArray, smoothing: float = SMOOTHING
) -> Floats:
    """Map points by the smooth map that takes source to target.

    Args:
        source: (R, 2), of an extent of about 1.
        target: (R, 2).
        points: (K, 2); NaN stays NaN.
        smoothing: 0: through every point.

    Source: Bookstein, PAMI 1989; smoothing as Wahba's.
    """
    a = np.asarray(source, np.float64)
    r = len(a)
    affine = np.c_[np.ones(r), a]
    system = np.block([[_bend(a, a) + smoothing * np.eye(r), affine], [affine.T, np.zeros((3, 3))]])
    weights = np.linalg.solve(system, np.r_[np.asarray(target, np.float64), np.zeros((3, 2))])
    p = np.asarray(points, np.float64)
    return np.asarray(_bend(p, a) @ weights[:r] + np.c_[np.ones(len(p)), p] @ weights[r:], np.float64)


def _bend(a: Floats, b: Floats) -> Floats:
    squared = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.asarray(squared * np.log(squared + 1e-12), np.float64)


def _by_mean_shape(name: str, labels: FloatArray) -> tuple[Floats, Floats]:
    """As `_by_reference`, from the mean shape alone: its axis is near the upright one, and in the middle."""
    whole = labels[np.isfinite(labels).all((1, 2))]
    if not len(whole):
        raise InputError(f"scheme {name}: expected at least one face with all landmarks, given none of {len(labels)}")
    mean = mean_shape(whole, like=whole[0])
    turns = np.radians([fit_similarity(mean, shape).angle for shape in whole])
    upright = float(np.degrees(np.angle(np.exp(1j * turns).mean())))
    rotations = (Similarity.about((0.0, 0.0), (0.0, 0.0), angle=upright + a) for a in range(-20, 21))
    mean = in_unit_square(min((rotated(mean) for rotated in rotations), key=_asymmetry))
    costs = np.linalg.norm((mean * (-1, 1) + (1, 0))[:, None] - mean[None], axis=-1)
    return costs, mean


def _symmetric(face: FloatArray, mirror: Sequence[int] | NDArray[np.int64]) -> Floats:
    """The mean of a face (K, 2) of the unit square and its flip."""
    points = np.asarray(face, np.float64)
    return np.asarray((points + points[list(mirror)] * (-1, 1) + (1, 0)) / 2, np.float64)


def _asymmetry(shape: Floats) -> float:
    """Mean distance of the flipped landmarks from the nearest ones."""
    flipped = shape * (-1, 1) + (shape[:, 0].min() + shape[:, 0].max(), 0)
    return float(np.linalg.norm(flipped[:, None] - shape[None], axis=-1).min(1).mean())


def _named_pairs(names: Sequence[str]) -> dict[int, int]:
    """The counterparts that names tell: left_... and right_..."""
    index = {n: i for i, n in enumerate(names)}
    return {i: index[other_side(n)] for n, i in index.items() if other_side(n) != n and other_side(n) in index}


def _with_pairs(mirror: NDArray[np.int64], pairs: Mapping[int, int]) -> NDArray[np.int64]:
    """The mirror with some pairs given; a landmark that loses its counterpart to a pair becomes its own."""
    result = np.array(mirror)
    for i in range(len(result)):
        result[i] = pairs.get(i, i if result[i] in pairs else result[i])
    return result


def _components(
    mean: Floats, mirror: NDArray[np.int64], reference: LandmarkScheme | None
) -> dict[str, tuple[int, ...]]:
    """Components by the reference's nearest one, or, without, by gaps between consecutive landmarks."""
    if reference is None or reference.mean_face is None:
        steps = np.linalg.norm(np.diff(mean, axis=0), axis=1)
        starts = [0, *(np.flatnonzero(steps > LONGEST_EDGE * max(np.median(steps), 1e-9)) + 1).tolist(), len(mean)]
        return _name_pieces(mean, mirror, [set(range(a, b)) for a, b in itertools.pairwise(starts)])
    parts = list(reference.components)
    lines = {n: _line(reference, n) for n in parts}
    distance = np.stack([np.linalg.norm(mean[:, None] - lines[n][None], axis=-1).min(1) for n in parts], 1)
    partner = [parts.index(other_side(n)) if other_side(n) in parts else i for i, n in enumerate(parts)]
    both = distance + distance[mirror][:, partner]
    chosen = both.argmin(1)
    members: dict[str, list[int]] = {}
    done: dict[int, int] = {}
    for i in range(len(mean)):
        j = int(mirror[i])
        part = partner[done[j]] if j in done else int(chosen[i])
        if j == i and partner[part] != part:  # on the midline: no component of one side
            part = min((p for p in range(len(parts)) if partner[p] == p), key=lambda p: distance[i, p])
        done[i] = part
        far = min(distance[i].min(), distance[j].min()) > FAR
        members.setdefault(OTHER if far else parts[part], []).append(i)
    return {n: tuple(members[n]) for n in (*parts, OTHER) if n in members}


def _name_pieces(mean: Floats, mirror: NDArray[np.int64], pieces: list[set[int]]) -> dict[str, tuple[int, ...]]:
    """left_part_N and right_part_N for two pieces that mirror each other; pieces that do so in part become one part_N."""
    components: dict[str, tuple[int, ...]] = {}
    left = list(pieces)
    while left:
        piece = left.pop(0)
        image = {int(mirror[i]) for i in piece}
        number = len({n.removeprefix("left_").removeprefix("right_") for n in components})
        if image in left:
            left.remove(image)
            first, second = sorted((piece, image), key=lambda p: float(mean[sorted(p), 0].mean()))
            components[f"left_part_{number}"], components[f"right_part_{number}"] = map(
                tuple, map(sorted, (first, second))
            )
            continue
        while touched := [p for p in left if p & image]:
            left = [p for p in left if p not in touched]
            piece = piece.union(*touched)
            image = {int(mirror[i]) for i in piece}
        components[f"part_{number}"] = tuple(sorted(piece))
    return components


def _line(scheme: LandmarkScheme, component: str) -> Floats:
    """Points along a component of the mean face: its landmarks and three more on every edge."""
    assert scheme.mean_face is not None
    face = _symmetric(scheme.mean_face, scheme.mirror or range(scheme.n_landmarks))
    inside = set(scheme.components[component])
    between = [
        face[a] + t * (face[b] - face[a])
        for a, b in scheme.edges
        if a in inside and b in inside
        for t in (0.25, 0.5, 0.75)
    ]
    return np.array([*face[sorted(inside)], *between])


def _make_names(k: int, components: Mapping[str, tuple[int, ...]], mirror: NDArray[np.int64]) -> tuple[str, ...]:
    """COMPONENT_NUMBER; a landmark of the right has the number of its counterpart on the left."""
    names = [""] * k
    for component, indices in components.items():
        for number, i in enumerate(indices):
            j = int(mirror[i])
            if names[i]:
                continue
            names[i] = f"{component}_{number}"
            if other_side(component) != component and other_side(component) in components:
                names[j] = f"{other_side(component)}_{number}"
    return tuple(names)


def _edges(
    mean: Floats, components: Mapping[str, tuple[int, ...]], mirror: NDArray[np.int64]
) -> tuple[tuple[int, int], ...]:
    """Consecutive landmarks of a component that are near each other; chains whose ends meet are closed."""
    edges: set[tuple[int, int]] = set()
    for indices in components.values():
        pairs = [(a, b) for a, b in itertools.pairwise(indices) if b == a + 1]
        if not pairs:
            continue
        steps = np.array([np.linalg.norm(mean[a] - mean[b]) for a, b in pairs])
        longest = LONGEST_EDGE * float(np.median(steps))
        chain = [indices[0]]
        for a, b in [*itertools.pairwise(indices), (indices[-1], -1)]:
            if b == a + 1 and np.linalg.norm(mean[a] - mean[b]) <= longest:
                edges.add((a, b))
                chain.append(b)
                continue
            own = float(np.linalg.norm(np.diff(mean[chain], axis=0), axis=1).max()) if len(chain) > 3 else 0.0
            if len(chain) > 3 and np.linalg.norm(mean[chain[0]] - mean[chain[-1]]) <= 1.5 * own:
                edges.add((chain[0], chain[-1]))
            chain = [b]
    both = {*edges, *((int(min(mirror[a], mirror[b])), int(max(mirror[a], mirror[b]))) for a, b in edges)}
    return tuple(sorted((a, b) for a, b in both if a != b))


def _normalizers(
    mean: Floats, components: Mapping[str, tuple[int, ...]], mirror: NDArray[np.int64], reference: LandmarkScheme | None
) -> dict[str, Normalizer]:
    """The eye's landmark nearest to the reference's outer corner, with its counterpart; and the means of the eyes."""
    left, right = components.get("left_eye", ()), components.get("right_eye", ())
    corners = None if reference is None else reference.normalizers.get("outer-eye-corners")
    if (
        not left
        or not right
        or reference is None
        or reference.mean_face is None
        or not isinstance(corners, BetweenPoints)
    ):
        return {}
    corner = reference.mean_face[corners.first].astype(np.float64)
    first = min(left, key=lambda i: float(np.linalg.norm(mean[i] - corner)))
    return {
        "outer-eye-corners": BetweenPoints(first, int(mirror[first])),
        "pupils": BetweenMeans(tuple(left), tuple(right)),
    }


def _doubtful(costs: Floats, mirror: NDArray[np.int64], residuals: Floats) -> dict[int, int]:
    """Landmarks far from their counterpart, or with another that is nearly as near -> that other one."""
    k = len(mirror)
    others = (costs + costs.T) / 2
    own = others[np.arange(k), mirror].copy()
    others[np.arange(k), mirror] = np.inf
    rival = others.argmin(1)
    found = np.flatnonzero((residuals > DOUBTFUL) | (others[np.arange(k), rival] < 1.05 * own))
    return {int(i): int(rival[i]) for i in found}
