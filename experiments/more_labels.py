"""A scheme of 189 points from ten labelled faces, and what twenty more labels buy (WebMorph), from a model that has seen no label.

    python experiments/more_labels.py --data ../shared/data/webmorph189 --json docs/measured/more_labels.json

Faces are drawn at random, three times. The same 72 faces are in no training, so that both numbers of labels are compared on them; images of all faces are
among the unlabelled ones, on which the start learns its own landmarks converted to the new scheme.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, write_json
from own_scheme import run

from fewmark.data.formats.io import read_faces, write_faces
from fewmark.landmarks.scheme import load_scheme

N_FEW, N_MORE = 10, 20
SEEDS = (0, 1, 2)


def measure(data: Path, seed: int, start: str) -> dict[str, Any]:
    """One draw: trainings on few and on more labels."""
    known = load_scheme("webmorph-189")
    faces = [replace(f, image=f.image.resolve()) for f in read_faces(data, scheme=known)]
    faces = [faces[i] for i in np.random.default_rng([seed, 10]).permutation(len(faces))]
    found: dict[str, Any] = {"seed": seed, "start": start}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "faces"
        images.mkdir()
        for face in faces:
            (images / face.image.name).symlink_to(face.image)
        parts = {"few": faces[:N_FEW], "more": faces[: N_FEW + N_MORE]}
        lists = {"rest": faces[N_FEW:], "common_rest": faces[N_FEW + N_MORE :]}
        for part, chosen in {**parts, **lists}.items():
            write_faces(folder / f"{part}.csv", "csv", chosen)
        for part, chosen in parts.items():
            began = time.perf_counter()
            start_options = ["--unlabelled", "faces", "--scheme", "webmorph-189", "--start", start]
            run(folder, "train", f"{part}.csv", *start_options, "--out", f"runs/{part}")
            seconds = time.perf_counter() - began
            found[part] = {"n_labelled": len(chosen), "seconds": round(seconds, 1)}
            for name, tested in lists.items():
                if part == "few" or name == "common_rest":
                    score = run(folder, "evaluate", f"runs/{part}", f"{name}.csv")
                    found[part][name] = {
                        "n_faces": len(tested),
                        "nme": score["nme"],
                        "nme_detected": score["detect"]["nme"],
                    }
            print(found, flush=True)
    return found


def main() -> None:
    parser = make_parser(__doc__, "the webmorph189 folder")
    parser.add_argument("--start", default="ibug-68-free", help="the model from which each run begins")
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    args = parser.parse_args()
    write_json(args.json, [measure(args.data, seed, args.start) for seed in SEEDS])


if __name__ == "__main__":
    main()
