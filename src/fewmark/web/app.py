"""The page's server: faces and images of a project out, labels in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from fastapi import Body, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from fewmark.core.errors import InputError
from fewmark.core.geometry import Floats
from fewmark.core.procrustes import mean_shape
from fewmark.data.images import read_image
from fewmark.landmarks.scheme import BetweenPoints, LandmarkScheme
from fewmark.project.labels import ConflictError, Face
from fewmark.project.predictions import StoredPrediction
from fewmark.project.project import Project
from fewmark.project.queue import QueueKind
from fewmark.visualization.colours import landmark_colours
from fewmark.web.guard import LOOPBACK, Guard
from fewmark.web.overview import overview_data
from fewmark.web.pictures import heatmap_of, tile_of
from fewmark.web.trainer import Trainer

STATIC = Path(__file__).parent / "static"
SHOWN_BY_BROWSERS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
"""Image files that a browser shows as they are, turned as their EXIF says; others are sent as PNG."""
MOST = 500
"""Most faces of one answer."""


class Label(BaseModel):
    """What a person did to a face.

    Attributes:
        landmarks: K pairs x, y, image px; null where a landmark is missing.
        visibility: K numbers, 1 for an occluded landmark, 2 for a visible one.
        how: placed by hand, a model's points fixed, or accepted as they are.
        version: The version that the person saw.
        who: The person.
    """

    landmarks: list[tuple[float, float] | None]
    visibility: list[int]
    how: Literal["placed", "fixed", "accepted"]
    version: int
    who: str = ""


class Rejection(BaseModel):
    """That a face is none."""

    version: int
    who: str = ""


class Restoration(BaseModel):
    """Which version of a face is wanted back."""

    version: int
    who: str = ""


def create_app(
    folder: str | Path,
    *,
    hosts: Collection[str] = LOOPBACK,
    token: str | None = None,
    training: Sequence[str] = (),
) -> FastAPI:
    """The page of a project as an ASGI application.

    Args:
        folder: The project folder.
        hosts: Names under which the page may be asked for.
        token: What a person has to know to use it, or None.
        training: Options of a training that the page starts, see `fewmark.project.training_process`.

    Raises:
        InputError: It is no project folder.
    """
    project, trainer = Project(folder), Trainer(Path(folder), training)
    app = FastAPI(title="fewmark", docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(Guard(hosts, token))

    @app.exception_handler(InputError)
    def refuse(_: Request, error: Exception) -> Response:
        if isinstance(error, ConflictError):
            return JSONResponse({"detail": str(error), "face": face_data(project, error.face)}, status_code=409)
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.get("/api/project")
    def read_project() -> dict[str, Any]:
        return project_data(project)

    @app.get("/api/queue")
    def read_queue(
        kind: QueueKind = "best",
        n: Annotated[int, Query(ge=1, le=MOST)] = 40,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        return [{"face": i.face, "reason": i.reason} for i in project.queue(n, kind, seed=seed)]

    @app.get("/api/doubtful")
    def read_doubtful(n: Annotated[int, Query(ge=1, le=MOST)] = 100) -> list[dict[str, Any]]:
        found = [d for d in project.doubtful_labels() if d.landmarks][:n]
        return [{"face": d.face, "reason": d.reason, "landmarks": d.landmarks, "doubt": d.doubt} for d in found]

    @app.get("/api/faces")
    def list_faces(
        state: Literal["unlabelled", "labelled", "rejected"] | None = None,
        after: int = 0,
        n: Annotated[int, Query(ge=1, le=MOST)] = 100,
    ) -> list[dict[str, Any]]:
        return [{"face": number, "reason": ""} for number in project.labels.numbers_after(after, n, state)]

    @app.get("/api/faces/{number}")
    def read_face(number: int) -> dict[str, Any]:
        return face_data(project, project.labels.face(number))

    @app.put("/api/faces/{number}")
    def write_face(number: int, label: Annotated[Label, Body()]) -> dict[str, Any]:
        points = np.array([(np.nan, np.nan) if p is None else p for p in label.landmarks], np.float32)
        after = project.label(
            number,
            points.reshape(-1, 2),
            np.array(label.visibility, np.uint8),
            how=label.how,
            who=label.who or None,
            version=label.version,
        )
        return face_data(project, after)

    @app.post("/api/faces/{number}/reject")
    def reject_face(number: int, said: Annotated[Rejection, Body()]) -> dict[str, Any]:
        return face_data(project, project.reject(number, who=said.who or None, version=said.version))

    @app.get("/api/faces/{number}/neighbour")
    def read_neighbour(number: int) -> dict[str, Any]:
        found = project.labels.neighbour(number)
        if found is None:
            raise InputError(f"face {number}: no other frame of its video is labelled at this place")
        return face_data(project, found)

    @app.get("/api/faces/{number}/history")
    def read_history(number: int) -> list[dict[str, Any]]:
        return [
            {"version": c.after.version, "at": c.at, "who": c.who, "how": c.after.how, "state": c.after.state}
            for c in project.labels.history(number)
        ]

    @app.post("/api/faces/{number}/restore")
    def restore_face(number: int, wanted: Annotated[Restoration, Body()]) -> dict[str, Any]:
        return face_data(project, project.labels.restore(number, wanted.version, wanted.who or "page"))

    @app.get("/api/faces/{number}/heatmap")
    def read_heatmap(number: int) -> dict[str, Any]:
        return heatmap_of(project, number)

    @app.get("/api/images/{number}")
    def read_image_file(number: int) -> Response:
        path = project.image_path(number)
        if not path.is_file():
            raise HTTPException(404, f"{path.name}: the image is not where it was; put it back, or add it with --copy")
        if path.suffix.lower() in SHOWN_BY_BROWSERS:
            return FileResponse(path)
        done, data = cv2.imencode(".png", cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR))
        assert done
        return Response(data.tobytes(), media_type="image/png")

    @app.get("/api/overview")
    def read_overview() -> dict[str, Any]:
        return overview_data(project) | {"training": trainer.running}

    @app.get("/api/faces/{number}/tile")
    def read_tile(number: int) -> Response:
        return Response(tile_of(project, number), media_type="image/jpeg")

    @app.post("/api/training", status_code=202)
    def start_training() -> dict[str, Any]:
        trainer.start()
        return {"training": True}

    @app.post("/api/training/stop")
    def stop_training() -> dict[str, Any]:
        trainer.stop()
        return {"training": trainer.running}

    @app.get("/api/training/events")
    def follow_training() -> Response:
        return StreamingResponse(trainer.events(), media_type="text/event-stream")

    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def project_data(project: Project) -> dict[str, Any]:
    """What the page has to know before it shows a face."""
    scheme = project.scheme
    shape = start_shape(project)
    return {
        "name": project.folder.resolve().name,
        "scheme": {
            "name": scheme.name,
            "landmarks": list(scheme.landmarks),
            "edges": [list(e) for e in scheme.edges],
            "mirror": None if scheme.mirror is None else list(scheme.mirror),
            "components": {name: list(indices) for name, indices in scheme.components.items()},
            "colours": ["#" + bytes(c).hex() for c in landmark_colours(scheme)],
        },
        "shape": None if shape is None else np.round(shape, 4).tolist(),
        "anchors": None if shape is None else anchors(scheme, shape),
        "status": project.status().to_dict(),
    }


def start_shape(project: Project) -> Floats | None:
    """A usual shape (K, 2) to put on a face: the scheme's mean face, or else the mean of the whole labels; None if there is neither."""
    if project.scheme.mean_face is not None:
        return np.asarray(project.scheme.mean_face, np.float64)
    some = islice(project.labels.faces("labelled"), MOST)
    whole = [f.landmarks for f in some if f.landmarks is not None and np.isfinite(f.landmarks).all()]
    return mean_shape(np.stack(whole)) if whole else None


def anchors(scheme: LandmarkScheme, shape: Floats) -> tuple[int, int]:
    """The two landmarks by which a person puts the shape on a face: the normaliser's if it is a distance of two, else the farthest two."""
    if isinstance(scheme.normalizer, BetweenPoints):
        return scheme.normalizer.first, scheme.normalizer.second
    distance = np.linalg.norm(shape[:, None] - shape[None], axis=2)
    first, second = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(first), int(second)


def face_data(project: Project, face: Face) -> dict[str, Any]:
    """A face for the page: its label, what the model says of it, and a shape to start from."""
    image, run = project.labels.image(face.image), project.last_run
    said = None if run is None else project.predictions.prediction(run.id, face.id)
    return {
        "face": face.id,
        "image": face.image,
        "name": Path(image.path).name,
        "width": image.width,
        "height": image.height,
        "box": None if face.box is None else face.box.tolist(),
        "state": face.state,
        "how": face.how,
        "version": face.version,
        "landmarks": None if face.landmarks is None else _points(face.landmarks),
        "visibility": None if face.visibility is None else face.visibility.tolist(),
        "prediction": None if said is None else _said(said),
    }


def _said(said: StoredPrediction) -> dict[str, Any]:
    side = float(np.ptp(said.landmarks, axis=0).max())
    return {"landmarks": _points(said.landmarks), "errors": [round(float(e) * side, 2) for e in said.errors]}


def _points(landmarks: np.ndarray) -> list[list[float] | None]:
    """Landmarks as JSON has them, null where missing; in 1/1000 px."""
    return [None if not np.isfinite(p).all() else [round(float(v), 3) for v in p] for p in landmarks]
