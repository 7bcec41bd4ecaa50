"""`python -m fewmark.web PROJECT`: serve the page of a project until Ctrl-C; with --design IMAGE, the designer of its scheme."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
import threading
import webbrowser
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from fewmark.core.errors import InputError
from fewmark.web.app import create_app
from fewmark.web.design import create_design_app
from fewmark.web.guard import LOOPBACK
from fewmark.web.listening import listen


def serve(app: FastAPI, listener: socket.socket, address: str, *, browser: bool, what: str) -> None:
    """Serve a page until Ctrl-C, or until its application says that it is done.

    Args:
        app: The application; `app.state.server` is set to the server.
        listener: A bound socket.
        address: What is printed and opened.
        browser: Open a browser.
        what: What is served, in words for the person.
    """
    print(f"{what}; Ctrl-C ends it: {address}", flush=True)  # noqa: T201
    if browser:
        threading.Timer(0.5, webbrowser.open, (address,)).start()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    app.state.server = server
    server.run(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(prog="fewmark label", description="Serve the page of a project until Ctrl-C.")
    parser.add_argument("folder", type=Path, metavar="PROJECT")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--recipe", help="recipe of a training that the page starts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--start", help="model from which it begins")
    parser.add_argument("--design", type=Path, metavar="IMAGE", help="make the project, its scheme drawn on this image")
    parser.add_argument("--objects", choices=("faces", "whole-images"), default="faces")
    given = parser.parse_args()
    try:
        design(given) if given.design is not None else label(given)
    except InputError as error:
        sys.exit(str(error))


def label(given: argparse.Namespace) -> None:
    """Serve the page of a project."""
    training = [word for change in given.set for word in ("--set", change)]
    for name in ("recipe", "start"):
        if getattr(given, name) is not None:
            training += [f"--{name}", getattr(given, name)]
    own = given.host in LOOPBACK
    token = None if own else secrets.token_urlsafe(24)
    hosts = LOOPBACK if own else (*LOOPBACK, given.host, socket.gethostname().lower())
    app = create_app(given.folder, hosts=hosts, token=token, training=training)
    listener, address = listen(given.host, given.port)
    query = "" if token is None else f"?token={token}"
    serve(
        app,
        listener,
        f"{address}{query}",
        browser=not given.no_browser,
        what=f"every edit is saved at once in {given.folder}",
    )


def design(given: argparse.Namespace) -> None:
    """Serve the scheme designer, on this machine alone, until the project is made."""

    def done() -> None:
        app.state.server.should_exit = True

    app = create_design_app(given.folder, given.design, objects=given.objects, on_made=done)
    listener, address = listen("127.0.0.1", given.port)
    serve(
        app,
        listener,
        f"{address}design.html",
        browser=not given.no_browser,
        what=f"a scheme for {given.folder}, made by the last button",
    )


if __name__ == "__main__":
    main()
