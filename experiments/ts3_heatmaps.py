"""Pictures of what a student sees (TS3, Fig. 5): truth, true background map, predicted background map, and predicted landmarks.

    python experiments/ts3_heatmaps.py runs/few-labels/107labels_seed0_spread --data ../shared/data/ibug68 --faces ../shared/data/ibug68/test_common.txt --out fig5.png

A row a face and student. The background map is what no landmark's map covers; where a student predicts none, it is one minus its highest map.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from measurement import make_parser
from torch import Tensor

from fewmark.core.geometry import Image
from fewmark.data.crops import cache_face, upright_crop
from fewmark.data.formats.io import read_faces
from fewmark.data.images import write_image
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.io import load_checkpoint
from fewmark.inference.checkpoint.model import Checkpoint, StudentPart
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import to_tensor
from fewmark.visualization.draw import draw_landmarks

SIDE, GAP = 256, 6
"""Side of a picture and white space between two, px."""


def background(maps: Tensor, codec: HeatmapCodec) -> Image:
    """The background map of normalised heatmaps (1, K', h, w) as a picture (SIDE, SIDE, 3)."""
    found = maps[0, -1] if codec.background else 1 - codec.peak_normalised(maps)[0].amax(0)
    grey = np.rint(255 * found.clamp(0, 1).numpy()).astype(np.uint8)
    large = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    return np.repeat(large[..., None], 3, axis=2)


@torch.inference_mode()
def row(model: Checkpoint, student: StudentPart, sample: FaceSample) -> Image:
    """The four pictures of a face, side by side."""
    size, codec = model.crop.size, student.codec
    face = cache_face(sample, model.crop, model.scheme.n_landmarks)
    crop = upright_crop(face, size)
    true_maps, _ = codec.encode(torch.from_numpy(face.landmarks)[None], (size, size))
    maps = codec.normalise(student.module.eval()(to_tensor(crop[None]))[-1].float())
    points = codec.decode(maps)[0][0].numpy()
    large = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)

    def drawn(landmarks: np.ndarray) -> Image:
        return draw_landmarks(large, [(landmarks + 0.5) * SIDE / size - 0.5], model.scheme)

    parts = [drawn(face.landmarks), background(true_maps, codec), background(maps, codec), drawn(points)]
    space = np.full((SIDE, GAP, 3), 255, np.uint8)
    return np.hstack([p for part in parts for p in (part, space)][:-1])


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run", help="a run folder or a model of students")
    parser.add_argument("--faces", type=Path, required=True, help="list of the faces that may be drawn")
    parser.add_argument("--n", type=int, default=4, help="number of faces, evenly spaced in the list")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    arguments = parser.parse_args()
    path = Path(arguments.run)
    model = load_checkpoint(path / "detector.safetensors" if path.is_dir() else arguments.run)
    faces = select(read_faces(arguments.data, scheme=model.scheme), arguments.faces)
    chosen = [faces[i] for i in np.linspace(0, len(faces) - 1, arguments.n).astype(int)]
    rows = [row(model, student, face) for face in chosen for student in model.students]
    space = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    write_image(arguments.out, np.vstack([p for r in rows for p in (r, space)][:-1]))
    print(f"{arguments.out}: {len(rows)} rows: truth, true background, predicted background, predicted landmarks")


if __name__ == "__main__":
    main()
