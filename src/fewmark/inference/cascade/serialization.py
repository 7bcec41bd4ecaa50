"""Convert a cascade to and from the plain data and tensors of a model file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.inference.cascade.angle import AngleStage
from fewmark.inference.cascade.coarse import CoarseStage
from fewmark.inference.cascade.component import ComponentStage
from fewmark.inference.cascade.networks import NetworkPart
from fewmark.inference.cascade.pipeline import Cascade
from fewmark.inference.cascade.point import PointStage
from fewmark.inference.cascade.state import STAGE_ORDER, Stage, check_order
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.build import load_weights

StoredStage = AngleStage | CoarseStage | ComponentStage | PointStage


def cascade_to_data(cascade: Cascade) -> list[dict[str, Any]]:
    """Convert to plain data: one entry per stage, its `kind` first.

    Raises:
        InputError: A stage is none of the four that can be stored, or their order is impossible.
    """
    check_order([s.name for s in cascade.stages])
    return [{"kind": stage.name, **_stored(stage).to_dict()} for stage in cascade.stages]


def cascade_modules(cascade: Cascade) -> dict[str, nn.Module]:
    """The networks of all stages: STAGE.NETWORK, the prefix of their tensors' names -> network."""
    return {f"{s.name}.{name}": m for s in cascade.stages for name, m in _stored(s).modules.items()}


def cascade_from_data(
    data: Sequence[Mapping[str, Any]], scheme: LandmarkScheme, tensors: Mapping[str, Tensor], prefix: str
) -> Cascade:
    """Build a cascade with its weights, on the CPU and in evaluation mode.

    Args:
        data: Result of `cascade_to_data`.
        scheme: Scheme of all stages.
        tensors: Tensors of a model file; the cascade's are named PREFIX.STAGE.NETWORK....
        prefix: See tensors.

    Raises:
        InputError: A kind is unknown, the order is impossible, a stage is of another scheme, or a tensor is missing, superfluous or
            of another shape.
    """
    kinds = [str(entry["kind"]) for entry in data]
    unknown = [k for k in kinds if k not in STAGE_ORDER]
    if unknown:
        raise InputError(f"cascade: unknown kind of stage {unknown[0]!r}; expected some of {', '.join(STAGE_ORDER)}")
    try:
        check_order(kinds)
    except InputError as error:
        raise InputError(f"cascade: stages: {error}") from None
    cascade = Cascade(tuple(_stage(kind, entry, scheme) for kind, entry in zip(kinds, data, strict=True)))
    modules = cascade_modules(cascade)
    for name, module in modules.items():
        load_weights(module, tensors, f"{prefix}.{name}")
    known = tuple(f"{prefix}.{name}." for name in modules)
    odd = sorted(n for n in tensors if n.startswith(f"{prefix}.") and not n.startswith(known))
    if odd:
        raise InputError(f"tensor {odd[0]}: belongs to no stage of the cascade ({len(odd)} such tensors)")
    return cascade


def _stored(stage: Stage) -> StoredStage:
    if not isinstance(stage, StoredStage):
        raise InputError(f"cascade: stage {stage.name} ({type(stage).__name__}) has no networks that a file could hold")
    return stage


def _stage(kind: str, data: Mapping[str, Any], scheme: LandmarkScheme) -> StoredStage:
    """Build a stage with new weights, and check the numbers of landmarks that its networks predict."""
    if kind == "angle":
        return AngleStage.from_dict(data, scheme)
    if kind == "coarse":
        coarse = CoarseStage.from_dict(data, scheme)
        for part in coarse.parts:
            _check_count(kind, part.network, "n_landmarks", len(part.landmarks), scheme)
        return coarse
    if kind == "component":
        component = ComponentStage.from_dict(data, scheme)
        for name, network in component.networks.items():
            _check_count(f"{kind} {name}", network, "n_landmarks", len(scheme.components[name]), scheme)
        return component
    point = PointStage.from_dict(data, scheme)
    _check_count(kind, point.network, "n_points", len(point.layout.points), scheme)
    return point


def _check_count(stage: str, network: NetworkPart, what: str, expected: int, scheme: LandmarkScheme) -> None:
    given = network.arguments[what]
    if given != expected:
        raise InputError(
            f"cascade: {stage} stage: expected a network for {expected} landmarks of {scheme.name}, given one for {given}; "
            "it was trained for another scheme"
        )
