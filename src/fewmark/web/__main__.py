"""`python -m fewmark.web PROJECT`: serve the page of a project until Ctrl-C."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from fewmark.core.errors import InputError
from fewmark.web.app import create_app
from fewmark.web.guard import LOOPBACK


def serve(folder: Path, *, host: str, port: int, page: str, browser: bool, training: Sequence[str] = ()) -> None:
    """Serve the page.

    Args:
        folder: The project folder.
        host: Address to listen on; beyond this machine, a token is made and asked for.
        port: Port; 0: any free one.
        page: The part of the page that is opened.
        browser: Open a browser.
        training: Options of a training that the page starts.

    Raises:
        InputError: It is no project, or the address is taken.
    """
    own = host in LOOPBACK
    token = None if own else secrets.token_urlsafe(24)
    hosts = LOOPBACK if own else (*LOOPBACK, host, socket.gethostname().lower())
    app = create_app(folder, hosts=hosts, token=token, training=training)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)  # who reads the address may come at once
    except OSError as error:
        raise InputError(f"{host}:{port}: cannot be listened on ({error.strerror}); give another --port") from error
    query = "" if token is None else f"?token={token}"
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/{query}#{page}"
    print(f"{folder}: {address}\nCtrl-C ends it; every edit is saved at once", flush=True)  # noqa: T201
    if browser:
        threading.Timer(0.5, webbrowser.open, (address,)).start()
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(prog="fewmark label", description="Serve the page of a project until Ctrl-C.")
    parser.add_argument("folder", type=Path, metavar="PROJECT")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--page", choices=("label", "review"), default="label")
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--recipe", help="recipe of a training that the page starts")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--start", help="model from which it begins")
    given = parser.parse_args()
    training = [word for change in given.set for word in ("--set", change)]
    for name in ("recipe", "start"):
        if getattr(given, name) is not None:
            training += [f"--{name}", getattr(given, name)]
    try:
        serve(
            given.folder,
            host=given.host,
            port=given.port,
            page=given.page,
            browser=not given.no_browser,
            training=training,
        )
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
