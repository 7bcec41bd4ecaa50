"""Checkpoint: a model and its provenance, as a model file holds them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.json import json_value
from fewmark.core.version import __version__
from fewmark.data.crops import CropRule
from fewmark.inference.checkpoint.metadata import FORMAT_VERSION, require, unknown_scheme
from fewmark.inference.checkpoint.transfers import check_source, load_transfers, transfer_metadata
from fewmark.landmarks.calibration import ErrorCalibration
from fewmark.landmarks.scheme import LandmarkScheme, scheme_from_dict
from fewmark.landmarks.transfer import SchemeTransfer
from fewmark.models.normalization import MEAN, STD

if TYPE_CHECKING:
    from torch import nn

    from fewmark.inference.cascade.pipeline import Cascade
    from fewmark.models.codec import HeatmapCodec


@dataclass(frozen=True, eq=False)
class StudentPart:
    """A network that predicts landmarks.

    Attributes:
        name: Name in metrics.
        architecture: Name for `build_model`.
        arguments: Arguments of its constructor.
        codec: Converts between its heatmaps and landmarks.
        module: The network.
    """

    name: str
    architecture: str
    arguments: dict[str, Any]
    codec: HeatmapCodec
    module: nn.Module


@dataclass(frozen=True, eq=False)
class TeacherPart:
    """The network that estimates the quality of predicted landmarks; see `StudentPart`."""

    architecture: str
    arguments: dict[str, Any]
    module: nn.Module


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model and its provenance: a value, changed by `dataclasses.replace`.

    Attributes:
        scheme: Annotation scheme of the landmarks.
        students: The networks; [] for a cascade, and for an exported model, whose ONNX graph holds them.
        crop: Part of the image that the networks see; for a cascade, its coarse stage.
        teacher: Estimates the quality of the students' predictions, or None.
        cascade: Predicts the landmarks in place of students, or None.
        box_from_detector: Maps the packaged face detector's boxes to boxes as in training, see
            `fewmark.inference.face_detection.base.fit_box_adapter`; None: boxes are taken as they are.
        flip: Whether predictions are averaged with those from the flipped crop, unless the caller chooses.
        accuracy: One entry per evaluated list: `data`, `nme`, `auc`, `failure_rate` (fractions), `normalizer`, `n_faces`, `box`.
        counts: Numbers of training faces: `labelled`, `pseudo`, `unlabelled`; lower bounds for a model that started from another.
        seed: Seed of the training run.
        config: Resolved settings of the training run.
        data_hash: Hash of the training data.
        licence: Licence of the model.
        provenance: Training data of the model.
        transfers: Transfers to other schemes, one per target scheme.
        calibration: Expected error per score, or None.
        label_bias: (K, 2) horizontal offset of the labels from the networks' predictions, as a fraction of the face box's longer
            side, see `fewmark.landmarks.label_bias`; it is added to predictions. None: no correction.
        package_version: Version of fewmark that wrote the model.
    """

    scheme: LandmarkScheme
    students: list[StudentPart]
    crop: CropRule
    teacher: TeacherPart | None = None
    cascade: Cascade | None = None
    box_from_detector: tuple[float, float, float] | None = None
    flip: bool = True
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seed: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    data_hash: str = ""
    licence: str = ""
    provenance: str = ""
    transfers: tuple[SchemeTransfer, ...] = ()
    calibration: ErrorCalibration | None = None
    label_bias: NDArray[np.float64] | None = None
    package_version: str = __version__

    @property
    def bias_px(self) -> NDArray[np.float64] | None:
        """(K, 2) the horizontal label bias in crop px, or None."""
        return None if self.label_bias is None else self.label_bias * self.crop.box_side

    def transfer_to(self, scheme: str | None) -> SchemeTransfer | None:
        """The transfer to a scheme; None for the model's own scheme and for None.

        Raises:
            InputError: The model has no such transfer; the message lists those it has.
        """
        if scheme is None or scheme == self.scheme.name:
            return None
        targets = {t.target.name: t for t in self.transfers}
        if scheme not in targets:
            raise unknown_scheme(scheme, self.scheme.name, list(targets), "this model")
        return targets[scheme]

    def scheme_of(self, name: str | None) -> LandmarkScheme:
        """The scheme of a name that the model can answer in; its own for None.

        Raises:
            InputError: See `transfer_to`.
        """
        transfer = self.transfer_to(name)
        return self.scheme if transfer is None else transfer.target

    def to_metadata(self) -> dict[str, Any]:
        """Plain data for JSON, without the tensors; `read_metadata` returns it."""
        cascade: list[dict[str, Any]] | None = None
        if self.cascade is not None:
            from fewmark.inference.cascade.serialization import cascade_to_data

            cascade = cascade_to_data(self.cascade)
        data: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "package_version": self.package_version,
            "scheme": self.scheme.to_dict(),
            "students": [
                {
                    "name": s.name,
                    "architecture": s.architecture,
                    "arguments": s.arguments,
                    "codec": asdict(s.codec),
                    "n_parameters": sum(p.numel() for p in s.module.parameters()),
                }
                for s in self.students
            ],
            "teacher": None
            if self.teacher is None
            else {"architecture": self.teacher.architecture, "arguments": self.teacher.arguments},
            "cascade": cascade,
            "crop": asdict(self.crop),
            "mean": list(MEAN),
            "std": list(STD),
            "box_from_detector": self.box_from_detector,
            "flip": self.flip,
            "accuracy": self.accuracy,
            "counts": self.counts,
            "seed": self.seed,
            "config": self.config,
            "data_hash": self.data_hash,
            "licence": self.licence,
            "provenance": self.provenance,
            "transfers": [transfer_metadata(t) for t in self.transfers],
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "lateral_bias": self.label_bias,
        }
        plain = json_value(data)
        assert isinstance(plain, dict)
        return plain


def checkpoint_from_metadata(data: Mapping[str, Any], matrices: Mapping[str, NDArray[Any]], where: str) -> Checkpoint:
    """Build a checkpoint without its networks.

    Args:
        data: Result of `read_metadata`.
        matrices: Name -> tensor; at least those of the transfers.
        where: The file, for messages.

    Raises:
        InputError: A field or tensor is missing or does not fit.
    """
    if list(require(data, "mean", where)) != list(MEAN) or list(require(data, "std", where)) != list(STD):
        raise InputError(f"{where}: mean, std: expected {MEAN} and {STD}, given {data['mean']} and {data['std']}")
    scheme = scheme_from_dict(require(data, "scheme", where), f"{where}: scheme")
    calibration: ErrorCalibration | None = None
    label_bias: NDArray[np.float64] | None = None
    box_from_detector = require(data, "box_from_detector", where)
    try:
        crop = CropRule(**require(data, "crop", where))
        if (e := data.get("calibration")) is not None:  # older files have no such field
            calibration = ErrorCalibration.from_dict(e, scheme.n_landmarks)
        if (b := data.get("lateral_bias")) is not None:
            label_bias = np.asarray(b, np.float64)
            if label_bias.shape != (scheme.n_landmarks, 2) or not np.isfinite(label_bias).all():
                given = f"shape {label_bias.shape} or numbers that are not finite"
                raise InputError(f"lateral_bias: expected {scheme.n_landmarks} pairs of numbers, given {given}")
        if box_from_detector is not None:
            dx, dy, scale = (float(v) for v in box_from_detector)
            box_from_detector = (dx, dy, scale)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{where}: a field of the metadata is missing or wrong ({error!r})") from error
    transfers = load_transfers(data, matrices, where)
    for transfer in transfers:
        check_source(scheme, transfer.source, transfer.target, where)
    return Checkpoint(
        scheme=scheme,
        students=[],
        crop=crop,
        box_from_detector=box_from_detector,
        flip=bool(data.get("flip", _flip_in_config(data))),
        transfers=tuple(transfers),
        calibration=calibration,
        label_bias=label_bias,
        **{name: require(data, name, where) for name in _PLAIN_FIELDS},
    )


def _flip_in_config(data: Mapping[str, Any]) -> bool:
    """`flip` of files written before it was a field of its own."""
    model = data.get("config", {}).get("model", {})
    return bool(model.get("flip", True))


_PLAIN_FIELDS = ("accuracy", "counts", "seed", "config", "data_hash", "licence", "provenance", "package_version")
