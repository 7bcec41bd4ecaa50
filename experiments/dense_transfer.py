"""From a dense scheme to 68 landmarks: predictions of a scut-86 cascade, transferred, against those of an ibug-68 cascade.

    python experiments/dense_transfer.py --data ../shared/data/ibug68 --dense runs/cascade-scut/detector.safetensors \
        --direct runs/cascade/detector.safetensors --out runs/dense-transfer

The dense model was not trained on ibug68. Transfers are fitted on its predictions for the faces of train.txt, and measured on the test
lists: with all landmarks transferred, and with the contour of the direct cascade's stage 1 instead of the transferred one. The
dense model needs other boxes than the 68-point ones; how these are made is chosen on the training faces as well. Coarse-to-fine
paper, sections 3.4 and 4.3. Writes dense_transfer.json and contour.png (Fig. 6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from measurement import (
    TESTS,
    load_pyplot,
    make_parser,
    markdown_table,
    percent,
    read_tests,
    read_train,
    save_figure,
    write_json,
)
from mlp_transfer import MlpTransfer
from numpy.typing import NDArray
from transfer_errors import COLUMNS, Row, cells, measure

from fewmark.core.errors import InputError
from fewmark.core.geometry import box_of_points, fit_similarity
from fewmark.data.pairs import FacePairs
from fewmark.data.relabelling import CONTOUR, score_landmarks
from fewmark.data.samples import FaceSample
from fewmark.evaluation.evaluate import FULL
from fewmark.inference.cascade.frames import scheme_mean_face
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.detector import Detector
from fewmark.inference.face_detection.base import adapt_box, fit_box_adapter
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.scheme import BetweenPoints, LandmarkScheme, load_scheme
from fewmark.landmarks.transfer import SchemeTransfer

TARGET = load_scheme("ibug-68")
BATCH = 64
"""Images in memory at a time."""
PAPER = "transferred, contour of stage 1"
DIRECT = "direct, all stages"
DRAWN = {"least squares, ridge": "transferred", DIRECT: "direct"}
"""Method -> its name in the figure."""

Adapter = tuple[float, float, float]


def fit_least_squares(pairs: FacePairs, source: LandmarkScheme, ridge: Any) -> SchemeTransfer:
    return SchemeTransfer.fit(
        source, TARGET, pairs.source_points, pairs.target_points, ridge=ridge, groups=pairs.groups
    )


def fit_network(pairs: FacePairs, source: LandmarkScheme, width: int) -> MlpTransfer:
    return MlpTransfer.fit(source, TARGET, pairs.source_points, pairs.target_points, width=width)


METHODS: Mapping[str, Callable[[FacePairs, LandmarkScheme], Any]] = {
    "least squares": lambda pairs, source: fit_least_squares(pairs, source, 0.0),
    "least squares, ridge": lambda pairs, source: fit_least_squares(pairs, source, "auto"),
    "network, 32 wide": lambda pairs, source: fit_network(pairs, source, 32),
    "network, 128 wide": lambda pairs, source: fit_network(pairs, source, 128),
}


def predict(detector: Detector, faces: Sequence[FaceSample], adapter: Adapter | None, passes: int) -> FacePairs:
    """Landmarks predicted by the dense model, and the true landmarks of the same faces.

    Args:
        detector: Detector of the dense scheme.
        faces: Faces labelled with 68 landmarks.
        adapter: Map from the 68-point box to the dense model's; None: the 68-point box itself.
        passes: See `Detector.detect`.
    """
    boxes = [s.face_box() if adapter is None else adapt_box(s.face_box(), adapter) for s in faces]
    found: list[FaceSample] = []
    for start in range(0, len(faces), BATCH):
        part = faces[start : start + BATCH]
        given = [box[None] for box in boxes[start : start + BATCH]]
        answers = detector.detect_batch([s.image for s in part], given, flip=detector.checkpoint.flip, passes=passes)
        found += [replace(s, landmarks=a[0].landmarks, occluded=None) for s, a in zip(part, answers, strict=True)]
    return FacePairs(found, list(faces), len(faces), len(faces))


def mean_face_adapter(dense: LandmarkScheme) -> Adapter:
    """Map from the 68-point box to the dense scheme's, by the two mean faces aligned at the outer eye corners."""
    ours, theirs = scheme_mean_face(TARGET), scheme_mean_face(dense)
    aligned = fit_similarity(theirs[eye_corners(dense)], ours[eye_corners(TARGET)])(theirs)
    return fit_box_adapter([box_of_points(ours)], [box_of_points(aligned)])


def eye_corners(scheme: LandmarkScheme) -> list[int]:
    rule = scheme.get_normalizer("outer-eye-corners")
    if not isinstance(rule, BetweenPoints):
        raise InputError(f"scheme {scheme.name}: expected outer-eye-corners between two landmarks, given {rule}")
    return [rule.first, rule.second]


def choose_setup(
    detector: Detector, train: Sequence[FaceSample]
) -> tuple[list[Row], Detector, Adapter | None, int, FacePairs]:
    """Choose box, number of passes, and whether to use the angle stage (the dense model was trained on frontal faces alone).

    The measure is the error of a transfer, cross-validated on the training faces.

    Returns:
        a row for each setup; of the best one: its detector, box adapter, number of passes, and predictions.
    """
    by_shape = mean_face_adapter(detector.scheme)
    rows: list[Row] = []
    best: tuple[float, Detector, Adapter | None, int, FacePairs] | None = None
    for angle, variant in {"yes": detector, "no": without_angle(detector)}.items():
        first = predict(variant, train, by_shape, 1)
        tight = np.stack([box_of_points(p) for p in first.source_points])
        fitted = fit_box_adapter(first.boxes, tight)
        adapters = {"the 68 landmarks": None, "the mean faces": by_shape, "the training faces": fitted}
        for name, adapter in adapters.items():
            for passes in (1, 2):
                pairs = first if (adapter, passes) == (by_shape, 1) else predict(variant, train, adapter, passes)
                error = fit_least_squares(pairs, detector.scheme, "auto").expected_error
                rows.append({"angle": angle, "box": name, "passes": passes, "adapter": adapter, "expected": error})
                print(boxes_table(rows[-1:]).splitlines()[-1], flush=True)
                if best is None or error < best[0]:
                    best = (error, variant, adapter, passes, pairs)
    assert best is not None
    return rows, *best[1:]


def without_angle(detector: Detector) -> Detector:
    """The cascade without its angle stage, if it has one."""
    cascade = detector.checkpoint.cascade
    if cascade is None or "angle" not in [s.name for s in cascade.stages]:
        return detector
    return Detector(replace(detector.checkpoint, cascade=cascade.without("angle")))


def only_coarse(direct: Detector, path: Path) -> Detector:
    """The cascade up to its coarse stage.

    Raises:
        InputError: The model is no cascade of 68 landmarks.
    """
    cascade = direct.checkpoint.cascade
    if cascade is None or direct.scheme.name != TARGET.name:
        raise InputError(f"{path}: expected a cascade of {TARGET.name} (recipe cascade), given another model")
    names = [s.name for s in cascade.stages]
    kept = cascade.stages[: names.index("coarse") + 1]
    return Detector(replace(direct.checkpoint, cascade=Cascade(kept)))


def transferred(
    transfers: Mapping[str, Any], test: FacePairs, coarse: NDArray[np.float64]
) -> dict[str, tuple[NDArray[np.float64], Any]]:
    """Method -> (N, 68, 2) image px, and the transfer that made them; the paper's method is the last.

    Args:
        transfers: The fitted `METHODS`.
        test: Predictions of the dense model.
        coarse: (N, 68, 2) image px, predicted by stage 1 of the direct cascade.
    """
    contour = list(TARGET.components[CONTOUR])
    keep = np.full_like(coarse, np.nan)
    keep[:, contour] = coarse[:, contour]
    ridge = transfers["least squares, ridge"]
    found = {name: (t.apply(test.source_points), t) for name, t in transfers.items()}
    return {**found, PAPER: (ridge.apply(test.source_points, keep=keep), replace(ridge, expected_error=np.nan))}


def contour_profile(points: NDArray[np.float64], test: FacePairs) -> dict[str, list[float]]:
    """Mean error of each contour landmark along and across the contour, as fractions."""
    found = score_landmarks(TARGET, points, test)
    return {"tangent": found.tangent_per_landmark.tolist(), "normal": found.normal_per_landmark.tolist()}


def as_table(rows: Sequence[Row]) -> str:
    """A Markdown table, errors in % of the outer-eye-corners distance."""
    table = [[f"{r['list']} ({r['n_faces']})", r["method"], *cells(r)] for r in rows]
    return markdown_table(["test faces", "landmarks", *COLUMNS.values()], table)


def boxes_table(rows: Sequence[Row]) -> str:
    """A Markdown table of the setups of the dense model."""
    table = []
    for row in rows:
        adapter = "none" if row["adapter"] is None else ", ".join(f"{v:.3f}" for v in row["adapter"])
        table.append([row["angle"], row["box"], adapter, str(row["passes"]), percent(row["expected"], unit="")])
    return markdown_table(["angle stage", "box by", "shift x, shift y, scale", "passes", "expected"], table)


def draw(contour: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draw the error of every contour landmark along and across the contour, transferred and direct (Fig. 6).

    Args:
        contour: Name -> `contour_profile`.
        path: A PNG.
    """
    figure, axes = load_pyplot().subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
    for axis, (part, title) in zip(axes, (("tangent", "along the contour"), ("normal", "across it")), strict=True):
        for name, errors in contour.items():
            axis.plot(100 * np.asarray(errors[part]), marker="o", markersize=4, label=name)
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(TARGET.components[CONTOUR])))
        axis.set_xlabel("contour landmark (8: the chin)")
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)  # of both axes; before both are drawn, it would fix the top too
    axes[0].set_ylabel("error, % of the outer-eye-corners distance")
    axes[0].legend()
    save_figure(figure, path)


def described(detector: Detector) -> dict[str, Any]:
    """The model's origin, for the JSON file."""
    model = detector.checkpoint
    known = {"scheme": model.scheme.name, "provenance": model.provenance, "seed": model.seed, "counts": model.counts}
    return {**known, "accuracy": model.accuracy, "cascade": model.config.get("cascade")}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--dense", type=Path, required=True, help="a model of the dense scheme, e.g. scut-86")
    parser.add_argument("--direct", type=Path, required=True, help="a cascade of ibug-68")
    parser.add_argument("--out", type=Path, required=True, help="folder of dense_transfer.json and contour.png")
    parser.add_argument("--threads", type=int, help="threads of torch; as many as it finds by default")
    arguments = parser.parse_args()
    dense = Detector.load(arguments.dense, threads=arguments.threads)
    direct = Detector.load(arguments.direct)
    coarse = only_coarse(direct, arguments.direct)
    train, parts = read_train(arguments.data), list(read_tests(arguments.data).values())
    tests = [s for part in parts for s in part]
    spans = np.cumsum([0, *map(len, parts)]).tolist()
    lists = {**{n: range(a, b) for n, a, b in zip(TESTS, spans, spans[1:], strict=False)}, FULL: range(len(tests))}

    boxes, chosen, adapter, passes, pairs = choose_setup(dense, train)
    transfers = {name: fit(pairs, dense.scheme) for name, fit in METHODS.items()}
    test = predict(chosen, tests, adapter, passes)
    by_coarse = predict_samples(coarse, tests, flip=direct.checkpoint.flip).landmarks.astype(np.float64)
    by_all = predict_samples(direct, tests, flip=direct.checkpoint.flip).landmarks.astype(np.float64)
    found = {**transferred(transfers, test, by_coarse), "direct, stage 1": (by_coarse, None), DIRECT: (by_all, None)}

    rows = [
        {"list": name, "method": method, **measure(TARGET, points[list(r)], test.only(list(r), name), transfer)}
        for name, r in lists.items()
        for method, (points, transfer) in found.items()
    ]
    contour = {shown: contour_profile(found[method][0], test) for method, shown in DRAWN.items()}
    result = {
        "dense": described(dense),
        "direct": described(direct),
        "n_pairs": len(train),
        "boxes": boxes,
        "rows": rows,
        "contour": {"list": FULL, **contour},
    }
    write_json(arguments.out / "dense_transfer.json", result)
    draw(contour, arguments.out / "contour.png")
    print(as_table(rows))


if __name__ == "__main__":
    main()
