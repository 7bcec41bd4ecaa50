"""The share of real stage-1 output in stage 2's training crops; Fig. 5 of the coarse-to-fine paper.

    python experiments/cascade_share.py runs/cascade/detector.safetensors --data ../shared/data/ibug68 \
        --labelled runs/lists-ibug68/labelled.txt --list runs/lists-ibug68/held_out.txt --out runs/cascade-share

Takes the angle and coarse stages of a trained cascade, and trains stage 2 with a share of 0, 0.25, 0.5, 0.75 and 1 of its training
crops aligned by the coarse stage's output on the training faces, the rest by the true landmarks; either both are augmented or only the latter.
Prints the NME of each component on the listed faces. As in the paper, the output on faces that the coarse stage was trained on is better
than on new ones. A finished training is not repeated: its weights are in OUT.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from cascade_stages import read_cascade
from lightning_fabric import Fabric
from measurement import make_parser, markdown_table, use_one_thread, write_json

from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.data.samples import stack_landmarks
from fewmark.inference.cascade.frames import inner_components
from fewmark.inference.cascade.state import FaceState
from fewmark.landmarks.metrics import landmark_errors, nme_per_face, normalising_lengths
from fewmark.training.cascade.component import train_component
from fewmark.training.cascade.faces import cache_training_faces, predict_landmarks
from fewmark.training.cascade.fit_stage import STAGE_EPOCHS, Schedule
from fewmark.training.runner import RunContext


def main() -> None:
    parser = make_parser(__doc__, data="labelled faces in the model's scheme")
    parser.add_argument("model", type=Path, help="a model file of a cascade")
    parser.add_argument("--labelled", type=Path, required=True, help="list of the model's training faces")
    parser.add_argument("--list", type=Path, required=True, dest="held_out", help="list of the faces to measure")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--epochs", type=float, default=0.4, help="factor for stage 2's number of epochs")
    parser.add_argument("--precision", default="32-true", help="bf16-mixed is faster on CPUs that have it")
    arguments = parser.parse_args()
    use_one_thread()
    cascade = read_cascade(arguments.model)
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
    write_json(arguments.out / "share.json", rows)
    print(f"\n{as_table(rows)}")


def as_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Fig. 5 as a Markdown table: NME of each component in %."""
    parts = list(next(iter(rows.values())))
    table = [[name, *(f"{row[part]:.2f}" for part in parts)] for name, row in rows.items()]
    return markdown_table(["training crops of stage 2", *parts], table)


if __name__ == "__main__":
    main()
