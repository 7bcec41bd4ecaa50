"""Error and time of each stage of a trained cascade: Table 1 of the coarse-to-fine paper.

    python experiments/cascade_stages.py runs/cascade/detector.safetensors --data ../shared/data/ibug68 \
        --labelled runs/lists-ibug68/labelled.txt --list runs/lists-ibug68/test_full.txt --out runs/cascade/table.json

For each list: NME by the scheme's default normaliser after each stage, starting from the real output of the stage before (v_real), from the
truth (v_gt), and averaged with the mirrored image; the share of angles within 5 degrees; the same for images
rotated by any angle; milliseconds of one core per face. `cascade_lists.py` writes the lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from measurement import cpu_ms, make_parser, markdown_table, use_one_thread, write_json
from numpy.typing import NDArray
from rotated_images import rotated

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image, wrap_angle
from fewmark.core.procrustes import mirrored_mean_shape
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.cascade.frames import MeanFace, face_angle, inner_landmarks, scheme_mean_face
from fewmark.inference.cascade.pipeline import Cascade, Truth
from fewmark.inference.cascade.predict import run_stages
from fewmark.inference.cascade.state import FaceState, Stage, move_face
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.landmarks.metrics import score
from fewmark.landmarks.scheme import LandmarkScheme

Results = Mapping[str, Mapping[str, float]]
"""List -> measure -> value."""
BATCH = 32
"""Faces in one call when a stage is timed."""


def main() -> None:
    parser = make_parser(__doc__, data="labelled faces in the model's scheme")
    parser.add_argument("model", type=Path, help="a model file of a cascade")
    parser.add_argument(
        "--labelled", type=Path, required=True, help="list of the training faces: angles refer to their mean"
    )
    parser.add_argument("--list", type=Path, nargs="+", required=True, dest="lists", help="the faces to measure")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--seed", type=int, default=0, help="seed of the angles by which images are rotated")
    arguments = parser.parse_args()
    use_one_thread()
    cascade = read_cascade(arguments.model)
    samples = read_faces(arguments.data, scheme=cascade.scheme)
    frame = mean_face(select(samples, arguments.labelled), cascade.scheme)
    results = {p.stem: measure(cascade, select(samples, p), frame, arguments.seed) for p in arguments.lists}
    write_json(arguments.out, results)
    for name, rows in results.items():
        print(f"\n{name}")
        for row, value in rows.items():
            print(f"  {row:<44} {value:.3f}")
    print(f"\n{as_table([results])}")


def read_cascade(model: Path) -> Cascade:
    """The cascade of a model file.

    Raises:
        InputError: The model has none.
    """
    cascade = load_checkpoint(model).cascade
    if cascade is None:
        raise InputError(
            f"{model}: expected the model of a cascade, given one of students; train one with --recipe cascade"
        )
    return cascade


def mean_face(samples: Sequence[FaceSample], scheme: LandmarkScheme) -> MeanFace:
    """The mean of labelled faces, as the stages use it."""
    shapes = np.stack([np.asarray(s.landmarks, np.float64) for s in samples])
    return mirrored_mean_shape(shapes, scheme_mean_face(scheme), scheme.mirror)


def measure(cascade: Cascade, samples: Sequence[FaceSample], frame: MeanFace, seed: int) -> dict[str, float]:
    """All measures on one list of faces."""
    scheme = cascade.scheme
    images = [read_image(s.image) for s in samples]
    truth = stack_landmarks(samples)
    boxes = np.stack([s.face_box() for s in samples])
    starts = [FaceState(box) for box in boxes]
    inner = list(inner_landmarks(scheme))
    rows: dict[str, float] = {}

    def add(what: str, found: Sequence[FaceState], true: NDArray[np.float32]) -> None:
        points = np.stack([f.landmarks for f in found if f.landmarks is not None])
        result = score(points, true, scheme, boxes=boxes)
        rows[f"NME %, {what}"] = 100 * result.nme
        rows[f"NME % of inner points, {what}"] = 100 * float(np.mean(result.per_landmark[inner]))

    states, n = starts, min(BATCH, len(samples))
    for stage in cascade.stages:
        before = states
        states = stage(images, before)
        rows[f"ms a face, {stage.name}"] = milliseconds(stage, images[:n], before[:n])
        if stage.name != "angle":
            add(f"{stage.name}, v_real", states, truth)
            true = Truth(scheme, truth, frame, "angle" if stage.name == "coarse" else "truth")
            add(f"{stage.name}, v_gt", stage(images, true(images, starts)), truth)
    rows["ms a face, all stages"] = sum(v for k, v in rows.items() if k.startswith("ms"))
    for name, found in run_stages(cascade, images, starts, flip=True).items():
        if name != "angle":
            add(f"{name}, with flips", found, truth)
    if cascade.stages[0].name == "angle":
        angles = np.array([face_angle(t, frame) for t in truth])
        rows["% of angles within 5 degrees"] = angle_share(cascade.stages[0], images, starts, angles)
        add("no angle stage", cascade.without("angle")(images, starts), truth)
        turned = rotate_faces(images, starts, truth, scheme, seed)
        turned_truth = np.stack([f.landmarks for _, f in turned if f.landmarks is not None])
        images = [i for i, _ in turned]
        blank = [FaceState(f.box_xyxy) for _, f in turned]
        angles = np.array([face_angle(t, frame) for t in turned_truth])
        rows["% of angles within 5 degrees, turned faces"] = angle_share(cascade.stages[0], images, blank, angles)
        add("turned faces", cascade(images, blank), turned_truth)
        flipped = run_stages(cascade, images, blank, flip=True)[cascade.stages[-1].name]
        add("turned faces, with flips", flipped, turned_truth)
    return rows


def milliseconds(stage: Stage, images: Sequence[Image], faces: Sequence[FaceState], repeats: int = 4) -> float:
    """Processor time of one core per face."""
    return cpu_ms(lambda _: stage(images, faces), [0], repeats) / len(faces)


def as_table(runs: Sequence[Results]) -> str:
    """Table 1 as a Markdown table, means over runs (seeds).

    NME in % starting from the stage before on every list; on the last list for the inner landmarks and starting from the truth; with
    flips on every list; and milliseconds.
    """
    lists = list(runs[0])
    last = lists[-1]
    names = [name.removeprefix("test_") for name in lists]
    head = ["after", *names, f"inner, {names[-1]}", f"v_gt, {names[-1]}", *(f"{n}, flips" for n in names), "ms a face"]

    def value(part: str, measure: str) -> str:
        found = [run[part].get(measure) for run in runs]
        return "-" if None in found else f"{np.mean(np.array(found, float)):.2f}"

    def row(label: str, real: str, gt: str, flips: str, ms: str) -> list[str]:
        cells = [value(n, f"NME %, {real}") for n in lists]
        cells += [value(last, f"NME % of inner points, {real}"), value(last, f"NME %, {gt}")]
        cells += [value(n, f"NME %, {flips}") for n in lists] + [value(last, f"ms a face, {ms}")]
        return [label, *cells]

    rows = [
        row(f"stage {number}, {stage}", *(f"{stage}, {w}" for w in ("v_real", "v_gt", "with flips")), stage)
        for number, stage in enumerate(("coarse", "component", "point"), 1)
    ]
    rows.append(row("all, rotated by any angle", "turned faces", "-", "turned faces, with flips", "all stages"))
    rows.append(row("all, without the angle stage", "no angle stage", "-", "-", "-"))
    return markdown_table(head, rows)


def angle_share(stage: Stage, images: Sequence[Image], starts: Sequence[FaceState], true: NDArray[np.float64]) -> float:
    """Percentage of faces whose angle is within 5 degrees."""
    found = stage(images, starts)
    return 100 * float(np.mean([abs(wrap_angle(f.angle - t)) <= 5 for f, t in zip(found, true, strict=True)]))


def rotate_faces(
    images: Sequence[Image], faces: Sequence[FaceState], truth: NDArray[np.float32], scheme: LandmarkScheme, seed: int
) -> list[tuple[Image, FaceState]]:
    """Images rotated by random angles, on canvases that hold them, and their faces there with the boxes of rotated faces."""
    result = []
    rng = np.random.default_rng(seed)
    for image, face, points in zip(images, faces, truth, strict=True):
        canvas, canvas_from_image = rotated(image, float(rng.uniform(-180, 180)))
        result.append((canvas, move_face(replace(face, landmarks=points), canvas_from_image, scheme)))
    return result


if __name__ == "__main__":
    main()
