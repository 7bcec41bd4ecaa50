"""`python -m fewmark.web.serving MODEL`: serve a detector until SIGTERM or Ctrl-C; what was asked before is answered."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial

import uvicorn

from fewmark.core.errors import InputError
from fewmark.core.threads import n_processors
from fewmark.data.image_limit import VARIABLE
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.web.listening import listen
from fewmark.web.serving.app import Metrics, create_app
from fewmark.web.serving.pool import Pool
from fewmark.web.serving.worker import ServedModel, Worker

MAX_CONNECTIONS = 1000
"""Connections beyond these get 503."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="fewmark serve", description="Serve a detector over HTTP.")
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--scheme")
    parser.add_argument("--max-mb", type=float, default=64.0)
    parser.add_argument("--max-pixels", type=int)
    parser.add_argument("--max-faces", type=int, default=100)
    parser.add_argument("--timeout", type=float, default=30.0)
    given = parser.parse_args()
    try:
        run(given)
    except InputError as error:
        sys.exit(str(error))


def run(given: argparse.Namespace) -> None:
    """Serve until the end.

    Raises:
        InputError: The model cannot be loaded, a number is out of range, or the address is taken.
    """
    for name in ("queue", "max_mb", "max_faces", "timeout"):
        if not getattr(given, name) > 0:
            raise InputError(f"--{name.replace('_', '-')}: expected a number above 0, given {getattr(given, name)}")
    if given.max_pixels is not None:
        os.environ[VARIABLE] = str(given.max_pixels)  # of the workers, too
    served = ServedModel(str(resolve_model(given.model)), given.scheme, given.max_faces)
    served.load().checkpoint.scheme_of(given.scheme)  # what is wrong is said here, not in every worker
    metrics = Metrics()
    n_workers = given.workers if given.workers > 0 else n_processors()
    pool = Pool(partial(Worker, served), n_workers, given.queue, given.timeout, metrics.batches.observe)
    app = create_app(pool, metrics, max_bytes=int(given.max_mb * 1e6), timeout_s=given.timeout)
    listener, address = listen(given.host, given.port)
    print(f"{given.model}, {n_workers} processes; Ctrl-C ends it: {address}docs", flush=True)  # noqa: T201
    config = uvicorn.Config(
        app,
        log_level="warning",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(given.timeout) + 1,
        timeout_keep_alive=15,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
