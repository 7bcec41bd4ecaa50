"""Numbered image of a landmark scheme, which shows the index of each point."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Similarity, box_centre, box_of_points, box_size
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.visualization.colours import DARK, landmark_colours
from fewmark.visualization.labels import outward_directions

PAPER = (255, 255, 255)
MARGIN = 0.09
"""Margin on each side of the face, as a fraction of the image side."""
DIRECTIONS = 24
RINGS = (0.0, 0.4, 0.9, 1.6, 2.5, 3.6, 5.0, 6.6)
"""Candidate distances of a number from its point, in digit heights."""


def draw_scheme(scheme: LandmarkScheme, size: int = 1024) -> NDArray[np.uint8]:
    """Draw the mean face with its edges, coloured by component, and the index of every landmark.

    Args:
        scheme: Scheme with a mean face.
        size: Side of the image, px.

    Returns:
        (size, size, 3) RGB.

    Raises:
        InputError: The scheme has no mean face, or the image is too small to be legible.
    """
    if scheme.mean_face is None:
        raise InputError(f"scheme {scheme.name} has no mean face to draw: add `mean_face` to its file")
    if size < 128:
        raise InputError(f"scheme image: expected a size of at least 128 px, given {size}")
    box = box_of_points(scheme.mean_face)
    side = float(box_size(box).max()) or 1.0
    face = Similarity.about(box_centre(box), np.full(2, (size - 1) / 2), scale=size * (1 - 2 * MARGIN) / side)
    points = face(scheme.mean_face)
    colours = landmark_colours(scheme, DARK)
    image = np.full((size, size, 3), PAPER, np.uint8)
    dot = max(1.0, size / 512)
    for a, b in scheme.edges:
        pale = tuple(int(255 - 0.45 * (255 - c)) for c in colours[a])
        _line(image, points[a], points[b], pale, max(1, size // 700))
    font_scale = size / 1024 * float(np.interp(scheme.n_landmarks, (30, 190), (0.5, 0.36)))
    texts = [str(i) for i in range(scheme.n_landmarks)]
    sizes = np.array([cv2.getTextSize(t, cv2.FONT_HERSHEY_SIMPLEX, font_scale, 1)[0] for t in texts], np.float64)
    centres = _place_numbers(
        points, outward_directions(points, scheme), sizes, np.array(scheme.edges, np.int64).reshape(-1, 2), size
    )
    for i, centre in enumerate(centres):
        if _gap(centre, sizes[i], points[i]) > sizes[i, 1] * 0.7:
            _line(
                image,
                points[i],
                np.clip(points[i], centre - sizes[i] / 2, centre + sizes[i] / 2),
                (190, 190, 190),
                1,
            )
    for point, colour in zip(points, colours, strict=True):
        cv2.circle(image, _fixed(point), round(dot * 16), colour, -1, cv2.LINE_AA, 4)
    for i, text in enumerate(texts):
        corner = centres[i] + (-sizes[i, 0] / 2, sizes[i, 1] / 2)
        at = (round(float(corner[0])), round(float(corner[1])))
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, font_scale, colours[i], 1, cv2.LINE_AA)
    title = f"{scheme.name}: {scheme.n_landmarks} landmarks, indices from 0" + (
        ", order inferred" if scheme.inferred else ""
    )
    at = (round(size * 0.02), round(size * 0.03))
    cv2.putText(image, title, at, cv2.FONT_HERSHEY_SIMPLEX, size / 1024 * 0.55, (40, 40, 40), 1, cv2.LINE_AA)
    return image


def _fixed(point: NDArray[np.float64]) -> tuple[int, int]:
    """A point in sixteenths of a pixel, for cv2's sub-pixel drawing."""
    return round(float(point[0]) * 16), round(float(point[1]) * 16)


def _line(
    image: NDArray[np.uint8],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    colour: tuple[int, ...],
    width: int,
) -> None:
    cv2.line(image, _fixed(a), _fixed(b), colour, width, cv2.LINE_AA, 4)


def _gap(centre: NDArray[np.float64], extent: NDArray[np.float64], point: NDArray[np.float64]) -> float:
    """Distance of a point from a number's box, px."""
    return float(np.linalg.norm(np.maximum(np.abs(point - centre) - extent / 2, 0)))


def _place_numbers(
    points: NDArray[np.float64],
    outward: NDArray[np.float64],
    sizes: NDArray[np.float64],
    edges: NDArray[np.int64],
    image_size: int,
) -> NDArray[np.float64]:
    """Place the centre of each number in turn at the cheapest position around its point, then revise all positions.

    Positions are penalised for covering a number (most), a point or an edge, for distance, and for facing inwards.
    """
    height = float(sizes[:, 1].max())
    padding = height * 0.3
    angles = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    rays = np.stack([np.cos(angles), np.sin(angles)], 1)
    shares = np.linspace(0, 1, 9)[1:-1, None, None]
    on_edges = (points[edges[:, 0]] * (1 - shares) + points[edges[:, 1]] * shares).reshape(-1, 2)
    rings = np.array(RINGS) * height
    farthest = rings[-1] + float(np.linalg.norm(sizes, axis=1).max()) + padding
    candidates, costs = [], []
    for i, point in enumerate(points):
        half = sizes[i] / 2 + padding
        touching = point + rays / (np.abs(rays) / half).max(1, keepdims=True)  # boxes with the point on their rim
        places = (touching[None] + rays[None] * rings[:, None, None]).reshape(-1, 2)
        cost = np.repeat(np.array(RINGS) * 1.2, DIRECTIONS) + np.tile(1 - rays @ outward[i], len(RINGS)) * 1.5
        around = [p[np.abs(p - point).max(-1) < 1.5 * farthest] for p in (np.delete(points, i, 0), on_edges)]
        cost += 14 * _inside(places, sizes[i] / 2 + padding * 0.6, around[0]).sum(1)
        cost += 0.7 * _inside(places, sizes[i] / 2, around[1]).sum(1)
        outside = ((places - half < 0) | (places + half > image_size - 1)).any(1)
        candidates.append(places)
        costs.append(cost + 1000 * outside)
    chosen = np.full((len(points), 2), np.nan)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    crowding = np.sort(distances, axis=1)[:, : min(6, len(points))].sum(1)
    for _ in range(3):
        for i in np.argsort(crowding):
            near = np.flatnonzero((distances[i] < 2 * farthest) & (np.arange(len(points)) != i))
            apart = np.abs(candidates[i][:, None] - chosen[None, near]) - (sizes[i] + sizes[None, near]) / 2
            overlaps = (apart < padding).all(-1).sum(1)
            crossings = _crossings(points[i], candidates[i], points[near], chosen[near])
            chosen[i] = candidates[i][int(np.argmin(costs[i] + 40 * overlaps + 3 * crossings))]
    return chosen


def _inside(places: NDArray[np.float64], half: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Test whether a box of this half extent at each place covers each point, (P, N)."""
    return np.asarray((np.abs(places[:, None] - points[None]) < half).all(-1), np.bool_)


def _crossings(
    point: NDArray[np.float64],
    places: NDArray[np.float64],
    points: NDArray[np.float64],
    chosen: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Count the leader lines (point to number) of placed numbers that each new leader would cross, (P,)."""

    def side(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
        ab, ac = b - a, c - a
        return np.asarray(ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0])

    start, end = point[None, None], places[:, None]
    a, b = points[None], chosen[None]
    apart = (side(start, end, a) * side(start, end, b) < 0) & (side(a, b, start) * side(a, b, end) < 0)
    return np.asarray(apart.sum(1), np.int64)
