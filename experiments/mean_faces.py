"""The mean faces of the 68-point task and of the dense one: Fig. 9 of the coarse-to-fine paper, with the points numbered as in Fig. 8.

python experiments/mean_faces.py --data ../shared/data --out runs/mean_faces.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measurement import load_pyplot, make_parser, read_train, save_figure

from fewmark.core.procrustes import mirrored_mean_shape
from fewmark.data.formats.io import read_faces
from fewmark.inference.cascade.frames import scheme_mean_face
from fewmark.landmarks.scheme import load_scheme


def main() -> None:
    parser = make_parser(__doc__, data="the folder with ibug68 and scut86")
    parser.add_argument("--out", type=Path, required=True, help="a PNG")
    arguments = parser.parse_args()
    figure, axes = load_pyplot().subplots(1, 2, figsize=(11, 5.6), layout="constrained")
    for axis, (folder, name) in zip(axes, (("ibug68", "ibug-68"), ("scut86", "scut-86")), strict=True):
        scheme = load_scheme(name)
        path = arguments.data / folder
        samples = read_train(path) if folder == "ibug68" else read_faces(path, scheme=scheme)
        shapes = np.stack([np.asarray(s.landmarks, np.float64) for s in samples if s.landmarks is not None])
        mean = mirrored_mean_shape(shapes, scheme_mean_face(scheme), scheme.mirror)
        for i, j in scheme.edges:
            axis.plot(*mean[[i, j]].T, color="0.75", linewidth=1, zorder=1)
        axis.scatter(*mean.T, s=12, zorder=2)
        for i, (x, y) in enumerate(mean):
            axis.annotate(str(i), (x, y), fontsize=6, xytext=(2, 2), textcoords="offset points")
        axis.set_title(f"{name}: mean of {len(shapes)} faces", fontsize=10)
        axis.set_aspect("equal")
        axis.invert_yaxis()
        axis.axis("off")
    save_figure(figure, arguments.out)


if __name__ == "__main__":
    main()
