"""TS3 against its rivals from few labels (TS3, Tables 1 and 4 and Fig. 4): one recipe, some splits, equal training steps.

    python experiments/ts3_few_labels.py --data ../shared/data/ibug68 --out runs/few-labels --labels 20 107 --seeds 0 1 2 --selections none spread
    python experiments/ts3_few_labels.py --data ../shared/data/ibug68 --out runs/few-labels --table

Labelled: 54, 107 or 214 faces of labelled/{05,10,20}pct_seed{s}.txt, the first 20 of the 54, none (synthetic faces take their place), or
921, all but the validation faces. Unlabelled: the rest of train.txt, and with `--pool` other images. Validation: 150 faces of train.txt
that are in none of the labelled lists of any seed; they are not among the unlabelled, whose boxes come from the face detector.
`--students unet` trains one student alone (Table 4); `--start` begins each run from a model; `--name` tells variants of settings apart. Only
`--table` reads the test lists; it writes results.json, prints the table, and writes its cells with `--json`. Its differences are to the row `none` of the same
labels, seeds and name: that of the NME of a face, averaged over seeds, with its standard error over faces.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, markdown_table, percent, read_tests, use_one_thread, write_json

from fewmark import TrainingData
from fewmark import train as train_model
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import read_list, select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.checkpoint.io import Checkpoint, load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.events import Event

N_VALIDATION = 150
LISTS = {0: "05", 20: "05", 54: "05", 107: "10", 214: "20"}
"""Number of labels -> the list that they are the first of."""
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


def gather(data: Path, n_labels: int, seed: int, pool: Sequence[Path] = ()) -> TrainingData:
    """The training data of one split: 0, 20, 54, 107, 214 or 921 labels. Images of a pool are unlabelled faces, too."""
    scheme = load_scheme("ibug-68")
    faces = read_faces(data, scheme=scheme)
    train = select(faces, data / "train.txt")
    ever = {name for path in (data / "labelled").glob("*.txt") for name in read_list(path)}
    free = [s for s in train if s.name not in ever]
    validation = [free[i] for i in np.linspace(0, len(free) - 1, N_VALIDATION).astype(int)]
    held = {s.name for s in validation}
    labelled = [s for s in train if s.name not in held]
    if n_labels != len(labelled):
        labelled = select(faces, data / f"labelled/{LISTS[n_labels]}pct_seed{seed}.txt")[:n_labels]
    names = {s.name for s in labelled} | held
    unlabelled = [replace(s, box=None) for s in train if s.name not in names]
    for folder in pool:
        unlabelled += [FaceSample(s.image, name=f"{folder.name}/{s.name}") for s in read_faces(folder)]
    return TrainingData(scheme, labelled, unlabelled, validation)


def train(arguments: argparse.Namespace) -> None:
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
        data = gather(arguments.data, n_labels, seed, arguments.pool)
        result = train_model(config, data, folder, start=start, resume=resume, on_event=show)
        print(f"{folder.name}: {result.scores} in {time.monotonic() - began:.0f} s", flush=True)


def measure(checkpoint: Checkpoint, data: Path, flip: bool, boxes: Sequence[BoxKind] = ("column",)) -> dict[str, Any]:
    """Scores on the test lists, for each kind of box; of all faces together also the NME of each."""
    detector = Detector(checkpoint)
    lists = read_tests(data)
    lists["full"] = lists["common"] + lists["challenging"]
    found: dict[str, Any] = {}
    for box in boxes:
        both = predict_samples(detector, lists["full"], box, flip=flip).landmarks
        n = len(lists["common"])
        parts = {"common": both[:n], "challenging": both[n:], "full": both}
        for name, samples in lists.items():
            scores = score(parts[name], stack_landmarks(samples), detector.scheme).to_dict()
            kept = ("per_face",) if name == "full" and box == "column" else ()
            found[f"{name}/{box}"] = {k: v for k, v in scores.items() if k in kept or not isinstance(v, list | dict)}
    return found


def table(arguments: argparse.Namespace) -> None:
    use_one_thread()
    path = arguments.out / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for folder in sorted(arguments.out.glob("*labels_seed*_*")):
        if folder.name in results or not (folder / "detector.safetensors").is_file():
            continue
        rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        whole = load_checkpoint(folder / "detector.safetensors")
        alone = whole.students if len(whole.students) > 1 else []
        results[folder.name] = {
            "test": measure(whole, arguments.data, arguments.flip, ("column", "detect")),
            "validation": [a["nme"] for a in whole.accuracy],
            "students": {
                part.name: measure(replace(whole, students=[part]), arguments.data, arguments.flip) for part in alone
            },
            "rounds": [{k: v for k, v in r.items() if not isinstance(v, list)} for r in rounds],
        }
        write_json(path, results)
    print("NME % by the outer eye corners, true box; `detected` with the packaged face detector's box.\n")
    head = [
        "labels",
        "trained by",
        "seeds",
        "model",
        "validation",
        "common",
        "challenging",
        "full",
        "AUC@0.08",
        "failures",
    ]
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
        rows.append(
            [
                *label,
                "all",
                percent(nme, unit=""),
                *cells([r["test"] for r in runs.values()]),
                difference(runs, control),
            ]
        )
        for part in next(iter(runs.values()))["students"]:
            rows.append([*label, f"{part} alone", "", *cells([r["students"][part] for r in runs.values()]), ""])
    head += ["full, detected", "to labels alone"]
    print(markdown_table(head, rows))
    if arguments.json:
        write_json(arguments.json, {"head": head, "rows": rows})


def difference(runs: Mapping[int, Any], control: Mapping[int, Any]) -> str:
    """The mean difference of the faces' NME to the control's, over common seeds, and its standard error over faces; points of a per cent."""
    seeds = sorted(runs.keys() & control.keys())
    if not seeds or runs is control:
        return ""
    ours, theirs = (
        np.mean([part[s]["test"]["full/column"]["per_face"] for s in seeds], axis=0) for part in (runs, control)
    )
    change = 100 * (ours - theirs)
    return f"{change.mean():+.2f} ± {change.std(ddof=1) / np.sqrt(len(change)):.2f}"


def cells(tests: Sequence[dict[str, Any]]) -> list[str]:
    """Cells of the table: means over runs."""

    def mean(where: str, field: str) -> float:
        return float(np.mean([t[where][field] for t in tests]))

    nmes = [percent(mean(f"{name}/column", "nme"), unit="") for name in ("common", "challenging", "full")]
    rates = [percent(mean("full/column", "auc"), 1, ""), percent(mean("full/column", "failure_rate"), 1)]
    return [*nmes, *rates, percent(mean("full/detect", "nme"), unit="") if "full/detect" in tests[0] else ""]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--labels", type=int, nargs="+", default=[107], choices=(*LISTS, 921), help="numbers of labels")
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
    table(arguments) if arguments.table else train(arguments)


if __name__ == "__main__":
    main()
