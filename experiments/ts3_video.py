"""TS3 with unlabelled video frames (TS3, Table 3): labels of photographs, frames without labels, AUC at 0.08 of 49 points.

    python experiments/ts3_video.py --data ../shared/data --out runs/video --labels 107 921 --seeds 0 1 2 --selections none spread
    python experiments/ts3_video.py --data ../shared/data --out runs/video --table

Labelled: faces of ibug68, as `ts3_few_labels.py` has them, with the same validation faces. Unlabelled: the frames of ytf68 of the training identities, and
those of talking_face_video. Tests: ytf68's frames of the other identities. **Their labels are a machine's**, so the numbers say how well two
detectors agree, not how right one is. The paper's test is 300-VW: `fewmark evaluate MODEL DIR --protocol 300vw` for whoever has it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ts3_few_labels
from ts3_runs import Study, read_pool, run_study

from fewmark import TrainingData
from fewmark.data.benchmarks.vw300 import INNER_49
from fewmark.data.formats.io import read_faces
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.landmarks.metrics import Score, score
from fewmark.landmarks.scheme import load_scheme


def read_frames(data: Path, split: str) -> list[FaceSample]:
    """The frames of ytf68 whose identity is of a split, "train" or "test"."""
    with (data / "ytf68/annotations.csv").open(newline="", encoding="utf-8") as file:
        names = {row["file"] for row in csv.DictReader(file) if row["id_split"] == split}
    return [s for s in read_faces(data / "ytf68", scheme=load_scheme("ibug-68")) if s.name in names]


def gather(data: Path, n_labels: int, seed: int, pool: Sequence[Path] = ()) -> TrainingData:
    """Labels of photographs, frames without labels."""
    photographs = ts3_few_labels.gather(data / "ibug68", n_labels, seed)
    frames = [FaceSample(s.image, name=f"ytf68/{s.name}") for s in read_frames(data, "train")]
    frames += read_pool([data / "talking_face_video", *pool])
    return TrainingData(photographs.scheme, photographs.labelled, frames, photographs.validation)


def read_tests(data: Path) -> dict[str, list[FaceSample]]:
    """The frames of the test identities."""
    return {"frames": read_frames(data, "test")}


def measure(found: Any, samples: Sequence[FaceSample]) -> Score:
    """The 49 inner points by the outer eye corners."""
    inner = list(INNER_49)
    return score(found[:, inner], stack_landmarks(samples)[:, inner], load_scheme("ibug-49"))


STUDY = Study(
    gather,
    (921, 107, 0, 20, 54, 214),
    read_tests,
    measure,
    "Agreement with machine-made labels: NME % of 49 points by the outer eye corners, in their box; `detected` with the face detector's.",
    ("gt", "detect"),
)


if __name__ == "__main__":
    run_study(STUDY, __doc__, "the folder of ibug68, ytf68 and talking_face_video")
