"""The cascade's stages on real faces, one by one: Table 1 of the paper on a 68-point task, and what each stage costs.

    python experiments/cascade_stages.py --data ../shared/data/ibug68 --out runs/cascade
    python experiments/cascade_stages.py --data ../shared/data/ibug68 --out runs/cascade --table
    python experiments/cascade_stages.py --data ../shared/data/scut86 --scheme scut-86 --out runs/cascade-scut --table

Trains stages 0 to 3 at laptop size on train.txt without every 15th face, and prints on those faces: the NME by the
scheme's own normaliser after each stage, from the real output of the stage before (v_real) and from the truth (v_gt); the share of angles
within 5 degrees, on faces turned by any angle; ms of one core's time a face. A training that has ended is not
repeated: its weights are in OUT. With --table, the test lists in place of the held-out faces.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from fewmark.atomic import write_text
from fewmark.cascade.coarse import contour_and_inner, join_parts
from fewmark.cascade.frames import face_angle, inner_landmarks
from fewmark.cascade.pipeline import Cascade, Truth
from fewmark.cascade.state import FaceState, Picture, Stage, move_face, wrap_angle
from fewmark.cascade.training import Run, Schedule
from fewmark.cascade.training_angle import train_angle
from fewmark.cascade.training_coarse import train_coarse
from fewmark.cascade.training_component import train_component
from fewmark.cascade.training_faces import TrainingFaces, cache_training_faces, predict_landmarks
from fewmark.cascade.training_point import train_point
from fewmark.data.crops import FILL
from fewmark.data.formats import read_faces
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample, read_image
from fewmark.fitting import Epoch
from fewmark.geometry import Similarity, warp_image
from fewmark.metrics import landmark_errors, nme_per_face, normalising_lengths
from fewmark.scheme import LandmarkScheme, load_scheme
from fewmark.training_plans import CASCADE_EPOCHS

EVERY = 15


def main() -> None:
    parser = argparse.ArgumentParser(description="train and measure the cascade's stages")
    parser.add_argument("--data", type=Path, required=True, help="the ibug68 or the scut86 folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scheme", default="ibug-68", help="of the data: ibug-68 or scut-86")
    parser.add_argument("--epochs", type=float, default=1.0, help="factor on every stage's epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--single", action="store_true", help="one coarse network instead of twins")
    parser.add_argument("--apart", action="store_true", help="contour and inner points by two coarse networks")
    parser.add_argument("--share", type=float, default=0.0, help="of real stage-1 output in stage 2's training")
    parser.add_argument("--stages", nargs="+", default=["angle", "coarse", "component", "point"])
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--table", action="store_true", help="measure on the test lists")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scheme = load_scheme(arguments.scheme)
    samples = read_faces(arguments.data, scheme=scheme)
    train, tests = split(samples, arguments.data)
    held_out = train[::EVERY]
    faces = cache_training_faces([s for i, s in enumerate(train) if i % EVERY], scheme)
    print(f"{len(faces)} training faces, {len(held_out)} held out", flush=True)
    cascade = Cascade(tuple(train_stages(faces, arguments)))
    lists = {"validation": held_out}
    if arguments.table:
        lists = tests
    results = {name: measure(cascade, part, faces, arguments.seed) for name, part in lists.items()}
    write_text(arguments.out / ("table.json" if arguments.table else "validation.json"), json.dumps(results, indent=1))
    for name, rows in results.items():
        print(f"\n{name}")
        for row, value in rows.items():
            print(f"  {row:<44} {value:.3f}")


def split(samples: Sequence[FaceSample], data: Path) -> tuple[list[FaceSample], dict[str, list[FaceSample]]]:
    """Training faces and test lists: ibug68's own; of another set every fifth face is for the test."""
    if not (data / "train.txt").is_file():
        train = [s for i, s in enumerate(samples) if i % 5]
        return train, {"every fifth face": list(samples[::5])}
    lists = {n: select(samples, data / f"test_{n}.txt") for n in ("common", "challenging")}
    return select(samples, data / "train.txt"), {**lists, "full": lists["common"] + lists["challenging"]}


def train_stages(faces: TrainingFaces, arguments: argparse.Namespace) -> list[Stage]:
    began = time.process_time()

    def show(name: str, epoch: Epoch) -> None:
        if epoch.index % 10 == 9 or epoch.index + 1 == epoch.n_epochs:
            cpu = time.process_time() - began
            print(f"{name} {epoch.index + 1}/{epoch.n_epochs} loss {epoch.loss:.4f}, {cpu:.0f} s of cpu", flush=True)

    fabric = Fabric(accelerator="cpu", devices=1, precision=arguments.precision)
    run = Run(fabric, arguments.seed, arguments.out, on_epoch=show)

    def schedule(stage: str) -> Schedule:
        return Schedule(n_epochs=max(1, round(CASCADE_EPOCHS[stage] * arguments.epochs)))

    stages: list[Stage] = []
    if "angle" in arguments.stages:
        stages.append(train_angle(faces, schedule=schedule("angle"), run=run))
    twin = not arguments.single
    name = "coarse" if twin else "coarse_single"
    if arguments.apart:
        parts = [
            train_coarse(faces, landmarks=part, twin=twin, schedule=schedule("coarse"), run=run, name=f"{name}_{i}")
            for i, part in enumerate(contour_and_inner(faces.scheme))
        ]
        coarse = join_parts(parts)
    else:
        coarse = train_coarse(faces, twin=twin, schedule=schedule("coarse"), run=run, name=name)
    stages.append(coarse)
    if "component" in arguments.stages:
        real = predict_landmarks([coarse], faces.images, faces.faces) if arguments.share else None
        own = run if not arguments.share else replace(run, folder=arguments.out / f"share{arguments.share}")
        stages.append(
            train_component(
                faces, coarse_landmarks=real, coarse_share=arguments.share, schedule=schedule("component"), run=own
            )
        )
    if "point" in arguments.stages:
        stages.append(train_point(faces, schedule=schedule("point"), run=run))
    return stages


def measure(cascade: Cascade, samples: Sequence[FaceSample], known: TrainingFaces, seed: int) -> dict[str, float]:
    """Everything that is asked about one list of faces."""
    scheme, mean_face = cascade.scheme, known.mean_face
    images = [read_image(s.image) for s in samples]
    truth = np.stack([s.landmarks for s in samples if s.landmarks is not None])
    starts = [FaceState(s.face_box()) for s in samples]
    inner = list(inner_landmarks(scheme))
    rows: dict[str, float] = {}

    def add(what: str, found: Sequence[FaceState], true: NDArray[np.float32]) -> None:
        points = np.stack([f.landmarks for f in found if f.landmarks is not None])
        errors = landmark_errors(points, true)
        lengths = normalising_lengths(true, None, scheme.normalizer)
        rows[f"NME %, {what}"] = 100 * float(nme_per_face(errors, lengths).mean())
        rows[f"NME % of inner points, {what}"] = 100 * float(nme_per_face(errors[:, inner], lengths).mean())

    states, n = starts, min(32, len(samples))
    for stage in cascade.stages:
        before = states
        states = stage(images, before)
        stage(images[:n], before[:n])
        began = time.process_time()
        for _ in range(3):
            stage(images[:n], before[:n])
        rows[f"ms a face, {stage.name}"] = 1000 * (time.process_time() - began) / 3 / n
        if stage.name != "angle":
            add(f"{stage.name}, v_real", states, truth)
            told = Truth(scheme, truth, mean_face, "angle" if stage.name == "coarse" else "truth")
            add(f"{stage.name}, v_gt", stage(images, told(images, starts)), truth)
    rows["ms a face, all stages"] = sum(v for k, v in rows.items() if k.startswith("ms"))
    if "angle" in [s.name for s in cascade.stages]:
        angles = np.array([face_angle(t, mean_face) for t in truth])
        rows["% of angles within 5 degrees"] = angle_share(cascade.stages[0], images, starts, angles)
        add("no angle stage", cascade.without("angle")(images, starts), truth)
        turned = turn_faces(images, starts, truth, scheme, seed)
        turned_truth = np.stack([f.landmarks for _, f in turned if f.landmarks is not None])
        pictures = [i for i, _ in turned]
        blank = [FaceState(f.box_xyxy) for _, f in turned]
        angles = np.array([face_angle(t, mean_face) for t in turned_truth])
        rows["% of angles within 5 degrees, turned faces"] = angle_share(cascade.stages[0], pictures, blank, angles)
        add("turned faces", cascade(pictures, blank), turned_truth)
    return rows


def angle_share(
    stage: Stage, images: Sequence[Picture], starts: Sequence[FaceState], true: NDArray[np.float64]
) -> float:
    found = stage(images, starts)
    return 100 * float(np.mean([abs(wrap_angle(f.angle - t)) <= 5 for f, t in zip(found, true, strict=True)]))


def turn_faces(
    images: Sequence[Picture], faces: Sequence[FaceState], truth: NDArray[np.float32], scheme: LandmarkScheme, seed: int
) -> list[tuple[Picture, FaceState]]:
    """Each picture turned by any angle, on a canvas that holds it, and its face there with the box of a turned face."""
    result = []
    rng = np.random.default_rng(seed)
    for image, face, points in zip(images, faces, truth, strict=True):
        h, w = image.shape[:2]
        side = int(np.ceil(np.hypot(h, w)))
        middle = np.array([(w - 1) / 2, (h - 1) / 2])
        turned = Similarity.about(middle, np.full(2, (side - 1) / 2), angle=float(rng.uniform(-180, 180)))
        moved = move_face(replace(face, landmarks=points), turned, scheme)
        result.append((warp_image(image, turned, (side, side), fill=FILL), moved))
    return result


if __name__ == "__main__":
    main()
