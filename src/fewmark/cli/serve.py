"""The command `serve`: a detector over HTTP, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from fewmark.cli.base import ModelArgument
from fewmark.core.errors import InputError
from fewmark.core.install import install_hint

_NEEDS = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
}
"""Module -> its package."""


def serve(
    model: ModelArgument,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0: all. There is no login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0: any free one.")] = 8000,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes; 0: one a core.")] = 0,
    queue: Annotated[int, typer.Option(metavar="N", help="Most images that wait; further ones get 429.")] = 64,
    scheme: Annotated[str | None, typer.Option(metavar="NAME", help="Scheme of the landmarks, by a transfer.")] = None,
    max_mb: Annotated[float, typer.Option(metavar="MB", help="Largest request.")] = 64.0,
    max_pixels: Annotated[
        int | None, typer.Option(metavar="N", help="Most pixels of an image; default 250 million.")
    ] = None,
    max_faces: Annotated[int, typer.Option(metavar="N", help="Most faces of an image, the largest.")] = 100,
    timeout: Annotated[float, typer.Option(metavar="S", help="Longest time for a request.")] = 30.0,
) -> None:
    """Serve a detector over HTTP: POST /detect with image files, or /detect/json; /docs describes it; /health, /ready, /metrics."""
    missing = [package for module, package in _NEEDS.items() if find_spec(module) is None]
    if missing:
        raise InputError(f"serve needs {', '.join(missing)}: {install_hint('serve')}")
    words = ["-m", "fewmark.web.serving", model, "--host", host, "--port", str(port), "--workers", str(workers)]
    words += ["--queue", str(queue), "--max-mb", str(max_mb), "--max-faces", str(max_faces), "--timeout", str(timeout)]
    words += [] if scheme is None else ["--scheme", scheme]
    words += [] if max_pixels is None else ["--max-pixels", str(max_pixels)]
    if os.name == "posix":  # signals, such as a container's, reach the service itself
        os.execv(sys.executable, [sys.executable, *words])
    raise typer.Exit(subprocess.call([sys.executable, *words]))
