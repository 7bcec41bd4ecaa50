"""TS3 against its rivals from few labels (TS3, Tables 1 and 4 and Fig. 4): one recipe, one split, equal training steps.

    python experiments/ts3_few_labels.py --data ../shared/data/ibug68 --out runs/few-labels --selections none teacher spl spaco random
    python experiments/ts3_few_labels.py --data ../shared/data/ibug68 --out runs/few-labels --table

Labelled: labelled/{percent}pct_seed{s}.txt; unlabelled: the rest of train.txt. Validation: 150 faces of train.txt that are in
none of the labelled lists of any seed; they are not among the unlabelled, whose boxes come from the face detector. With `--percent 100
--selections none` all other faces are labelled: an upper bound for the rounds. `--students unet` trains one student alone (Table 4). Only
`--table` reads the test lists; it writes results.json and prints the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, markdown_table, percent, read_tests, use_one_thread, write_json

from fewmark import TrainingData
from fewmark import train as train_model
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import read_list, select
from fewmark.data.samples import stack_landmarks
from fewmark.inference.checkpoint.io import Checkpoint, load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.events import Event

N_VALIDATION = 150
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


def gather(data: Path, n_percent: int, seed: int) -> TrainingData:
    """The training data of one split."""
    scheme = load_scheme("ibug-68")
    faces = read_faces(data, scheme=scheme)
    train = select(faces, data / "train.txt")
    ever = {name for path in (data / "labelled").glob("*.txt") for name in read_list(path)}
    free = [s for s in train if s.name not in ever]
    validation = [free[i] for i in np.linspace(0, len(free) - 1, N_VALIDATION).astype(int)]
    held = {s.name for s in validation}
    if n_percent == 100:
        return TrainingData(scheme, [s for s in train if s.name not in held], [], validation)
    labelled = select(faces, data / f"labelled/{n_percent:02d}pct_seed{seed}.txt")
    names = {s.name for s in labelled} | held
    unlabelled = [replace(s, box=None) for s in train if s.name not in names]
    return TrainingData(scheme, labelled, unlabelled, validation)


def train(arguments: argparse.Namespace) -> None:
    for seed in arguments.seeds:
        for selection in arguments.selections:
            alone = "-" + "-".join(arguments.students) if arguments.students else ""
            folder = arguments.out / f"{arguments.percent:02d}pct_seed{seed}_{selection}{alone}"
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
            result = train_model(
                config, gather(arguments.data, arguments.percent, seed), folder, resume=resume, on_event=show
            )
            print(f"{folder.name}: {result.scores}", flush=True)


def measure(checkpoint: Checkpoint, data: Path, flip: bool, boxes: Sequence[BoxKind] = ("column",)) -> dict[str, Any]:
    """Scores on the test lists, for each kind of box."""
    detector = Detector(checkpoint)
    lists = read_tests(data)
    lists["full"] = lists["common"] + lists["challenging"]
    found: dict[str, Any] = {}
    for box in boxes:
        both = predict_samples(detector, lists["full"], box, flip=flip).landmarks
        n = len(lists["common"])
        parts = {"common": both[:n], "challenging": both[n:], "full": both}
        for name, samples in lists.items():
            truth = stack_landmarks(samples)
            scores = score(parts[name], truth, detector.scheme).to_dict()
            found[f"{name}/{box}"] = {k: v for k, v in scores.items() if not isinstance(v, list | dict)}
    return found


def table(arguments: argparse.Namespace) -> None:
    use_one_thread()
    results = {}
    for folder in sorted(arguments.out.glob("*pct_seed*_*")):
        if not (folder / "detector.safetensors").is_file():
            continue
        rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        whole = load_checkpoint(folder / "detector.safetensors")
        results[folder.name] = {
            "test": measure(whole, arguments.data, arguments.flip, ("column", "detect")),
            "students": {
                part.name: measure(replace(whole, students=[part]), arguments.data, arguments.flip)
                for part in whole.students
            },
            "rounds": [{k: v for k, v in r.items() if not isinstance(v, list)} for r in rounds],
        }
    write_json(arguments.out / "results.json", results)
    print("NME % by the outer eye corners, true box; the last column with the packaged face detector's box.\n")
    head = ["selection", "labels", "seeds", "model", "common", "challenging", "full", "AUC@0.08", "failures"]
    rows: list[list[str]] = []
    groups: dict[tuple[str, str], list[Any]] = {}
    for name, result in results.items():
        groups.setdefault((name.split("pct")[0], name.split("_")[-1]), []).append(result)
    for (share, selection), runs in sorted(
        groups.items(), key=lambda g: (g[0][0], list(NAMES).index(g[0][1].split("-")[0]))
    ):
        rule, _, alone = selection.partition("-")
        start = [NAMES[rule] + (f", a run of {alone} alone" if alone else ""), f"{int(share)} %", str(len(runs))]
        rows.append([*start, "both students", *cells([r["test"] for r in runs])])
        for student in runs[0]["students"]:
            rows.append([*start, f"{student} alone", *cells([r["students"][student] for r in runs])])
    print(markdown_table([*head, "full, detected"], rows))


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
    parser.add_argument(
        "--percent", type=int, default=10, choices=(5, 10, 20, 100), help="100: all but the validation faces, a bound"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--selections", nargs="+", default=["none", "teacher", "spl", "spaco", "random"], choices=list(NAMES)
    )
    parser.add_argument("--students", nargs="+", metavar="NAME", help="these students of the recipe alone")
    parser.add_argument("--recipe", default="laptop")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--table", action="store_true", help="measure the finished runs on the test lists")
    parser.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, default=True, help="average with the flipped image"
    )
    arguments = parser.parse_args()
    table(arguments) if arguments.table else train(arguments)


if __name__ == "__main__":
    main()
