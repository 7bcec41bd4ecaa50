"""Overhead of the training loop: `StudentTrainer` against a bare torch loop on prepared batches.

Both train the same network with the same optimizer on random images, in turns, so that a busy machine
slows both. The time of all cores together is given too: the overhead if no core is free.

    python benchmarks/training.py --size 64 --steps 20 --repeats 5
    python benchmarks/training.py --accelerator cuda --precision bf16-mixed --size 128 --batch-size 64 --steps 400

On a GPU the bare loop's gradients are one CUDA graph, and its batches lie on the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric

from fewmark.data.augment import AugmentRule
from fewmark.data.batches import Batches, face_rows
from fewmark.data.crops import CachedFace, CropRule, cache_face
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import load_scheme
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import to_tensor
from fewmark.training.captured_step import CapturedGradients, can_capture
from fewmark.training.runner import RunContext
from fewmark.training.semi.students import StudentPlan, StudentTrainer, labels_only

TARGET = 1.10
SCHEME = load_scheme("ibug-68")
Times = tuple[float, float]
"""Milliseconds per step: wall-clock time, and processor time of all cores."""


def render_faces(n: int, size: int) -> list[CachedFace]:
    """Blurred noise of 250 px with random landmarks: the content does not change the time of a step."""
    faces = []
    for i in range(n):
        rng = np.random.default_rng(i)
        image = cv2.resize(rng.integers(0, 256, (25, 25, 3), np.uint8), (250, 250))
        landmarks = rng.uniform(50, 200, (SCHEME.n_landmarks, 2)).astype(np.float32)
        sample = FaceSample(Path(f"{i}.png"), np.array([40, 40, 210, 210], np.float32), landmarks)
        faces.append(cache_face(sample, CropRule(size, 0.15), SCHEME.n_landmarks, np.asarray(image, np.uint8)))
    return faces


def time_fit(plan: StudentPlan, faces: list[CachedFace], size: int, fabric: Fabric) -> Times:
    """Time of a step of the library's training."""
    trainer = StudentTrainer([plan], SCHEME, size, AugmentRule(), RunContext(fabric))
    module, data = plan.build(SCHEME.n_landmarks, 0), labels_only(faces)
    began = time.perf_counter(), time.process_time()
    trainer.train("student", 0, module, data, 0, {})
    _synchronize(fabric)
    assert plan.n_batches is not None
    return _since(began, plan.n_epochs * plan.n_batches)


def time_bare(plan: StudentPlan, faces: list[CachedFace], size: int, fabric: Fabric) -> Times:
    """Time of a step of a plain loop: forward, loss, backward, optimizer."""
    rows = face_rows(faces, size, SCHEME, AugmentRule())
    batches = Batches(len(faces), rows, plan.batch_size, 0, n_batches=plan.n_batches)
    weights = torch.ones(plan.batch_size, SCHEME.n_landmarks, device=fabric.device)
    ready = [
        (to_tensor(b.images, fabric.device), torch.from_numpy(b.targets).to(fabric.device), weights) for b in batches(0)
    ]
    module = plan.build(SCHEME.n_landmarks, 0).train().to(fabric.device)
    optimizer = plan.make_optimizer(module)

    def loss(images: torch.Tensor, landmarks: torch.Tensor, ones: torch.Tensor) -> torch.Tensor:
        with fabric.autocast():
            outputs = module(images)
        return plan.compute_loss(outputs, landmarks, ones, size)

    captured = None
    if can_capture(fabric):
        captured = CapturedGradients(loss, lambda value: value.backward(), list(module.parameters()))
    _synchronize(fabric)
    began = time.perf_counter(), time.process_time()
    for batch in ready:
        if captured is not None:
            captured(batch)
            optimizer.step()
        else:
            loss(*batch).backward()
            optimizer.step()
            optimizer.zero_grad()
    _synchronize(fabric)
    return _since(began, len(ready))


def _synchronize(fabric: Fabric) -> None:
    """Wait until a GPU has done what it was told."""
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()


def _since(began: Times, n_steps: int) -> Times:
    return (
        1000 * (time.perf_counter() - began[0]) / n_steps,
        1000 * (time.process_time() - began[1]) / n_steps,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="compact")
    parser.add_argument("--size", type=int, default=64, help="side of the crops, px")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="steps per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    codec = HeatmapCodec(stride=4, sigma=3.0, decoding="soft-argmax", logits=True)
    plan = StudentPlan(
        "student",
        given.architecture,
        codec,
        n_epochs=1,
        n_batches=given.steps,
        batch_size=given.batch_size,
    )
    fabric = Fabric(accelerator=given.accelerator, devices=1, precision=given.precision)
    faces = render_faces(4 * given.batch_size, given.size)
    time_bare(plan, faces, given.size, fabric)  # warm up
    fit: list[Times] = []
    bare: list[Times] = []
    for _ in range(given.repeats):
        fit.append(time_fit(plan, faces, given.size, fabric))
        bare.append(time_bare(plan, faces, given.size, fabric))
    result: dict[str, object] = {k: v for k, v in vars(given).items() if k != "json"}
    print(f"{given.architecture} at {given.size} px, batch {given.batch_size}, {given.threads} thread(s)")
    print(f"ms a step, median of {given.repeats} x {given.steps}: fit + batches, bare torch loop, ratio")
    for index, name in enumerate(("wall", "cores")):
        fit_ms, bare_ms = (statistics.median(t[index] for t in times) for times in (fit, bare))
        print(f"{name:6}{fit_ms:9.1f}{bare_ms:9.1f}{fit_ms / bare_ms:9.3f}")
        if name == "wall":
            print(f"faces a second: {1000 * given.batch_size / fit_ms:.0f} and {1000 * given.batch_size / bare_ms:.0f}")
        result |= {f"{name}_fit_ms": fit_ms, f"{name}_bare_ms": bare_ms, f"{name}_ratio": fit_ms / bare_ms}
    print(f"target: a wall ratio of at most {TARGET}")
    if given.json:
        given.json.write_text(json.dumps({**result, "target": TARGET}))


if __name__ == "__main__":
    main()
