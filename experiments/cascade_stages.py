"""What each stage of a trained cascade gives and costs: Table 1 of the coarse-to-fine paper.

    python experiments/cascade_stages.py runs/cascade/detector.safetensors --data ../shared/data/ibug68 \
        --labelled runs/lists-ibug68/labelled.txt --list runs/lists-ibug68/test_full.txt --out runs/cascade/table.json

For each list: NME by the scheme's own normaliser after each stage, from the real output of the stage before (v_real) and from the
truth (v_gt), and with the mirrored image's mean; the share of angles within 5 degrees, and what remains when the images are
turned by any angle; ms of one core's time a face. `cascade_lists.py` writes the lists.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fewmark.core.files import write_text
from fewmark.core.geometry import Image, Similarity, warp_image, wrap_angle
from fewmark.core.procrustes import mirrored_mean_shape
from fewmark.data.crops import FILL
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.cascade.frames import MeanFace, face_angle, inner_landmarks, scheme_mean_face
from fewmark.inference.cascade.pipeline import Cascade, Truth
from fewmark.inference.cascade.predict import run_stages
from fewmark.inference.cascade.state import FaceState, Stage, move_face
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import LandmarkScheme

Results = Mapping[str, Mapping[str, float]]
"""List -> what was measured on it."""
BATCH = 32
"""Faces at once when a stage's time is taken."""


def main() -> None:
    parser = argparse.ArgumentParser(description="measure a cascade's stages")
    parser.add_argument("model", type=Path, help="a model file of a cascade")
    parser.add_argument("--data", type=Path, required=True, help="labelled faces in the model's scheme")
    parser.add_argument(
        "--labelled", type=Path, required=True, help="list of the training faces: their mean is the frame"
    )
    parser.add_argument("--list", type=Path, nargs="+", required=True, dest="lists", help="the faces to measure")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--seed", type=int, default=0, help="of the angles that images are turned by")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cascade = load_checkpoint(arguments.model).cascade
    if cascade is None:
        parser.error(f"{arguments.model}: holds no cascade")
    samples = read_faces(arguments.data, scheme=cascade.scheme)
    frame = mean_face(select(samples, arguments.labelled), cascade.scheme)
    results = {p.stem: measure(cascade, select(samples, p), frame, arguments.seed) for p in arguments.lists}
    write_text(arguments.out, json.dumps(results, indent=1) + "\n")
    for name, rows in results.items():
        print(f"\n{name}")
        for row, value in rows.items():
            print(f"  {row:<44} {value:.3f}")
    print(f"\n{as_table([results])}")


def mean_face(samples: Sequence[FaceSample], scheme: LandmarkScheme) -> MeanFace:
    """The mean of labelled faces, as the stages were trained with."""
    shapes = np.stack([np.asarray(s.landmarks, np.float64) for s in samples])
    return mirrored_mean_shape(shapes, scheme_mean_face(scheme), scheme.mirror)


def measure(cascade: Cascade, samples: Sequence[FaceSample], frame: MeanFace, seed: int) -> dict[str, float]:
    """Everything that is asked about one list of faces."""
    scheme = cascade.scheme
    images = [read_image(s.image) for s in samples]
    truth = stack_landmarks(samples)
    boxes = np.stack([s.face_box() for s in samples])
    starts = [FaceState(box) for box in boxes]
    inner = list(inner_landmarks(scheme))
    rows: dict[str, float] = {}

    def add(what: str, found: Sequence[FaceState], true: NDArray[np.float32]) -> None:
        points = np.stack([f.landmarks for f in found if f.landmarks is not None])
        result = score(points, true, scheme, boxes=boxes)
        rows[f"NME %, {what}"] = 100 * result.nme
        rows[f"NME % of inner points, {what}"] = 100 * float(np.mean(result.per_landmark[inner]))

    states, n = starts, min(BATCH, len(samples))
    for stage in cascade.stages:
        before = states
        states = stage(images, before)
        rows[f"ms a face, {stage.name}"] = milliseconds(stage, images[:n], before[:n])
        if stage.name != "angle":
            add(f"{stage.name}, v_real", states, truth)
            told = Truth(scheme, truth, frame, "angle" if stage.name == "coarse" else "truth")
            add(f"{stage.name}, v_gt", stage(images, told(images, starts)), truth)
    rows["ms a face, all stages"] = sum(v for k, v in rows.items() if k.startswith("ms"))
    for name, found in run_stages(cascade, images, starts, flip=True).items():
        if name != "angle":
            add(f"{name}, with flips", found, truth)
    if cascade.stages[0].name == "angle":
        angles = np.array([face_angle(t, frame) for t in truth])
        rows["% of angles within 5 degrees"] = angle_share(cascade.stages[0], images, starts, angles)
        add("no angle stage", cascade.without("angle")(images, starts), truth)
        turned = turn_faces(images, starts, truth, scheme, seed)
        turned_truth = np.stack([f.landmarks for _, f in turned if f.landmarks is not None])
        images = [i for i, _ in turned]
        blank = [FaceState(f.box_xyxy) for _, f in turned]
        angles = np.array([face_angle(t, frame) for t in turned_truth])
        rows["% of angles within 5 degrees, turned faces"] = angle_share(cascade.stages[0], images, blank, angles)
        add("turned faces", cascade(images, blank), turned_truth)
        flipped = run_stages(cascade, images, blank, flip=True)[cascade.stages[-1].name]
        add("turned faces, with flips", flipped, turned_truth)
    return rows


def milliseconds(stage: Stage, images: Sequence[Image], faces: Sequence[FaceState], repeats: int = 3) -> float:
    """Of one core, a face: the least of some repeats."""
    times = []
    for _ in range(repeats + 1):
        began = time.process_time()
        stage(images, faces)
        times.append(time.process_time() - began)
    return 1000 * min(times[1:]) / len(faces)


def as_table(runs: Sequence[Results]) -> str:
    """Table 1 as Markdown, means over runs (seeds): NME in % from the stage before on every list, on the last list
    for the inner points and from the truth, with flips, and milliseconds."""
    lists = list(runs[0])
    last = lists[-1]
    names = [name.removeprefix("test_") for name in lists]
    head = [*names, f"inner, {names[-1]}", f"v_gt, {names[-1]}", *(f"{n}, flips" for n in names), "ms a face"]
    lines = [f"| after | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]

    def value(part: str, row: str) -> str:
        found = [run[part].get(row) for run in runs]
        return "-" if None in found else f"{np.mean(np.array(found, float)):.2f}"

    def line(label: str, real: str, gt: str, flips: str, ms: str) -> str:
        cells = [value(n, f"NME %, {real}") for n in lists]
        cells += [value(last, f"NME % of inner points, {real}"), value(last, f"NME %, {gt}")]
        cells += [value(n, f"NME %, {flips}") for n in lists] + [value(last, f"ms a face, {ms}")]
        return f"| {label} | {' | '.join(cells)} |"

    for number, stage in enumerate(("coarse", "component", "point"), 1):
        lines.append(
            line(f"stage {number}, {stage}", *(f"{stage}, {w}" for w in ("v_real", "v_gt", "with flips")), stage)
        )
    lines.append(line("all, turned by any angle", "turned faces", "-", "turned faces, with flips", "all stages"))
    lines.append(line("all, without the angle stage", "no angle stage", "-", "-", "-"))
    return "\n".join(lines)


def angle_share(stage: Stage, images: Sequence[Image], starts: Sequence[FaceState], true: NDArray[np.float64]) -> float:
    found = stage(images, starts)
    return 100 * float(np.mean([abs(wrap_angle(f.angle - t)) <= 5 for f, t in zip(found, true, strict=True)]))


def turn_faces(
    images: Sequence[Image], faces: Sequence[FaceState], truth: NDArray[np.float32], scheme: LandmarkScheme, seed: int
) -> list[tuple[Image, FaceState]]:
    """Each image turned by any angle, on a canvas that holds it, and its face there with the box of a turned face."""
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
