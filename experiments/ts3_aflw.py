"""TS3 on AFLW's faces (TS3, Table 2): a few labelled, the others unlabelled, by the face's size.

    python experiments/ts3_aflw.py --data ../shared/data/mtfl5 --out runs/aflw --labels 44 88 177 883 --seeds 0 1 2 --selections none spread
    python experiments/ts3_aflw.py --data ../shared/data/mtfl5 --out runs/aflw --table

68 points by MERL-RAV, of which those that are hidden by the face itself are missing. Training faces are those of merlrav_train.txt, 100 of which are
held out; labelled are the first 5, 10, 20 or 100 % of the rest in an order drawn by the seed, unlabelled all others, in boxes of the face detector. Tests are
those of merlrav_test.txt. The paper's protocol has 19 points of 24,386 faces: `fewmark train DIR --protocol aflw` for whoever has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ts3_runs import Study, read_pool, run_study

from fewmark import TrainingData
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.landmarks.metrics import Score, score
from fewmark.landmarks.scheme import load_scheme

N_VALIDATION = 100
LABELS = "aflw_merlrav_68pt.csv"


def gather(data: Path, n_labels: int, seed: int, pool: Sequence[Path] = ()) -> TrainingData:
    """The training data of one split."""
    scheme = load_scheme("ibug-68")
    train = select(read_faces(data / LABELS, scheme=scheme), data / "merlrav_train.txt")
    held = {int(i) for i in np.linspace(0, len(train) - 1, N_VALIDATION)}
    rest = [s for i, s in enumerate(train) if i not in held]
    order = np.random.default_rng([seed, 2]).permutation(len(rest))
    labelled, unlabelled = (
        [rest[i] for i in order[:n_labels]],
        [replace(rest[i], box=None) for i in order[n_labels:]],
    )
    return TrainingData(scheme, labelled, unlabelled + read_pool(pool), [train[i] for i in sorted(held)])


def read_tests(data: Path) -> dict[str, list[FaceSample]]:
    """The test faces."""
    return {"test": select(read_faces(data / LABELS, scheme=load_scheme("ibug-68")), data / "merlrav_test.txt")}


def measure(found: Any, samples: Sequence[FaceSample]) -> Score:
    """By the square root of the area of the face's box."""
    truth = stack_landmarks(samples)
    boxes = np.stack([s.face_box() for s in samples])
    return score(found, truth, load_scheme("ibug-68"), boxes=boxes, normalizer="box-size")


STUDY = Study(
    gather,
    (88, 44, 177, 883),
    read_tests,
    measure,
    "NME % by the size of the labelled box, in that box; `detected` with the packaged face detector's box.",
    ("gt", "detect"),
)


if __name__ == "__main__":
    run_study(STUDY, __doc__, "the mtfl5 folder")
