"""Trace a model's students to an ONNX graph, from the crop's bytes to the landmarks."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.core.install import install_hint
from fewmark.core.version import __version__
from fewmark.data.crops import CropRule, cut
from fewmark.data.synthetic.faces import render_faces
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.landmarks.scheme import load_scheme
from fewmark.models.codec import HeatmapCodec, average_heatmaps
from fewmark.models.ensemble import Ensemble, average_with_flipped
from fewmark.models.normalization import MEAN, STD

if TYPE_CHECKING:
    import onnx

OPSET = 17


class WholeNetwork(nn.Module):
    """From a crop's bytes to its landmarks, as `to_tensor` and `Ensemble.predict` together.

    Args:
        students: The networks.
        codecs: One per student.
        mirror: See `Ensemble`.
        teacher: See `Ensemble`.
        bias: See `Ensemble`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        students: Sequence[nn.Module],
        codecs: Sequence[HeatmapCodec],
        mirror: Sequence[int] | None,
        teacher: nn.Module | None,
        bias: NDArray[np.float64] | None,
    ) -> None:
        super().__init__()
        self.ensemble = Ensemble(students, codecs, mirror, teacher, bias)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, crops: Tensor, flip: Tensor | None = None) -> tuple[Tensor, ...]:
        """Run the crops, and with `flip` the flipped crops in the same batch.

        Args:
            crops: (B, H, W, 3) uint8 RGB.
            flip: () bool; None if the scheme has no mirror.

        Returns:
            Landmarks (B, K, 2) crop px, scores (B, K), and quality (B,) if there is a teacher.
        """
        mean, std = self.mean, self.std
        images = _normalised(crops, mean, std) if flip is None else _views(crops, flip, mean, std)
        maps = self.ensemble.heatmaps(images)
        if flip is not None:
            mirror = torch.tensor(self.ensemble.mirror)
            maps = [_mean_of_views(m, mirror, flip) for m in maps]
        landmarks = self.ensemble.decode(maps)
        heatmaps = average_heatmaps(maps)
        quality = self.ensemble.predict_quality(images[: crops.shape[0]], heatmaps)
        scores = self.ensemble.codec.decode(heatmaps)[1]
        return (landmarks, scores) if quality is None else (landmarks, scores, quality)


@torch.jit.script
def _normalised(crops: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W)."""
    images: Tensor = (crops.permute(0, 3, 1, 2).float() - mean) / std
    return images


@torch.jit.script  # a branch of the graph: without flip there is no cost, not even a copy
def _views(crops: Tensor, flip: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (2B, 3, H, W), the flipped ones last; without flip (B, 3, H, W)."""
    if bool(flip):
        images: Tensor = _normalised(crops, mean, std)
        return torch.cat([images, images.flip(-1)])
    else:  # TorchScript needs the else
        plain: Tensor = _normalised(crops, mean, std)
        return plain


@torch.jit.script
def _mean_of_views(maps: Tensor, mirror: Tensor, flip: Tensor) -> Tensor:
    """(2B, K, h, w) of `_views` -> (B, K, h, w)."""
    if bool(flip):
        n = maps.shape[0] // 2
        return average_with_flipped(maps[:n], maps[n:], mirror)
    else:
        return maps


def trace_onnx(checkpoint: Checkpoint, *, flip: bool) -> onnx.ModelProto:
    """Trace a checkpoint's students to an ONNX graph, with the weights under their own names.

    Batch norms stay separate from convolutions, as in the model file: ONNX Runtime fuses them when it loads the graph.

    Args:
        checkpoint: With students, not a cascade.
        flip: Default of the graph's input `flip`.

    Raises:
        InputError: onnx is not installed.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise InputError(f"an export needs onnx and onnxruntime: {install_hint('onnx', 'onnxruntime')}") from error
    scheme = checkpoint.scheme
    students = checkpoint.students
    teacher = None if checkpoint.teacher is None else checkpoint.teacher.module
    codecs = [s.codec for s in students]
    network = WholeNetwork([s.module for s in students], codecs, scheme.mirror, teacher, checkpoint.bias_px)
    network.eval().requires_grad_(False)
    crops = torch.from_numpy(synthetic_crops(2, checkpoint.crop))
    inputs = {"crops": crops} if scheme.mirror is None else {"crops": crops, "flip": torch.tensor(True)}
    k = scheme.n_landmarks
    outputs: dict[str, list[str | int]] = {"landmarks": ["batch", k, 2], "scores": ["batch", k]}
    if teacher is not None:
        outputs["quality"] = ["batch"]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        file = Path(folder) / "traced.onnx"
        # the exporter is deprecated, and it warns that sizes of crops and maps become constants: they are
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            file,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in ("crops", *outputs)},
            opset_version=OPSET,
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        model = onnx.load(file)
    model.producer_name, model.producer_version = "fewmark", __version__
    model.doc_string = (
        f"fewmark: {scheme.n_landmarks} landmarks of {scheme.name}; {checkpoint.licence or 'licence not stated'}"
    )
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in outputs.items())
    if "flip" in inputs:  # an input with an initial value may be left out
        model.graph.initializer.append(numpy_helper.from_array(np.array(flip), "flip"))
    return model


def store_halves(model: onnx.ModelProto) -> None:
    """Store weights that float16 represents exactly as float16, like `save_checkpoint(half=True)`: half the size, the same values."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        with np.errstate(over="ignore"):
            small = values.astype(np.float16)
        if np.array_equal(small.astype(np.float32), values):
            casts.append(helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(small, f"{tensor.name}.half"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def share_with(model: onnx.ModelProto, weights: Path) -> None:
    """Replace the tensors in a graph that a .safetensors file holds by references to that file.

    Source: onnx.proto, TensorProto.external_data; the safetensors format: 8 bytes of length, a JSON header, the data.
    """
    from onnx import TensorProto, numpy_helper

    raw = weights.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    for tensor in model.graph.initializer:
        entry = header.get(_name_in_file(tensor.name))
        if entry is None:
            continue
        first, last = (start + offset for offset in entry["data_offsets"])
        if raw[first:last] != numpy_helper.to_array(tensor).tobytes():
            continue  # stored in another type
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": weights.name, "offset": first, "length": last - first}.items():
            tensor.external_data.add(key=key, value=str(value))


def _name_in_file(name: str) -> str:
    """ensemble.students.0.stem.0.weight.half -> student0.stem.0.weight"""
    return name.removeprefix("ensemble.").removesuffix(".half").replace("students.", "student", 1)


def synthetic_crops(n: int, rule: CropRule) -> NDArray[np.uint8]:
    """Cut crops of n synthetic faces: (n, H, W, 3)."""
    faces = render_faces(n, load_scheme("ibug-68"), seed=0)
    return np.stack([cut(f.image, rule.crop_from_image(f.box), rule.size) for f in faces])
