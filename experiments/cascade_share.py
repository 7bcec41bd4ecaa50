"""How much of the coarse stage's real output should stage 2 be trained on? Fig. 5 of the coarse-to-fine paper.

    python experiments/cascade_share.py runs/cascade/detector.safetensors --data ../shared/data/ibug68 \
        --labelled runs/lists-ibug68/labelled.txt --list runs/lists-ibug68/held_out.txt --out runs/cascade-share

Takes the angle and coarse stages of a trained cascade, and trains stage 2 with a share of 0, 0.25, 0.5, 0.75 and 1 of its training
crops aligned by their real output on the training faces, the rest by the truth; both augmented, or the truth alone. Prints the NME of
each component on the listed faces. The real output on faces that the coarse stage has learned is better than on new ones, as it was
in the paper. A training that has ended is not repeated: its weights are in OUT.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric

from fewmark.core.files import write_text
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.data.samples import stack_landmarks
from fewmark.inference.cascade.frames import inner_components
from fewmark.inference.cascade.state import FaceState
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.landmarks.metrics import landmark_errors, nme_per_face, normalising_lengths
from fewmark.training.cascade.component import train_component
from fewmark.training.cascade.faces import cache_training_faces, predict_landmarks
from fewmark.training.cascade.fit_stage import STAGE_EPOCHS, Schedule
from fewmark.training.runner import RunContext


def main() -> None:
    parser = argparse.ArgumentParser(description="share of real stage-1 output in stage 2's training")
    parser.add_argument("model", type=Path, help="a model file of a cascade")
    parser.add_argument("--data", type=Path, required=True, help="labelled faces in the model's scheme")
    parser.add_argument("--labelled", type=Path, required=True, help="list of the faces that the model was trained on")
    parser.add_argument("--list", type=Path, required=True, dest="held_out", help="list of the faces to measure")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--epochs", type=float, default=0.4, help="factor on stage 2's epochs")
    parser.add_argument("--precision", default="32-true", help="bf16-mixed is faster on CPUs that have it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cascade = load_checkpoint(arguments.model).cascade
    if cascade is None:
        parser.error(f"{arguments.model}: holds no cascade")
    scheme = cascade.scheme
    samples = read_faces(arguments.data, scheme=scheme)
    held_out = select(samples, arguments.held_out)
    faces = cache_training_faces(select(samples, arguments.labelled), scheme)
    first = [s for s in cascade.stages if s.name in ("angle", "coarse")]
    real = predict_landmarks(first, faces.images, faces.starts())
    images = [read_image(s.image) for s in held_out]
    truth = stack_landmarks(held_out)
    lengths = normalising_lengths(truth, None, scheme.normalizer)
    starts = [FaceState(s.face_box()) for s in held_out]
    for stage in first:
        starts = stage(images, starts)
    components = inner_components(scheme)
    rows: dict[str, dict[str, float]] = {}

    def add(name: str, found: list[FaceState]) -> None:
        points = np.stack([f.landmarks for f in found if f.landmarks is not None])
        errors = landmark_errors(points, truth)
        rows[name] = {
            c: 100 * float(nme_per_face(errors[:, list(indices)], lengths).mean()) for c, indices in components.items()
        }
        inner = [i for indices in components.values() for i in indices]
        rows[name]["all"] = 100 * float(nme_per_face(errors[:, inner], lengths).mean())
        print(name, {k: round(v, 2) for k, v in rows[name].items()}, flush=True)

    add("after stage 1", starts)
    fabric = Fabric(accelerator="cpu", devices=1, precision=arguments.precision)
    schedule = Schedule(n_epochs=max(1, round(STAGE_EPOCHS["component"] * arguments.epochs)))
    for augment_coarse in (True, False):
        for share in arguments.shares:
            if share == 0 and not augment_coarse:
                continue
            folder = arguments.out / f"share{share}_{'both' if augment_coarse else 'truth'}"
            stage = train_component(
                faces,
                coarse_landmarks=real,
                coarse_share=share,
                augment_coarse=augment_coarse,
                schedule=schedule,
                context=RunContext(fabric, folder, seed=0),
            )
            add(f"share {share:g}, {'both' if augment_coarse else 'the truth alone'} augmented", stage(images, starts))
    write_text(arguments.out / "share.json", json.dumps(rows, indent=1) + "\n")
    print(f"\n{as_table(rows)}")


def as_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Fig. 5 as Markdown: NME in % of every component."""
    names = list(next(iter(rows.values())))
    lines = [f"| training crops of stage 2 | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    lines += [f"| {name} | {' | '.join(f'{row[c]:.2f}' for c in names)} |" for name, row in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
