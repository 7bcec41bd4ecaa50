"""Do labels lie to one side? Of mirrored networks, and of the images themselves.

    python experiments/label_bias.py --data ../shared/data --json docs/measured/label_bias.json

Labels of 300-W and MERL-RAV against what a packaged model without its own bias finds, averaged with the mirrored images, and so
the same to the left as to the right. Then without a network: near-frontal faces are laid on one mirrored shape by their labels
and averaged; the mean image is as good as symmetric, and its axis is where it fits its mirror image best. Last, the NME of validation
faces with the bias that other validation faces emit, and without. No test face is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from packaged_model import VALIDATION_EVERY

from fewmark.core.files import write_text
from fewmark.core.geometry import face_sizes, fit_similarity
from fewmark.core.procrustes import mirrored_mean_shape
from fewmark.data.formats.csv import read_csv
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.cascade.frames import scheme_mean_face
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.label_bias import cross_fitted
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme

SIDE = 257
FACE = 180.0
"""Of the mean shape's longer side in the mean image of `SIDE` px."""
FRONTAL = 9.0
"""Mean distance from the mean shape, px, up to which a face counts as frontal."""
ROWS, COLUMNS = slice(70, 215), slice(60, 197)
SHIFTS = np.arange(-6.0, 6.01, 0.25)
MODELS = ("ibug-68-nano", "ibug-68", "ibug-68-large")

Points = NDArray[np.float32]


def mean_axis(samples: Sequence[FaceSample], points: Points, scheme: LandmarkScheme) -> tuple[float, int]:
    """How far right of the images' own axis the points' axis lies, a part of the face's size; and of how many faces."""
    shape = mirrored_mean_shape(points, scheme_mean_face(scheme), scheme.mirror)
    target = (shape - 0.5) * FACE + (SIDE - 1) / 2
    total, n = np.zeros((SIDE, SIDE), np.float64), 0
    for sample, own in zip(samples, points, strict=True):
        target_from_image = fit_similarity(own, target)
        if np.linalg.norm(target_from_image(own) - target, axis=1).mean() > FRONTAL:
            continue
        grey = cv2.cvtColor(read_image(sample.image), cv2.COLOR_RGB2GRAY)
        total += cv2.warpAffine(
            grey, target_from_image.matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        n += 1
    smooth = cv2.GaussianBlur((total / max(1, n)).astype(np.float32), (0, 0), 1.5)

    def misfit(shift: float) -> float:
        moved = cv2.warpAffine(
            smooth[:, ::-1].copy(), np.array([[1, 0, shift], [0, 1, 0]]), (SIDE, SIDE), flags=cv2.INTER_CUBIC
        )
        a, b = (cv2.Sobel(x, cv2.CV_32F, 1, 0)[ROWS, COLUMNS] for x in (smooth, moved))
        return float(((a - b) ** 2).mean())

    misfits = [misfit(s) for s in SHIFTS]
    best = int(np.clip(np.argmin(misfits), 2, len(SHIFTS) - 3))
    near = slice(best - 2, best + 3)
    curve = np.polyfit(SHIFTS[near], misfits[near], 2)
    return float(curve[1] / curve[0] / 4 / FACE), n  # the mirror image moves twice as far as the axis


def compare(samples: Sequence[FaceSample], detector: Detector) -> dict[str, Any]:
    """Labels against what is found, parts of the face's size, and both against the images' axis."""
    whole = [s for s in samples if s.landmarks is not None and np.isfinite(s.landmarks).all()]
    truth = stack_landmarks(whole)
    found = predict_samples(detector, whole, flip=True).landmarks
    apart = ((truth - found) / face_sizes(truth)[:, None, None]).mean(1)
    axes = {name: mean_axis(whole, points, detector.scheme) for name, points in (("labels", truth), ("found", found))}
    return {
        "n_faces": len(whole),
        "right": float(apart[:, 0].mean()),
        "right_error": float(apart[:, 0].std() / np.sqrt(len(whole))),
        "axis_labels": axes["labels"][0],
        "axis_found": axes["found"][0],
        "n_frontal": axes["labels"][1],
    }


def as_table(data: Mapping[str, Any]) -> str:
    """What the JSON holds, for docs/results.md."""
    lines = [
        "| labels | faces | right of what a mirrored model finds | right of the mean image's axis | the model, right of that axis |",
        "|---|---|---|---|---|",
    ]
    for name, d in data["sources"].items():
        percent = [f"{100 * d[k]:.2f} %" for k in ("axis_labels", "axis_found")]
        right = f"{100 * d['right']:.2f} ± {100 * d['right_error']:.2f} %"
        lines.append(f"| {name} | {d['n_faces']} | {right} | {' | '.join(percent)} |")
    lines += ["", "| model | validation NME without the bias | with what other faces tell of it |", "|---|---|---|"]
    lines += [f"| `{m}` | {100 * d['without']:.2f} % | {100 * d['with']:.2f} % |" for m, d in data["models"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder with ibug68 and mtfl5")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    given = parser.parse_args()
    scheme = load_scheme("ibug-68")
    train = select(read_faces(given.data / "ibug68", scheme=scheme), given.data / "ibug68/train.txt")
    validation = train[::VALIDATION_EVERY]
    held = {s.name for s in validation}
    merl = select(
        read_csv(given.data / "mtfl5/aflw_merlrav_68pt.csv", n_landmarks=68), given.data / "mtfl5/merlrav_train.txt"
    )
    plain = {m: Detector(replace(load_checkpoint(m), label_bias=None)) for m in MODELS}
    sources = {"300-W (AFW, HELEN)": [s for s in train if s.name not in held], "MERL-RAV (AFLW)": merl}
    found: dict[str, Any] = {"sources": {}, "models": {}}
    for name, samples in sources.items():
        found["sources"][name] = compare(samples, plain[MODELS[-1]])
    truth = stack_landmarks(validation)
    assert scheme.mirror is not None
    for name, detector in plain.items():
        points = predict_samples(detector, validation).landmarks
        both = {"without": points, "with": cross_fitted(points, truth, scheme.mirror)}
        found["models"][name] = {k: score(p, truth, scheme).nme for k, p in both.items()}
    print(as_table(found))
    if given.json:
        write_text(given.json, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
