"""The recipe `paper` without a GPU: one small round, and an estimate of a whole run from the time of a step.

    python experiments/paper_recipe.py --data ../shared/data/ibug68 --out runs/paper-in-small

Sizes, losses, optimizers and the teacher are the paper's; the 16 labelled and 24 unlabelled faces and the single epoch are not.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from measurement import make_parser, write_json
from ts3_few_labels import gather

from fewmark import TrainingData, train
from fewmark.training.config import load_config
from fewmark.training.events import Event
from fewmark.training.semi.plans import student_plans
from fewmark.training.semi.selection import quota

SMALL = [
    "students.cpm.n_epochs=1",
    "students.hourglass.n_epochs=1",
    "semi.rounds=1",
    "semi.ratio=0.5",
    "teacher.steps=25",
]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a run folder")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    whole = gather(arguments.data, 107, 0)
    data = TrainingData(whole.scheme, whole.labelled[:16], whole.unlabelled[:24], whole.validation[:8])

    def show(event: Event) -> None:
        if event["kind"] in ("epoch", "teacher"):
            print({k: v for k, v in event.items() if not isinstance(v, list)}, flush=True)

    began = time.monotonic()
    settings = [*SMALL, f"run.threads={arguments.threads}"]
    result = train(load_config("paper", settings), data, arguments.out, on_event=show)
    found: dict[str, object] = {
        "one round in small, minutes": (time.monotonic() - began) / 60,
        "validation": str(result.scores),
    }

    config = load_config("paper")
    n_labelled, n_unlabelled = len(whole.labelled), len(whole.unlabelled)
    hours = 0.0
    for plan in student_plans(config):
        module = plan.build(68, 0).train()
        optimizer = plan.make_optimizer(module)
        images = torch.randn(plan.batch_size, 3, config.crop.size, config.crop.size).contiguous(
            memory_format=torch.channels_last
        )
        landmarks, weights = torch.rand(plan.batch_size, 68, 2) * config.crop.size, torch.ones(plan.batch_size, 68)
        times = []
        for _ in range(6):
            start = time.perf_counter()
            plan.compute_loss(module(images), landmarks, weights, config.crop.size).backward()
            optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter() - start)
        seconds = sorted(times)[len(times) // 2]
        faces = [
            n_labelled + (quota(i, config.semi.ratio, n_unlabelled) if i else 0) for i in range(config.semi.rounds + 1)
        ]
        steps = sum(-(-n // plan.batch_size) * plan.n_epochs for n in faces)
        hours += steps * seconds / 3600
        found[plan.name] = {
            "seconds a step": round(seconds, 3),
            "steps of a whole run": steps,
            "hours": round(steps * seconds / 3600, 1),
        }
    found["hours of a whole run, students alone"] = round(hours, 1)
    write_json(arguments.out / "paper.json", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
