"""How much worse landmarks become where the box is off, the head or the image is turned, or the face is small."""

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
from fewmark.evaluation.head_pose import head_poses
from fewmark.evaluation.perturbation import DIRECTIONS, NEUTRAL, Perturbation, perturb
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import labelled_box
from fewmark.landmarks.metrics import THRESHOLD, failure_rate, landmark_errors, nme_per_face, normalising_lengths
from fewmark.landmarks.scheme import Normalizer

Kind = Literal["shift", "scale", "rotation", "size", "yaw", "roll"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SHIFTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
"""Of the box's longer side, in each of `perturbing.DIRECTIONS`."""
SCALES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5)
"""Of the box."""
ANGLES = (-90.0, -60.0, -45.0, -30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0)
"""Of the image about the face, degrees counter-clockwise."""
SIDES = (200.0, 128.0, 96.0, 64.0, 48.0, 32.0, 24.0)
"""That the face's box has at most, px."""
YAWS = (0.0, 10.0, 20.0, 30.0, 180.0)
"""Where the bins of heads turned to either side end, degrees."""
ROLLS = (0.0, 5.0, 10.0, 180.0)
"""Where the bins of heads tilted to either side end, degrees."""
RISE = 0.1
"""The rise of NME that a model's tolerance to shifts is read at."""

_IMAGES = 64  # images in memory at a time
_LOOKS: dict[str, tuple[int, ...]] = {"shift": (1, 2), "scale": (1, 2), "rotation": (1, 2), "size": (1,)}


@dataclass(frozen=True)
class Level:
    """How good a detector is under one perturbation, or on the faces of one bin.

    Attributes:
        value: by how much, see `perturbing.Perturbation`; of yaw and roll the mean angle of the bin's faces, degrees.
        label: the same for a person.
        nme: mean over the detected faces, of a shift over its directions too; a fraction, infinite where none was detected.
        failure_rate: of the same, the fraction above the threshold, undetected ones among them.
        ratio: of `nme` to that of all faces unperturbed; NaN where that is 0.
        n_faces: faces scored.
        worst_nme: of the worst direction of a shift, else None.
        worst_direction: which that is, "" where there is none.
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
        kind: of `KINDS`.
        passes: looks at a face, see `Detector.detect`.
        levels: from the lowest value to the highest; bins without faces are left out.
    """

    kind: Kind
    passes: int
    levels: tuple[Level, ...]

    def rise_at(self, rise: float = RISE) -> float | None:
        """The first value at which NME is above that of all faces unperturbed by `rise` of it; between two levels by a line.

        Returns:
            None where it does not rise so far.
        """
        for before, after in itertools.pairwise((self.levels[0], *self.levels)):
            if after.ratio >= 1 + rise:
                gone = after.ratio - before.ratio
                part = 1.0 if not math.isfinite(gone) or gone <= 0 else (1 + rise - before.ratio) / gone
                return before.value + part * (after.value - before.value)
        return None


@dataclass(frozen=True)
class Robustness:
    """What `measure_robustness` found.

    Attributes:
        normalizer: what the errors are divided by.
        threshold: of the failure rates.
        n_faces: faces scored.
        n_left_out: faces that cannot be scored: the normaliser has no length.
        unperturbed: one look, in the tight box of the true landmarks; what `evaluate --box gt` gives.
        curves: of the kinds asked for.
        tolerated_shift: looks -> the shift at which NME has risen by `RISE`, a part of the box's longer side; None where the
            largest does not raise it so far.
        notes: what could not be measured, and why.
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
            InputError: it was not measured.
        """
        for curve in self.curves:
            if (curve.kind, curve.passes) == (kind, passes):
                return curve
        raise InputError(f"robustness: {kind} with {passes} looks was not measured")

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

    Every face is looked at in the tight box of its true landmarks, perturbed: moved ("shift"), scaled ("scale"), in a
    image that is turned about the box's centre ("rotation") or reduced ("size"). Landmarks are carried back into the
    unperturbed image and compared there, so an error stays relative to the same length. Yaw and roll are read off the true
    landmarks (`head_poses`) and sort the unperturbed faces.

    Args:
        detector: its settings say whether it looks at the flipped image too.
        samples: labelled in the detector's scheme.
        kinds: what is measured, in this order.
        normalizer: of the scheme; None = its default.
        threshold: of the failure rates.
        on_faces: told how many faces are done, after every few.

    Raises:
        InputError: an unknown kind or normaliser, a threshold that is not above 0, no face, one without labels or with others
            than the scheme's, or none that the normaliser has a length for.
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
    boxes = [labelled_box(s, scheme.n_landmarks) for s in samples]
    wanted = [d for kind in kinds for d in _perturbations(kind)]
    errors: dict[tuple[Perturbation | None, int], list[Floats]] = {}
    for start in range(0, len(samples), _IMAGES):
        part = slice(start, start + _IMAGES)
        for key, values in _look_at(detector, samples[part], boxes[part], wanted, rule).items():
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
            curves += [_curve(kind, n, nmes, unperturbed.nme, threshold) for n in _LOOKS[kind]]
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
    """All of a kind, by value, those of several directions together."""
    if kind == "shift":
        return [Perturbation("shift", v, d) for v in SHIFTS for d in DIRECTIONS]
    if kind == "scale":
        return [Perturbation("scale", v) for v in SCALES]
    if kind == "rotation":
        return [Perturbation("rotation", v) for v in ANGLES]
    return [Perturbation("size", v) for v in sorted(SIDES)] if kind == "size" else []


def _look_at(
    detector: Detector,
    samples: Sequence[FaceSample],
    boxes: Sequence[Box],
    perturbations: Sequence[Perturbation],
    normalizer: Normalizer,
) -> dict[tuple[Perturbation | None, int], Floats]:
    """(perturbation or None, looks) -> the NME of each face, (N,); one that changes nothing has the numbers of None."""
    images: list[NDArray[np.uint8]] = []
    for i, sample in enumerate(samples):
        same = i > 0 and samples[i - 1].image == sample.image
        images.append(images[-1] if same else read_image(sample.image))
    true = stack_landmarks(samples).astype(np.float64)
    lengths = normalising_lengths(true, np.stack([s.face_box() for s in samples]), normalizer)

    def nme(found: NDArray[np.float32], maps: Sequence[Similarity] | None) -> Floats:
        back = found if maps is None else np.stack([m.inverse()(p) for m, p in zip(maps, found, strict=True)])
        return nme_per_face(landmark_errors(back, true), lengths)

    twice = any(2 in _LOOKS[d.kind] for d in perturbations)
    result: dict[tuple[Perturbation | None, int], Floats] = {}
    for n, found in enumerate(_looks(detector, images, boxes, 2 if twice else 1), 1):
        result[None, n] = nme(found, None)
    for d in perturbations:
        if not d.changes:
            result.update({(d, n): result[None, n] for n in _LOOKS[d.kind]})
            continue
        seen = [perturb(d, p, t, detector.checkpoint.crop) for p, t in zip(images, true, strict=True)]
        looks = _looks(detector, [p for p, _, _ in seen], [b for _, b, _ in seen], max(_LOOKS[d.kind]))
        for n, found in enumerate(looks, 1):
            result[d, n] = nme(found, [m for _, _, m in seen])
    return result


def _looks(
    detector: Detector, images: Sequence[NDArray[np.uint8]], boxes: Sequence[Box], n_views: int
) -> list[NDArray[np.float32]]:
    """The landmarks after one look, and after two: (N, K, 2) image px each."""
    found = [detector.predictor.predict(images, boxes, 1).landmarks]
    if n_views == 2:
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
    """Faces by angle; those of unknown angle, or that cannot be scored, are in no bin."""
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
    """A level from the NME of each face, once for each direction."""
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
