"""The error after every round (TS3, Fig. 4): validation NME of all students together, for each selection of `ts3_few_labels.py`.

    python experiments/ts3_rounds.py runs/labels --labels 107 --name rounds --json docs/measured/rounds.json --figure docs/images/rounds.png

Means over the seeds, from one view without flips. A run on labels alone has no rounds: it is a line at its end, after as many steps as the others take.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from measurement import load_pyplot, make_parser, markdown_table, percent, save_figure, write_json
from ts3_runs import NAMES


def read_curves(folder: Path, n_labels: int, name: str) -> dict[str, list[list[float]]]:
    """Selection -> validation NME by round, a list for each seed."""
    variant = f"_{re.escape(name)}" if name else ""
    pattern = re.compile(rf"{n_labels:03d}labels_seed\d+{variant}_({'|'.join(NAMES)})")
    curves: dict[str, list[list[float]]] = {}
    for run in sorted(folder.iterdir()):
        match = pattern.fullmatch(run.name)
        if match is None or not (run / "detector.safetensors").is_file():
            continue
        lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
        last = {line["round"]: line["ensemble_val_nme"] for line in lines}
        curves.setdefault(match[1], []).append([last[i] for i in sorted(last)])
    return curves


def draw(curves: dict[str, list[list[float]]], path: Path, n_labels: int) -> None:
    """The curves as a figure."""
    pyplot = load_pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 3.6))
    n_rounds = max(len(c[0]) for c in curves.values()) - 1
    for rule, runs in curves.items():
        mean = 100 * np.mean(runs, axis=0)
        if len(mean) == 1:
            axes.axhline(mean[0], color="0.5", linestyle="--", label="labels alone, as many steps")
            continue
        spread = 100 * np.std(runs, axis=0, ddof=1) if len(runs) > 1 else np.zeros_like(mean)
        axes.errorbar(range(len(mean)), mean, spread, marker="o", capsize=3, label=NAMES[rule])
    axes.set_xlabel("round (0: labels alone)")
    axes.set_ylabel("validation NME, %")
    axes.set_xticks(range(n_rounds + 1))
    axes.set_title(f"{n_labels} labels")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    save_figure(figure, path)


def main() -> None:
    parser = make_parser(__doc__, data="")
    parser.add_argument("folder", type=Path, help="the runs of ts3_few_labels.py")
    parser.add_argument("--labels", type=int, default=107)
    parser.add_argument("--name", default="", help="the name of their settings")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--figure", type=Path, help="file for the picture")
    arguments = parser.parse_args()
    curves = read_curves(arguments.folder, arguments.labels, arguments.name)
    if not curves:
        parser.error(f"{arguments.folder}: no finished run of {arguments.labels} labels named {arguments.name!r}")
    n_rounds = max(len(c[0]) for c in curves.values())
    rows: list[list[Any]] = []
    for rule, runs in curves.items():
        mean = np.mean(runs, axis=0)
        numbers = (
            [percent(v, unit="") for v in mean]
            if len(mean) > 1
            else ["-"] * (n_rounds - 1) + [percent(mean[0], unit="")]
        )
        rows.append([NAMES[rule], str(len(runs)), *numbers])
    head = ["selection", "seeds", *(f"round {i}" for i in range(n_rounds))]
    print(markdown_table(head, rows))
    if arguments.json:
        write_json(arguments.json, {"head": head, "rows": rows})
    if arguments.figure:
        draw(curves, arguments.figure, arguments.labels)


if __name__ == "__main__":
    main()
