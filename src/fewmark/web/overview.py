"""What the page's overview shows: where the project stands, how its models do, and the faces that they are most in doubt about."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from fewmark.core.geometry import box_of_points
from fewmark.data.images import read_image
from fewmark.project.project import Project
from fewmark.visualization.draw import face_tile

N_WORST = 24
N_BINS = 24
TILE = 200
"""Side of a tile, px."""


def overview_data(project: Project) -> dict[str, Any]:
    """Counts, the NME of each training, how the model's doubts are spread, and its most doubtful faces."""
    run = project.last_run
    data: dict[str, Any] = {"status": project.status().to_dict(), "doubts": None, "worst": []}
    if run is None:
        return data
    values = np.array(project.predictions.all_doubts(run.id), np.float64)
    if len(values):
        top = float(np.quantile(values, 0.99)) or 1.0
        counts, edges = np.histogram(np.minimum(values, top), N_BINS, (0.0, top))
        data["doubts"] = {"counts": counts.tolist(), "edges": edges.round(5).tolist(), "calibrated": run.calibrated}
    data["worst"] = [{"face": n, "doubt": d} for n, d in project.predictions.doubts(run.id, N_WORST)]
    return data


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
