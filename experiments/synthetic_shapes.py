"""How the drawn faces' mean shape was found: the mean landmarks of images drawn in random poses are made those of labelled faces.

    python experiments/synthetic_shapes.py --data ../shared/data/ibug68 --json docs/measured/synthetic_shapes.json

Shapes of both kinds, and their mirror images, are aligned by similarities to the labelled ones' mean; the drawn mean face is moved by the difference
until there is none. Labelled: train.txt without the validation faces of `ts3_few_labels.py`. Prints the table `_LEFT` of
`fewmark.data.synthetic.shape`, and how both kinds differ as it is: the mean, and the spread of a few landmarks, in % of the outer eye corners'
distance.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measurement import make_parser, write_json
from ts3_few_labels import gather

from fewmark.core.geometry import Floats
from fewmark.data.samples import stack_landmarks
from fewmark.data.synthetic import shape
from fewmark.data.synthetic.faces import aim
from fewmark.data.synthetic.pose import Relief, sample_pose
from fewmark.data.synthetic.shape import IBUG_MIRROR

EYES = 1.264
"""Distance of the outer eye corners of the drawn mean face, face units."""
SHOWN = {
    "contour at the ear": 0,
    "chin": 8,
    "brow, outer end": 17,
    "nose tip": 30,
    "outer eye corner": 36,
    "mouth corner": 48,
    "lower lip": 57,
}


def drawn_shapes(n: int, seed: int) -> Floats:
    """(n, 68, 2) landmarks of drawn faces, px; nothing is painted."""
    shapes = []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        controls = shape.face_controls(rng, shape.sample_expression(rng))
        pose = sample_pose(rng)
        relief = Relief(shape.painted_controls(controls), nose=float(rng.uniform(0.75, 1.2)))
        shapes.append(aim(rng, relief, controls, pose, 100)[1][:68])
    return np.stack(shapes)


def with_mirrored(shapes: Floats) -> Floats:
    """(N, 68, 2) -> (2 N, 68, 2): the shapes and their mirror images."""
    return np.concatenate([shapes, shapes[:, list(IBUG_MIRROR)] * (-1, 1)])


def align(shapes: Floats, reference: Floats) -> Floats:
    """(N, 68, 2) moved, turned and scaled to lie on the reference, (68, 2), by least squares."""
    a, b = shapes - shapes.mean(1, keepdims=True), reference - reference.mean(0)
    size = (a * a).sum((1, 2))
    p, q = (a * b).sum((1, 2)) / size, (a[..., 0] * b[:, 1] - a[..., 1] * b[:, 0]).sum(1) / size
    turned = np.stack(
        [p[:, None] * a[..., 0] - q[:, None] * a[..., 1], q[:, None] * a[..., 0] + p[:, None] * a[..., 1]], -1
    )
    return np.asarray(turned + reference.mean(0))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=5, help="corrections of the mean face")
    parser.add_argument("--faces", type=int, default=800, help="drawn shapes per step")
    parser.add_argument("--json", type=Path, help="file for the differences as the package is")
    arguments = parser.parse_args()
    data = gather(arguments.data, 921, 0)
    labelled = with_mirrored(stack_landmarks(data.labelled).astype(np.float64))
    mean = shape.mean_controls()[:68]
    for _ in range(6):
        labelled = align(labelled, mean)
        mean = labelled.mean(0)
    eyes = float(np.linalg.norm(mean[36] - mean[45]))

    def compare(seed: int) -> tuple[Floats, Floats]:
        drawn = align(with_mirrored(drawn_shapes(arguments.faces, seed)), mean)
        return (align(drawn.mean(0)[None], mean)[0] - mean) / eyes, drawn.std(0) / eyes

    change, spread = compare(99)
    found = {
        "n_labelled": len(labelled) // 2,
        "n_drawn": arguments.faces,
        "mean_difference": float(np.linalg.norm(change, axis=1).mean()),
        "spread": {name: {"labelled": labelled.std(0)[i] / eyes, "drawn": spread[i]} for name, i in SHOWN.items()},
    }
    print(f"the package's mean face: {100 * found['mean_difference']:.2f} % from the labelled mean")
    for name, both in found["spread"].items():
        print(name, *(f"{kind} {100 * xy[0]:.1f} x {100 * xy[1]:.1f} %" for kind, xy in both.items()))
    if arguments.json:
        write_json(arguments.json, found)
    left = {k: np.array(v) for k, v in shape._LEFT.items()}
    for step in range(arguments.steps):
        change, _ = compare(step)
        print(f"step {step}: {100 * np.linalg.norm(change, axis=1).mean():.2f} %")
        left = {k: v - 0.9 * EYES * change[k] * (IBUG_MIRROR[k] != k, 1) for k, v in left.items()}
        unit, origin = -EYES / 2 / left[36][0], np.array([0, left[39][1] - 0.014])
        left = {k: (v - origin) * unit for k, v in left.items()}
        shape._LEFT.update({k: (float(x), float(y)) for k, (x, y) in left.items()})
    print("{" + ", ".join(f"{k}: ({x:.3f}, {y:.3f})" for k, (x, y) in left.items()) + "}")


if __name__ == "__main__":
    main()
