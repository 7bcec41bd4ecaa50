"""The packaged models on the test lists: NME, AUC and failures in true and in found boxes.

    python experiments/packaged_scores.py --data ../shared/data/ibug68 --json docs/measured/packaged_scores.json

Test faces train nothing and choose nothing. A face that the face detector does not find is a failure and counts 0 in AUC.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewmark.data.formats.io import read_faces
from fewmark.data.lists import select
from fewmark.evaluation.evaluate import evaluate_lists
from fewmark.inference.checkpoint.metadata import packaged_names, read_metadata, resolve_model
from fewmark.inference.detector import Detector
from fewmark.landmarks.scheme import load_scheme

LISTS = ("common", "challenging")


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the JSON holds, for docs/results.md."""
    head = "| model | file | box | common | challenging | full | AUC, full | failures, common | full |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda r: int(r["n_bytes"])):
        for box, name in (("gt", "true"), ("detect", "found")):
            s = row[box]
            nmes = " | ".join(f"{100 * s[part]['nme']:.2f} %" for part in (*LISTS, "full"))
            rest = f"{100 * s['full']['auc']:.1f} % | {100 * s['common']['failure_rate']:.1f} % | {100 * s['full']['failure_rate']:.1f} %"
            lines.append(f"| `{row['model']}` | {row['n_bytes'] / 1e6:.2f} MB | {name} | {nmes} | {rest} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the ibug68 folder")
    parser.add_argument("--models", nargs="+", default=packaged_names())
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args()
    samples = read_faces(given.data, scheme=load_scheme("ibug-68"))
    lists = {name: select(samples, given.data / f"test_{name}.txt") for name in LISTS}
    rows: list[dict[str, Any]] = []
    for model in given.models:
        detector = Detector.load(model)
        row: dict[str, Any] = {
            "model": model,
            "n_bytes": resolve_model(model).stat().st_size,
            "flip": detector.checkpoint.flip,
            "counts": read_metadata(model)["counts"],
            "validation": [a["nme"] for a in read_metadata(model)["accuracy"]],
        }
        for box in ("gt", "detect"):
            scores = evaluate_lists(detector, lists, box=box, normalizer="outer-eye-corners")  # type: ignore[arg-type]
            row[box] = {
                name: {k: getattr(s, k) for k in ("nme", "auc", "failure_rate", "n_faces", "n_undetected")}
                for name, s in scores.items()
            }
            line = ", ".join(f"{name} {100 * s.nme:.2f} %" for name, s in scores.items())
            print(
                f"{model}, {box} boxes: {line}; failures of common {100 * scores['common'].failure_rate:.1f} %",
                flush=True,
            )
        rows.append(row)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
