"""The page of a project, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from fewmark.core.errors import InputError
from fewmark.core.install import install_hint

NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Print the page's address, and open no browser.")]


def run_page(folder: Path, options: Sequence[str]) -> None:
    """Serve the page until it is done, or Ctrl-C.

    Raises:
        InputError: What it needs is not installed.
        typer.Exit: It failed; it has said why.
    """
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            raise InputError(f"the page needs {package}, which is not installed: {install_hint('web', package)}")
    try:
        code = subprocess.call([sys.executable, "-m", "fewmark.web", str(folder), *options])
    except KeyboardInterrupt:  # the page has ended, too
        code = 0
    if code:
        raise typer.Exit(code)
