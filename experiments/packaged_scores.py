"""Scores of the packaged models on the test lists: NME, AUC and failure rate, in true boxes and in those of the face detector.

    python experiments/packaged_scores.py --data ../shared/data/ibug68 --json docs/measured/packaged_scores.json

No test face was used for training or to choose anything. A face that the face detector misses is a failure and counts 0 in AUC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measurement import TESTS, make_parser, markdown_table, percent, read_tests, write_json

from fewmark.evaluation.evaluate import evaluate_lists
from fewmark.inference.checkpoint.metadata import packaged_names, read_metadata, resolve_model
from fewmark.inference.detector import Detector


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of the JSON file."""
    head = ["model", "file", *TESTS, "full", "full, detected boxes", "AUC, full", "failures, full"]
    table = []
    for row in sorted(rows, key=lambda r: int(r["n_bytes"])):
        true, detected = row["gt"], row["detect"]
        nmes = [percent(true[part]["nme"]) for part in (*TESTS, "full")]
        rest = [percent(true["full"][name], 1) for name in ("auc", "failure_rate")]
        table.append(
            [f"`{row['model']}`", f"{row['n_bytes'] / 1e6:.2f} MB", *nmes, percent(detected["full"]["nme"]), *rest]
        )
    return markdown_table(head, table)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=packaged_names())
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    lists = read_tests(arguments.data)
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
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
            nmes = ", ".join(f"{name} {percent(s.nme)}" for name, s in scores.items())
            print(
                f"{model}, {box} boxes: {nmes}; failures of common {percent(scores['common'].failure_rate, 1)}",
                flush=True,
            )
        rows.append(row)
    if arguments.json:
        write_json(arguments.json, rows)


if __name__ == "__main__":
    main()
