"""Export a model file to one ONNX file, from the crop's bytes to the landmarks, as `fewmark export` does."""

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
from fewmark.core.files import atomic_path, check_outputs
from fewmark.core.version import __version__
from fewmark.data.samples import FaceSample, stack_landmarks
from fewmark.inference.checkpoint.exported import TENSORS_KEY, file_hash
from fewmark.inference.checkpoint.io import Checkpoint, load_checkpoint
from fewmark.inference.checkpoint.metadata import METADATA_KEY, resolve_model
from fewmark.inference.checkpoint.seal import BLANK, KEY, seal
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
"""Largest difference between an exported landmark and torch's, crop px."""
INT8_COST = 0.02
"""Largest increase of NME by int8, as a fraction of it."""
_SCORE_PARITY = 1e-3  # difference of scores and quality, as a fraction of the larger of 1 and the value
_BATCHES = (1, 7)  # sizes of batches of synthetic faces to compare on


@dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        path: The file.
        n_bytes: Its size.
        flip: Default of its input `flip`.
        parity_px: Largest difference between its landmarks and torch's along an axis, before int8; crop px.
        int8: None, or `n_faces`, `nme` by int8 and `nme_float` before (fractions), and `normalizer`.
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
    """Export a model to an .onnx file, after comparing its output with torch's on synthetic faces.

    Inputs: `crops` (B, H, W, 3) uint8 RGB as the crop rule cuts them, and if the scheme has a mirror `flip`, an optional bool.
    Outputs: `landmarks` (B, K, 2) crop px, `scores` (B, K) and, for a model with a teacher, `quality` (B,). The file holds the
    model's metadata.

    Args:
        model: A .safetensors file or a packaged name.
        path: Ends in .onnx.
        flip: Default of the input `flip`; None: as the model asks.
        share_weights: Leave the weights in the model's file, which must be in the same folder as `path`.
        int8_faces: Labelled faces in the model's scheme, to quantize the convolutions to 8 bits: the ranges come from these faces,
            whose NME may rise by at most `INT8_COST`.

    Raises:
        InputError: The model is a cascade, the ending is another, onnx or onnxruntime is missing, a landmark differs by more than
            `PARITY` or int8 costs more (nothing is written then), `path` is in another folder than the shared weights, or it cannot
            be written.
    """
    path, source = Path(path), resolve_model(model)
    if path.suffix != ".onnx":
        raise InputError(f"{path}: expected a file name that ends in .onnx")
    if share_weights and path.absolute().parent.resolve() != source.absolute().parent.resolve():
        raise InputError(f"{path}: expected a file alongside {source}, whose weights it shares")
    if share_weights and int8_faces is not None:
        raise InputError(f"{path}: int8 needs weights of its own; leave out --share-weights or --int8")
    checkpoint = load_checkpoint(source)
    check_outputs([path], [source, *(s.image for s in int8_faces or ())], force=True)
    if checkpoint.cascade is not None:
        raise InputError(
            f"{model}: expected a model of students, given a cascade: its stages cut crops between their networks, which one "
            "ONNX graph cannot; run it by torch"
        )
    flip = checkpoint.scheme.mirror is not None and (checkpoint.flip if flip is None else flip)
    graph = trace_onnx(checkpoint, flip=flip)
    parity_px = _parity(graph, path, checkpoint)
    context: dict[str, Any] = {
        "flip": flip,
        "source": file_hash(source),
        "weights": source.name if share_weights else None,
        "package_version": __version__,
        "torch": torch.__version__,
        "parity_px": parity_px,
        "int8": None,
    }
    if int8_faces is not None:
        small = quantize(graph, labelled_crops(int8_faces, checkpoint))
        context["int8"] = _int8_cost(path, checkpoint, {"float": graph, "int8": small}, context, int8_faces)
        graph = small
    store_halves(graph)
    if share_weights:
        share_with(graph, source)
    _describe(graph, checkpoint, context)
    with atomic_path(path) as temporary:
        temporary.write_bytes(seal(graph.SerializeToString()))
    return Export(path, path.stat().st_size, flip, parity_px, context["int8"])


def _describe(graph: onnx.ModelProto, checkpoint: Checkpoint, context: dict[str, Any]) -> None:
    """Write the model's metadata and transfers into its graph."""
    data = {**checkpoint.to_metadata(), "export": context, KEY: BLANK}
    properties = {METADATA_KEY: json.dumps(data, ensure_ascii=False, allow_nan=False)}
    if checkpoint.transfers:
        raw = safetensors.numpy.save({matrix_name(i): t.matrix for i, t in enumerate(checkpoint.transfers)})
        properties[TENSORS_KEY] = base64.b64encode(raw).decode()
    del graph.metadata_props[:]
    for key, value in properties.items():
        graph.metadata_props.add(key=key, value=value)


def _parity(graph: onnx.ModelProto, path: Path, checkpoint: Checkpoint) -> float:
    """Compare ONNX Runtime with torch on synthetic faces; returns the largest difference of a landmark, crop px.

    Raises:
        InputError: The difference of landmarks, scores or quality is too large, or onnxruntime is missing.
    """
    session = make_session(graph.SerializeToString(), path, None)
    by_torch = TorchPredictor(checkpoint)
    mirrored = checkpoint.scheme.mirror is not None
    names = ["landmarks", "scores"] + ([] if checkpoint.teacher is None else ["quality"])
    px, other = 0.0, 0.0
    for crops in np.split(synthetic_crops(sum(_BATCHES), checkpoint.crop), np.cumsum(_BATCHES)[:-1]):
        for flip in (False, True) if mirrored else (False,):
            feed: dict[str, NDArray[Any]] = {"crops": crops} | ({"flip": np.array(flip)} if mirrored else {})
            landmarks, *rest = session.run(names, feed)
            true = by_torch.predict_crops(crops, flip=flip)
            px = float(np.maximum(px, np.abs(landmarks - true.landmarks).max()))  # NaN stays NaN
            for name, values in zip(names[1:], rest, strict=True):
                expected = getattr(true, name)
                other = float(np.maximum(other, (np.abs(values - expected) / np.maximum(1, np.abs(expected))).max()))
    if not (px <= PARITY and other <= _SCORE_PARITY):
        decodings = ", ".join(sorted({s.codec.decoding for s in checkpoint.students}))
        raise InputError(
            f"{path}: not written: on synthetic faces its landmarks differ from torch's by up to {px:.3g} px, its scores or quality by "
            f"{other:.3g}; "
            f"expected at most {PARITY} px and {_SCORE_PARITY}. The model decodes by {decodings}; run it by torch"
        )
    return px


def _int8_cost(
    path: Path,
    checkpoint: Checkpoint,
    graphs: dict[str, onnx.ModelProto],
    context: dict[str, Any],
    faces: Sequence[FaceSample],
) -> dict[str, Any]:
    """Compare the NME of labelled faces by the graph and by its quantization.

    Raises:
        InputError: The quantization costs more than `INT8_COST`.
    """
    truth = stack_landmarks(faces)
    boxes = np.stack([s.face_box(checkpoint.scheme.mean_face) for s in faces])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in graphs.items():
            _describe(graph, checkpoint, context)
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
