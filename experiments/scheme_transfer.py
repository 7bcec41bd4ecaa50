"""From five landmarks to other schemes: least squares with and without ridge, a small network, and the mean face alone.

    python experiments/scheme_transfer.py --data ../shared/data/mtfl5 --model ibug-68 --out runs/scheme-transfer

mtfl-5 -> ibug-68 on the MERL-RAV faces (fitted on merlrav_train.txt, measured on merlrav_test.txt) and mtfl-5 -> lfw-10 on LFW
faces (four fifths of the persons to fit, the others to measure). Fewer pairs are drawn `--draws` times and the numbers averaged.
With a model, the contour that it predicts in the test images (boxes of the face detector) replaces the transferred
one. Coarse-to-fine paper, sections 3.4 and 4.3, Fig. 6. Writes scheme_transfer.json.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import make_parser, markdown_table, write_json
from transfer_errors import COLUMNS, Row, cells, measure

from fewmark.data.formats.io import read_faces
from fewmark.data.lists import select
from fewmark.data.pairs import FacePairs, match_faces
from fewmark.data.relabelling import fit_transfer_on_pairs
from fewmark.data.samples import FaceSample
from fewmark.data.splits import split_groups
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.landmarks.transfer import SchemeTransfer

MEAN_FACE_RIDGE = 1e9
"""Ridge that leaves the bias alone: the target's mean face, placed by the similarity of the source landmarks."""


def merl_rav(data: Path) -> tuple[FacePairs, FacePairs]:
    """Pairs of MERL-RAV to fit and to measure."""
    five, dense = read_faces(data / "annotations.csv"), read_faces(data / "aflw_merlrav_68pt.csv")
    train, test = (match_faces(five, select(dense, data / f"merlrav_{part}.txt")) for part in ("train", "test"))
    return train, test


def lfw(data: Path) -> tuple[FacePairs, FacePairs]:
    """Pairs of LFW to fit and to measure; no person is in both (files are named PERSON_0001.jpg)."""
    named = [_with_person(s) for s in read_faces(data / "lfw_annotations_10pt.csv")]
    train, test = split_groups(named, [0.8, 0.2], np.random.default_rng(0))
    five = read_faces(data / "annotations.csv")
    return match_faces(five, train), match_faces(five, test)


def _with_person(sample: FaceSample) -> FaceSample:
    return replace(sample, group=re.sub(r"_\d+$", "", sample.image.stem))


def fit_linear(source: LandmarkScheme, target: LandmarkScheme, pairs: FacePairs, ridge: Any) -> SchemeTransfer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # singular for a landmark that few of the faces have
        return fit_transfer_on_pairs(pairs, source, target, ridge=ridge)


def fit_network(source: LandmarkScheme, target: LandmarkScheme, pairs: FacePairs, seed: int, width: int) -> Any:
    from mlp_transfer import MlpTransfer

    return MlpTransfer.fit(source, target, pairs.source_points, pairs.target_points, seed=seed, width=width)


Method = Callable[[LandmarkScheme, LandmarkScheme, FacePairs, int], Any]
METHODS: Mapping[str, Method] = {
    "mean face alone": lambda s, t, p, seed: fit_linear(s, t, p, MEAN_FACE_RIDGE),
    "least squares": lambda s, t, p, seed: fit_linear(s, t, p, 0.0),
    "least squares, ridge": lambda s, t, p, seed: fit_linear(s, t, p, "auto"),
    "network, 32 wide": lambda s, t, p, seed: fit_network(s, t, p, seed, 32),
    "network, 128 wide": lambda s, t, p, seed: fit_network(s, t, p, seed, 128),
}


def mean_row(rows: Sequence[Row]) -> Row:
    """Mean of rows; the ridges as a list."""
    row = dict(rows[0])
    for name in COLUMNS:
        row[name] = None if row[name] is None else float(np.mean([r[name] for r in rows]))
    row["ridge"] = [r["ridge"] for r in rows]
    return row


def run_task(
    target: LandmarkScheme, train: FacePairs, test: FacePairs, sizes: Sequence[int], n_draws: int
) -> list[Row]:
    source, rows = load_scheme("mtfl-5"), []
    for n in [len(train.source), *sizes]:
        whole = n == len(train.source)
        orders = [np.random.default_rng(d).permutation(len(train.source))[:n] for d in range(1 if whole else n_draws)]
        for name, method in METHODS.items():
            found = []
            for draw, order in enumerate(orders):
                transfer = method(source, target, train.only(order.tolist(), "draw"), draw)
                found.append(measure(target, transfer.apply(test.source_points), test, transfer))
            rows.append(
                {
                    "task": f"mtfl-5 -> {target.name}",
                    "n_pairs": n,
                    "draws": len(found),
                    "method": name,
                    **mean_row(found),
                }
            )
            print(as_table(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def direct_rows(model: str, train: FacePairs, test: FacePairs) -> list[Row]:
    """Rows of the model's own landmarks, and of the transfer with the model's contour."""
    from fewmark.inference.detector import Detector
    from fewmark.inference.labelled import predict_samples

    target = load_scheme("ibug-68")
    found = predict_samples(Detector.load(model), test.target, "detect").landmarks.astype(np.float64)
    seen = np.isfinite(found).all((1, 2))
    test = test.only(np.flatnonzero(seen).tolist(), model)
    found = found[seen]
    keep = np.full_like(found, np.nan)
    contour = list(target.components["contour"])
    keep[:, contour] = found[:, contour]
    transfer = fit_linear(load_scheme("mtfl-5"), target, train, "auto")
    points = {
        "ridge, contour too": transfer.apply(test.source_points),
        f"ridge, contour by {model}": transfer.apply(test.source_points, keep=keep),
        f"all by {model}": found,
    }
    rows = []
    for name, p in points.items():
        row = {**measure(target, p, test, None), "ridge": None if p is found else [transfer.ridge]}
        rows.append(
            {"task": f"faces found by {model}", "n_pairs": len(train.source), "draws": 1, "method": name, **row}
        )
    return rows


def as_table(rows: Sequence[Row]) -> str:
    """A Markdown table, errors in % of the target scheme's normaliser."""
    table = []
    for row in rows:
        pairs = f"{row['n_pairs']}" + (f", {row['draws']} draws" if row["draws"] > 1 else "")
        table.append([row["task"], pairs, row["method"], *cells(row)])
    return markdown_table(["task", "pairs", "method", *COLUMNS.values()], table)


def main() -> None:
    parser = make_parser(__doc__, data="the mtfl5 folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of scheme_transfer.json")
    parser.add_argument("--pairs", type=int, nargs="*", default=[100, 20, 10], help="smaller numbers of pairs to try")
    parser.add_argument("--draws", type=int, default=3, help="random draws of fewer pairs")
    parser.add_argument("--model", help="a model of 68 landmarks to compare, e.g. ibug-68")
    arguments = parser.parse_args()
    merl, persons = merl_rav(arguments.data), lfw(arguments.data)
    rows = run_task(load_scheme("ibug-68"), *merl, arguments.pairs, arguments.draws)
    if arguments.model:
        rows += direct_rows(arguments.model, *merl)
    rows += run_task(load_scheme("lfw-10"), *persons, arguments.pairs, arguments.draws)
    write_json(arguments.out / "scheme_transfer.json", rows)
    print(as_table(rows))


if __name__ == "__main__":
    main()
