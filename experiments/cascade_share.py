"""How much of the coarse stage's real output should stage 2 be trained on? Fig. 5 of the paper.

    python experiments/cascade_share.py --data ../shared/data/ibug68 --coarse runs/cascade --out runs/cascade-share

Takes the angle and coarse stages that `cascade_stages.py` has trained into the folder --coarse, and trains stage 2 with a share of 0, 0.25,
0.5, 0.75 and 1 of its training crops aligned by their real output on the training faces, the rest by the truth; both
augmented, or the truth alone. Prints the NME by the outer eye corners of each component on every 15th face of train.txt, which
is held out. The real output on faces that the coarse stage has learned is better than on new ones: what the paper's tendency is due to.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from cascade_stages import EVERY
from lightning_fabric import Fabric

from fewmark.atomic import write_text
from fewmark.cascade.frames import inner_components
from fewmark.cascade.state import FaceState
from fewmark.cascade.training import Run, Schedule
from fewmark.cascade.training_angle import train_angle
from fewmark.cascade.training_coarse import train_coarse
from fewmark.cascade.training_component import train_component
from fewmark.cascade.training_faces import cache_training_faces, predict_landmarks
from fewmark.data.formats import read_faces
from fewmark.data.lists import select
from fewmark.data.samples import read_image
from fewmark.metrics import landmark_errors, nme_per_face, normalising_lengths
from fewmark.scheme import load_scheme
from fewmark.training_plans import CASCADE_EPOCHS


def main() -> None:
    parser = argparse.ArgumentParser(description="share of real stage-1 output in stage 2's training")
    parser.add_argument("--data", type=Path, required=True, help="the ibug68 folder")
    parser.add_argument("--coarse", type=Path, required=True, help="the --out of cascade_stages.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--epochs", type=float, default=0.4, help="factor on stage 2's epochs")
    parser.add_argument("--precision", default="bf16-mixed")
    arguments = parser.parse_args()
    for name in ("angle", "coarse"):
        if not (arguments.coarse / f"{name}.safetensors").is_file():
            parser.error(f"--coarse: {arguments.coarse} has no {name}.safetensors; run cascade_stages.py first")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scheme = load_scheme("ibug-68")
    samples = read_faces(arguments.data, scheme=scheme)
    train = select(samples, arguments.data / "train.txt")
    held_out = train[::EVERY]
    faces = cache_training_faces([s for i, s in enumerate(train) if i % EVERY], scheme)
    fabric = Fabric(accelerator="cpu", devices=1, precision=arguments.precision)
    before = Run(fabric, 0, arguments.coarse)
    first = [train_angle(faces, run=before), train_coarse(faces, run=before)]
    real = predict_landmarks(first, faces.images, faces.starts())
    images = [read_image(s.image) for s in held_out]
    truth = np.stack([s.landmarks for s in held_out if s.landmarks is not None])
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
    schedule = Schedule(n_epochs=max(1, round(CASCADE_EPOCHS["component"] * arguments.epochs)))
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
                run=replace(before, folder=folder),
            )
            add(f"share {share:g}, {'both' if augment_coarse else 'the truth alone'} augmented", stage(images, starts))
    write_text(arguments.out / "share.json", json.dumps(rows, indent=1))
    names = [*components, "all"]
    print("\n| training crops of stage 2 | " + " | ".join(names) + " |\n|---" * (len(names) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[c]:.2f}" for c in names) + " |")


if __name__ == "__main__":
    main()
