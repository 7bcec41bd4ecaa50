"""`fewmark serve` beside the bare detector on one core: requests a second, latency, twice the load, a killed process.

    python benchmarks/serving.py --images ../shared/data/ibug68/afw --json docs/measured/serving.json

The service (one process for HTTP, one for the detector) and the bare detector are bound to the first core, the clients to the second. A request
is one image of 640 px as a JPEG file. "Twice the load" sends requests at twice the rate that was reached, whether or not answers come.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewmark.data.image_sources import find_images
from fewmark.data.images import read_image

SIDE, N_IMAGES = 640, 24
BARE = """
import sys, time
from pathlib import Path
from fewmark import Detector
from fewmark.data.images import decode_image
detector = Detector(sys.argv[1], threads=1)
files = [Path(f).read_bytes() for f in sys.argv[3:]]
for data in files[:4]: detector.detect(decode_image(data))
began, n = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[2]):
    detector.detect(decode_image(files[n % len(files)])); n += 1
print(n / (time.perf_counter() - began))
"""


def bound(words: Sequence[str], core: int) -> list[str]:
    """A command on one core."""
    return ["taskset", "-c", str(core), *words]


class Service:
    """A service on the first core."""

    def __init__(self, model: str, queue: int) -> None:
        words = [
            sys.executable,
            "-m",
            "fewmark",
            "serve",
            model,
            "--port",
            "0",
            "--workers",
            "1",
            "--queue",
            str(queue),
        ]
        self.process = subprocess.Popen(bound(words, 0), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r":(\d+)/", self.process.stdout.readline())
        assert found is not None
        self.port = int(found[1])
        while self.ask("GET", "/ready")[0] != 200:
            time.sleep(0.1)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own; status 0 where none can be made."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            found = answer.status, answer.read()
            connection.close()
        except OSError:
            return 0, b""
        return found

    def memory_mb(self) -> float:
        """Resident set of the service's processes."""
        pids = [self.process.pid, *self.worker_pids()]
        return sum(int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{p}/status").read_text())[0]) for p in pids) / 1024

    def worker_pids(self) -> list[int]:
        """The processes that it has started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [int(p) for task in path.parent.parent.iterdir() for p in (task / "children").read_text().split()]
        return [p for p in found if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def closed_loop(service: Service, bodies: Sequence[bytes], n_clients: int, seconds: float) -> dict[str, float]:
    """Clients that each wait for an answer before they ask again."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    def client(start: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        n = start
        while time.perf_counter() < until:
            began = time.perf_counter()
            connection.request("POST", "/detect/json", bodies[n % len(bodies)], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            times.append(1000 * (time.perf_counter() - began))
            n += 1

    clients = [threading.Thread(target=client, args=(5 * i,)) for i in range(n_clients)]
    for c in clients:
        c.start()
    for c in clients:
        c.join()
    return {
        "requests a second": len(times) / seconds,
        "p50, ms": float(np.quantile(times, 0.5)),
        "p99, ms": float(np.quantile(times, 0.99)),
    }


def open_loop(
    service: Service, bodies: Sequence[bytes], rate: float, seconds: float, *, kill_at: float | None = None
) -> dict[str, Any]:
    """Requests at a rate, each in a thread of its own."""
    statuses: Counter[int] = Counter()
    lock, threads = threading.Lock(), []
    before = service.memory_mb()

    def one(n: int) -> None:
        status, _ = service.ask("POST", "/detect/json", bodies[n % len(bodies)])
        with lock:
            statuses[status] += 1

    began, n, killed = time.perf_counter(), 0, False
    while (now := time.perf_counter() - began) < seconds:
        if n < rate * now:
            threads.append(threading.Thread(target=one, args=(n,)))
            threads[-1].start()
            n += 1
        if kill_at is not None and not killed and now > kill_at:
            os.kill(service.worker_pids()[0], signal.SIGKILL)
            killed = True
        time.sleep(0.001)
    for t in threads:
        t.join()
    return {
        "sent": n,
        "answered": statuses[200],
        "429": statuses[429],
        "other": n - statuses[200] - statuses[429],
        "memory before, MB": before,
        "memory after, MB": service.memory_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", default="ibug-68-int8")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args()
    os.sched_setaffinity(0, {1})
    folder = Path("/tmp") / f"fewmark-serving-{os.getpid()}"
    folder.mkdir()
    files = []
    for i, source in enumerate(find_images([given.images])[:N_IMAGES]):
        image = read_image(source.path)
        scale = SIDE / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        files.append(folder / f"{i}.jpg")
        cv2.imwrite(str(files[-1]), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    bodies = [json.dumps({"images": [{"data": base64.b64encode(f.read_bytes()).decode()}]}).encode() for f in files]
    bare = bound([sys.executable, "-c", BARE, given.model, str(given.seconds), *map(str, files)], 0)
    found: dict[str, Any] = {
        "model": given.model,
        "bare, images a second": float(subprocess.check_output(bare, text=True)),
    }
    service = Service(given.model, 16)
    for n_clients in (1, 2):
        found[f"{n_clients} clients"] = closed_loop(service, bodies, n_clients, given.seconds)
    rate = found["2 clients"]["requests a second"]
    found["half the load"] = open_loop(service, bodies, 0.5 * rate, given.seconds)
    found["twice the load"] = open_loop(service, bodies, 2 * rate, given.seconds)
    found["half the load, process killed"] = open_loop(service, bodies, 0.5 * rate, given.seconds, kill_at=3.0)
    service.stop()
    found["bare again, images a second"] = float(subprocess.check_output(bare, text=True))
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    for file in files:
        file.unlink()
    folder.rmdir()


if __name__ == "__main__":
    main()
