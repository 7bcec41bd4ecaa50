"""What the queue saves: a simulated annotator, whose hand is the truth of ibug68, labels what each kind of queue asks for.

    python experiments/annotator.py --data ../shared/data/ibug68 --out runs/annotator --json docs/measured/annotator.json --figure docs/images/annotator.png

921 images without labels (train.txt without the validation faces of `ts3_few_labels.py`). 20 labels at first and 20 more in six rounds; after each a training of
the recipe `adapt` from `ibug-68-free`, measured on the validation and on the test faces in true boxes. The queues best and centres choose the first
labels, too; for the others these are drawn at random, and shared. A correction is a landmark of the model that is further than 2 % of the face's
size from the truth, of the faces that the queue has asked for.
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
FIRST: dict[QueueKind, QueueKind] = {"best": "best", "centres": "centres"}
"""What stands in for a queue before there is a model; the others' is random."""
N_LABELS, N_ROUNDS = 20, 6
FAR = 0.02


def make_project(data: Path, folder: Path) -> dict[str, FloatArray]:
    """The project of all images, made once; the truth of each image."""
    split = gather(data, 921, 0)
    if not (folder / "project.toml").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        images = folder.parent / "images"  # without the labels that stand beside the true ones
        images.mkdir(parents=True, exist_ok=True)
        for i, sample in enumerate(split.labelled):
            link = images / f"{i:04d}{sample.image.suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to(sample.image.resolve())
        project = Project.create(folder, split.scheme)
        project.add([images])
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
    folder: Path, data: Path, truth: dict[str, FloatArray], kind: QueueKind, seed: int, n_threads: int
) -> list[dict[str, Any]]:
    """One annotator: after each round the number of labels, the NMEs, and the corrections."""
    began, done = folder / f"first_{FIRST.get(kind, 'random')}{seed}", folder / f"{kind}{seed}"
    if not (began / "rounds.json").is_file():
        start(folder / "base", began)
        write_json(
            began / "rounds.json", [label_and_train(began, data, truth, FIRST.get(kind, "random"), seed, 0, n_threads)]
        )
    if not (done / "rounds.json").is_file():
        start(began, done)
    rounds: list[dict[str, Any]] = json.loads((done / "rounds.json").read_text())
    while len(rounds) <= N_ROUNDS:
        rounds.append(label_and_train(done, data, truth, kind, seed, len(rounds), n_threads))
        write_json(done / "rounds.json", rounds)
    return rounds


def start(source: Path, folder: Path) -> None:
    """A project as it was."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)


def label_and_train(
    folder: Path, data: Path, truth: dict[str, FloatArray], kind: QueueKind, seed: int, index: int, n_threads: int
) -> dict[str, Any]:
    """One round."""
    project = Project(folder)
    corrections, wanted = [], N_LABELS * (index + 1)
    while (missing := wanted - project.status().n_labelled) > 0:
        for item in project.queue(missing, kind, seed=1000 * seed + index):
            corrections.append(label(project, item.face, truth))
    project.train("adapt", [f"run.threads={n_threads}", f"run.seed={seed}"], start="ibug-68-free")
    detector, nmes = Detector(project.model_path()), {}
    for name, samples in {"validation": gather(data, 921, 0).validation, "full": read_lists(data)["full"]}.items():
        found = predict_samples(detector, list(samples), "column", flip=True).landmarks
        nmes[name] = score(found, stack_landmarks(samples), project.scheme).nme
    known = [c for c in corrections if c is not None]
    result = {"labels": wanted, **nmes, "corrections": float(np.mean(known)) if known else None}
    print(f"{folder.name}: {result}", flush=True)
    project.close()
    return result


def labels_to_reach(nme: float, counts: list[int], curve: FloatArray) -> float:
    """The number of labels with which a curve first reaches an NME, between its points on a line; NaN: it never does."""
    below = np.flatnonzero(curve <= nme)
    if not len(below) or below[0] == 0:
        return float(counts[0]) if len(below) else float("nan")
    first = int(below[0])
    return float(np.interp(nme, curve[[first, first - 1]], [counts[first], counts[first - 1]]))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the projects; goes on where it stopped")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="only show the annotators that are done")
    parser.add_argument("--list", choices=("full", "validation"), default="full", help="faces of the table")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--figure", type=Path, help="file for the picture")
    arguments = parser.parse_args()
    results: dict[str, list[list[dict[str, Any]]]] = {}
    truth = {} if arguments.table else make_project(arguments.data, arguments.out / "base")
    for seed in arguments.seeds:
        for kind in arguments.kinds:
            if not arguments.table:
                simulate(arguments.out, arguments.data, truth, kind, seed, arguments.threads)
            path = arguments.out / f"{kind}{seed}/rounds.json"
            rounds = json.loads(path.read_text()) if path.is_file() else []
            if len(rounds) == N_ROUNDS + 1:
                results.setdefault(kind, []).append(rounds)
    counts = [r["labels"] for r in next(iter(results.values()))[0]]
    rows, curves = [], {}
    for kind, runs in results.items():
        nmes = np.array([[r[arguments.list] for r in run] for run in runs])
        curves[kind] = nmes
        fixes = [np.mean([run[i]["corrections"] for run in runs]) for i in range(1, len(counts))]
        rows.append(
            [kind, str(len(runs)), *(percent(v, unit="") for v in nmes.mean(0)), percent(float(np.mean(fixes)), 1)]
        )
    head = ["queue", "seeds", *map(str, counts), "corrected landmarks"]
    print(markdown_table(head, rows))
    if "best" in curves and "random" in curves:
        final, best = curves["random"].mean(0)[-1], curves["best"].mean(0)
        reached = labels_to_reach(final, counts, best)
        print(
            f"best first reaches random's final NME with {reached:.0f} labels, {100 * reached / counts[-1]:.0f} % of them"
        )
    if arguments.json:
        write_json(arguments.json, {"head": head, "rows": rows})
    if arguments.figure:
        pyplot = load_pyplot()
        figure, axes = pyplot.subplots(figsize=(6, 3.6))
        for kind, nmes in curves.items():
            axes.errorbar(counts, 100 * nmes.mean(0), 100 * nmes.std(0), marker="o", capsize=3, label=kind)
        axes.set_xlabel("labels")
        axes.set_ylabel(f"NME of the {'test' if arguments.list == 'full' else 'validation'} faces, %")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.tight_layout()
        save_figure(figure, arguments.figure)


if __name__ == "__main__":
    main()
