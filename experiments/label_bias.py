"""Horizontal label bias: labels against mirrored networks, and against the images themselves.

    python experiments/label_bias.py --data ../shared/data --json docs/measured/label_bias.json

Labels of 300-W and MERL-RAV against the landmarks of a packaged model without its own bias, averaged with the mirrored image, and so
unbiased. Then without a network: near-frontal faces are aligned to one symmetric shape by their labels
and averaged; the mean image is nearly symmetric, and its axis is where it fits its mirror image best. Last, the NME of validation
faces with the bias estimated on other validation faces, and without. No test face is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measurement import make_parser, markdown_table, percent, write_json
from numpy.typing import NDArray
from packaged_model import read_merl_rav, split_train

from fewmark.core.geometry import face_sizes, fit_similarity
from fewmark.core.procrustes import mirrored_mean_shape
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.cascade.frames import scheme_mean_face
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.label_bias import cross_fit_label_bias
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme

SIDE = 257
FACE = 180.0
"""Longer side of the mean shape in the mean image of `SIDE` px."""
FRONTAL = 9.0
"""Largest mean distance from the mean shape of a face that counts as frontal, px."""
ROWS, COLUMNS = slice(70, 215), slice(60, 197)
SHIFTS = np.arange(-6.0, 6.01, 0.25)
MODELS = ("ibug-68-nano", "ibug-68", "ibug-68-large")

Points = NDArray[np.float32]


def mean_axis(samples: Sequence[FaceSample], points: Points, scheme: LandmarkScheme) -> tuple[float, int]:
    """Offset of the landmarks' axis to the right of the images' own axis, as a fraction of the face's size; and the number of faces."""
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
    """Labels against predictions, and both against the images' axis, as fractions of the face's size."""
    whole = [s for s in samples if s.landmarks is not None and np.isfinite(s.landmarks).all()]
    truth = stack_landmarks(whole)
    found = predict_samples(detector, whole, flip=True).landmarks
    residual = ((truth - found) / face_sizes(truth)[:, None, None]).mean(1)
    axes = {name: mean_axis(whole, points, detector.scheme) for name, points in (("labels", truth), ("found", found))}
    return {
        "n_faces": len(whole),
        "right": float(residual[:, 0].mean()),
        "right_error": float(residual[:, 0].std() / np.sqrt(len(whole))),
        "axis_labels": axes["labels"][0],
        "axis_found": axes["found"][0],
        "n_frontal": axes["labels"][1],
    }


def as_table(data: Mapping[str, Any]) -> str:
    """Two Markdown tables of the JSON file."""
    head = ["labels", "faces", "right of a mirrored model's landmarks", "right of the mean image's axis"]
    sources = []
    for name, d in data["sources"].items():
        right = f"{percent(d['right'], unit='')} ± {percent(d['right_error'])}"
        sources.append([name, str(d["n_faces"]), right, percent(d["axis_labels"]), percent(d["axis_found"])])
    models = [[f"`{m}`", percent(d["without"]), percent(d["with"])] for m, d in data["models"].items()]
    return "\n\n".join(
        [
            markdown_table([*head, "the model, right of that axis"], sources),
            markdown_table(["model", "validation NME without the bias", "with the bias of other faces"], models),
        ]
    )


def main() -> None:
    parser = make_parser(__doc__, data="the folder with ibug68 and mtfl5")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    scheme = load_scheme("ibug-68")
    train, validation = split_train(arguments.data / "ibug68")
    merl = read_merl_rav(arguments.data / "mtfl5")
    plain = {m: Detector(replace(load_checkpoint(m), label_bias=None)) for m in MODELS}
    sources = {"300-W (AFW, HELEN)": train, "MERL-RAV (AFLW)": merl}
    found: dict[str, Any] = {"sources": {}, "models": {}}
    for name, samples in sources.items():
        found["sources"][name] = compare(samples, plain[MODELS[-1]])
    truth = stack_landmarks(validation)
    assert scheme.mirror is not None
    for name, detector in plain.items():
        points = predict_samples(detector, validation).landmarks
        both = {"without": points, "with": cross_fit_label_bias(points, truth, scheme.mirror)}
        found["models"][name] = {k: score(p, truth, scheme).nme for k, p in both.items()}
    print(as_table(found))
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
