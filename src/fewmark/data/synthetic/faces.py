"""Synthetic faces: parametric portraits with exact landmarks, in any scheme that has a mean face.

The shape and expression of a person give 68 landmarks seen from the front. The skin is painted around them, mapped
onto a relief, lit, rotated in space and photographed; hair, glasses and hands may occlude it. Landmarks of other
schemes follow the same deformation and relief, so a seed gives the same image in every scheme.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.core.geometry import Box, Floats, box_centre, box_of_points, box_size
from fewmark.data.synthetic.appearance import sample_appearance
from fewmark.data.synthetic.brush import fixed, smooth
from fewmark.data.synthetic.occlusion import paint_covers
from fewmark.data.synthetic.photo import lit, photograph, sample_light
from fewmark.data.synthetic.pose import (
    X0,
    Y0,
    Camera,
    Pose,
    Relief,
    face_from_image,
    project_visible,
    sample_pose,
    spread_contour,
)
from fewmark.data.synthetic.scene import Scene
from fewmark.data.synthetic.shape import face_controls, painted_controls, sample_expression, scheme_weights
from fewmark.data.synthetic.skin import paint_face
from fewmark.landmarks.scheme import LandmarkScheme

_FINER = 1.5  # everything is painted this many times larger, then averaged down
_CELL = 3  # one ray for so many px each way; the skin's map is smooth between them


@dataclass(frozen=True, eq=False)
class SyntheticFace:
    """One drawn image.

    Attributes:
        image: (size, size, 3) RGB.
        landmarks: (K, 2) image px.
        occluded: (K,) True where something, or the face itself, hides the landmark.
        box: (4,) x0 y0 x1 y1 image px: the tight box of the face's ibug-68 points, whatever the scheme.
        pose: how the face is turned.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    occluded: NDArray[np.bool_]
    box: Box
    pose: Pose


def render_face(
    rng: np.random.Generator, *, scheme: LandmarkScheme, size: int = 160, pose: Pose | None = None
) -> SyntheticFace:
    """Draw one face.

    Args:
        rng: Source of all randomness, independent of the scheme.
        scheme: Scheme of the returned landmarks.
        size: Side of the image, px.
        pose: Pose of the head; None for a random one.

    Raises:
        InputError: The scheme has no mean face, or the size is below 16.
    """
    if size < 16:
        raise InputError(f"synthetic face: expected an image of at least 16 px, given {size}")
    weights = scheme_weights(scheme)
    n = round(size * _FINER)
    controls = face_controls(rng, sample_expression(rng))
    appearance, light = sample_appearance(rng), sample_light(rng)
    drawn_pose = sample_pose(rng)
    pose = pose or drawn_pose
    painted = painted_controls(controls)
    relief = Relief(painted, nose=float(rng.uniform(0.75, 1.2)))
    camera, seen, at = aim(rng, relief, controls, pose, n)
    seen68 = seen[:68]
    edge, _ = project_visible(relief, camera, painted[[*range(17), *range(74, 67, -1)]])

    texture, unit = paint_face(rng, painted, appearance, n)
    texture = lit(texture, *light.shade(relief, camera.rotation))
    scene = Scene(rng, n, camera, controls, relief, appearance, light)
    scene.paint_behind()
    part, depth = _lay_face(
        scene.image, texture, unit, relief, camera, smooth(edge), float(rng.uniform(0.6, 1.6)) * size / 160
    )
    scene.paint_hair()
    paint_covers(rng, scene)
    image = photograph(rng, scene.image, size)

    if scheme.name != "ibug-68":
        rest = weights @ controls
        seen, at = project_visible(relief, camera, rest)
        contour = list(scheme.components.get("contour", ()))
        if len(contour) > 2:
            seen[contour], at[contour] = spread_contour(seen[contour], at[contour], rest[contour])
    occluded = _hidden(scene.cover, depth, part, seen, camera.depth(at))[: scheme.n_landmarks]
    return SyntheticFace(
        image,
        _shrink(seen[: scheme.n_landmarks], n, size),
        occluded,
        box_of_points(_shrink(seen68, n, size)),
        pose,
    )


def _lay_face(
    image: NDArray[np.uint8],
    texture: NDArray[np.uint8],
    unit: float,
    relief: Relief,
    camera: Camera,
    outline: Floats,
    edge: float,
) -> tuple[tuple[int, int], NDArray[np.float32]]:
    """Show the lit skin inside an outline (image px) with its edge blurred by `edge` px; in place.

    Returns:
        x, y where the covered part of the image begins, px, and that part's depths, one for each _CELL px.
    """
    n = len(image)
    low = np.clip(np.floor(outline.min(0)) - 6, 0, n - 1).astype(int) // _CELL
    high = np.clip(np.ceil(outline.max(0)) + 7, 1, n).astype(int)
    cells = -(-high // _CELL) - low
    x0, y0 = low * _CELL
    w, h = np.minimum(cells * _CELL, n - low * _CELL)
    x, y, depth = face_from_image(relief, camera, (x0, y0), (int(cells[1]), int(cells[0])), _CELL)
    full = (int(cells[0]) * _CELL, int(cells[1]) * _CELL)
    columns = cv2.resize((x - np.float32(X0)) * np.float32(unit) - 0.5, full, interpolation=cv2.INTER_LINEAR)
    rows = cv2.resize((y - np.float32(Y0)) * np.float32(unit) - 0.5, full, interpolation=cv2.INTER_LINEAR)
    face = cv2.remap(texture, columns[:h, :w], rows[:h, :w], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((h, w), np.uint8)
    cv2.fillPoly(mask, [fixed(outline - (x0, y0))], 255, cv2.LINE_AA, 4)
    soft = cv2.GaussianBlur(mask, (0, 0), edge).astype(np.float32) * np.float32(1 / 255)
    part = image[y0 : y0 + h, x0 : x0 + w]
    part[:] = cv2.blendLinear(face, np.ascontiguousarray(part), soft, 1 - soft)
    return (int(x0), int(y0)), depth


def aim(
    rng: np.random.Generator, relief: Relief, controls: Floats, pose: Pose, n: int
) -> tuple[Camera, Floats, Floats]:
    """A camera that has the face at a random size and place in an image of n px, its tight box inside.

    Returns:
        The camera; the controls in the image, (75, 2) px; where they are on the face, (75, 3) face frame.
    """
    distance = float(np.exp(rng.uniform(*np.log((5, 25)))))
    camera = Camera(pose.rotation(), distance, 1.0, np.zeros(2))
    seen, at = project_visible(relief, camera, controls)
    seen[:17], at[:17] = spread_contour(seen[:17], at[:17], controls[:17])
    box = box_of_points(seen[:68])
    scale = float(n * rng.uniform(0.5, 0.86) / box_size(box).max())
    room = (n - 1 - box_size(box) * scale) / 2
    shift = (n - 1) / 2 + np.clip(rng.normal(0, 0.05, 2) * n, -0.9 * room, 0.9 * room) - box_centre(box) * scale
    return camera.to(scale, shift), seen * scale + shift, at


def _shrink(points: Floats, n: int, size: int) -> NDArray[np.float32]:
    """From the finer image of n px to the returned one of `size` px."""
    return np.asarray((points + 0.5) * (size / n) - 0.5, np.float32)


def _hidden(
    cover: NDArray[np.uint8],
    surface: NDArray[np.float32],
    first: tuple[int, int],
    seen: Floats,
    depth: Floats,
) -> NDArray[np.bool_]:
    """Landmarks below something, or behind a part of the face that is nearer by a tenth of its width."""
    at = np.clip(np.rint(seen), 0, len(cover) - 1).astype(int)
    col, row = np.clip((at - first) // _CELL, 0, np.array(surface.shape)[::-1] - 1).T
    return np.asarray((cover[at[:, 1], at[:, 0]] > 127) | (surface[row, col] > depth + 0.2))


def render_faces(n: int, scheme: LandmarkScheme, seed: int, *, size: int = 160) -> Iterator[SyntheticFace]:
    """n faces; the i-th depends on the seed and i alone.

    Raises:
        InputError: the scheme has no mean face, or the size is below 16.
    """
    for i in range(n):
        yield render_face(np.random.default_rng([seed, i]), scheme=scheme, size=size)


def render_dataset(
    folder: str | Path,
    n: int,
    *,
    scheme: LandmarkScheme,
    seed: int,
    size: int = 160,
    labelled: bool = True,
    quality: int = 92,
) -> Path:
    """Write n synthetic faces as JPEGs and an annotations.csv in fewmark's plain form.

    Args:
        folder: made where it is missing; images go into its `images`.
        labelled: False leaves landmarks and visibilities out, and keeps file, group and box.
        quality: of the JPEGs.

    Returns:
        The CSV's path. Its columns: file, group (each face is a person of its own), box_x0..., x0, y0, ...,
        v0, ... (1 visible, 0 occluded).

    Raises:
        InputError: the scheme has no mean face, n is negative, or a file cannot be written.
    """
    if n < 0:
        raise InputError(f"synthetic faces: expected a number of faces of at least 0, given {n}")
    folder = Path(folder)
    k = scheme.n_landmarks
    header = ["file", "group", "box_x0", "box_y0", "box_x1", "box_y1"]
    if labelled:
        header += [f"{axis}{i}" for i in range(k) for axis in "xy"] + [f"v{i}" for i in range(k)]
    table = folder / "annotations.csv"
    try:
        (folder / "images").mkdir(parents=True, exist_ok=True)
        with atomic_path(table) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            write = csv.writer(file, lineterminator="\n").writerow
            write(header)
            for i, face in enumerate(render_faces(n, scheme, seed, size=size)):
                name = f"images/{i:06d}.jpg"
                _write_jpeg(folder / name, face.image, quality)
                row = [name, f"drawn_{seed}_{i:06d}", *(f"{v:.2f}" for v in face.box)]
                if labelled:
                    row += [f"{v:.3f}" for v in face.landmarks.ravel()] + ["0" if o else "1" for o in face.occluded]
                write(row)
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); check the folder and the disk"
        ) from error
    return table


def _write_jpeg(path: Path, image: NDArray[np.uint8], quality: int) -> None:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    path.write_bytes(data.tobytes())
