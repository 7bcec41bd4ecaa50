"""A trained cascade's angle stage and error curves: Fig. 2 and Fig. 7 of the coarse-to-fine paper on the test lists of ibug68.

    python experiments/cascade_figures.py --data ../shared/data/ibug68 --model runs/cascade/detector.safetensors \
        --out runs/cascade-figures --peers runs/peers-measured/peers_landmarks.json

The model is what `fewmark train --recipe cascade` writes. The angle stage is measured by itself; for the error curves each stage starts from
the output of the one before, averaged with the mirrored image if the model asks for it (`model.flip`). The packaged model and the
detectors in files of peers_landmarks.py are drawn too. The box is the tight one of the true landmarks, NME by the outer eye corners. Writes
angle.png, ced.png and cascade_figures.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cascade_stages import rotate_faces
from measurement import cpu_ms, load_pyplot, make_parser, percent, read_tests, save_figure, use_one_thread, write_json
from numpy.typing import NDArray
from peers_landmarks import NORMALIZER, Numbers, as_table, name_in_tables, read_landmarks, score_lists

from fewmark.core.errors import InputError
from fewmark.core.geometry import Image, box_of_points, wrap_angle
from fewmark.data.images import read_image
from fewmark.data.samples import stack_landmarks
from fewmark.inference.cascade.component import ComponentStage
from fewmark.inference.cascade.frames import MeanFace, face_angle, scheme_mean_face
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.predict import run_cascade, run_stages
from fewmark.inference.cascade.state import FaceState
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.metrics import auc, ced, failure_rate, landmark_errors, nme_per_face, normalising_lengths
from fewmark.landmarks.scheme import load_scheme

WITHIN = (1, 2, 5, 10)
"""Angle errors in degrees at which the share of faces is written; Fig. 2 is about 5."""
PACKAGED = "ibug-68"
BATCH = 32
MAX_ANGLE = 30.0
"""Right end of the angle figure, degrees."""
MAX_NME = 0.1
"""Right end of the error curves."""
MUTED = ("#2f8f6b", "#9bbf3b", "#8a63b3", "#b5803c", "#6b7280", "#b4b9c1", "#c06c9a", "#4fa3a5")
COLUMNS = {"NME, %": 0.71, "AUC, %": 0.85, "failures, %": 1.04}
"""Column of numbers next to the curves -> its right end."""

Floats = NDArray[np.float64]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model file of a cascade")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", type=Path, nargs="*", default=[], help="files of peers_landmarks.py")
    parser.add_argument("--seed", type=int, default=0, help="seed of the angles by which images are rotated")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs for each face")
    arguments = parser.parse_args()
    use_one_thread()
    detector = Detector.load(arguments.model)
    cascade = check_cascade(detector, arguments.model)
    lists = read_tests(arguments.data)
    samples = [s for part in lists.values() for s in part]
    peers = {peer: p for file in arguments.peers for peer, p in read_landmarks(file, samples).items()}
    truth = stack_landmarks(samples)
    images = [read_image(s.image) for s in samples]
    starts = [FaceState(box_of_points(t)) for t in truth]
    flip = detector.checkpoint.flip

    errors = measure_angles(cascade, images, starts, truth, arguments.seed)
    found = predict_stages(cascade, images, starts, flip)
    points, ms = {}, {}
    for i, stage in enumerate([s.name for s in cascade.stages if s.name != "angle"], 1):
        name, part = f"cascade, stage {i} ({stage})", up_to(cascade, stage)
        points[name] = np.stack([f.landmarks for f in found[stage] if f.landmarks is not None])
        ms[name] = time_cascade(part, images, starts, flip, arguments.repeats)
    packaged = Detector.load(PACKAGED)
    points[PACKAGED] = predict_samples(packaged, samples, "gt", flip=packaged.checkpoint.flip).landmarks
    ms[PACKAGED] = time_packaged(packaged, images, starts, arguments.repeats)
    own = [{"name": n, "ms": ms[n], **score_lists(points[n], lists)} for n in points]
    others = [{"name": n, "ms": None, **score_lists(p, lists)} for n, p in peers.items()]

    draw_angles({n: errors[n] for n in ("as they are", "turned by any angle")}, arguments.out / "angle.png")
    groups = {
        "fewmark: the cascade, stage by stage": {n: p for n, p in points.items() if n != PACKAGED},
        "fewmark: the packaged model": {PACKAGED: points[PACKAGED]},
        "other detectors": {name_in_tables(n): p for n, p in peers.items()},
    }
    curves = {title: {n: per_face(p, truth) for n, p in group.items()} for title, group in groups.items() if group}
    draw_ced(curves, arguments.out / "ced.png")
    numbers = {
        "flip": flip,
        "seed": detector.checkpoint.seed,
        "counts": detector.checkpoint.counts,
        "angle": {name: angle_numbers(e) for name, e in errors.items()},
        "fewmark": own,
        "peers": others,
    }
    write_json(arguments.out / "cascade_figures.json", numbers)
    for name, e in errors.items():
        print(f"{name}: {percent(float(np.mean(e <= 5)), 1)} of the angles within 5 degrees")
    print(as_table([*own, *others]))


def check_cascade(detector: Detector, path: Path) -> Cascade:
    """The model's cascade.

    Raises:
        InputError: The model has no cascade, or one without an angle stage or for another scheme than ibug-68.
    """
    cascade = detector.checkpoint.cascade
    stages = [] if cascade is None else [s.name for s in cascade.stages]
    if cascade is None or "angle" not in stages or cascade.scheme.name != "ibug-68":
        raise InputError(
            f"{path}: expected a cascade for ibug-68 with an angle stage, given {detector.scheme.name} with stages "
            f"{', '.join(stages) or '(none)'}; train one with --recipe cascade"
        )
    return cascade


def up_to(cascade: Cascade, stage: str) -> Cascade:
    """The cascade up to and including a stage."""
    names = [s.name for s in cascade.stages]
    return Cascade(cascade.stages[: names.index(stage) + 1])


def mean_face_of(cascade: Cascade) -> MeanFace:
    """Reference for angles: the mean of the training faces, which the component stage keeps, else the scheme's mean face."""
    kept = [s.mean_face for s in cascade.stages if isinstance(s, ComponentStage)]
    return kept[0] if kept else scheme_mean_face(cascade.scheme)


def measure_angles(
    cascade: Cascade, images: Sequence[Image], starts: Sequence[FaceState], truth: NDArray[np.float32], seed: int
) -> dict[str, Floats]:
    """Errors (N,) of the angle stage in degrees, by itself and averaged with the mirrored image.

    Args:
        cascade: A cascade that begins with an angle stage.
        images: One for each face.
        starts: Boxes.
        truth: (N, K, 2) image px.
        seed: Seed of the angles by which images are rotated.
    """
    rotated = rotate_faces(images, starts, truth, cascade.scheme, seed)
    rotated_images, faces = [image for image, _ in rotated], [face for _, face in rotated]
    points = [f.landmarks for f in faces if f.landmarks is not None]
    only, frame = up_to(cascade, "angle"), mean_face_of(cascade)
    errors = {}
    for name, some, boxes, true in (
        ("as they are", images, starts, truth),
        ("turned by any angle", rotated_images, [FaceState(f.box_xyxy) for f in faces], points),
    ):
        errors[name] = angle_errors(only(some, boxes), true, frame)
        both = predict_stages(only, some, boxes, flip=True)["angle"]
        errors[f"{name}, with the mirrored image"] = angle_errors(both, true, frame)
    return errors


def predict_stages(
    cascade: Cascade, images: Sequence[Image], starts: Sequence[FaceState], flip: bool
) -> dict[str, list[FaceState]]:
    """Stage -> states after it, predicted for `BATCH` faces at a time."""
    found: dict[str, list[FaceState]] = {s.name: [] for s in cascade.stages}
    for i in range(0, len(images), BATCH):
        for name, faces in run_stages(cascade, images[i : i + BATCH], starts[i : i + BATCH], flip=flip).items():
            found[name] += faces
    return found


def time_cascade(
    cascade: Cascade, images: Sequence[Image], starts: Sequence[FaceState], flip: bool, repeats: int
) -> float:
    """Milliseconds per face, one face at a time; see `cpu_ms`."""
    return cpu_ms(lambda i: run_cascade(cascade, [images[i]], [starts[i]], flip=flip), range(len(images)), repeats)


def time_packaged(detector: Detector, images: Sequence[Image], starts: Sequence[FaceState], repeats: int) -> float:
    """Milliseconds per face, one face at a time and in one pass; see `cpu_ms`."""
    flip = detector.checkpoint.flip
    return cpu_ms(
        lambda i: detector.predictor.predict([images[i]], [starts[i].box_xyxy], 1, flip=flip),
        range(len(images)),
        repeats,
    )


def angle_errors(found: Sequence[FaceState], truth: Sequence[NDArray[np.float32]], mean_face: MeanFace) -> Floats:
    """(N,) absolute differences in degrees between the angles found and those of the true landmarks (K, 2)."""
    return np.array([abs(wrap_angle(f.angle - face_angle(t, mean_face))) for f, t in zip(found, truth, strict=True)])


def angle_numbers(errors: Floats) -> Numbers:
    shares = {f"within {d} degrees": float(np.mean(errors <= d)) for d in WITHIN}
    return {**shares, "median, degrees": float(np.median(errors)), "n_faces": len(errors)}


def per_face(points: NDArray[np.floating], truth: NDArray[np.float32]) -> Floats:
    """(N,) NME."""
    rule = load_scheme("ibug-68").get_normalizer(NORMALIZER)
    return nme_per_face(landmark_errors(points, truth), normalising_lengths(truth, None, rule))


def draw_angles(errors: Mapping[str, Floats], path: Path) -> None:
    """Draw the share of faces with an angle error of at most x (Fig. 2).

    Args:
        errors: Name -> (N,) absolute errors in degrees; two of them.
        path: A PNG.
    """
    figure, axis = load_pyplot().subplots(figsize=(7, 4.4), layout="constrained")
    axis.axvspan(0, 5, color="0.94", zorder=0)
    x = np.linspace(0, MAX_ANGLE, 601)
    for (name, e), color, style in zip(errors.items(), ("#1f5fa8", "#d9702b"), ("-", (0, (5, 2))), strict=True):
        share = 100 * np.mean(e <= 5)
        axis.plot(x, 100 * ced(e, x)[1], color=color, linestyle=style, linewidth=2.2, label=name)
        axis.plot(5, share, "o", color=color, markersize=6, zorder=4)
        axis.plot([], [], " ", label=f"    {share:.1f} % within 5°, half within {np.median(e):.1f}°")
    axis.axvline(5, color="0.35", linewidth=1, linestyle=":")
    axis.annotate("5°", (5, 0), xytext=(4, 5), textcoords="offset points", color="0.3")
    axis.set(xlim=(0, MAX_ANGLE), ylim=(0, 101.5), xlabel="angle error, degrees", ylabel="share of faces, %")
    n = len(next(iter(errors.values())))
    axis.set_title(f"Angle stage: in-plane rotation left in {n} test faces", fontsize=11, loc="left")
    axis.legend(loc="lower right", frameon=False, title="images", alignment="left")
    _finish(axis)
    save_figure(figure, path, dpi=130)


def draw_ced(groups: Mapping[str, Mapping[str, Floats]], path: Path) -> None:
    """Draw the share of faces with an NME of at most x (Fig. 7), and the numbers of each curve next to it.

    Args:
        groups: Title -> name -> (N,) NME, infinite where nothing was found. The first group (stages in order) is drawn in
            blues, the second in red, the third in muted dashes.
        path: A PNG.
    """
    pyplot = load_pyplot()
    styles: dict[str, dict[str, Any]] = {}
    for i, group in enumerate(groups.values()):
        blues = pyplot.get_cmap("Blues")(np.linspace(0.45, 0.95, len(group)))
        for j, name in enumerate(group):
            color = (blues[j], "#cc3311", MUTED[j % len(MUTED)])[i]
            dashed = {"linewidth": 1.4, "linestyle": (0, (5, 1.5)), "zorder": 2}
            styles[name] = {"color": color, **(dashed if i == 2 else {"linewidth": 2.2, "zorder": 3})}
    figure, (axis, side) = pyplot.subplots(1, 2, figsize=(11, 5), layout="constrained", width_ratios=[1.35, 1])
    curves = {name: nme for group in groups.values() for name, nme in group.items()}
    x = np.linspace(0, MAX_NME, 1001)
    for name, nme in curves.items():
        axis.plot(100 * x, 100 * ced(nme, x)[1], **styles[name])
    axis.axvline(8, color="0.35", linewidth=1, linestyle=":")
    note = {"xytext": (5, 6), "textcoords": "offset points", "color": "0.3", "fontsize": 9}
    axis.annotate("beyond 8 %:\na failure", (8, 0), bbox={"color": "white", "alpha": 0.85, "pad": 1}, zorder=5, **note)
    axis.set(xlim=(0, 100 * MAX_NME), ylim=(0, 101.5), xlabel="NME by the outer eye corners, %")
    axis.set_ylabel("share of faces, %")
    n = len(next(iter(curves.values())))
    axis.set_title(f"Landmark error of {n} test faces, common and challenging", fontsize=11, loc="left")
    _finish(axis)
    _draw_numbers(side, groups, styles)
    save_figure(figure, path, dpi=130)


def _draw_numbers(axis: Any, groups: Mapping[str, Mapping[str, Floats]], styles: Mapping[str, Any]) -> None:
    """Draw the legend as a table."""
    axis.axis("off")
    for head, right in COLUMNS.items():
        axis.text(right, 0, head, ha="right", va="center", color="0.35", fontsize=9)
    line, notes = 1.0, []
    for title, group in groups.items():
        axis.text(0, line, title, va="center", fontsize=10, fontweight="bold")
        for name, nme in group.items():
            line += 1
            seen = np.isfinite(nme)
            axis.plot([0, 0.08], [line, line], **styles[name])
            axis.text(0.1, line, name, va="center", fontsize=10)
            numbers = (float(nme[seen].mean()), auc(nme), failure_rate(nme))
            for right, number, digits in zip(COLUMNS.values(), numbers, (2, 1, 1), strict=True):
                axis.text(right, line, percent(number, digits, ""), ha="right", va="center", fontsize=10)
            if not seen.all():
                axis.text(COLUMNS["NME, %"], line, "*", va="center", fontsize=10)
                notes.append(f"* over the {seen.sum()} detected faces; the others are failures")
        line += 1.5
    if any("†" in name for name in styles):
        notes.append("† trained on AFW, the source of the challenging faces,\n   and perhaps on HELEN's test faces")
    axis.text(0, line - 0.2, "\n".join(notes), va="top", fontsize=8.5, color="0.35")
    axis.set(xlim=(0, 1.05), ylim=(line + 2, -0.5))


def _finish(axis: Any) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
