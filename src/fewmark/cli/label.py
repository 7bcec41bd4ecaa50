"""The commands `label` and `review`: the local page of a project, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewmark.cli.page import NoBrowser, run_page
from fewmark.cli.project import require_model
from fewmark.core.errors import InputError

Folder = Annotated[Path, typer.Argument(metavar="PROJECT", help="Project folder, made by `fewmark init`.")]
Host = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Address to listen on. Beyond this machine, the page asks for a token, which is printed.",
    ),
]
Port = Annotated[int, typer.Option(metavar="N", help="Port; 0: any free one.")]


def label(folder: Folder, host: Host = "127.0.0.1", port: Port = 0, no_browser: NoBrowser = False) -> None:
    """Open the page of a project: place landmarks, by mouse or keys."""
    _serve(folder, host, port, no_browser)


def review(folder: Folder, host: Host = "127.0.0.1", port: Port = 0, no_browser: NoBrowser = False) -> None:
    """Open the page of a project on the faces that its model is most in doubt about."""
    require_model(folder)
    _serve(folder, host, port, no_browser)


def _serve(folder: Path, host: str, port: int, no_browser: bool) -> None:
    from fewmark.project.project import is_project

    if not is_project(folder):
        raise InputError(f"{folder}: no project folder; make one by `fewmark init {folder} --scheme NAME`")
    options = ["--host", host, "--port", str(port), *(["--no-browser"] if no_browser else [])]
    run_page(folder, options)
