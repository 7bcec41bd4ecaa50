"""Landmarks drawn on images and on face tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, Image, box_centre, box_of_points, box_size, crop_from_box, warp_image
from fewmark.core.pixels import as_rgb
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.visualization.colours import BRIGHT, RGB, landmark_colours
from fewmark.visualization.labels import write_labels

_TRUTH = (255, 255, 255)
_USUAL_NUMBER = 68  # points of a face; those of more are drawn smaller


class HasLandmarks(Protocol):
    """Object with landmarks, such as `Face` or `FaceSample`."""

    @property
    def landmarks(self) -> NDArray[np.float32] | None: ...


def draw_landmarks(
    image: Any,
    faces: Sequence[HasLandmarks | FloatArray],
    scheme: LandmarkScheme,
    *,
    numbers: bool = False,
    names: bool = False,
    truth: Sequence[FloatArray] | None = None,
) -> Image:
    """Draw the edges and landmarks of faces on a copy of the image, scaled with each face.

    Args:
        image: (H, W, 3) RGB, or what else `fewmark.core.pixels.as_rgb` takes, such as a Pillow image; read a file by `read_image`.
        faces: `Face`s, or arrays (K, 2) image px; missing landmarks (NaN) and their edges are not drawn.
        scheme: Scheme that gives the edges and colours.
        numbers: Label each landmark with its index.
        names: Label each landmark with its name instead.
        truth: True landmarks of the same faces, drawn as white dots and joined to the predicted landmarks.

    Returns:
        (H, W, 3) RGB.

    Raises:
        InputError: The image is none, or a face does not have K landmarks.
    """
    canvas = as_rgb(image).copy()
    colours = landmark_colours(scheme)
    for n, face in enumerate(faces):
        points = face if isinstance(face, np.ndarray) else face.landmarks
        if points is None:
            continue
        if points.shape != (scheme.n_landmarks, 2):
            raise InputError(
                f"draw_landmarks: expected ({scheme.n_landmarks}, 2) as the scheme {scheme.name} has, given {points.shape}"
            )
        true_points = None if truth is None else np.asarray(truth[n], np.float64)
        _render_face(canvas, np.asarray(points, np.float64), scheme, colours, true_points)
        if numbers or names:
            canvas = write_labels(canvas, np.asarray(points, np.float64), scheme, names=names)
    return canvas


def face_tile(
    image: Image,
    landmarks: FloatArray,
    scheme: LandmarkScheme,
    *,
    size: int = 240,
    margin: float = 0.2,
    truth: FloatArray | None = None,
    box_xyxy: FloatArray | None = None,
    numbers: bool = False,
) -> Image:
    """Crop one face, resize it and draw its landmarks.

    Args:
        image: (H, W, 3) RGB.
        landmarks: (K, 2) image px.
        scheme: See `draw_landmarks`.
        size: Side of the tile, px.
        margin: Margin on each side, as a fraction of the side of the box.
        truth: True landmarks, (K, 2) image px, drawn as white dots.
        box_xyxy: Box to crop, image px; None for the box of `truth` if given, otherwise of the landmarks.
        numbers: See `draw_landmarks`.
    """
    if box_xyxy is None:
        points = landmarks if truth is None else truth
        height, width = image.shape[:2]
        whole = np.array([0, 0, width - 1, height - 1], np.float32)
        box_xyxy = box_of_points(points) if np.isfinite(points).all(1).any() else whole
    if not box_size(box_xyxy).max() > 0:
        centre = box_centre(box_xyxy)
        box_xyxy = np.concatenate([centre - 16, centre + 16])
    tile_from_image = crop_from_box(box_xyxy, size, margin=margin)
    tile = warp_image(image, tile_from_image, (size, size), fill=(236, 238, 241))
    true_points = None if truth is None else [tile_from_image(truth)]
    return draw_landmarks(tile, [tile_from_image(landmarks)], scheme, numbers=numbers, truth=true_points)


def _present(points: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(points).all(-1), np.bool_)


def _render_face(
    canvas: Image,
    points: NDArray[np.float64],
    scheme: LandmarkScheme,
    colours: Sequence[RGB],
    truth: NDArray[np.float64] | None,
) -> None:
    """Draw a face into the canvas by downsampling a finer layer of colour and coverage, so thin lines stay smooth."""
    seen = _present(points)
    if not seen.any():
        return
    side = max(float(box_size(box_of_points(points)).max()), 24.0)
    thin = min(1.0, math.sqrt(_USUAL_NUMBER / len(points)))  # more points do not cover more of the face
    dot, line = max(0.8, side / 104 * thin), max(0.7, side / 260 * thin)
    shown = points if truth is None else np.concatenate([points, truth])
    reach = box_of_points(shown) + np.array([-1, -1, 1, 1]) * (3 * dot + 3)
    height, width = canvas.shape[:2]
    x0, y0 = (int(v) for v in np.clip(np.floor(reach[:2]), 0, [width, height]))
    x1, y1 = (int(v) for v in np.clip(np.ceil(reach[2:]), 0, [width, height]))
    if x1 <= x0 or y1 <= y0:
        return
    fine = int(np.clip(math.ceil(900 / side), 1, 4))
    shape = ((y1 - y0) * fine, (x1 - x0) * fine)
    colour, cover = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)

    def place(point: FloatArray) -> tuple[int, int]:  # cv2 takes sixteenths of a pixel
        fine_xy = (np.clip(point, -4 * width - 99, 5 * width + 4 * height + 99) - [x0, y0] + 0.5) * fine - 0.5
        return round(float(fine_xy[0]) * 16), round(float(fine_xy[1]) * 16)

    def stroke(a: FloatArray, b: FloatArray, paint: RGB, thickness: float, opacity: int) -> None:
        width_px = max(1, round(thickness * fine))
        cv2.line(colour, place(a), place(b), paint, width_px + 2, cv2.LINE_8, 4)
        cv2.line(cover, place(a), place(b), opacity, width_px, cv2.LINE_AA, 4)

    def disc(centre: FloatArray, radius: float, paint: RGB, opacity: int) -> None:
        cv2.circle(colour, place(centre), round((radius * fine + 1) * 16), paint, -1, cv2.LINE_8, 4)
        cv2.circle(cover, place(centre), round(radius * fine * 16), opacity, -1, cv2.LINE_AA, 4)

    for i, j in scheme.edges:
        if seen[i] and seen[j]:
            stroke(points[i], points[j], colours[i] if colours[i] == colours[j] else BRIGHT[0], line, 215)
    if truth is not None:
        known = _present(truth)
        for i in np.flatnonzero(known & seen).tolist():
            stroke(truth[i], points[i], _TRUTH, line, 235)
        for i in np.flatnonzero(known).tolist():
            disc(truth[i], dot * 0.85, _TRUTH, 245)
    for i in np.flatnonzero(seen).tolist():
        disc(points[i], dot * 1.35, (22, 26, 32), 150)
        disc(points[i], dot, colours[i], 255)
    # colour extends slightly beyond cover and is weighted by it, so edges stay smooth and keep their hue
    alpha = cover.astype(np.float32) / 255
    small = (x1 - x0, y1 - y0)
    ink = cv2.resize(colour.astype(np.float32) * alpha[..., None], small, interpolation=cv2.INTER_AREA)
    share = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)[..., None]
    below = canvas[y0:y1, x0:x1].astype(np.float32)
    canvas[y0:y1, x0:x1] = np.clip(np.rint(ink + below * (1 - share)), 0, 255).astype(np.uint8)
