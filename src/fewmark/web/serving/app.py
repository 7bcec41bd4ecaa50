"""The HTTP interface of a detector: images in, faces out; health, readiness and metrics."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response, UploadFile
from fastapi.responses import HTMLResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from fewmark.core.version import __version__
from fewmark.web.serving.description import describe
from fewmark.web.serving.limits import BodyLimits
from fewmark.web.serving.pool import Busy, Pool
from fewmark.web.serving.worker import Job, JobAnswer, WorkerDied

MAX_IMAGES = 64
"""Most images of a request; the queue may hold fewer."""
_DESCRIPTION = (
    "Finds faces and their landmarks. An answer holds one entry for each image, in order: its name, size and faces, or `error`. A face "
    "is as `fewmark detect` writes it: box, landmarks (x, y in image px; the centre of the first pixel is 0, 0), scores. "
    "429 says that the queue is full; ask again."
)


class ImageInRequest(BaseModel):
    """An image in a JSON request."""

    data: str = Field(description="The image file's bytes in base64.")
    name: str = Field("", description="Its name in the answer.", max_length=1000)
    boxes: list[Annotated[list[float], Field(min_length=4, max_length=4)]] | None = Field(
        None, description="x0, y0, x1, y1 of its faces, image px; null: they are detected.", max_length=1000
    )


class DetectionRequest(BaseModel):
    """Images to detect faces in."""

    images: list[ImageInRequest] = Field(min_length=1, max_length=MAX_IMAGES)


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("fewmark_requests", "Answered requests by status.", ["status"], **made)
        self.images = Counter("fewmark_images", "Images by what became of them.", ["outcome"], **made)
        self.faces = Counter("fewmark_faces", "Faces found.", **made)
        self.seconds = Histogram("fewmark_request_seconds", "Time from the whole request to its answer.", **made)
        self.batches = Histogram("fewmark_batch_images", "Images in a batch.", buckets=(1, 2, 4, 8), **made)
        self.waiting = Gauge("fewmark_waiting_images", "Images in the queue.", **made)
        self.restarts = Gauge("fewmark_worker_restarts", "Processes that were started in place of dead ones.", **made)
        self.ready = Gauge("fewmark_ready_workers", "Processes that answer.", **made)


def create_app(pool: Pool, metrics: Metrics, *, max_bytes: int, timeout_s: float) -> FastAPI:
    """The application.

    Args:
        pool: Answers images; opened and closed with the application.
        metrics: What `pool` and the application count.
        max_bytes: Largest request.
        timeout_s: Longest time for a request, its wait in the queue included.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await pool.open()
        yield
        await pool.close()

    app = FastAPI(
        title="fewmark",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages are loaded from elsewhere
        redoc_url=None,
    )
    app.add_middleware(BodyLimits, max_bytes=max_bytes)
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"description": text}
        for status, text in (
            (400, "The request is none of images."),
            (408, "The request broke off."),
            (413, "The request is too large."),
            (429, "The queue is full; ask again."),
            (500, "An image ended the process that read it."),
            (504, "No answer in time."),
        )
    }

    async def answer(jobs: Sequence[Job]) -> Response:
        most = min(MAX_IMAGES, pool.capacity)
        if not 1 <= len(jobs) <= most:
            raise HTTPException(400, f"expected 1 to {most} images, given {len(jobs)}")
        began = time.perf_counter()
        try:
            answers = await asyncio.wait_for(pool.ask(jobs), timeout_s)
        except Busy:
            raise HTTPException(429, "the queue is full; ask again", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise HTTPException(504, f"no answer in {timeout_s:g} s") from None
        except WorkerDied as error:
            raise HTTPException(500, f"an image of this request ended the process that read it: {error}") from None
        finally:
            metrics.seconds.observe(time.perf_counter() - began)
        count(answers)
        return Response(b'{"images":[' + b",".join(a.text for a in answers) + b"]}", media_type="application/json")

    def count(answers: Sequence[JobAnswer]) -> None:
        for a in answers:
            metrics.images.labels("refused" if a.refused else "answered").inc()
            metrics.faces.inc(a.n_faces)

    @app.middleware("http")
    async def count_requests(request: Request, proceed: Any) -> Response:
        response: Response = await proceed(request)
        if request.url.path.startswith("/detect"):
            metrics.requests.labels(str(response.status_code)).inc()
        return response

    @app.post("/detect", responses=refusals)
    async def detect(images: list[UploadFile]) -> Response:
        """Detect faces in image files, as a form sends them."""
        return await answer([Job(i.filename or f"image {n}", await i.read()) for n, i in enumerate(images, 1)])

    @app.post("/detect/json", responses=refusals)
    async def detect_json(request: DetectionRequest) -> Response:
        """Detect faces in images in base64, or landmarks in given boxes."""
        jobs = []
        for n, image in enumerate(request.images, 1):
            name = image.name or f"image {n}"
            try:
                data = base64.b64decode(image.data, validate=True)
            except (binascii.Error, ValueError):
                raise HTTPException(400, f"{name}: data: expected base64") from None
            jobs.append(Job(name, data, image.boxes))
        return await answer(jobs)

    @app.get("/docs", include_in_schema=False, response_class=HTMLResponse)
    async def read_docs(request: Request) -> str:
        return describe(app.openapi(), str(request.base_url))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the service lives."""
        return {"status": "ok"}

    @app.get("/ready", responses={503: {"description": "A process is being started."}})
    async def ready() -> dict[str, Any]:
        """Whether every process answers."""
        if not pool.ready:
            raise HTTPException(503, f"{pool.n_ready} of {pool.n_workers} processes answer")
        return {"status": "ok", "processes": pool.n_workers}

    @app.get("/metrics")
    async def read_metrics() -> Response:
        """For Prometheus."""
        metrics.waiting.set(pool.n_waiting)
        metrics.restarts.set(pool.n_restarts)
        metrics.ready.set(pool.n_ready)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
