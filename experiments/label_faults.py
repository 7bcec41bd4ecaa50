"""The check of labels on planted faults: how many of them stand at the top of its list.

    python experiments/label_faults.py --data ../shared/data/ibug68 --out runs/label-faults --json docs/measured/label_faults.json

921 labelled faces, of which 3 % get a fault: a mirror pair is exchanged, a component is shifted by 10 % of the face's size, or a landmark jumps by
that. A model learns from all of them (recipe `adapt` from `ibug-68-free`, 2400 steps) and predicts them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from measurement import make_parser, percent, write_json
from ts3_few_labels import gather

from fewmark import TrainingData, train
from fewmark.core.geometry import box_of_points, box_size
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.detector import Detector
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.project.label_check import doubtful_labels
from fewmark.training.config import load_config
from fewmark.training.multi_view import predict_multi_view

SHARE, JUMP, FIRST = 0.03, 0.1, 0.06
KINDS = ("exchanged", "shifted", "jumped")


def plant(face: FaceSample, kind: str, rng: np.random.Generator, scheme: LandmarkScheme) -> FaceSample:
    """A face with a fault in its label."""
    assert face.landmarks is not None
    assert scheme.mirror is not None
    points = face.landmarks.copy()
    side = float(box_size(box_of_points(points)).max())
    angle = rng.uniform(0, 2 * np.pi)
    step = JUMP * side * np.array([np.cos(angle), np.sin(angle)], np.float32)
    if kind == "exchanged":
        pairs = [k for k, other in enumerate(scheme.mirror) if k < other]
        k = int(rng.choice(pairs))
        points[[k, scheme.mirror[k]]] = points[[scheme.mirror[k], k]]
    elif kind == "shifted":
        name = str(rng.choice(list(scheme.components)))
        points[list(scheme.components[name])] += step
    else:
        points[int(rng.integers(len(points)))] += step
    return replace(face, landmarks=points)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    results = []
    for seed in arguments.seeds:
        data, rng = gather(arguments.data, 921, 0), np.random.default_rng(seed)
        faces = list(data.labelled)
        faulty = {int(i): KINDS[n % 3] for n, i in enumerate(rng.permutation(len(faces))[: round(SHARE * len(faces))])}
        for i, kind in faulty.items():
            faces[i] = plant(faces[i], kind, rng, data.scheme)
        settings = ["run.threads=2", "students.compact.n_batches=150", "students.compact.n_epochs=16"]
        folder = arguments.out / f"seed{seed}"
        if not (folder / "detector.safetensors").is_file():
            config = load_config("adapt", [*settings, "students.compact.learning_rate=2e-3"])
            planted = TrainingData(data.scheme, faces, [], data.validation)
            resume = (folder / "config.toml").is_file()
            train(config, planted, folder, start=load_checkpoint("ibug-68-free"), resume=resume)
        said = predict_multi_view([Detector.load(folder)], faces, n_views=2, seed=0)
        labels = np.stack([f.landmarks for f in faces if f.landmarks is not None])
        found = doubtful_labels(list(range(len(faces))), labels, said.landmarks, said.disagreement, data.scheme)
        first = {d.face for d in found[: round(FIRST * len(faces))]}
        result: dict[str, object] = {"seed": seed, "faces": len(faces), "faults": len(faulty)}
        for kind in KINDS:
            of_kind = [i for i, k in faulty.items() if k == kind]
            result[kind] = sum(i in first for i in of_kind) / len(of_kind)
        result["all"] = sum(i in first for i in faulty) / len(faulty)
        results.append(result)
        print(
            f"seed {seed}: in the first {percent(FIRST, 0)} of the list are {percent(float(result['all']), 0)} of the faults",
            result,
        )  # type: ignore[arg-type]
    if arguments.json:
        write_json(arguments.json, results)


if __name__ == "__main__":
    main()
