"""Reliability of the expected errors: errors predicted from scores against true ones.

    python experiments/expected_errors.py --data ../shared/data/ibug68 --model ibug-68 --fit runs/lists-ibug68/held_out.txt \\
        --list runs/lists-ibug68/test_common.txt runs/lists-ibug68/test_challenging.txt --out runs/expected-errors

The curve is fitted on the held-out faces of --fit, in boxes of the face detector, and predicts the errors on
each list: landmarks in ten equal groups by expected error, and the mean true error of each group. Also the rank correlation of expected
and true error over landmarks, and over faces (their means). Writes expected_errors.json and reliability.png.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurement import load_pyplot, make_parser, markdown_table, save_figure, write_json

from fewmark.data.formats.io import read_faces
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.calibration import ErrorCalibration, relative_errors, reliability
from fewmark.landmarks.metrics import spearman

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def main() -> None:
    parser = make_parser(__doc__, data="labelled faces in the model's scheme")
    parser.add_argument("--model", required=True, help="a model file or a packaged name")
    parser.add_argument("--fit", type=Path, required=True, help="list of held-out faces to fit the curve on")
    parser.add_argument("--list", type=Path, nargs="+", required=True, dest="lists", help="lists of other faces")
    parser.add_argument("--box", choices=["gt", "detect"], default="detect")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    detector = Detector.load(arguments.model)
    samples = read_faces(arguments.data, scheme=detector.scheme)
    calibration = ErrorCalibration.fit(*predict(detector, select(samples, arguments.fit), arguments.box))
    if calibration is None:
        parser.error("--fit: too few faces with scores")
    rows: dict[str, Any] = {}
    for path in arguments.lists:
        scores, errors = predict(detector, select(samples, path), arguments.box)
        expected = calibration.expected_errors(scores, np.ones(len(scores)))
        bins = reliability(expected, errors)
        known = np.isfinite(expected) & np.isfinite(errors)
        faces = known.any(1)
        rows[path.stem] = {
            "n_faces": int(faces.sum()),
            "ratio": bins.ratio,
            "expected": [100 * float(v) for v in bins.expected],
            "true": [100 * float(v) for v in bins.true],
            "rank correlation of landmarks": spearman(expected[known], errors[known]),
            "rank correlation of faces": spearman(np.nanmean(expected[faces], 1), np.nanmean(errors[faces], 1)),
        }
    write_json(arguments.out / "expected_errors.json", rows)
    draw(rows, arguments.out / "reliability.png")
    print(as_table(rows))


def predict(detector: Detector, samples: Sequence[FaceSample], box: BoxKind) -> Arrays:
    """(N, K) scores and errors, the latter as fractions of the face's size."""
    found, scores = predict_samples(detector, samples, box, flip=detector.checkpoint.flip)
    return scores, relative_errors(found, stack_landmarks(samples))


def as_table(rows: dict[str, Any]) -> str:
    """A Markdown table: expected and true errors in % of the face's size."""
    head = ["list", "faces", "expected / true", "most confident tenth: expected, true"]
    head += ["least confident tenth: expected, true", "rank correlation, landmarks", "faces"]
    table = []
    for name, r in rows.items():
        ends = [f"{r['expected'][i]:.2f}, {r['true'][i]:.2f}" for i in (0, -1)]
        ranks = [f"{r[f'rank correlation of {what}']:.2f}" for what in ("landmarks", "faces")]
        table.append([name.removeprefix("test_"), str(r["n_faces"]), f"{r['ratio']:.2f}", *ends, *ranks])
    return markdown_table(head, table)


def draw(rows: dict[str, Any], path: Path) -> None:
    """Draw the reliability diagram."""
    figure, axis = load_pyplot().subplots(figsize=(4.8, 4.6), layout="constrained")
    highest = 1.05 * max(max(r["expected"] + r["true"]) for r in rows.values())
    axis.plot([0, highest], [0, highest], color="0.6", linestyle=":", label="true = expected")
    for name, r in rows.items():
        axis.plot(r["expected"], r["true"], marker="o", markersize=4, label=name.removeprefix("test_"))
    axis.set_xlim(0, highest)
    axis.set_ylim(0, highest)
    axis.set_aspect("equal")
    axis.set_xlabel("expected error, % of the face's size")
    axis.set_ylabel("true error, % of the face's size")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
