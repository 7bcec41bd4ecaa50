"""Descriptions of models, transfers and label files, as facts to print and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewmark.core.errors import InputError, data_warnings
from fewmark.core.text import count, percent
from fewmark.data.formats.check import find_problems, group_problems
from fewmark.data.formats.io import read_faces
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.metadata import packaged_names, read_metadata, resolve_model
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.landmarks.transfer import SchemeTransfer

Facts = list[tuple[str, str]]
"""Names and values, in the order in which they are printed."""

_BOXES = {"gt": "true boxes", "detect": "detected boxes", "column": "the data's boxes"}


def describe_model(metadata: Mapping[str, Any]) -> Facts:
    """Describe a model by its metadata; see `read_metadata`."""
    scheme, crop = metadata["scheme"], metadata["crop"]
    facts: Facts = [
        ("scheme", f"{scheme['name']}, {len(scheme['landmarks'])} landmarks"),
        ("crop", f"{crop['size']} px, margin {crop['margin']:g}"),
    ]
    for s in metadata["students"]:
        size = f"{s['n_parameters'] / 1e6:.2f} M parameters, stride {s['codec']['stride']}"
        name = "" if s["name"] == s["architecture"] else f"{s['name']}: "
        facts.append(("student", f"{name}{s['architecture']}, {size}"))
    cascade = metadata.get("cascade")  # older files have no such field
    if cascade is None:
        teacher = metadata["teacher"]
        facts.append(("teacher", "none" if teacher is None else _arguments(teacher["arguments"])))
    else:
        facts += _stages(cascade)
    for a in metadata["accuracy"]:
        faces = f"{a.get('n_faces', '?')} {a.get('data', '?')} faces, {_BOXES.get(a.get('box'), '? boxes')}"
        facts.append(("accuracy", f"NME {percent(a.get('nme'))} by {a.get('normalizer', '?')} ({faces})"))
        after = [f"after {stage} {percent(value)}" for stage, value in a.get("stages", {}).items()]
        if after:
            facts.append(("", ", ".join(after)))
    if (bias := metadata.get("lateral_bias")) is not None:
        right = 100 * float(np.mean([x for x, _ in bias]))
        side = "right" if right >= 0 else "left"
        facts.append(("horizontal label bias", f"{abs(right):.2f} % of the face box to the {side}, as in its labels"))
    for t in metadata.get("transfers", []):
        expected = _expected(t["expected_error"], t["normalizer"], t["n_pairs"], t["ridge"])
        facts.append(
            ("transfer", f"to {t['target']['name']}: expected error {expected}; licence {t['licence'] or 'not stated'}")
        )
    if (export := metadata.get("export")) is not None:
        facts += _exported(export)
    counts = ", ".join(f"{n} {kind}" for kind, n in metadata["counts"].items()).replace("pseudo", "pseudo-labelled")
    facts += [
        ("trained on", f"{counts} faces" if counts else "not stated"),
        ("provenance", metadata["provenance"] or "not stated"),
        ("licence", metadata["licence"] or "not stated"),
        ("seed", str(metadata["seed"])),
        ("data hash", metadata["data_hash"] or "not stated"),
        ("written by", f"fewmark {metadata['package_version']}, format {metadata['format_version']}"),
    ]
    return facts


def list_packaged() -> list[dict[str, Any]]:
    """List the packaged models, as plain data."""
    found = []
    for name in packaged_names():
        path = resolve_model(name)
        data = read_metadata(path)
        parts = data["students"] or data.get("cascade") or []
        found.append(
            {
                "name": name,
                "scheme": data["scheme"]["name"],
                "n_landmarks": len(data["scheme"]["landmarks"]),
                "n_parameters": sum(part["n_parameters"] for part in parts),
                "n_bytes": path.stat().st_size,
                "accuracy": data["accuracy"],
                "licence": data["licence"],
            }
        )
    return found


def describe_transfer(transfer: SchemeTransfer) -> Facts:
    """Describe a transfer between schemes."""
    source, target = transfer.source, transfer.target
    parts = [f"{name} {_error(e)}" for name, e in transfer.expected_error_per_component.items()]
    return [
        (
            "transfer",
            f"{source.name}, {source.n_landmarks} landmarks, to {target.name}, {target.n_landmarks} landmarks",
        ),
        ("expected error", _expected(transfer.expected_error, transfer.normalizer, transfer.n_pairs, transfer.ridge)),
        ("by component", ", ".join(parts) or "the target scheme has none"),
        ("provenance", transfer.provenance or "not stated"),
        ("licence", transfer.licence or "not stated"),
    ]


def _exported(export: Mapping[str, Any]) -> Facts:
    """Facts of an ONNX file beyond the model's own."""
    flip = "on" if export["flip"] else "off"
    shared = "" if export["weights"] is None else f", weights in {export['weights']}"
    facts = [("exported", f"flip averaging {flip}, within {export['parity_px']:.2g} px of torch{shared}")]
    if (int8 := export["int8"]) is not None:
        before, after = _error(int8["nme_float"]), _error(int8["nme"])
        facts.append(("int8", f"NME {before} -> {after} by {int8['normalizer']} ({int8['n_faces']} faces, true boxes)"))
    return facts


def _expected(error: float | None, normalizer: str, n_pairs: int, ridge: float) -> str:
    return f"{_error(error)} by {normalizer}, held-out faces of {n_pairs} pairs, ridge {ridge:g}"


def _error(error: float | None) -> str:
    return percent(error, missing="not known")


def describe_labels(
    path: str | Path, scheme: LandmarkScheme | None = None, missing: int | None = None
) -> tuple[dict[str, Any], Facts, list[str]]:
    """Describe a label file or folder.

    Returns:
        Plain data; facts; and the data's findings for people, with equal ones together.

    Raises:
        InputError: It cannot be read as labels.
    """
    with data_warnings() as told:
        samples, refused = _read_labels(path, scheme, missing)
    problems = find_problems(samples, scheme)
    labelled = [s.landmarks for s in samples if s.landmarks is not None]
    counts = sorted({len(p) for p in labelled})
    missing = sum(int(np.isnan(p).any(1).sum()) for p in labelled)
    occluded = sum(int(s.occluded.sum()) for s in samples if s.occluded is not None)
    data: dict[str, Any] = {
        "n_faces": len(samples),
        "n_pictures": len({s.image for s in samples}),
        "n_labelled": len(labelled),
        "n_with_box": sum(s.box is not None for s in samples),
        "n_groups": len({s.group for s in samples if s.group}),
        "n_landmarks": counts[0] if len(counts) == 1 else counts,
        "n_missing": missing,
        "n_occluded": occluded,
        "findings": [*refused, *told, *(p.text for p in problems)],
    }
    facts: Facts = [
        ("faces", f"{len(samples)} in {data['n_pictures']} images"),
        ("labelled", f"{len(labelled)}, with {' or '.join(map(str, counts)) or 'no'} landmarks"),
        ("missing", f"{missing} landmarks"),
        ("occluded", f"{occluded} landmarks"),
        ("boxes", str(data["n_with_box"])),
        ("groups", str(data["n_groups"])),
        ("findings", str(len(data["findings"])) if data["findings"] else "none"),
    ]
    return data, facts, [*refused, *told, *group_problems(problems)]


def _read_labels(
    path: str | Path, scheme: LandmarkScheme | None, missing: int | None
) -> tuple[list[FaceSample], list[str]]:
    """The faces, and why they are none of the scheme."""
    try:
        return read_faces(path, scheme=scheme, missing=missing, strict=False), []
    except InputError as error:
        if scheme is None:
            raise
        try:
            return read_faces(path, missing=missing, strict=False), [str(error)]
        except InputError:
            raise error from None


def _stages(cascade: Sequence[Mapping[str, Any]]) -> Facts:
    """Describe a cascade's stages: their networks, and the cost per face of each and of all together."""
    facts: Facts = []
    for stage in cascade:
        kind = stage["kind"]
        if kind == "coarse":
            parts = stage["parts"]
            landmarks = " and ".join(f"{len(p['landmarks'])} landmarks" for p in parts)
            networks = f"{count(len(parts), 'network')} for {landmarks}, crop {stage['size']} px"
        elif kind == "component":
            names = ", ".join(stage["networks"])
            networks = f"{count(len(stage['networks']), 'network')} ({names}), crop {stage['size']} px"
        elif kind == "point":
            arguments = stage["network"]["arguments"]
            n = arguments["n_points"] * len(arguments["neighbours"])
            near = ", ".join(map(str, stage["neighbours"]))
            networks = (
                f"{n} networks for {arguments['n_points']} landmarks and their {near} nearest, patch {stage['size']} px"
            )
        else:
            networks = f"1 network, crop {stage['size']} px"
        facts.append(("stage", f"{kind}: {networks}; {_cost(stage['n_parameters'], stage['n_multiply_adds'])}"))
    total = _cost(sum(s["n_parameters"] for s in cascade), sum(s["n_multiply_adds"] for s in cascade))
    return [*facts, ("per face", f"all stages, one view: {total}")]


def _cost(n_parameters: int, n_multiply_adds: int) -> str:
    return f"{n_parameters / 1e6:.2f} M parameters, {n_multiply_adds / 1e6:.1f} M multiply-adds"


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{len(v)} {k}" if isinstance(v, list) else f"{k} {v}" for k, v in arguments.items())
