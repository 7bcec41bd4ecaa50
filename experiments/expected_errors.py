"""Are the expected errors right? A reliability diagram: errors foretold from scores against true ones.

    python experiments/expected_errors.py --data ../shared/data/ibug68 --model ibug-68 --fit runs/lists-ibug68/held_out.txt \\
        --list runs/lists-ibug68/test_common.txt runs/lists-ibug68/test_challenging.txt --out runs/expected-errors

The curve is fitted on the faces of --fit, which must not have trained the model, in boxes of the face detector, and foretells those of
each list: landmarks in ten equal groups by the expected error, and the mean true error of each. Also the rank correlation of expected
and true error over landmarks, and over faces (their means). Writes expected_errors.json and reliability.png.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from fewmark.core.files import write_text
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import BoxKind, predict_samples
from fewmark.landmarks.calibration import ErrorCalibration, relative_errors, reliability
from fewmark.landmarks.metrics import spearman

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description="expected against true errors")
    parser.add_argument("--data", type=Path, required=True, help="labelled faces in the model's scheme")
    parser.add_argument("--model", required=True, help="a model file or a packaged name")
    parser.add_argument("--fit", type=Path, required=True, help="list of held-out faces that the curve is fitted on")
    parser.add_argument("--list", type=Path, nargs="+", required=True, dest="lists", help="other faces, foretold")
    parser.add_argument("--box", choices=["gt", "detect"], default="detect")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    detector = Detector.load(arguments.model)
    samples = read_faces(arguments.data, scheme=detector.scheme)
    calibration = ErrorCalibration.fit(*look(detector, select(samples, arguments.fit), arguments.box))
    if calibration is None:
        parser.error("--fit: too few faces with scores")
    rows: dict[str, Any] = {}
    for path in arguments.lists:
        scores, errors = look(detector, select(samples, path), arguments.box)
        expected = calibration.expected_errors(scores, np.ones(len(scores)))
        told = reliability(expected, errors)
        known = np.isfinite(expected) & np.isfinite(errors)
        faces = known.any(1)
        rows[path.stem] = {
            "n_faces": int(faces.sum()),
            "ratio": told.ratio,
            "expected": [100 * float(v) for v in told.expected],
            "true": [100 * float(v) for v in told.true],
            "rank correlation of landmarks": spearman(expected[known], errors[known]),
            "rank correlation of faces": spearman(np.nanmean(expected[faces], 1), np.nanmean(errors[faces], 1)),
        }
    write_text(arguments.out / "expected_errors.json", json.dumps(rows, indent=1) + "\n")
    draw(rows, arguments.out / "reliability.png")
    print(as_table(rows))


def look(detector: Detector, samples: Sequence[FaceSample], box: BoxKind) -> Arrays:
    """(N, K) scores and errors, the latter as fractions of the face's size."""
    found, scores = predict_samples(detector, samples, box, flip=detector.checkpoint.flip)
    return scores, relative_errors(found, stack_landmarks(samples))


def as_table(rows: dict[str, Any]) -> str:
    """Markdown: errors in % of the face's size, and what they were expected to be."""
    head = ["faces", "expected / true", "surest tenth: expected, true", "least sure tenth: expected, true"]
    head += ["rank correlation, landmarks", "faces"]
    lines = [f"| list | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for name, r in rows.items():
        ends = [f"{r['expected'][i]:.2f}, {r['true'][i]:.2f}" for i in (0, -1)]
        ranks = [f"{r[f'rank correlation of {what}']:.2f}" for what in ("landmarks", "faces")]
        lines.append(
            f"| {name.removeprefix('test_')} | {r['n_faces']} | {r['ratio']:.2f} | {' | '.join([*ends, *ranks])} |"
        )
    return "\n".join(lines)


def draw(rows: dict[str, Any], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(4.8, 4.6), layout="constrained")
    highest = 1.05 * max(max(r["expected"] + r["true"]) for r in rows.values())
    axis.plot([0, highest], [0, highest], color="0.6", linestyle=":", label="as foretold")
    for name, r in rows.items():
        axis.plot(r["expected"], r["true"], marker="o", markersize=4, label=name.removeprefix("test_"))
    axis.set_xlim(0, highest)
    axis.set_ylim(0, highest)
    axis.set_aspect("equal")
    axis.set_xlabel("expected error, % of the face's size")
    axis.set_ylabel("true error, % of the face's size")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
