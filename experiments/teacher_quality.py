"""Rank correlation of the teacher's predicted quality with the true error of pseudo labels, by how the teacher was trained.

    python experiments/teacher_quality.py runs/few-labels/107labels_seed0_teacher --data ../shared/data/ibug68

Takes the students of round 0 (and the folds) of a finished run with `teacher.source = "out-of-fold"`, trains teachers in every way
that TeacherPlan offers, and lets them score the pseudo labels of the unlabelled faces, whose true labels are known here (TS3,
section 3.4). No test face is read.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measurement import make_parser, markdown_table, write_json
from safetensors.torch import load_file
from ts3_few_labels import gather

from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CropRule, cache_faces
from fewmark.landmarks.metrics import spearman
from fewmark.training.config import load_config
from fewmark.training.launch import launch
from fewmark.training.semi.plans import student_plans
from fewmark.training.semi.pseudo_labels import write_pseudo_labels
from fewmark.training.semi.rounds import Loop
from fewmark.training.semi.teacher import TeacherPlan, join_scored, score_predictions, split_folds, train_teacher


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path, help="a run folder with its state")
    parser.add_argument("--labels", type=int, default=107)
    parser.add_argument("--faces", type=int, default=964, help="unlabelled faces to score")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="VARIANT")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = load_config(arguments.run / "config.toml", ["run.threads=1"])
    fabric = launch(config)
    data = gather(arguments.data, arguments.labels, config.run.seed)
    rule, k = CropRule(config.crop.size, config.crop.margin), data.scheme.n_landmarks
    labelled = cache_faces(data.labelled, rule, k)
    unlabelled = cache_faces(data.unlabelled[: arguments.faces], rule, k)
    plans = student_plans(config)
    codecs = [p.codec for p in plans]
    augment = AugmentRule(**config.augment.model_dump())
    state = arguments.run / "state"

    def students(prefix: str) -> list[torch.nn.Module]:
        found = []
        for plan in plans:
            module = plan.build(k, 0)
            module.load_state_dict(load_file(state / f"{prefix}_{plan.name}.safetensors"))
            found.append(module.eval())
        return found

    first = students("round0")
    folds = []
    for f, held_out in enumerate(split_folds(len(labelled), Loop().n_folds, config.run.seed)):
        if (state / f"fold{f}_{plans[0].name}.safetensors").is_file():
            folds.append((students(f"fold{f}"), [labelled[i] for i in held_out]))
    truth = np.stack([f.landmarks for f in unlabelled])
    rows: dict[str, list[float]] = {}

    def correlations(teacher: torch.nn.Module | None) -> dict[str, float]:
        seen = write_pseudo_labels(
            first,
            codecs,
            unlabelled,
            size=rule.size,
            mirror=data.scheme.mirror,
            n_views=2 if teacher is None else 1,
            teacher=teacher,
        )
        error = np.nanmean(np.linalg.norm(seen.landmarks - truth, axis=2), axis=1)
        if teacher is None:
            return {
                "peak score": spearman(-seen.scores.mean(1), error),
                "spread of students and 2 views": spearman(seen.disagreement.mean(1), error),
                "own loss of the first student": spearman(seen.own_losses[0], error),
                "own loss of the second student": spearman(seen.own_losses[-1], error),
            }
        assert seen.quality is not None
        return {"teacher": spearman(-seen.quality, error)}

    for name, value in correlations(None).items():
        rows[name] = [value]
    base = TeacherPlan(n_steps=arguments.steps)
    plain = replace(base, peaks=False)
    variants: dict[str, TeacherPlan] = {
        "labelled, as in the paper": replace(plain, source="labelled", norm="instance", target="heatmap"),
        "labelled, components and peaks": replace(base, source="labelled"),
    }
    if folds:
        variants |= {
            "out-of-fold, instance norm": replace(plain, norm="instance"),
            "out-of-fold, group norm": replace(plain, norm="group"),
            "out-of-fold, batch norm": plain,
            "out-of-fold, components and peaks": base,
            "out-of-fold, components and peaks, heatmap target": replace(base, target="heatmap"),
        }
    for name in arguments.only or []:
        if name not in variants:
            parser.error(f"--only: expected some of {', '.join(variants)}, given {name!r}")
    variants = {n: v for n, v in variants.items() if not arguments.only or n in arguments.only}
    for name, plan in variants.items():
        for seed in range(arguments.seeds):
            sets = [(first, labelled)] if plan.source == "labelled" else folds
            scored = join_scored(
                [
                    score_predictions(
                        s, codecs, f, plan, scheme=data.scheme, size=rule.size, augment=augment, seed=seed
                    )
                    for s, f in sets
                ]
            )
            teacher, _ = train_teacher(plan, scored, scheme=data.scheme, fabric=fabric, seed=seed)
            rows.setdefault(f"teacher: {name}", []).append(correlations(teacher)["teacher"])
        print(f"{name}: {rows[f'teacher: {name}']}", flush=True)
    if arguments.json:
        write_json(arguments.json, rows)
    head = ["measure", "rank correlation with the true error"]
    print("\n" + markdown_table(head, [[name, f"{np.mean(values):.2f}"] for name, values in rows.items()]))


if __name__ == "__main__":
    main()
