"""A model file -> one ONNX file with everything from the crop's bytes to the landmarks inside: what `fewmark export` does."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path
from fewmark.core.version import __version__
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.checkpoint.exported import TENSORS_KEY, file_hash
from fewmark.inference.checkpoint.io import Checkpoint, load_checkpoint
from fewmark.inference.checkpoint.metadata import METADATA_KEY, resolve_model
from fewmark.inference.checkpoint.transfers import matrix_name
from fewmark.inference.detector import Detector
from fewmark.inference.export.graph import share_with, store_halves, synthetic_crops, trace_onnx
from fewmark.inference.export.quantization import labelled_crops, quantize
from fewmark.inference.labelled import predict_samples
from fewmark.inference.predictor_onnx import make_session
from fewmark.inference.predictor_torch import TorchPredictor
from fewmark.landmarks.metrics import score

if TYPE_CHECKING:
    import onnx

PARITY = 0.01
"""Crop px by which an exported landmark may differ from torch's."""
INT8_COST = 0.02
"""Part of the NME that int8 may cost."""
_SCORE_PARITY = 1e-3  # of the larger of 1 and the score, or the quality
_BATCHES = (1, 7)  # synthetic faces, in batches of one size and of another


@dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        path: the file.
        n_bytes: its size.
        flip: whether it averages with the flipped crop unless it is told otherwise.
        parity_px: the largest difference between its landmarks and torch's along an axis, before int8; crop px.
        int8: None, or the faces' number `n_faces`, their `nme` and that before it, `nme_float` (fractions), and `normalizer`.
    """

    path: Path
    n_bytes: int
    flip: bool
    parity_px: float
    int8: dict[str, Any] | None


def export_onnx(
    model: str | Path,
    path: str | Path,
    *,
    flip: bool | None = None,
    share_weights: bool = False,
    int8_faces: Sequence[FaceSample] | None = None,
) -> Export:
    """Write a model as an .onnx file, after its answers were compared with torch's on synthetic faces.

    Input `crops` (B, H, W, 3) uint8 RGB as the crop rule cuts them; where the scheme has a mirror also `flip`, a truth value
    that may be left out. Outputs `landmarks` (B, K, 2) crop px, `scores` (B, K) and, of a model with a teacher, `quality` (B,).
    The model's metadata is in the file.

    Args:
        model: a .safetensors file or a packaged name.
        path: ends in .onnx.
        flip: the value of `flip` where none is given; None: as the model asks.
        share_weights: leave the weights in the model's file, beside which `path` must lie; it then holds the graph alone.
        int8_faces: labelled faces in the model's scheme; the convolutions then multiply 8-bit numbers, whose ranges are taken
            from these faces, if that costs them at most `INT8_COST` of their NME.

    Raises:
        InputError: a cascade, another ending, onnx or onnxruntime is missing, a landmark differs by more than `PARITY` or int8
            costs more (nothing is written then), `path` lies elsewhere than the weights that it shares, or it cannot be
            written.
    """
    path, source = Path(path), resolve_model(model)
    if path.suffix != ".onnx":
        raise InputError(f"{path}: expected a file name that ends in .onnx")
    if share_weights and path.absolute().parent.resolve() != source.absolute().parent.resolve():
        raise InputError(f"{path}: expected a file beside {source}, whose weights it shares")
    if share_weights and int8_faces is not None:
        raise InputError(f"{path}: int8 weights are its own; leave out --share-weights or --int8")
    checkpoint = load_checkpoint(source)
    if checkpoint.cascade is not None:
        raise InputError(
            f"{model}: expected a model of students, given a cascade: its stages cut crops between their networks, which one "
            "ONNX graph cannot; run it by torch"
        )
    flip = checkpoint.scheme.mirror is not None and (checkpoint.flip if flip is None else flip)
    graph = trace_onnx(checkpoint, flip=flip)
    parity_px = _parity(graph, path, checkpoint)
    about: dict[str, Any] = {
        "flip": flip,
        "source": file_hash(source),
        "weights": source.name if share_weights else None,
        "package_version": __version__,
        "torch": torch.__version__,
        "parity_px": parity_px,
        "int8": None,
    }
    if int8_faces is not None:
        small = quantize(graph, labelled_crops(int8_faces, checkpoint.crop))
        about["int8"] = _int8_cost(path, checkpoint, {"float": graph, "int8": small}, about, int8_faces)
        graph = small
    store_halves(graph)
    if share_weights:
        share_with(graph, source)
    _describe(graph, checkpoint, about)
    with atomic_path(path) as temporary:
        temporary.write_bytes(graph.SerializeToString())
    return Export(path, path.stat().st_size, flip, parity_px, about["int8"])


def _describe(graph: onnx.ModelProto, checkpoint: Checkpoint, about: dict[str, Any]) -> None:
    """Put the model's metadata and transfers into its graph."""
    data = {**checkpoint.to_metadata(), "export": about}
    properties = {METADATA_KEY: json.dumps(data, ensure_ascii=False, allow_nan=False)}
    if checkpoint.transfers:
        raw = safetensors.numpy.save({matrix_name(i): t.matrix for i, t in enumerate(checkpoint.transfers)})
        properties[TENSORS_KEY] = base64.b64encode(raw).decode()
    del graph.metadata_props[:]
    for key, value in properties.items():
        graph.metadata_props.add(key=key, value=value)


def _parity(graph: onnx.ModelProto, path: Path, checkpoint: Checkpoint) -> float:
    """The largest difference between what ONNX Runtime and torch say of synthetic faces, crop px.

    Raises:
        InputError: it is too large, or that of the scores or the quality is, or onnxruntime is missing.
    """
    session = make_session(graph.SerializeToString(), path, None)
    locator = TorchPredictor(checkpoint)
    mirrored = checkpoint.scheme.mirror is not None
    names = ["landmarks", "scores"] + ([] if checkpoint.teacher is None else ["quality"])
    px, sure = 0.0, 0.0
    for crops in np.split(synthetic_crops(sum(_BATCHES), checkpoint.crop), np.cumsum(_BATCHES)[:-1]):
        for flip in (False, True) if mirrored else (False,):
            feed: dict[str, NDArray[Any]] = {"crops": crops} | ({"flip": np.array(flip)} if mirrored else {})
            landmarks, *said = session.run(names, feed)
            true = locator.predict_crops(crops, flip=flip)
            px = float(np.maximum(px, np.abs(landmarks - true.landmarks).max()))  # NaN stays NaN
            for name, values in zip(names[1:], said, strict=True):
                expected = getattr(true, name)
                sure = float(np.maximum(sure, (np.abs(values - expected) / np.maximum(1, np.abs(expected))).max()))
    if not (px <= PARITY and sure <= _SCORE_PARITY):
        decodings = ", ".join(sorted({s.codec.decoding for s in checkpoint.students}))
        raise InputError(
            f"{path}: not written: on synthetic faces its landmarks differ from torch's by up to {px:.3g} px, its scores or quality by {sure:.3g}; "
            f"expected at most {PARITY} px and {_SCORE_PARITY}. The model decodes by {decodings}; run it by torch"
        )
    return px


def _int8_cost(
    path: Path,
    checkpoint: Checkpoint,
    graphs: dict[str, onnx.ModelProto],
    about: dict[str, Any],
    faces: Sequence[FaceSample],
) -> dict[str, Any]:
    """The NME of labelled faces by the graph and by the quantized one.

    Raises:
        InputError: the second is larger than it may be.
    """
    truth = stack_landmarks(faces)
    boxes = np.stack([s.face_box() for s in faces])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in graphs.items():
            _describe(graph, checkpoint, about)
            file = Path(folder) / f"{name}.onnx"
            file.write_bytes(graph.SerializeToString())
            landmarks = predict_samples(Detector.load(file), faces).landmarks
            found[name] = score(landmarks, truth, checkpoint.scheme, boxes=boxes)
    before, after = found["float"].nme, found["int8"].nme
    if not after <= before * (1 + INT8_COST):
        raise InputError(
            f"{path}: not written: int8 raises the NME of {len(faces)} faces from {100 * before:.2f} % to {100 * after:.2f} %, by "
            f"{after / before - 1:.1%} of it; expected at most {INT8_COST:.0%}: leave out --int8"
        )
    return {"n_faces": len(faces), "nme": after, "nme_float": before, "normalizer": found["int8"].normalizer}
