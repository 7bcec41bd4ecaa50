"""How wrong is the box of a face when a part of its landmarks is missing: of those that are there, and with the rest estimated.

    python experiments/partly_labelled_boxes.py --data ../shared/data/ibug68 --json docs/measured/partly_labelled_boxes.json

Every training face of 300-W loses the same part; errors are relative to the longer side of the box of all landmarks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measurement import make_parser, markdown_table, percent, read_train, write_json

from fewmark.core.geometry import Box, box_centre, box_of_points, box_size
from fewmark.data.samples import stack_landmarks
from fewmark.landmarks.missing import full_box
from fewmark.landmarks.scheme import load_scheme


def parts(n_landmarks: int, mean_face: np.ndarray, contour: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Name -> (K,) which landmarks are missing."""
    x, y = mean_face[:, 0] - 0.5, mean_face[:, 1] - 0.5
    random = np.zeros(n_landmarks, bool)
    random[np.random.default_rng(0).permutation(n_landmarks)[: n_landmarks // 2]] = True
    return {
        "contour": np.isin(np.arange(n_landmarks), contour),
        "upper half": y < 0,
        "lower half": y > 0,
        "left half": x < 0,
        "right half": x > 0,
        "random half": random,
    }


def errors(box: Box, true: Box) -> tuple[float, float]:
    """Relative error of a box's longer side, and distance of its centre."""
    side = float(box_size(true).max())
    return (
        abs(float(box_size(box).max()) / side - 1),
        float(np.linalg.norm(box_centre(box) - box_centre(true))) / side,
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    args = parser.parse_args()
    scheme = load_scheme("ibug-68")
    assert scheme.mean_face is not None
    landmarks = stack_landmarks(read_train(args.data))
    rows, table = [], []
    for name, missing in parts(scheme.n_landmarks, scheme.mean_face, scheme.components["contour"]).items():
        partly = np.where(missing[:, None], np.nan, landmarks)
        row: dict[str, object] = {"missing": name, "n_faces": len(landmarks)}
        for key, mean_face in (("present", None), ("estimated", scheme.mean_face)):
            found = [errors(full_box(p, mean_face), box_of_points(t)) for p, t in zip(partly, landmarks, strict=True)]
            row[key] = dict(zip(("side", "centre"), np.mean(found, axis=0).tolist(), strict=True))
        rows.append(row)
        table.append([name, *(percent(row[k][e]) for e in ("side", "centre") for k in ("present", "estimated"))])  # type: ignore[index]
    write_json(args.json, rows)
    print(
        markdown_table(["missing", "side, present", "side, estimated", "centre, present", "centre, estimated"], table)
    )


if __name__ == "__main__":
    main()
