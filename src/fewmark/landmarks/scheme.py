"""LandmarkScheme: the definition of a set of landmarks, as data. One TOML file per scheme, see schemes/."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import FloatArray, box_of_points, box_size


@dataclass(frozen=True)
class BetweenPoints:
    """Distance between two landmarks, e.g. the outer eye corners (often called inter-ocular)."""

    first: int
    second: int

    def __call__(self, landmarks: FloatArray, box_xyxy: FloatArray | None = None) -> float:
        return float(np.linalg.norm(landmarks[self.first] - landmarks[self.second]))


@dataclass(frozen=True)
class BetweenMeans:
    """Distance between the means of two groups of landmarks, e.g. pupils as the means of the eye points."""

    first: tuple[int, ...]
    second: tuple[int, ...]

    def __call__(self, landmarks: FloatArray, box_xyxy: FloatArray | None = None) -> float:
        a, b = landmarks[list(self.first)].mean(0), landmarks[list(self.second)].mean(0)
        return float(np.linalg.norm(a - b))


@dataclass(frozen=True)
class BoxSize:
    """Square root of the area of the face box, AFLW's "face size"."""

    def __call__(self, landmarks: FloatArray, box_xyxy: FloatArray | None = None) -> float:
        return float(np.sqrt(box_size(_need(box_xyxy, "box-size")).prod()))


@dataclass(frozen=True)
class BoxDiagonal:
    """Diagonal of the face box."""

    def __call__(self, landmarks: FloatArray, box_xyxy: FloatArray | None = None) -> float:
        return float(np.linalg.norm(box_size(_need(box_xyxy, "box-diagonal"))))


@dataclass(frozen=True)
class PointsDiagonal:
    """Diagonal of the tight box around the true landmarks, as Menpo uses it."""

    def __call__(self, landmarks: FloatArray, box_xyxy: FloatArray | None = None) -> float:
        return float(np.linalg.norm(box_size(box_of_points(landmarks))))


Normalizer = BetweenPoints | BetweenMeans | BoxSize | BoxDiagonal | PointsDiagonal
"""Callable from the true landmarks (K, 2) and the face box to the length (px) that divides the errors;
returns NaN if a landmark it needs is missing."""

BOX_NORMALIZERS: Mapping[str, Normalizer] = {
    "box-size": BoxSize(),
    "box-diagonal": BoxDiagonal(),
    "points-diagonal": PointsDiagonal(),
}
POINT_NORMALIZERS = ("outer-eye-corners", "pupils", "two-landmarks")


def _need(box_xyxy: FloatArray | None, name: str) -> FloatArray:
    if box_xyxy is None:
        raise InputError(f"normalizer {name}: expected a face box for every face, given a face without one")
    return box_xyxy


@dataclass(frozen=True, eq=False)
class LandmarkScheme:
    """Definition of K landmarks.

    Attributes:
        name: Name of the scheme, e.g. "ibug-68".
        landmarks: K unique names, in index order.
        mirror: (K,) index of each landmark in a flipped image, or None if unknown, in which case faces are never
            flipped.
        components: Name -> indices ("contour", "left_eyebrow", ...). Left is the left of the image unless the name
            contains "subject".
        edges: Pairs of indices to draw.
        normalizers: Normalisers defined by the landmarks ("outer-eye-corners", "pupils"); the box normalisers are
            always available.
        default_normalizer: Name of the normaliser used by the scheme's benchmark.
        mean_face: (K, 2) in the unit square, or None. The aspect ratio is kept: the longer side of the tight box spans
            0 to 1 and the shorter side is centred, so mirroring the mean face maps x to 1 - x.
        source: Origin of the definition.
        inferred: Whether the landmark order was inferred rather than published.
    """

    name: str
    landmarks: tuple[str, ...]
    mirror: tuple[int, ...] | None = None
    components: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    edges: tuple[tuple[int, int], ...] = ()
    normalizers: Mapping[str, Normalizer] = field(default_factory=dict)
    default_normalizer: str = "points-diagonal"
    mean_face: NDArray[np.float32] | None = None
    source: str = ""
    inferred: bool = False

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise InputError(f"scheme {self.name}: {problem}")

    @property
    def n_landmarks(self) -> int:
        return len(self.landmarks)

    @property
    def normalizer(self) -> Normalizer:
        """The default normaliser."""
        return self.get_normalizer(self.default_normalizer)

    @property
    def normalizer_names(self) -> tuple[str, ...]:
        return (*self.normalizers, *BOX_NORMALIZERS)

    def get_normalizer(self, name: str) -> Normalizer:
        """Get a normaliser by name.

        Raises:
            InputError: The scheme has no normaliser of this name.
        """
        found = self.normalizers.get(name) or BOX_NORMALIZERS.get(name)
        if found is None:
            raise InputError(
                f"scheme {self.name} has no normalizer {name!r}; expected one of {', '.join(self.normalizer_names)}"
            )
        return found

    def flip_landmarks(self, landmarks: FloatArray, width: float) -> FloatArray:
        """Flip landmarks with their image: x -> width - 1 - x, then reorder them by `mirror`.

        Args:
            landmarks: (..., K, 2) px.
            width: Image width, px.

        Raises:
            InputError: The scheme has no mirror.
        """
        if self.mirror is None:
            raise InputError(f"scheme {self.name} has no mirror: add `mirror` to its file, or train without flips")
        flipped = landmarks[..., list(self.mirror), :].copy()
        flipped[..., 0] = width - 1 - flipped[..., 0]
        return flipped

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, laid out as in the TOML file; `scheme_from_dict` reads it back."""
        data: dict[str, Any] = {
            "name": self.name,
            "source": self.source,
            "inferred": self.inferred,
            "landmarks": list(self.landmarks),
            "default_normalizer": self.default_normalizer,
            "components": {k: list(v) for k, v in self.components.items()},
            "edges": [list(e) for e in self.edges],
            "normalizers": {
                k: {"points": [n.first, n.second]}
                if isinstance(n, BetweenPoints)
                else {"means": [list(n.first), list(n.second)]}
                for k, n in self.normalizers.items()
                if isinstance(n, BetweenPoints | BetweenMeans)
            },
        }
        if self.mirror is not None:
            data["mirror"] = list(self.mirror)
        if self.mean_face is not None:
            data["mean_face"] = [[round(float(x), 4), round(float(y), 4)] for x, y in self.mean_face]
        return data


def _problems(s: LandmarkScheme) -> list[str]:
    k = len(s.landmarks)
    found = []
    if k == 0:
        found.append("landmarks: expected at least one name, given none")
    if len(set(s.landmarks)) != k:
        twice = sorted({n for n in s.landmarks if s.landmarks.count(n) > 1})
        found.append(f"landmarks: names must be unique, given twice: {', '.join(twice[:5])}")
    if s.mirror is not None:
        if sorted(s.mirror) != list(range(k)):
            found.append(f"mirror: expected a permutation of 0..{k - 1}, given {list(s.mirror)[:8]}...")
        else:
            wrong = [i for i in range(k) if s.mirror[s.mirror[i]] != i]
            if wrong:
                found.append(f"mirror: {s.landmarks[wrong[0]]} -> {s.landmarks[s.mirror[wrong[0]]]} does not lead back")
    used = {f"components.{n}": v for n, v in s.components.items()}
    used["edges"] = tuple(i for e in s.edges for i in e)
    for n, norm in s.normalizers.items():
        if isinstance(norm, BetweenPoints):
            used[f"normalizers.{n}"] = (norm.first, norm.second)
        elif isinstance(norm, BetweenMeans):
            used[f"normalizers.{n}"] = (*norm.first, *norm.second)
    for where, indices in used.items():
        outside = [i for i in indices if not 0 <= i < k]
        if outside:
            found.append(f"{where}: expected indices 0..{k - 1}, given {outside[0]}")
    if s.default_normalizer not in (*s.normalizers, *BOX_NORMALIZERS):
        found.append(
            f"default_normalizer: {s.default_normalizer!r} is not among {', '.join((*s.normalizers, *BOX_NORMALIZERS))}"
        )
    if s.mean_face is not None and (s.mean_face.shape != (k, 2) or not np.isfinite(s.mean_face).all()):
        found.append(f"mean_face: expected {k} finite xy pairs, given an array of shape {s.mean_face.shape}")
    return found


def scheme_from_dict(data: Mapping[str, Any], where: str = "scheme") -> LandmarkScheme:
    """Build a scheme from plain data (TOML or the metadata of a checkpoint).

    Args:
        data: Fields of a scheme file: `name`, `landmarks`, and optionally `mirror`, `components`, `edges` (pairs) or
            `chains` (lists of indices, each joined to the next), `normalizers`, `default_normalizer`, `mean_face`,
            `source`, `inferred`.
        where: Name of the file, for error messages.

    Raises:
        InputError: A field is missing, unknown or invalid.
    """
    known = {"name", "landmarks", "mirror", "components", "edges", "chains", "normalizers", "default_normalizer",
             "mean_face", "source", "inferred"}  # fmt: skip
    unknown = sorted(set(data) - known)
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; expected some of {', '.join(sorted(known))}")
    for name in ("name", "landmarks"):
        if name not in data:
            raise InputError(f"{where}: field {name!r} is missing")
    try:
        edges = [(int(a), int(b)) for a, b in data.get("edges", [])]
        for chain in data.get("chains", []):
            edges += [(int(a), int(b)) for a, b in itertools.pairwise(chain)]
        normalizers: dict[str, Normalizer] = {}
        for name, n in data.get("normalizers", {}).items():
            if name not in POINT_NORMALIZERS:
                raise InputError(f"{where}: normalizers: expected {' or '.join(POINT_NORMALIZERS)}, given {name!r}")
            if "points" in n:
                normalizers[name] = BetweenPoints(*(int(i) for i in n["points"]))
            else:
                first, second = n["means"]
                normalizers[name] = BetweenMeans(tuple(first), tuple(second))
        mirror = data.get("mirror")
        mean_face = data.get("mean_face")
        return LandmarkScheme(
            name=str(data["name"]),
            landmarks=tuple(str(n) for n in data["landmarks"]),
            mirror=None if mirror is None else tuple(int(i) for i in mirror),
            components={str(n): tuple(int(i) for i in v) for n, v in data.get("components", {}).items()},
            edges=tuple(edges),
            normalizers=normalizers,
            default_normalizer=str(data.get("default_normalizer", "points-diagonal")),
            mean_face=None if mean_face is None else np.asarray(mean_face, np.float32),
            source=str(data.get("source", "")),
            inferred=bool(data.get("inferred", False)),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}" if not str(error).startswith(where) else str(error)) from None
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{where}: a field does not have the format of a scheme file ({error})") from error


def scheme_names() -> list[str]:
    """Names of the packaged schemes."""
    folder = resources.files("fewmark") / "landmarks/schemes"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_scheme(name_or_path: str | Path) -> LandmarkScheme:
    """Load a packaged scheme by name, or your own scheme from a file.

    Raises:
        InputError: There is no such scheme, or the file is not a valid scheme.

    >>> load_scheme("ibug-68").n_landmarks
    68
    """
    text_name = str(name_or_path)
    if text_name in scheme_names():
        text = (resources.files("fewmark") / "landmarks/schemes" / f"{text_name}.toml").read_text(encoding="utf-8")
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise InputError(
                f"scheme {text_name!r}: no packaged scheme or file of that name{_meant(path)}; packaged schemes: {', '.join(scheme_names())}"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a TOML scheme file ({error})") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{text_name}: not a TOML file ({error})") from error
    return scheme_from_dict(data, text_name)


def _meant(path: Path) -> str:
    """What may have been meant by a scheme that is not there: a file without its suffix, or a packaged name."""
    file = path.with_name(f"{path.name}.toml")
    near = [str(file)] if file.is_file() else get_close_matches(path.name, scheme_names(), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def scheme_to_toml(scheme: LandmarkScheme) -> str:
    """Format a scheme as a scheme file; `load_scheme` reads it back."""

    def plain(values: Iterable[object]) -> str:
        texts = [json.dumps(v, ensure_ascii=False) for v in values]
        return "[\n" + textwrap.fill(", ".join(texts), 110, initial_indent="    ", subsequent_indent="    ") + ",\n]"

    data = scheme.to_dict()
    lines = [
        f"{k} = {json.dumps(data[k], ensure_ascii=False)}" for k in ("name", "source", "inferred", "default_normalizer")
    ]
    lines += [f"\nlandmarks = {plain(data['landmarks'])}"]
    for field_name, note in (
        ("mirror", "index of each landmark's mirror image"),
        ("edges", "lines to draw"),
        ("mean_face", "the longer side of the tight box spans 0 to 1, the shorter is centred"),
    ):
        if data.get(field_name):
            lines += [f"\n# {note}\n{field_name} = {plain(data[field_name])}"]
    for section in ("components", "normalizers"):
        if data[section]:
            lines += [f"\n[{section}]"]
        for name, value in data[section].items():
            key = name if re.fullmatch(r"[\w-]+", name, re.ASCII) else json.dumps(name, ensure_ascii=False)
            text = (
                plain(value)
                if isinstance(value, list)
                else ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items())
            )
            lines += [f"{key} = {text}" if isinstance(value, list) else f"{key} = {{ {text} }}"]
    return "\n".join(lines) + "\n"
