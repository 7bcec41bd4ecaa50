"""The relief of a synthetic face, the camera, and the map from image to face frame.

Source: relief mapping as in Policarpo et al., I3D 2005: rays are marched through a height field.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.geometry import FloatArray, Floats
from fewmark.data.synthetic.brush import smooth
from fewmark.data.synthetic.shape import CENTRE, Outline

Map = NDArray[np.float32]

X0, Y0 = -1.8, -1.45
EXTENT = 3.6  # the square of the face frame that the relief and the texture cover, from (X0, Y0)
_GRID = 64
_PIVOT = np.array([0.0, 0.3, -0.85])
# how far the outline lies behind the face's centre: 17 contour points, the hairline from right to left
_OUTLINE_DEPTH = np.array(
    [
        *(1.08, 1.08, 1.06, 0.98, 0.84, 0.62, 0.36, 0.16, 0.08),
        *(0.16, 0.36, 0.62, 0.84, 0.98, 1.06, 1.08, 1.08),
        *(1.0, 0.85, 0.62, 0.5, 0.62, 0.85, 1.0),
    ]
)
_X = (X0 + (np.arange(_GRID) + 0.5) * EXTENT / _GRID).astype(np.float32)  # of the relief's columns
_Y = (Y0 + (np.arange(_GRID) + 0.5) * EXTENT / _GRID).astype(np.float32)[:, None]
_ANGLE = np.arctan2(_X - CENTRE[0], _Y - CENTRE[1])  # 0 towards the chin
_DISTANCE = np.hypot(_X - CENTRE[0], _Y - CENTRE[1])


@dataclass(frozen=True)
class Pose:
    """Degrees; yaw > 0: the nose to the image's right, pitch > 0: it rises, roll > 0: counter-clockwise."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def rotation(self) -> Floats:
        """(3, 3) camera frame from face frame, both x right, y down, z to the viewer."""
        a, b, c = np.radians([self.yaw, self.pitch, self.roll])
        yaw = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        pitch = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        roll = np.array([[np.cos(c), np.sin(c), 0], [-np.sin(c), np.cos(c), 0], [0, 0, 1]])
        return np.asarray(roll @ pitch @ yaw)


def sample_pose(rng: np.random.Generator) -> Pose:
    """Yaw to 50, pitch to 25, roll to 30 degrees; half of the faces look almost at the camera."""
    yaw, pitch, roll = rng.normal(0, 1, 3) * (12 if rng.random() < 0.55 else 26, 10, 10)
    return Pose(float(np.clip(yaw, -50, 50)), float(np.clip(pitch, -25, 25)), float(np.clip(roll, -30, 30)))


class Relief:
    """The height of the face's surface over its frontal plane.

    Attributes:
        height: (64, 64) z over the square of the face frame that begins at (X0, Y0) and is EXTENT wide.
    """

    def __init__(self, controls: Floats, nose: float = 1.0) -> None:
        """Args: controls: (75, 2) face frame. nose: factor on how far the nose stands out."""
        self.outline = Outline(controls)
        self.height = self._build(controls, nose)

    def _build(self, p: Floats, nose: float) -> Map:
        s = _DISTANCE / self.outline.radius(_ANGLE)
        depth = self.outline.along(_OUTLINE_DEPTH, _ANGLE)
        z = -depth * (1 - np.sqrt(1 - np.minimum(s, 0.995) ** 2)) - np.maximum(s - 1, 0) * 3.0
        # the nose: a ridge that rises from between the eyes to the tip, then falls steeply to the lip
        top, tip, base = p[27, 1] - 0.05, p[30, 1], p[33, 1]
        rows = [top - 0.2, top, tip - 0.06, tip + 0.02, base + 0.03, base + 0.12]
        ridge = np.interp(_Y, rows, [0, 0.07, 0.36, 0.38, 0.16, 0.0])
        half = np.interp(_Y, [top - 0.2, top, tip, base], [0.16, 0.09, 0.12, 0.14]) * (p[35, 0] - p[31, 0]) / 0.42
        middle = np.interp(_Y, p[27:31, 1], p[27:31, 0])
        z += nose * ridge * np.exp(-(((_X - middle) / half) ** 2) * 0.9)
        bumps = np.array(_bumps(p, nose))  # (n, 5): x, y, their widths, height
        across = np.exp(-(((_X - bumps[:, :1]) / bumps[:, 2:3]) ** 2))
        down = np.exp(-(((_Y.T - bumps[:, 1:2]) / bumps[:, 3:4]) ** 2)) * bumps[:, 4:]
        z += down.T @ across
        return np.asarray(cv2.GaussianBlur(z.astype(np.float32), (3, 3), 0.7), np.float32)

    def lift(self, points: FloatArray) -> Floats:
        """(..., 2) face frame -> (..., 3) on the surface."""
        at = np.asarray(points, np.float64)
        flat = at.reshape(-1, 2)
        col = (flat[:, 0] - X0) * _GRID / EXTENT - 0.5
        row = (flat[:, 1] - Y0) * _GRID / EXTENT - 0.5
        z = cv2.remap(
            self.height,
            col.astype(np.float32),
            row.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.concatenate([at, z.reshape(*at.shape[:-1], 1)], -1)

    def normals(self) -> Map:
        """(64, 64, 3) unit normals in the face frame."""
        gy, gx = np.gradient(self.height, EXTENT / _GRID)
        n = np.stack([-gx, -gy, np.ones_like(gx)], -1)
        return np.asarray(n / np.linalg.norm(n, axis=-1, keepdims=True), np.float32)


def _bumps(p: Floats, nose: float) -> list[tuple[float, float, float, float, float]]:
    """What stands out of the face or lies deeper than it: x, y, width, height in the plane, and how far."""

    def bump(at: FloatArray, wide: float, high: float, amount: float) -> tuple[float, float, float, float, float]:
        return float(at[0]), float(at[1]), wide, high, amount

    found = []
    sides = ((-1, p[31], p[36:42], p[17:22], p[48]), (1, p[35], p[[45, 44, 43, 42, 47, 46]], p[26:21:-1], p[54]))
    for s, wing, eye, brow, corner in sides:
        centre = eye.mean(0)
        found += [
            bump(wing - (0.02 * s, 0.05), 0.09, 0.09, 0.14 * nose),
            bump(centre - (0, 0.02), 0.26, 0.15, -0.11),
            bump(centre, 0.14, 0.1, 0.06),
            bump(eye[0], 0.12, 0.1, 0.05),
            bump(eye[3], 0.1, 0.1, -0.08),
            bump(brow.mean(0) - (0, 0.02), 0.36, 0.1, 0.12),
            bump(brow[0], 0.2, 0.14, 0.1),
            bump(corner, 0.13, 0.12, -0.1),
            (0.58 * s, 0.36, 0.26, 0.24, 0.07),  # the cheekbone
        ]
    return [
        *found,
        bump(p[33] + (0, 0.02), 0.12, 0.06, -0.08),
        bump(p[48:68].mean(0), 0.42, 0.3, 0.1),
        bump(p[[50, 52, 61, 63]].mean(0), 0.22, 0.06, 0.05),
        bump(p[[58, 56, 66]].mean(0), 0.2, 0.07, 0.06),
        bump(0.75 * p[57] + 0.25 * p[8], 0.3, 0.06, -0.05),
        bump(p[8] - (0, 0.17), 0.25, 0.17, 0.1),
    ]


@dataclass(frozen=True)
class Camera:
    """A perspective camera: the face is turned about a point inside the head, then scaled and shifted.

    Attributes:
        rotation: (3, 3) camera frame from face frame.
        distance: from the eye to the pivot, face units; 4 is a close self-portrait.
        scale: px for one face unit at the pivot's depth.
        shift: (2,) px, where the pivot lands.
    """

    rotation: Floats
    distance: float
    scale: float
    shift: Floats

    def __call__(self, points: FloatArray) -> Floats:
        """(..., 3) face frame -> (..., 2) image px."""
        c = (np.asarray(points) - _PIVOT) @ self.rotation.T
        return np.asarray(c[..., :2] * (self.distance / (self.distance - c[..., 2:])) * self.scale + self.shift)

    def depth(self, points: FloatArray) -> Floats:
        """(..., 3) face frame -> (...) towards the viewer, face units."""
        return np.asarray((np.asarray(points) - _PIVOT) @ self.rotation[2])

    def to(self, scale: float, shift: FloatArray) -> Camera:
        """The same view, scaled and then shifted in the image."""
        return Camera(self.rotation, self.distance, self.scale * scale, self.shift * scale + np.asarray(shift))


def project_visible(relief: Relief, camera: Camera, points: FloatArray) -> tuple[Floats, Floats]:
    """Landmarks in the image; one near the outline that is turned away moves inwards to the visible edge.

    Args:
        points: (K, 2) face frame.

    Returns:
        (K, 2) image px, and (K, 3) face frame, where each landmark is on the surface.
    """
    points = np.asarray(points, np.float64)
    lifted = relief.lift(points)
    edge = np.flatnonzero(relief.outline.fraction(points) > 0.8)
    if len(edge) == 0:
        return camera(lifted), lifted
    steps = np.linspace(1.0, 0.6, 41)[:, None, None]
    ray = points[edge] - CENTRE
    candidates = relief.lift(CENTRE + steps * ray)  # (41, E, 3)
    seen = camera(candidates)
    roll_only = np.column_stack([camera.rotation[:2, 1][::-1] * (1, -1), camera.rotation[:2, 1]])  # in-plane axes
    outward = ray @ (roll_only / np.linalg.norm(roll_only, axis=0)).T
    reach = (seen * outward).sum(-1) / np.linalg.norm(outward, axis=1)
    reach -= np.arange(41)[:, None] * 1e-6 * camera.scale  # ties stay where they are
    best = reach.argmax(0)
    lifted[edge] = candidates[best, np.arange(len(edge))]
    return camera(lifted), lifted


def spread_contour(seen: Floats, at: Floats, rest: FloatArray) -> tuple[Floats, Floats]:
    """Move the landmarks of a contour along it to where a person labels them: at the steps that they have from the front.

    A contour point is no place on the skin; labels divide the visible edge from the ear to the chin and on to the other ear.

    Args:
        seen: (N, 2) image px, the visible contour in order.
        at: (N, 3) face frame, the same.
        rest: (N, 2) face frame, the contour from the front.

    Returns:
        `seen` and `at` of the moved landmarks.
    """
    n, fine = len(seen), 6
    curve, places = smooth(seen, closed=False, n=fine), smooth(at, closed=False, n=fine)
    along, wanted = _arc(curve), _arc(np.asarray(rest, np.float64))
    index = np.arange(len(curve)) / fine
    chin = (n - 1) / 2
    middle, wanted_middle = np.interp(chin, index, along), np.interp(chin, np.arange(n), wanted)
    knots = np.interp(wanted, [0, wanted_middle, wanted[-1]], [0, middle, along[-1]])
    return _interpolate(knots, along, curve), _interpolate(knots, along, places)


def _arc(points: Floats) -> Floats:
    """(N, D) -> (N,) length of the way from the first point."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def _interpolate(x: Floats, at: Floats, values: Floats) -> Floats:
    """Each column of the values, (N, D), at x."""
    return np.stack([np.interp(x, at, column) for column in values.T], -1)


def face_from_image(
    relief: Relief, camera: Camera, first: tuple[int, int], cells: tuple[int, int], cell: int, steps: int = 16
) -> tuple[Map, Map, Map]:
    """For a grid of cells over a part of the image, the place on the face that each one shows.

    A ray that passes by the face takes the place it came nearest to; the edge is cut by an outline later.

    Args:
        first: x, y of the image px at which the grid begins.
        cells: rows and columns of the grid.
        cell: side of a cell, px.
        steps: how many depths are tried along a ray.

    Returns:
        x, y face frame and the depth towards the viewer, each (rows, columns).
    """
    col = first[0] + (np.arange(cells[1]) + 0.5) * cell - 0.5
    row = first[1] + (np.arange(cells[0]) + 0.5) * cell - 0.5
    u = ((col - camera.shift[0]) / camera.scale).astype(np.float32)[None]
    v = ((row - camera.shift[1]) / camera.scale).astype(np.float32)[:, None]
    inverse, pivot, d = (
        camera.rotation.T.astype(np.float32),
        _PIVOT.astype(np.float32),
        np.float32(camera.distance),
    )
    # the ray at depth t towards the viewer is origin + t * slope, face frame
    across = [inverse[i, 0] * u + inverse[i, 1] * v for i in range(3)]
    slope = [inverse[i, 2] - across[i] / d for i in range(3)]
    origin = [across[i] + pivot[i] for i in range(3)]
    to_grid = np.float32(_GRID / EXTENT)
    gx, gy = (origin[0] - np.float32(X0)) * to_grid - 0.5, (origin[1] - np.float32(Y0)) * to_grid - 0.5
    sx, sy = slope[0] * to_grid, slope[1] * to_grid

    def above(t: Map) -> Map:  # (n, rows, columns), how far the ray is above the surface at depth t
        flat = (-1, cells[1])
        at_x, at_y = (gx + sx * t).reshape(flat), (gy + sy * t).reshape(flat)
        surface = cv2.remap(relief.height, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(origin[2] + slope[2] * t - surface.reshape(-1, *cells), np.float32)

    reach = camera.depth(relief.lift(np.concatenate([relief.outline.points, [CENTRE, (0, 0.47), (0, 1.2)]])))
    near, far = float(reach.max()) + 0.3, float(reach.min()) - 0.1
    depths = np.linspace(near, far, steps, dtype=np.float32)
    step = depths[0] - depths[1]
    gaps = above(depths[:, None, None])
    after = np.maximum((gaps <= 0).argmax(0), 1)  # the first depth below the surface
    hit = gaps.min(0) <= 0
    gap0 = np.take_along_axis(gaps, after[None] - 1, 0)[0]
    gap1 = np.take_along_axis(gaps, after[None], 0)[0]
    crossing = depths[after - 1] - step * np.clip(gap0 / np.maximum(gap0 - gap1, 1e-6), 0, 1)
    t = np.where(hit, crossing, depths[gaps.argmin(0)]).astype(np.float32)
    for _ in range(2):  # Newton's steps along the ray, held within the step that crossed
        gap = above(t)[0]
        rate = (above(t + np.float32(0.02))[0] - gap) / np.float32(0.02)
        move = np.clip(-gap / np.maximum(rate, np.float32(0.15)), -0.5 * step, 0.5 * step)
        t = np.where(hit, t + move, t).astype(np.float32)
    return origin[0] + slope[0] * t, origin[1] + slope[1] * t, t
