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

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import read_tests
from ts3_runs import Study, read_pool, run_study

from fewmark import TrainingData
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import read_list, select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.landmarks.metrics import Score, score
from fewmark.landmarks.scheme import load_scheme

N_VALIDATION = 150
LISTS = {0: "05", 20: "05", 54: "05", 107: "10", 214: "20"}
"""Number of labels -> the list that they are the first of."""


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
    return TrainingData(scheme, labelled, unlabelled + read_pool(pool), validation)


def read_lists(data: Path) -> dict[str, list[FaceSample]]:
    """The test lists, and both together."""
    tests = read_tests(data)
    return {**tests, "full": [s for samples in tests.values() for s in samples]}


def measure(found: Any, samples: Sequence[FaceSample]) -> Score:
    """All 68 points by the outer eye corners."""
    return score(found, stack_landmarks(samples), load_scheme("ibug-68"))


STUDY = Study(
    gather,
    (107, 0, 20, 54, 214, 921),
    read_lists,
    measure,
    "NME % by the outer eye corners, true box; `detected` with the packaged face detector's box.",
)


if __name__ == "__main__":
    run_study(STUDY, __doc__, "the ibug68 folder")
