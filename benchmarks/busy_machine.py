"""Time of a photograph by torch alone and beside another program that computes, by how long waiting threads spin.

    python benchmarks/busy_machine.py --json docs/measured/busy_machine.json

300000 rounds are GNU OpenMP's own default; see `fewmark.core.threads.spin_briefly`. The settings take turns; the median of all turns counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from fewmark.core.threads import SPIN_COUNT

DEFAULT_SPIN_COUNT = "300000"
N_IMAGES, N_TURNS = 10, 5
DETECT = f"""
import time
import numpy as np
from fewmark import Detector, load_scheme
from fewmark.data.synthetic.faces import render_face
image = render_face(np.random.default_rng(3), scheme=load_scheme("ibug-68"), size=320).image
detector = Detector.load("ibug-68", runtime="torch", threads=2)
detector.detect(image)
began = time.perf_counter()
for _ in range({N_IMAGES}):
    detector.detect(image)
print(1000 * (time.perf_counter() - began) / {N_IMAGES})
"""
COMPUTE = """
import torch
torch.set_num_threads(2)
a = torch.rand(600, 600)
while True:
    a = (a @ a).clamp(0, 1)
"""


def milliseconds(spin_count: str) -> float:
    """Time of an image in a process of its own."""
    environment = {**os.environ, "GOMP_SPINCOUNT": spin_count}
    done = subprocess.run([sys.executable, "-c", DETECT], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure() -> dict[str, float]:
    """Spin count -> median over the turns, ms."""
    times: dict[str, list[float]] = {count: [] for count in (DEFAULT_SPIN_COUNT, SPIN_COUNT)}
    for _ in range(N_TURNS):
        for count, found in times.items():
            found.append(milliseconds(count))
    return {count: round(statistics.median(found), 1) for count, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    arguments = parser.parse_args()
    results = {"alone": measure()}
    with subprocess.Popen([sys.executable, "-c", COMPUTE]) as other:
        results["beside another program"] = measure()
        other.kill()
    for name, result in results.items():
        print(name, ", ".join(f"spin count {count}: {ms} ms an image" for count, ms in result.items()))
    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
