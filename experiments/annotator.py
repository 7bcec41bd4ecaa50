"""What the queue saves: a simulated annotator, whose hand is the truth of ibug68, labels what each kind of queue asks for.

    python experiments/annotator.py --data ../shared/data/ibug68 --out runs/annotator --json docs/measured/annotator.json --figure docs/images/annotator.png

921 images without labels (train.txt without the validation faces of `ts3_few_labels.py`). 20 labels at first and 20 more in six rounds; after each a training of
the recipe `adapt` from `ibug-68-free`, measured on the test faces in true boxes. The first labels are k centres for the queues best and centres, and
drawn at random for doubt and random. A correction is a landmark of the model that is further than 2 % of the face's size from the truth, of the faces
that the queue has asked for.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from measurement import load_pyplot, make_parser, markdown_table, percent, save_figure, write_json
from ts3_few_labels import gather, read_lists

from fewmark import Project
from fewmark.core.geometry import FloatArray
from fewmark.data.samples import stack_landmarks
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import box_overlap
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.metrics import score
from fewmark.project.queue import QueueKind

KINDS: tuple[QueueKind, ...] = ("best", "random", "doubt", "centres")
N_LABELS, N_ROUNDS = 20, 6
FAR = 0.02


def make_project(data: Path, folder: Path) -> dict[str, FloatArray]:
    """The project of all images, made once; the truth of each image."""
    split = gather(data, 921, 0)
    if not (folder / "project.toml").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        project = Project.create(folder, split.scheme)
        project.add([s.image for s in split.labelled])
        project.close()
    return {str(s.image.resolve()): s.landmarks for s in split.labelled if s.landmarks is not None}


def label(project: Project, number: int, truth: dict[str, FloatArray]) -> float | None:
    """Label a face as the annotator would; the share of the model's landmarks that had to be corrected, or None where there was no model."""
    face = project.labels.face(number)
    points = np.asarray(truth[str(project.image_path(face.image).resolve())], np.float32)
    box = np.concatenate([points.min(0), points.max(0)])
    if face.box is None or box_overlap(face.box, box) < 0.2:  # another person in the image, who has no label
        project.reject(number)
        return None
    run = project.last_run
    said = None if run is None else project.predictions.prediction(run.id, number)
    project.label(number, points, how="placed" if said is None else "fixed")
    if said is None:
        return None
    return float((np.linalg.norm(said.landmarks - points, axis=1) > FAR * (box[2:] - box[:2]).max()).mean())


def simulate(
    base: Path, folder: Path, data: Path, truth: dict[str, FloatArray], kind: QueueKind, seed: int
) -> list[dict[str, Any]]:
    """One annotator: after each round the number of labels, the NME on the test faces, and the corrections."""
    done = folder / "rounds.json"
    if done.is_file():
        found: list[dict[str, Any]] = json.loads(done.read_text())
        return found
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    project, tests = Project(folder), read_lists(data)["full"]
    rounds = []
    for index in range(N_ROUNDS + 1):
        first: QueueKind = "random" if kind in ("random", "doubt") else "centres"
        corrections, wanted = [], N_LABELS * (index + 1)
        while (missing := wanted - project.status().n_labelled) > 0:
            for item in project.queue(missing, first if index == 0 else kind, seed=1000 * seed + index):
                corrections.append(label(project, item.face, truth))
        settings = ["run.threads=2", f"run.seed={seed}"]
        project.train("adapt", settings, start="ibug-68-free")
        found_points = predict_samples(Detector(project.model_path()), tests, "column", flip=True).landmarks
        nme = score(found_points, stack_landmarks(tests), project.scheme).nme
        known = [c for c in corrections if c is not None]
        rounds.append({"labels": wanted, "nme": nme, "corrections": float(np.mean(known)) if known else None})
        print(f"{folder.name}: {rounds[-1]}", flush=True)
    project.close()
    write_json(done, rounds)
    return rounds


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the projects; goes on where it stopped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--figure", type=Path, help="file for the picture")
    arguments = parser.parse_args()
    base = arguments.out / "base"
    truth = make_project(arguments.data, base)
    results: dict[str, list[list[dict[str, Any]]]] = {}
    for seed in arguments.seeds:
        for kind in arguments.kinds:
            folder = arguments.out / f"{kind}{seed}"
            results.setdefault(kind, []).append(simulate(base, folder, arguments.data, truth, kind, seed))
    counts = [r["labels"] for r in next(iter(results.values()))[0]]
    rows, curves = [], {}
    for kind, runs in results.items():
        nmes = np.array([[r["nme"] for r in run] for run in runs])
        curves[kind] = nmes
        fixes = [np.mean([run[i]["corrections"] for run in runs]) for i in range(1, len(counts))]
        rows.append(
            [kind, str(len(runs)), *(percent(v, unit="") for v in nmes.mean(0)), percent(float(np.mean(fixes)), 1)]
        )
    head = ["queue", "seeds", *map(str, counts), "corrected landmarks"]
    print(markdown_table(head, rows))
    if "best" in curves and "random" in curves:
        final, best = curves["random"].mean(0)[-1], curves["best"].mean(0)
        reached = np.interp(-final, -best, counts) if best.min() <= final else np.nan
        print(f"best reaches random's final NME with {reached:.0f} labels, {100 * reached / counts[-1]:.0f} % of them")
    if arguments.json:
        write_json(arguments.json, {"head": head, "rows": rows})
    if arguments.figure:
        pyplot = load_pyplot()
        figure, axes = pyplot.subplots(figsize=(6, 3.6))
        for kind, nmes in curves.items():
            axes.errorbar(counts, 100 * nmes.mean(0), 100 * nmes.std(0), marker="o", capsize=3, label=kind)
        axes.set_xlabel("labels")
        axes.set_ylabel("NME of the test faces, %")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        save_figure(figure, arguments.figure)


if __name__ == "__main__":
    main()
