"""Robustness: NME when the box is off, the head or image is rotated, or the face is small."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box, Floats, Similarity
from fewmark.core.json import json_value
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.evaluation.perturbation import DIRECTIONS, NEUTRAL, Perturbation, perturb
from fewmark.inference.detector import Detector
from fewmark.inference.head_pose import head_poses
from fewmark.inference.labelled import labelled_box
from fewmark.landmarks.metrics import THRESHOLD, failure_rate, landmark_errors, nme_per_face, normalising_lengths
from fewmark.landmarks.missing import complete_landmarks
from fewmark.landmarks.scheme import Normalizer

Kind = Literal["shift", "scale", "rotation", "size", "yaw", "roll"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SHIFTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Shifts as fractions of the box's longer side, in each of `perturbation.DIRECTIONS`."""
SCALES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
"""Scale factors of the box."""
ANGLES = (-90.0, -60.0, -45.0, -30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0)
"""Rotations of the image about the face, degrees counter-clockwise."""
SIDES = (200.0, 128.0, 96.0, 64.0, 48.0, 32.0, 24.0)
"""Largest sides of the face's box, px."""
YAWS = (0.0, 10.0, 20.0, 30.0, 180.0)
"""Ends of the bins of yaw to either side, degrees."""
ROLLS = (0.0, 5.0, 10.0, 180.0)
"""Ends of the bins of roll to either side, degrees."""
RISE = 0.1
"""Relative rise of NME that defines the tolerated shift."""

_IMAGES = 64  # in memory at a time
_PASSES: dict[str, tuple[int, ...]] = {"shift": (1, 2), "scale": (1, 2), "rotation": (1, 2), "size": (1,)}


@dataclass(frozen=True)
class Level:
    """Result for one perturbation, or for the faces in one bin.

    Attributes:
        value: Amount, see `Perturbation`; for yaw and roll the mean angle of the bin's faces, degrees.
        label: The same as text.
        nme: Mean over the detected faces, for a shift over its directions too; a fraction, infinite if none was detected.
        failure_rate: Fraction above the threshold, undetected faces included.
        ratio: `nme` over that of all faces unperturbed; NaN where that is 0.
        n_faces: Faces scored.
        worst_nme: NME in the worst direction of a shift, else None.
        worst_direction: That direction, else "".
    """

    value: float
    label: str
    nme: float
    failure_rate: float
    ratio: float
    n_faces: int
    worst_nme: float | None = None
    worst_direction: str = ""


@dataclass(frozen=True)
class Curve:
    """One kind of perturbation.

    Attributes:
        kind: One of `KINDS`.
        passes: Most passes per face, see `Detector.detect`.
        levels: In ascending order of value; bins without faces are left out.
    """

    kind: Kind
    passes: int
    levels: tuple[Level, ...]

    def rise_at(self, rise: float = RISE) -> float | None:
        """First value at which NME exceeds that of all faces unperturbed by `rise` of it, interpolated between levels.

        Returns:
            None if it does not rise so far.
        """
        for before, after in itertools.pairwise((self.levels[0], *self.levels)):
            if after.ratio >= 1 + rise:
                step = after.ratio - before.ratio
                fraction = 1.0 if not math.isfinite(step) or step <= 0 else (1 + rise - before.ratio) / step
                return before.value + fraction * (after.value - before.value)
        return None


@dataclass(frozen=True)
class Robustness:
    """Result of `measure_robustness`.

    Attributes:
        normalizer: Normaliser of the errors.
        threshold: Threshold of the failure rates.
        n_faces: Faces scored.
        n_left_out: Faces that cannot be scored, because the normaliser has no length.
        unperturbed: One pass in the tight box of the true landmarks, as `evaluate --box gt`.
        curves: One or two per kind.
        tolerated_shift: Passes -> shift at which NME has risen by `RISE`, as a fraction of the box's longer side; None if the largest
            shift does not raise it so far.
        notes: What could not be measured, and why.
    """

    normalizer: str
    threshold: float
    n_faces: int
    n_left_out: int
    unperturbed: Level
    curves: tuple[Curve, ...]
    tolerated_shift: dict[int, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def curve(self, kind: Kind, passes: int = 1) -> Curve:
        """The curve of a kind.

        Raises:
            InputError: It was not measured.
        """
        for curve in self.curves:
            if (curve.kind, curve.passes) == (kind, passes):
                return curve
        raise InputError(f"robustness: {kind} with {passes} passes was not measured")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers that are not finite become None."""
        data = asdict(self)
        data["tolerated_shift"] = {str(n): v for n, v in self.tolerated_shift.items()}
        result = json_value(data)
        assert isinstance(result, dict)
        return result


def measure_robustness(
    detector: Detector,
    samples: Sequence[FaceSample],
    *,
    kinds: Iterable[Kind] = KINDS,
    normalizer: str | None = None,
    threshold: float = THRESHOLD,
    on_faces: Callable[[int], None] | None = None,
) -> Robustness:
    """Measure a detector on perturbed faces.

    The tight box of each face's true landmarks is shifted ("shift") or scaled ("scale"), or its image is rotated about the box's
    centre ("rotation") or reduced ("size"). Predicted landmarks are mapped back to the original image and compared there, so errors
    stay relative to the same length. "yaw" and "roll" group the unperturbed faces by head pose, estimated from the true landmarks
    (`head_poses`).

    Args:
        detector: Finds the landmarks; averages over flips as its model asks.
        samples: Labelled faces in the detector's scheme.
        kinds: Kinds to measure, in this order.
        normalizer: Name of the scheme's normaliser; None: its default.
        threshold: Threshold of the failure rates.
        on_faces: Called with the number of faces done so far.

    Raises:
        InputError: A kind or the normaliser is unknown, the threshold is not above 0, there is no face, a face has no labels or
            another number than the scheme's, or the normaliser has a length for none.
    """
    kinds = tuple(dict.fromkeys(kinds))
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"kinds: expected some of {', '.join(KINDS)}, given {kind!r}")
    scheme = detector.scheme
    name = normalizer or scheme.default_normalizer
    rule = scheme.get_normalizer(name)
    if not 0 < threshold < math.inf:
        raise InputError(f"threshold: expected a fraction above 0, such as 0.08 for 8 %, given {threshold}")
    if not samples:
        raise InputError("robustness: expected labelled faces, given none")
    boxes = [labelled_box(s, scheme) for s in samples]
    wanted = [d for kind in kinds for d in _perturbations(kind)]
    errors: dict[tuple[Perturbation | None, int], list[Floats]] = {}
    for start in range(0, len(samples), _IMAGES):
        part = slice(start, start + _IMAGES)
        for key, values in _perturbed_nmes(detector, samples[part], boxes[part], wanted, rule).items():
            errors.setdefault(key, []).append(values)
        if on_faces is not None:
            on_faces(min(start + _IMAGES, len(samples)))
    nmes = {key: np.concatenate(values) for key, values in errors.items()}
    plain = nmes[None, 1]
    scored = ~np.isnan(plain)
    if not scored.any():
        raise InputError(
            f"none of {len(samples)} faces can be scored with the normalizer {name!r}: landmarks that it needs are missing; "
            f"choose among {', '.join(scheme.normalizer_names)}"
        )
    unperturbed = _level(0.0, "unperturbed", [plain], math.nan, threshold)
    curves, notes = [], []
    for kind in kinds:
        if kind in ("yaw", "roll"):
            try:
                poses = head_poses(stack_landmarks(samples), scheme)
            except InputError as error:
                notes.append(f"{kind}: {error}")
                continue
            angles = np.abs(poses[:, 0 if kind == "yaw" else 2])
            ends = YAWS if kind == "yaw" else ROLLS
            curves.append(Curve(kind, 1, _bins(angles, ends, plain, unperturbed.nme, threshold)))
        else:
            curves += [_curve(kind, n, nmes, unperturbed.nme, threshold) for n in _PASSES[kind]]
    return Robustness(
        name,
        threshold,
        int(scored.sum()),
        int((~scored).sum()),
        _level(0.0, "unperturbed", [plain], unperturbed.nme, threshold),
        tuple(curves),
        {c.passes: c.rise_at() for c in curves if c.kind == "shift"},
        tuple(notes),
    )


def _perturbations(kind: Kind) -> list[Perturbation]:
    """All perturbations of a kind, grouped by value."""
    if kind == "shift":
        return [Perturbation("shift", v, d) for v in SHIFTS for d in DIRECTIONS]
    if kind == "scale":
        return [Perturbation("scale", v) for v in SCALES]
    if kind == "rotation":
        return [Perturbation("rotation", v) for v in ANGLES]
    return [Perturbation("size", v) for v in sorted(SIDES)] if kind == "size" else []


def _perturbed_nmes(
    detector: Detector,
    samples: Sequence[FaceSample],
    boxes: Sequence[Box],
    perturbations: Sequence[Perturbation],
    normalizer: Normalizer,
) -> dict[tuple[Perturbation | None, int], Floats]:
    """NME of each face (N,) by (perturbation or None, passes); a perturbation that changes nothing has those of None."""
    images: list[NDArray[np.uint8]] = []
    for i, sample in enumerate(samples):
        same = i > 0 and samples[i - 1].image == sample.image
        images.append(images[-1] if same else read_image(sample.image))
    true, mean_face = stack_landmarks(samples).astype(np.float64), detector.scheme.mean_face
    shapes = [t if (c := complete_landmarks(t, mean_face)) is None else c for t in true]
    lengths = normalising_lengths(true, np.stack([s.face_box(mean_face) for s in samples]), normalizer)

    def nme(found: NDArray[np.float32], maps: Sequence[Similarity] | None) -> Floats:
        back = found if maps is None else np.stack([m.inverse()(p) for m, p in zip(maps, found, strict=True)])
        return nme_per_face(landmark_errors(back, true), lengths)

    twice = any(2 in _PASSES[d.kind] for d in perturbations)
    result: dict[tuple[Perturbation | None, int], Floats] = {}
    for n, found in enumerate(_predict(detector, images, boxes, 2 if twice else 1), 1):
        result[None, n] = nme(found, None)
    for d in perturbations:
        if not d.changes:
            result.update({(d, n): result[None, n] for n in _PASSES[d.kind]})
            continue
        seen = [perturb(d, p, t, detector.checkpoint.crop) for p, t in zip(images, shapes, strict=True)]
        found_by_passes = _predict(detector, [p for p, _, _ in seen], [b for _, b, _ in seen], max(_PASSES[d.kind]))
        for n, found in enumerate(found_by_passes, 1):
            result[d, n] = nme(found, [m for _, _, m in seen])
    return result


def _predict(
    detector: Detector, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box], most_passes: int
) -> list[NDArray[np.float32]]:
    """Landmarks with one pass and, if `most_passes` is 2, with two: (N, K, 2) image px each."""
    found = [detector.predictor.predict(images, boxes, 1).landmarks]
    if most_passes == 2:
        found.append(detector.predictor.predict(images, boxes, 2).landmarks)
    return found


def _curve(
    kind: Kind, passes: int, nmes: dict[tuple[Perturbation | None, int], Floats], plain: float, threshold: float
) -> Curve:
    levels = []
    for value, same in itertools.groupby(_perturbations(kind), lambda d: d.value):
        group = list(same)
        values = [nmes[d, passes] for d in group]
        directions = [d.direction for d in group] if kind == "shift" and value != NEUTRAL["shift"] else []
        levels.append(_level(value, _label(kind, value), values, plain, threshold, directions))
    return Curve(kind, passes, tuple(levels))


def _bins(angles: Floats, ends: Sequence[float], nmes: Floats, plain: float, threshold: float) -> tuple[Level, ...]:
    """One level per bin of angles; faces of unknown angle, or that cannot be scored, are in none."""
    levels = []
    for low, high in itertools.pairwise(ends):
        inside = (angles >= low) & (angles < high) & ~np.isnan(nmes)
        if inside.any():
            label = f"{low:g} to {high:g}°" if high != ends[-1] else f"{low:g}° and more"
            levels.append(_level(float(angles[inside].mean()), label, [nmes[inside]], plain, threshold))
    return tuple(levels)


def _level(
    value: float,
    label: str,
    nmes: Sequence[Floats],
    plain: float,
    threshold: float,
    directions: Sequence[str] = (),
) -> Level:
    """A level from the NME of each face, one array per direction."""
    means = [_mean(n) for n in nmes]
    nme = _mean(np.concatenate(nmes))
    worst = int(np.argmax(means)) if directions else 0
    return Level(
        value,
        label,
        nme,
        failure_rate(np.concatenate(nmes), threshold),
        nme / plain if plain > 0 else math.nan,
        int((~np.isnan(nmes[0])).sum()),
        means[worst] if directions else None,
        directions[worst] if directions else "",
    )


def _mean(nmes: Floats) -> float:
    finite = nmes[np.isfinite(nmes)]
    return float(finite.mean()) if len(finite) else math.inf


def _label(kind: Kind, value: float) -> str:
    if kind == "shift":
        return f"{100 * value:g} %"
    if kind == "rotation":
        return f"{value:+g}°" if value else "0°"
    return f"{value:g} px" if kind == "size" else f"{value:g}"
