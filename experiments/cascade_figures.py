"""A trained cascade's angle stage and error curves: Fig. 2 and Fig. 7 of the coarse-to-fine paper on the test lists of ibug68.

    python experiments/cascade_figures.py --data ../shared/data/ibug68 --model runs/cascade/detector.safetensors \
        --out runs/cascade-figures --peers runs/peers-measured/peers_landmarks.json

The model is what `fewmark train --recipe cascade` writes. The angle stage is measured by itself; for the error curves each stage goes
on from the one before, averaged with the mirrored image where the model asks for it (`model.flip`). Beside its stages the packaged model, and the detectors in files of peers_landmarks.py. The box is
the tight one of the true points, NME by the outer eye corners. Writes angle.png, ced.png and cascade_figures.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from cascade_drawing import draw_angles, draw_ced
from cascade_stages import turn_faces
from numpy.typing import NDArray
from peers_landmarks import NORMALIZER, Numbers, as_table, cpu_ms, name_in_tables, read_landmarks, read_lists, scores

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.geometry import Image, box_of_points, wrap_angle
from fewmark.data.images import read_image
from fewmark.data.samples import stack_landmarks
from fewmark.inference.cascade.component import ComponentStage
from fewmark.inference.cascade.frames import MeanFace, face_angle, scheme_mean_face
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.predict import run_cascade, run_stages
from fewmark.inference.cascade.state import FaceState
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.metrics import landmark_errors, nme_per_face, normalising_lengths
from fewmark.landmarks.scheme import load_scheme

WITHIN = (1, 2, 5, 10)
"""Degrees whose shares are written; Fig. 2 is about 5."""
PACKAGED = "ibug-68"
BATCH = 32

Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description="draw a cascade's angle errors and error curves")
    parser.add_argument("--data", type=Path, required=True, help="the ibug68 folder")
    parser.add_argument("--model", type=Path, required=True, help="model file of a cascade")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", type=Path, nargs="*", default=[], help="files of peers_landmarks.py")
    parser.add_argument("--seed", type=int, default=0, help="of the angles that images are turned by")
    parser.add_argument("--repeats", type=int, default=5, help="looks at each face, for the time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    detector = Detector.load(arguments.model)
    cascade = check_cascade(detector, arguments.model)
    lists = read_lists(arguments.data)
    samples = [s for part in lists.values() for s in part]
    peers = {peer: p for file in arguments.peers for peer, p in read_landmarks(file, samples).items()}
    truth = stack_landmarks(samples)
    images = [read_image(s.image) for s in samples]
    starts = [FaceState(box_of_points(t)) for t in truth]
    flip = detector.checkpoint.flip

    errors = measure_angles(cascade, images, starts, truth, arguments.seed)
    found = look_at_all(cascade, images, starts, flip)
    points, ms = {}, {}
    for i, stage in enumerate([s.name for s in cascade.stages if s.name != "angle"], 1):
        name, part = f"cascade, stage {i} ({stage})", up_to(cascade, stage)
        points[name] = np.stack([f.landmarks for f in found[stage] if f.landmarks is not None])
        ms[name] = time_cascade(part, images, starts, flip, arguments.repeats)
    packaged = Detector.load(PACKAGED)
    points[PACKAGED] = predict_samples(packaged, samples, "gt", flip=packaged.checkpoint.flip).landmarks
    ms[PACKAGED] = time_packaged(packaged, images, starts, arguments.repeats)
    own = [{"name": n, "ms": ms[n], **scores(points[n], lists)} for n in points]
    others = [{"name": n, "ms": None, **scores(p, lists)} for n, p in peers.items()]

    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_angles({n: errors[n] for n in ("as they are", "turned by any angle")}, arguments.out / "angle.png")
    groups = {
        "fewmark: the cascade, stage by stage": {n: p for n, p in points.items() if n != PACKAGED},
        "fewmark: the packaged model": {PACKAGED: points[PACKAGED]},
        "other detectors": {name_in_tables(n): p for n, p in peers.items()},
    }
    curves = {title: {n: per_face(p, truth) for n, p in group.items()} for title, group in groups.items() if group}
    draw_ced(curves, arguments.out / "ced.png")
    numbers = {
        "flip": flip,
        "seed": detector.checkpoint.seed,
        "counts": detector.checkpoint.counts,
        "angle": {name: angle_numbers(e) for name, e in errors.items()},
        "fewmark": own,
        "peers": others,
    }
    write_text(arguments.out / "cascade_figures.json", json.dumps(numbers, indent=1) + "\n")
    for name, e in errors.items():
        print(f"{name}: {100 * np.mean(e <= 5):.1f} % of the angles within 5 degrees")
    print(as_table([*own, *others]))


def check_cascade(detector: Detector, path: Path) -> Cascade:
    """The model's cascade.

    Raises:
        InputError: it has none, none with an angle stage, or one for another scheme than ibug-68.
    """
    cascade = detector.checkpoint.cascade
    stages = [] if cascade is None else [s.name for s in cascade.stages]
    if cascade is None or "angle" not in stages or cascade.scheme.name != "ibug-68":
        raise InputError(
            f"{path}: expected a cascade for ibug-68 with an angle stage, given {detector.scheme.name} with stages "
            f"{', '.join(stages) or '(none)'}; train one with --recipe cascade"
        )
    return cascade


def up_to(cascade: Cascade, stage: str) -> Cascade:
    """The stages up to this one."""
    names = [s.name for s in cascade.stages]
    return Cascade(cascade.stages[: names.index(stage) + 1])


def mean_face_of(cascade: Cascade) -> MeanFace:
    """What angles are measured by: the mean of the training faces, which the component stage keeps, else the scheme's."""
    kept = [s.mean_face for s in cascade.stages if isinstance(s, ComponentStage)]
    return kept[0] if kept else scheme_mean_face(cascade.scheme)


def measure_angles(
    cascade: Cascade, images: Sequence[Image], starts: Sequence[FaceState], truth: NDArray[np.float32], seed: int
) -> dict[str, Floats]:
    """(N,) |degrees| of the angle stage by itself, and of its mean with the mirrored image.

    Args:
        cascade: begins with an angle stage.
        images: one a face.
        starts: boxes.
        truth: (N, K, 2) image px.
        seed: of the angles that images are turned by.
    """
    turned = turn_faces(images, starts, truth, cascade.scheme, seed)
    turned_images, faces = [image for image, _ in turned], [face for _, face in turned]
    points = [f.landmarks for f in faces if f.landmarks is not None]
    only, frame = up_to(cascade, "angle"), mean_face_of(cascade)
    errors = {}
    for name, some, boxes, true in (
        ("as they are", images, starts, truth),
        ("turned by any angle", turned_images, [FaceState(f.box_xyxy) for f in faces], points),
    ):
        errors[name] = angle_errors(only(some, boxes), true, frame)
        both = look_at_all(only, some, boxes, flip=True)["angle"]
        errors[f"{name}, with the mirrored image"] = angle_errors(both, true, frame)
    return errors


def look_at_all(
    cascade: Cascade, images: Sequence[Image], starts: Sequence[FaceState], flip: bool
) -> dict[str, list[FaceState]]:
    """Stage -> states after it, `BATCH` faces at a time."""
    found: dict[str, list[FaceState]] = {s.name: [] for s in cascade.stages}
    for i in range(0, len(images), BATCH):
        for name, faces in run_stages(cascade, images[i : i + BATCH], starts[i : i + BATCH], flip=flip).items():
            found[name] += faces
    return found


def time_cascade(
    cascade: Cascade, images: Sequence[Image], starts: Sequence[FaceState], flip: bool, repeats: int
) -> float:
    """ms a face, one face at a time; see `cpu_ms`."""
    return cpu_ms(lambda i: run_cascade(cascade, [images[i]], [starts[i]], flip=flip), range(len(images)), repeats)


def time_packaged(detector: Detector, images: Sequence[Image], starts: Sequence[FaceState], repeats: int) -> float:
    flip = detector.checkpoint.flip
    return cpu_ms(
        lambda i: detector.predictor.predict([images[i]], [starts[i].box_xyxy], 1, flip=flip),
        range(len(images)),
        repeats,
    )


def angle_errors(found: Sequence[FaceState], truth: Sequence[NDArray[np.float32]], mean_face: MeanFace) -> Floats:
    """(N,) |degrees| between the angle found and that of the true points (K, 2)."""
    return np.array([abs(wrap_angle(f.angle - face_angle(t, mean_face))) for f, t in zip(found, truth, strict=True)])


def angle_numbers(errors: Floats) -> Numbers:
    shares = {f"within {d} degrees": float(np.mean(errors <= d)) for d in WITHIN}
    return {**shares, "median, degrees": float(np.median(errors)), "n_faces": len(errors)}


def per_face(points: NDArray[np.floating], truth: NDArray[np.float32]) -> Floats:
    rule = load_scheme("ibug-68").get_normalizer(NORMALIZER)
    return nme_per_face(landmark_errors(points, truth), normalising_lengths(truth, None, rule))


if __name__ == "__main__":
    main()
