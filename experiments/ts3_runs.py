"""Shared by the experiments that repeat TS3's tables: runs over numbers of labels, seeds and selections, and the table of their test errors."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, markdown_table, percent, use_one_thread, write_json

from fewmark import TrainingData
from fewmark import train as train_model
from fewmark.data.formats.io import read_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import Checkpoint, load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.metrics import Score
from fewmark.training.config import load_config
from fewmark.training.events import Event

NAMES = {
    "none": "supervised only",
    "teacher": "TS3",
    "spl": "SPL",
    "spaco": "SPaCo",
    "random": "random",
    "peak": "peak score",
    "spread": "spread",
    "oracle": "oracle",
}


@dataclass(frozen=True)
class Study:
    """One table: its data, its tests and its measure.

    Attributes:
        gather: Data folder, number of labels, seed, pool folders -> training data.
        labels: Numbers of labels that there are lists for.
        read_tests: Data folder -> test faces by list. The NME of a face is kept for the last list.
        measure: (N, K, 2) landmarks, test faces -> score.
        note: What the numbers are, printed above the table.
        boxes: Boxes in which the last list is measured, the first also the other lists and students alone.
    """

    gather: Callable[[Path, int, int, Sequence[Path]], TrainingData]
    labels: Sequence[int]
    read_tests: Callable[[Path], Mapping[str, Sequence[FaceSample]]]
    measure: Callable[[Any, Sequence[FaceSample]], Score]
    note: str
    boxes: Sequence[BoxKind] = ("column", "detect")


def read_pool(folders: Sequence[Path]) -> list[FaceSample]:
    """Images of folders as unlabelled faces, whose boxes the face detector finds."""
    return [
        FaceSample(s.image, name=f"{folder.name}/{s.name}", group=s.group)
        for folder in folders
        for s in read_faces(folder)
    ]


def run_study(study: Study, docstring: str | None, data: str) -> None:
    """The command line of a study: trains, or with `--table` measures."""
    parser = make_parser(docstring, data)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--labels", type=int, nargs="+", default=[study.labels[0]], choices=study.labels)
    parser.add_argument("--start", help="a model from which each run begins")
    parser.add_argument("--pool", type=Path, nargs="+", default=[], help="folders of further unlabelled images")
    parser.add_argument("--name", default="", help="name of these settings, part of the run folders' names")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--selections", nargs="+", default=["none", "teacher", "spl", "spaco", "random"], choices=list(NAMES)
    )
    parser.add_argument("--students", nargs="+", metavar="NAME", help="these students of the recipe alone")
    parser.add_argument("--recipe", default="laptop")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="with --table: file for its cells")
    parser.add_argument("--table", action="store_true", help="measure the finished runs on the test lists")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=True, help="average with the flipped image"
    )
    arguments = parser.parse_args()
    table(study, arguments) if arguments.table else train(study, arguments)


def train(study: Study, arguments: argparse.Namespace) -> None:
    """Make the runs that are not finished yet."""
    start = load_checkpoint(arguments.start) if arguments.start else None
    for n_labels, seed, selection in itertools.product(arguments.labels, arguments.seeds, arguments.selections):
        alone = "-" + "-".join(arguments.students) if arguments.students else ""
        variant = f"_{arguments.name}" if arguments.name else ""
        folder = arguments.out / f"{n_labels:03d}labels_seed{seed}{variant}_{selection}{alone}"
        if (folder / "detector.safetensors").is_file():
            continue
        config = load_config(
            arguments.recipe, [f"semi.selection={selection}", f"run.seed={seed}", "run.threads=1", *arguments.set]
        )
        if arguments.students:
            config = config.model_copy(update={"students": {s: config.students[s] for s in arguments.students}})
        began = time.monotonic()

        def show(event: Event, folder: Path = folder, began: float = began) -> None:
            if event["kind"] == "round":
                for r in event["records"]:
                    keep = {k: v for k, v in r.to_dict().items() if not isinstance(v, list)}
                    print(f"{folder.name} {time.monotonic() - began:.0f} s {keep}", flush=True)

        resume = (folder / "config.toml").is_file()
        data = study.gather(arguments.data, n_labels, seed, arguments.pool)
        result = train_model(config, data, folder, start=start, resume=resume, on_event=show)
        print(f"{folder.name}: {result.scores} in {time.monotonic() - began:.0f} s", flush=True)


def measure(
    study: Study,
    checkpoint: Checkpoint,
    tests: Mapping[str, Sequence[FaceSample]],
    flip: bool,
    boxes: Sequence[BoxKind],
) -> dict[str, Any]:
    """Scores on the test lists, "LIST/BOX": all in the first box, the last list in each, with the NME of each face in the first."""
    detector = Detector(checkpoint)
    whole = list(tests)[-1]
    found: dict[str, Any] = {}
    for box in boxes:
        for name, samples in tests.items():
            if box != boxes[0] and name != whole:
                continue
            scores = study.measure(predict_samples(detector, samples, box, flip=flip).landmarks, samples).to_dict()
            kept = ("per_face",) if name == whole and box == boxes[0] else ()
            found[f"{name}/{box}"] = {k: v for k, v in scores.items() if k in kept or not isinstance(v, list | dict)}
    return found


def table(study: Study, arguments: argparse.Namespace) -> None:
    """Measure the finished runs, write results.json beside them, and print the table."""
    use_one_thread()
    path = arguments.out / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    tests = study.read_tests(arguments.data)
    for folder in sorted(arguments.out.glob("*labels_seed*_*")):
        if folder.name in results or not (folder / "detector.safetensors").is_file():
            continue
        rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        model = load_checkpoint(folder / "detector.safetensors")
        alone = model.students if len(model.students) > 1 else []
        results[folder.name] = {
            "test": measure(study, model, tests, arguments.flip, study.boxes),
            "validation": [a["nme"] for a in model.accuracy],
            "students": {
                part.name: measure(study, replace(model, students=[part]), tests, arguments.flip, study.boxes[:1])
                for part in alone
            },
            "rounds": [{k: v for k, v in r.items() if not isinstance(v, list)} for r in rounds],
        }
        write_json(path, results)
    whole = list(tests)[-1]
    rows: list[list[str]] = []
    groups: dict[tuple[int, str, str], dict[int, Any]] = {}
    for name, result in results.items():
        n_labels, seed, *variant, selection = name.replace("labels", "").replace("seed", "").split("_")
        groups.setdefault((int(n_labels), "_".join(variant), selection), {})[int(seed)] = result
    for key in sorted(groups, key=lambda k: (k[0], k[1], list(NAMES).index(k[2].split("-")[0]))):
        runs, control = groups[key], groups.get((key[0], key[1], key[2].replace(key[2].split("-")[0], "none")), {})
        rule, _, student = key[2].partition("-")
        words = [NAMES[rule], f"a run of {student} alone" if student else "", key[1]]
        label = [str(key[0]), ", ".join(w for w in words if w), str(len(runs))]
        nme = np.mean([r["validation"] for r in runs.values()])
        found = cells([r["test"] for r in runs.values()], list(tests), study.boxes[0])
        rows.append([*label, "all", percent(nme, unit=""), *found, difference(runs, control, whole, study.boxes[0])])
        for part in next(iter(runs.values()))["students"]:
            found = cells([r["students"][part] for r in runs.values()], list(tests), study.boxes[0])
            rows.append([*label, f"{part} alone", "", *found, ""])
    head = ["labels", "trained by", "seeds", "model", "validation", *tests, "AUC@0.08", "failures"]
    head += [f"{whole}, detected", "to labels alone"]
    print(study.note + "\n")
    print(markdown_table(head, rows))
    if arguments.json:
        write_json(arguments.json, {"head": head, "rows": rows})


def difference(runs: Mapping[int, Any], control: Mapping[int, Any], whole: str, box: BoxKind) -> str:
    """The mean difference of the faces' NME to the control's, over common seeds, and its standard error over faces; points of a per cent."""
    seeds = sorted(runs.keys() & control.keys())
    if not seeds or runs is control:
        return ""
    ours, theirs = (
        np.mean([part[s]["test"][f"{whole}/{box}"]["per_face"] for s in seeds], axis=0) for part in (runs, control)
    )
    change = 100 * (ours - theirs)
    return f"{change.mean():+.2f} ± {change.std(ddof=1) / np.sqrt(len(change)):.2f}"


def cells(tests: Sequence[dict[str, Any]], lists: Sequence[str], box: BoxKind) -> list[str]:
    """Cells of the table: means over runs."""

    def mean(where: str, field: str) -> float:
        return float(np.mean([t[where][field] for t in tests]))

    nmes = [percent(mean(f"{name}/{box}", "nme"), unit="") for name in lists]
    whole = lists[-1]
    rates = [percent(mean(f"{whole}/{box}", "auc"), 1, ""), percent(mean(f"{whole}/{box}", "failure_rate"), 1)]
    detected = percent(mean(f"{whole}/detect", "nme"), unit="") if f"{whole}/detect" in tests[0] else ""
    return [*nmes, *rates, detected]
