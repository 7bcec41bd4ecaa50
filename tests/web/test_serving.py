"""`fewmark serve`: answers, a full queue, limits, dead processes, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark.data.images import read_image, write_image

for package in ("fastapi", "prometheus_client", "python_multipart", "httpx"):
    pytest.importorskip(package, reason='needs the extra serve: pip install -e ".[serve]"')

from fastapi.testclient import TestClient  # noqa: E402

from fewmark.web.serving.app import Metrics, create_app  # noqa: E402
from fewmark.web.serving.limits import BodyLimits  # noqa: E402
from fewmark.web.serving.pool import BATCH, Busy, Pool  # noqa: E402
from fewmark.web.serving.worker import Job, JobAnswer, ServedModel, Worker, WorkerDied, answer_jobs  # noqa: E402


class Stub:
    """A worker that answers with the name; b"poison" ends it, b"wait" waits for `gate`."""

    def __init__(self, gate: threading.Event) -> None:
        self.gate, self.dead, self.batches = gate, False, []  # type: tuple[threading.Event, bool, list[list[str]]]

    def answer(self, jobs: Sequence[Job], timeout_s: float) -> list[JobAnswer]:
        self.batches.append([j.name for j in jobs])
        if any(j.data == b"wait" for j in jobs):
            self.gate.wait(timeout_s)
        if self.dead or any(j.data == b"poison" for j in jobs):
            self.dead = True
            raise WorkerDied("the process has ended")
        return [JobAnswer(json.dumps({"name": j.name}).encode(), 1) for j in jobs]

    def stop(self) -> None:
        self.dead = True


class Stubs:
    """Starts them, and keeps them."""

    def __init__(self) -> None:
        self.gate, self.each = threading.Event(), []  # type: tuple[threading.Event, list[Stub]]

    def __call__(self) -> Stub:
        self.each.append(Stub(self.gate))
        return self.each[-1]


@pytest.fixture
def stubs() -> Stubs:
    return Stubs()


def jobs(*names: str, data: bytes = b"") -> list[Job]:
    return [Job(name, data) for name in names]


def names_of(answers: Sequence[JobAnswer]) -> list[str]:
    return [json.loads(a.text)["name"] for a in answers]


def in_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it in a thread of its own: a browser of other tests has an event loop in this one."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, coroutine).result()


@asynccontextmanager
async def busy_pool(stubs: Stubs, capacity: int = 40) -> AsyncIterator[Pool]:
    """A pool of one worker, which is at work on an image until the end of the block or until `gate` is set; all is answered in the end."""
    pool = Pool(stubs, 1, capacity, 5.0)
    await pool.open()
    first = asyncio.create_task(pool.ask(jobs("first", data=b"wait")))
    await asyncio.sleep(0.05)
    yield pool
    stubs.gate.set()
    assert names_of(await first) == ["first"]
    await pool.close()
    assert all(s.dead for s in stubs.each)


async def begin(pool: Pool, *given: Job) -> asyncio.Task[list[JobAnswer]]:
    """A request that waits."""
    task = asyncio.create_task(pool.ask(given))
    await asyncio.sleep(0.01)
    return task


def test_answers_are_in_order_and_waiting_images_share_batches(stubs: Stubs) -> None:
    async def run() -> None:
        async with busy_pool(stubs) as pool:
            rest = [await begin(pool, *jobs(f"{i}a", f"{i}b")) for i in range(6)]
            stubs.gate.set()
            for i, task in enumerate(rest):
                assert names_of(await task) == [f"{i}a", f"{i}b"]

    in_loop(run())
    assert [len(b) for b in stubs.each[0].batches] == [1, BATCH, 12 - BATCH]


def test_a_full_queue_takes_nothing_more_and_loses_nothing(stubs: Stubs) -> None:
    async def run() -> None:
        async with busy_pool(stubs, capacity=4) as pool:
            three = await begin(pool, *jobs("a", "b", "c"))
            with pytest.raises(Busy):
                await pool.ask(jobs("d", "e"))
            assert pool.n_waiting == 3
            fits = await begin(pool, *jobs("f"))
            stubs.gate.set()
            assert names_of(await three) + names_of(await fits) == ["a", "b", "c", "f"]

    in_loop(run())


def test_an_image_that_ends_its_process_harms_no_other(stubs: Stubs) -> None:
    async def run() -> None:
        async with busy_pool(stubs) as pool:
            good = [await begin(pool, *jobs(name)) for name in "ab"]
            bad = await begin(pool, *jobs("bad", data=b"poison"))
            last = await begin(pool, *jobs("c"))
            stubs.gate.set()
            assert [names_of(await t) for t in (*good, last)] == [["a"], ["b"], ["c"]]
            with pytest.raises(WorkerDied):
                await bad
            assert pool.n_restarts == 2  # it is tried once more, alone
            assert pool.ready
            assert names_of(await pool.ask(jobs("after"))) == ["after"]

    in_loop(run())


def test_a_process_that_is_killed_between_requests_is_replaced(stubs: Stubs) -> None:
    async def run() -> None:
        async with busy_pool(stubs) as pool:
            stubs.gate.set()
            await asyncio.sleep(0.05)
            stubs.each[0].dead = True
            assert names_of(await pool.ask(jobs("a"))) == ["a"]
            assert pool.n_restarts == 1

    in_loop(run())


def test_what_a_client_no_longer_waits_for_is_not_computed(stubs: Stubs) -> None:
    async def run() -> None:
        async with busy_pool(stubs) as pool:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.ask(jobs("gone")), 0.05)
            stubs.gate.set()
            assert names_of(await pool.ask(jobs("after"))) == ["after"]

    in_loop(run())
    assert ["gone"] not in stubs.each[0].batches


def test_the_end_answers_what_waits(stubs: Stubs) -> None:
    async def run() -> None:
        async with busy_pool(stubs) as pool:
            rest = await begin(pool, *jobs("a", "b"))
            ending = asyncio.create_task(pool.close())
            await asyncio.sleep(0.01)
            stubs.gate.set()
            assert names_of(await rest) == ["a", "b"]
            await ending

    in_loop(run())


def test_the_end_comes_where_no_process_can_be_started() -> None:
    started: list[Stub] = []

    def start() -> Stub:
        if started:
            raise WorkerDied("no memory")
        started.append(Stub(threading.Event()))
        return started[-1]

    async def run() -> None:
        pool = Pool(start, 1, 4, 0.2)
        await pool.open()
        asking = await begin(pool, *jobs("bad", data=b"poison"))
        await asyncio.sleep(0.05)
        assert not pool.ready
        await asyncio.wait_for(pool.close(), 5)
        asking.cancel()

    in_loop(run())
    assert started[0].dead


@pytest.fixture
def client(stubs: Stubs) -> Iterator[TestClient]:
    stubs.gate.set()
    metrics = Metrics()
    app = create_app(Pool(stubs, 2, 10, 5.0, metrics.batches.observe), metrics, max_bytes=20_000, timeout_s=5.0)
    with TestClient(app) as made:
        yield made


def test_requests_and_their_refusals(client: TestClient) -> None:
    both = [("images", ("a.jpg", b"x")), ("images", ("b.jpg", b"y"))]
    assert client.post("/detect", files=both).json() == {"images": [{"name": "a.jpg"}, {"name": "b.jpg"}]}
    more = client.post("/detect", files=[("images", ("a", b""))] * 11)  # than the queue holds
    assert (more.status_code, more.json()["detail"]) == (400, "expected 1 to 10 images, given 11")
    assert client.post("/detect").status_code == 422
    data = base64.b64encode(b"x").decode()
    good = {"images": [{"data": data, "name": "n", "boxes": [[0, 0, 9, 9]]}, {"data": data}]}
    assert client.post("/detect/json", json=good).json() == {"images": [{"name": "n"}, {"name": "image 2"}]}
    for wrong in ({}, {"images": []}, {"images": [{"data": 3}]}, {"images": [{"data": data, "boxes": [[1, 2]]}]}, [1]):
        assert client.post("/detect/json", json=wrong).status_code == 422
    assert client.post("/detect/json", json={"images": [{"data": "?"}]}).status_code == 400
    assert client.post("/detect/json", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    assert client.get("/detect").status_code == 405
    dead = client.post("/detect", files=[("images", ("bad", b"poison"))])
    assert (dead.status_code, "ended the process" in dead.json()["detail"]) == (500, True)
    assert client.post("/detect", files=both[:1]).status_code == 200


def test_health_readiness_metrics_and_the_description(client: TestClient) -> None:
    client.post("/detect", files=[("images", ("a.jpg", b"x"))])
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ok", "processes": 2}
    text = client.get("/metrics").text
    for line in ('fewmark_requests_total{status="200"} 1.0', "fewmark_faces_total 1.0", "fewmark_ready_workers 2.0"):
        assert line in text
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/detect", "/detect/json", "/health", "/ready", "/metrics"} == set(paths)
    assert "429" in paths["/detect"]["post"]["responses"]
    page = client.get("/docs").text
    for words in (
        "/detect/json",
        "The queue is full; ask again.",
        "curl -F images=@anna.jpg",
        "Whether every process answers.",
    ):
        assert words in page
    assert "http" not in page.replace("http://testserver/", "")  # nothing is loaded from elsewhere


def test_a_request_that_is_too_large(client: TestClient) -> None:
    assert client.post("/detect", files=[("images", ("a", bytes(30_000)))]).status_code == 413
    chunks = (bytes(1000) for _ in range(30))
    answer = client.post("/detect/json", content=chunks, headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_a_client_that_stops_sending() -> None:
    """Headers and a part of the body, and then nothing."""
    parts = [{"type": "http.request", "body": b'{"images": [', "more_body": True}]
    sent: list[Any] = []

    async def receive() -> Any:
        if parts:
            return parts.pop()
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    stubs = Stubs()
    app = create_app(Pool(stubs, 1, 10, 5.0), Metrics(), max_bytes=1000, timeout_s=5.0)
    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/detect/json", "headers": headers, "query_string": b""}
    began = time.monotonic()
    in_loop(BodyLimits(app, 1000, read_s=0.2)({**scope, "http_version": "1.1", "scheme": "http"}, receive, send))
    assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [408]
    assert time.monotonic() - began < 5


def test_readiness_says_that_a_process_is_missing(stubs: Stubs) -> None:
    pool = Pool(stubs, 2, 10, 5.0)
    with TestClient(create_app(pool, Metrics(), max_bytes=1000, timeout_s=1.0)) as client:
        pool.n_ready = 1
        assert client.get("/ready").status_code == 503


def test_no_answer_in_time(stubs: Stubs) -> None:
    app = create_app(Pool(stubs, 1, 10, 1.0), Metrics(), max_bytes=1000, timeout_s=0.2)
    with TestClient(app) as client:
        assert client.post("/detect", files=[("images", ("a", b"wait"))]).status_code == 504
        stubs.gate.set()


def test_a_worker_answers_as_the_detector_does(synthetic: Path) -> None:
    files = sorted((synthetic / "images").iterdir())[:2]
    served = ServedModel("ibug-68-nano", max_faces=1)
    detector = served.load()
    box = [[8.0, 8.0, 56.0, 56.0]]
    given = [Job(f.name, f.read_bytes(), box) for f in files]
    given += [
        Job("none", b"no image"),
        Job("two", files[0].read_bytes(), box * 2),
        Job("flat", files[0].read_bytes(), [[5, 5, 5, 5]]),
        Job("nowhere", files[0].read_bytes(), [[math.nan, 0, math.inf, 9]]),
    ]
    answers = [json.loads(a.text) for a in answer_jobs(detector, served, given)]
    for file, answer in zip(files, answers, strict=False):
        (face,) = detector.detect(read_image(file), np.array(box, np.float32))
        assert answer == {
            "name": file.name,
            "width": 64,
            "height": 64,
            "faces": [json.loads(json.dumps(face.to_dict()))],
        }
    assert "not an image" in answers[2]["error"]
    assert (len(answers[3]["faces"]), answers[3]["left_out"]) == (1, 1)
    assert "error" in answers[4]
    assert "error" in answers[5]


def test_a_process_is_killed_and_a_hanging_one_is_given_up(synthetic: Path) -> None:
    image = next((synthetic / "images").iterdir()).read_bytes()
    worker = Worker(ServedModel("ibug-68-nano"))
    try:
        assert b'"faces"' in worker.answer([Job("a", image)], 30.0)[0].text
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGSTOP)
        with pytest.raises(WorkerDied, match=r"no answer in 0\.3 s"):
            worker.answer([Job("a", image)], 0.3)
        with pytest.raises(WorkerDied):
            worker.answer([Job("a", image)], 5.0)
    finally:
        worker.stop()
    assert not worker.process.is_alive()


@pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")
def test_the_command_serves_and_ends_without_losing_an_answer(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((700, 900, 3), 90, np.uint8))
    words = [sys.executable, "-m", "fewmark", "serve", "ibug-68-nano", "--port", "0", "--workers", "1"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://[\d.]+:(\d+)/", server.stdout.readline())
        assert found is not None, server.stderr.read() if server.stderr else ""
        address, port = found[0], int(found[1])
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if ask(f"{address}ready").get("status") == "ok":
                    break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        data = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
        body = {"images": [{"data": data}] * 20}
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(ask(f"{address}detect/json", body)))
        asking.start()
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        asking.join(60)
        assert len(answers[0]["images"]) == 20
        assert server.wait(30) in (0, -signal.SIGTERM, 143)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
    finally:
        server.kill()
        server.communicate()


def ask(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_wrong_model_or_number_is_said_at_once() -> None:
    for words, said in (
        (["ibug-69"], "did you mean 'ibug-68'"),
        (["ibug-68-nano", "--queue", "0"], "--queue: expected a number above 0"),
        (["ibug-68-nano", "--scheme", "mtfl-5"], "has no transfer"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "fewmark", "serve", *words, "--port", "0"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr
