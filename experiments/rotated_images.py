"""Rotated images: the share of faces found, and the error of their landmarks.

    python experiments/rotated_images.py --data ../shared/data/ibug68 --scenes ../shared/data/scenes_afw \\
        --out docs/measured/rotated_images.json

Every test image is rotated about its centre on a grey canvas, and given to `Detector.detect`. A face counts as found if some
detected face has an NME below 8 %; the NME is the mean over these.

The scenes are whole photographs, rotated by quarter turns. A labelled face counts as found if some detected face has a mean distance
below 0.1 of the distance between the outer eye corners. Not every face is labelled: detected faces without a counterpart in the upright
photograph are counted, and those that are turned over, which are more than 60 degrees from the photograph's own rotation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, markdown_table, percent, read_tests, use_one_thread, write_json

from fewmark.core.geometry import Image, Similarity, box_of_points, warp_image, wrap_angle
from fewmark.data.crops import FILL
from fewmark.data.formats.io import read_faces
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import box_overlap
from fewmark.landmarks.metrics import landmark_errors, normalising_lengths
from fewmark.landmarks.scheme import load_scheme

ANGLES = (0, 30, 45, 60, 90, 135, 180)
FOUND, FOUND_IN_SCENE = 0.08, 0.1
SAME_FACE, TURNED_OVER = 0.3, 60.0  # overlap of the landmarks' boxes; degrees


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=["ibug-68", "ibug-68-nano", "ibug-68-large"], nargs="+")
    parser.add_argument("--scenes", type=Path, required=True, help="the scenes_afw folder")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    use_one_thread()
    samples = [s for part in read_tests(arguments.data).values() for s in part]
    model = arguments.model[0]
    write_json(
        arguments.out,
        {
            "scenes": [row for m in arguments.model for row in measure_scenes(m, arguments.scenes)],
            "model": model,
            "rows": measure_angles(model, samples),
        },
    )


def measure_angles(model: str, samples: Sequence[FaceSample]) -> list[dict[str, float]]:
    """Faces found and their NME by the angle of the image."""
    scheme, detector, rows = load_scheme("ibug-68"), Detector.load(model, threads=1), []
    for angle in ANGLES:
        nmes = []
        for s in samples:
            assert s.landmarks is not None
            image, canvas_from_image = rotated(read_image(s.image), angle)
            true = canvas_from_image(s.landmarks)[None]
            length = normalising_lengths(true, None, scheme.get_normalizer(scheme.default_normalizer))
            found = [f.landmarks for f in detector.detect(image)]
            nmes.append(min((float(np.mean(landmark_errors(p[None], true) / length)) for p in found), default=math.inf))
        right = [v for v in nmes if v < FOUND]
        rows.append({"angle": angle, "n_faces": len(nmes), "n_found": len(right), "nme": float(np.mean(right))})
        print(rows[-1], flush=True)
    return rows


def measure_scenes(model: str, folder: Path) -> list[dict[str, Any]]:
    """Labelled faces found, other faces and processor time by the direction of the photograph, and by `turned`."""
    detector = Detector.load(model, threads=1)
    scenes: dict[Path, list[np.ndarray]] = {}
    for s in read_faces(folder, scheme=load_scheme("ibug-68")):
        assert s.landmarks is not None
        scenes.setdefault(s.image, []).append(s.landmarks)
    images = {path: read_image(path) for path in scenes}
    detector.detect(next(iter(images.values())), turned=True)  # the first call loads
    upright: dict[Path, list[np.ndarray]] = {}
    rows = []
    for turned, angle in ((False, 0), (None, 0), (None, 90), (None, 180), (None, 270), (True, 0)):
        n_found = n_new = n_over = n_all = 0
        seconds = 0.0
        for path, true in scenes.items():
            image = np.ascontiguousarray(np.rot90(images[path], angle // 90))
            began = time.process_time()
            faces = detector.detect(image, turned=turned)
            seconds += time.process_time() - began
            back = [points_before(f.landmarks, angle // 90, images[path]) for f in faces]
            n_found += sum(min((scene_error(p, t) for p in back), default=9.0) < FOUND_IN_SCENE for t in true)
            n_over += sum(abs(wrap_angle(f.angle - angle)) > TURNED_OVER for f in faces)
            if turned is False:
                upright[path] = back
            n_new += sum(not any(same_face(p, q) for q in upright[path]) for p in back)
            n_all += len(faces)
        row = {"model": model, "turned": turned, "angle": angle, "n_labelled": sum(map(len, scenes.values()))}
        row |= {"n_found": n_found, "n_faces": n_all, "n_new": n_new, "n_turned_over": n_over}
        rows.append({**row, "ms_an_image": round(1000 * seconds / len(scenes), 1)})
        print(rows[-1], flush=True)
    return rows


def points_before(points: np.ndarray, turns: int, image: Image) -> np.ndarray:
    """Points (K, 2) of `np.rot90(image, turns)` in the image."""
    height, width = image.shape[:2]
    x, y = points.T
    here = ((x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x))[turns]
    return np.stack(here, 1)


def scene_error(points: np.ndarray, true: np.ndarray) -> float:
    """Mean distance over the distance between the outer eye corners."""
    return float(np.linalg.norm(points - true, axis=1).mean() / np.linalg.norm(true[36] - true[45]))


def same_face(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the boxes of two faces' landmarks overlap."""
    return box_overlap(box_of_points(a), box_of_points(b)) > SAME_FACE


def rotated(image: Image, angle: float) -> tuple[Image, Similarity]:
    """The image rotated counter-clockwise on a square canvas that holds it, and the map from the image to the canvas."""
    height, width = image.shape[:2]
    side = math.ceil(math.hypot(height, width)) + 2
    middle = ((side - 1) / 2, (side - 1) / 2)
    canvas_from_image = Similarity.about(((width - 1) / 2, (height - 1) / 2), middle, angle=angle)
    return warp_image(image, canvas_from_image, (side, side), fill=FILL), canvas_from_image


def as_table(rows: Sequence[Mapping[str, float]]) -> str:
    """A Markdown table of the JSON file's rows."""
    table = [[f"{r['angle']}°", f"{r['n_found']} of {r['n_faces']}", percent(r["nme"])] for r in rows]
    return markdown_table(["rotated by", "found with NME below 8 %", "their NME"], table)


if __name__ == "__main__":
    main()
