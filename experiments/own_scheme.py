"""The fastest way to an own scheme (docs/quickstart.md), by its commands, on webmorph189: time, mirror and NME.

    python experiments/own_scheme.py --data ../shared/data/webmorph189 --json docs/measured/own_scheme.json

Few faces are drawn at random, three times; the packaged webmorph-189 gives the true mirror and the others' faces are measured on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, write_json

from fewmark.data.formats.io import read_faces, write_faces
from fewmark.landmarks.scheme import load_scheme

N_LABELS = 12
SEEDS = (0, 1, 2)


def run(folder: Path, *words: object) -> dict[str, Any]:
    """What a command of fewmark prints as JSON."""
    command = [sys.executable, "-m", "fewmark", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(data: Path, seed: int) -> dict[str, Any]:
    """One draw: the commands of the quickstart."""
    known = load_scheme("webmorph-189")
    faces = [replace(f, image=f.image.resolve()) for f in read_faces(data, scheme=known)]
    order = np.random.default_rng(seed).permutation(len(faces))
    few, rest = ([faces[i] for i in part] for part in (order[:N_LABELS], order[N_LABELS:]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_faces(folder / "few.csv", "csv", few)
        write_faces(folder / "rest.csv", "csv", rest)
        images = folder / "faces"
        images.mkdir()
        for face in faces:
            (images / face.image.name).symlink_to(face.image)
        began = time.perf_counter()
        proposed = run(folder, "scheme", "new", "mine", "--from", "few.csv")
        run(folder, "detect", "ibug-68", "faces", "--format", "csv", "--out", "found")
        schemes = ["--source-scheme", "ibug-68", "--target-scheme", "mine.toml"]
        files = ["--out", "mine.safetensors", "--into", "own.safetensors"]
        run(folder, "transfer", "fit", "found/faces.csv", "few.csv", *schemes, *files)
        score = run(folder, "evaluate", "own.safetensors", "rest.csv", "--scheme", "mine")
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        start = ["--unlabelled", "faces", "--scheme", "mine.toml", "--start", "ibug-68"]
        run(folder, "train", "few.csv", *start, "--out", "runs/first")
        trained_seconds = time.perf_counter() - began
        trained = run(folder, "evaluate", "runs/first", "rest.csv")
    assert known.mirror is not None
    wrong = [i for i, (a, b) in enumerate(zip(proposed["mirror"], known.mirror, strict=True)) if a != b]
    told = {proposed["landmarks"].index(n) for n in proposed["doubtful"]}
    return {
        "seed": seed,
        "n_labelled": N_LABELS,
        "n_landmarks": known.n_landmarks,
        "n_tested": score["n_faces"],
        "wrong_mirror": wrong,
        "wrong_and_told": sorted(told.intersection(wrong)),
        "n_told": len(told),
        "nme": score["nme"],
        "nme_detected": score["detect"]["nme"],
        "seconds": round(seconds, 1),
        "trained_nme": trained["nme"],
        "trained_nme_detected": trained["detect"]["nme"],
        "trained_seconds": round(trained_seconds, 1),
    }


def main() -> None:
    parser = make_parser(__doc__, "the webmorph189 folder")
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    args = parser.parse_args()
    write_json(args.json, [measure(args.data, seed) for seed in SEEDS])


if __name__ == "__main__":
    main()
