"""Pictures of a face for the page: a tile with its landmarks, and where the model sees them."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_of_points
from fewmark.data.images import read_image
from fewmark.project.project import Project
from fewmark.visualization.draw import face_tile

TILE = 200
"""Side of a tile, px."""
HEAT = (255, 176, 32)
"""Colour of the heatmap, RGB."""
STRENGTH = 200
"""Opacity of a peak, of 255."""


def tile_of(project: Project, number: int) -> bytes:
    """A small JPEG of a face, with its label or else what the model says of it."""
    face, run = project.labels.face(number), project.last_run
    said = None if run is None else project.predictions.prediction(run.id, number)
    points = face.landmarks if face.landmarks is not None else None if said is None else said.landmarks
    pixels = read_image(project.image_path(face.image))
    if points is None:
        points = np.full((project.scheme.n_landmarks, 2), np.nan, np.float32)
    box = box_of_points(points) if np.isfinite(points).all(1).any() else face.box
    tile = face_tile(pixels, points, project.scheme, size=TILE, box_xyxy=box)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR))
    assert done
    return bytes(data.tobytes())


def heatmap_of(project: Project, number: int) -> dict[str, Any]:
    """The heatmaps of a face by the last model: `picture`, a PNG as a data URL, and its `square` x0, y0, x1, y1 in the image, px.

    Raises:
        InputError: There is no model, or the face has no box and no landmarks.
    """
    from fewmark.project.heatmap import face_heatmap  # torch, which nothing else of the page needs

    face, model = project.labels.face(number), project.model_path()
    box = face.box
    if box is None and face.landmarks is not None:
        box = box_of_points(face.landmarks)
    if box is None:
        raise InputError(
            f"face {number}: no face was found in this image, so the model has not seen it; place the shape first"
        )
    found = face_heatmap(model, project.image_path(face.image), box)
    alpha = np.rint(STRENGTH * found.values).astype(np.uint8)
    bgra = np.dstack([np.full((*alpha.shape, 3), HEAT[::-1], np.uint8), alpha])
    done, data = cv2.imencode(".png", bgra)
    assert done
    text = base64.b64encode(data.tobytes()).decode()
    return {"picture": f"data:image/png;base64,{text}", "square": found.square.tolist()}
