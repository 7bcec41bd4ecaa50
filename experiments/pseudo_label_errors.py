"""The error of pseudo labels by student and by number of views, and the correlation of two students' errors.

    python experiments/pseudo_label_errors.py runs/few-labels/107labels_seed0_none --data ../shared/data/ibug68

Takes the students of a finished run and the unlabelled faces, whose true labels are known here. Students whose errors are alike cannot
teach each other: the mean of many students with error e and correlation c of their errors has an error of at least about sqrt(c) e. TS3, Eq. 5,
relies on complementary students. No test face is read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measurement import make_parser, percent, use_one_thread, write_json
from numpy.typing import NDArray
from ts3_few_labels import gather

from fewmark.data.crops import cache_faces
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.training.semi.pseudo_labels import PseudoLabels, write_pseudo_labels


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--labels", type=int, default=107)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 8, 32])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_one_thread()
    model = load_checkpoint(arguments.run / "detector.safetensors")
    data = gather(arguments.data, arguments.labels, model.seed or 0)
    faces = cache_faces(data.unlabelled, model.crop, data.scheme.n_landmarks)
    truth = np.stack([f.landmarks for f in faces])
    length = np.linalg.norm(truth[:, 36] - truth[:, 45], axis=1)
    students = model.students

    def predict(n_views: int) -> PseudoLabels:
        return write_pseudo_labels(
            [s.module for s in students],
            [s.codec for s in students],
            faces,
            size=model.crop.size,
            mirror=data.scheme.mirror,
            n_views=n_views,
        )

    def nme(points: NDArray[np.float32]) -> float:
        return float(np.nanmean(np.linalg.norm(points - truth, axis=2).mean(1) / length))

    found: dict[str, float] = {}
    for n in arguments.views:
        seen = predict(n)
        for student, points in zip(students, seen.own_landmarks, strict=True):
            found[f"{student.name}, {n} views"] = nme(points)
        found[f"all students, {n} views"] = nme(seen.landmarks)
        errors = [((points - truth) / length[:, None, None]).ravel() for points in seen.own_landmarks]
        if len(errors) > 1:
            found[f"correlation of the first two students' errors, {n} views"] = float(np.corrcoef(errors[:2])[0, 1])
    for name, value in found.items():
        print(f"{name}: {value:.2f}" if "correlation" in name else f"{name}: {percent(value)}")
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
