"""Quantize the convolutions of an exported model to 8 bits, by ONNX Runtime's static quantization."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.data.crops import cut
from fewmark.data.images import read_image
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.model import Checkpoint
from fewmark.inference.labelled import labelled_box

if TYPE_CHECKING:
    import onnx

_CALIBRATION_FACES = 200  # more do not change the ranges
_BATCH = 8


def labelled_crops(samples: Sequence[FaceSample], checkpoint: Checkpoint) -> NDArray[np.uint8]:
    """Cut crops around the true landmarks of the first faces: (n, H, W, 3), n at most 200.

    Raises:
        InputError: There is no face, a face has no landmarks, or an image cannot be read.
    """
    crops, rule = [], checkpoint.crop
    for sample in samples[:_CALIBRATION_FACES]:
        box = labelled_box(sample, checkpoint.scheme)
        crops.append(cut(read_image(sample.image), rule.crop_from_image(box), rule.size))
    if not crops:
        raise InputError("int8: expected labelled faces to take the ranges from, given none")
    return np.stack(crops)


def quantize(model: onnx.ModelProto, crops: NDArray[np.uint8]) -> onnx.ModelProto:
    """Quantize the convolutions, except the students' first and last, which are cheap and cost most accuracy, and the teacher's.

    Weights have 7 bits and a scale per channel: with 8 bits, products may saturate on processors with AVX2 only. Activations have 8
    bits and one scale per tensor, from its minimum and maximum; a ReLU sets the range of the convolution before it.

    Args:
        model: Result of `trace_onnx`.
        crops: (n, H, W, 3) calibration crops.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Crops(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(np.split(crops, range(_BATCH, len(crops), _BATCH)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"crops": batch, **({"flip": np.array(True)} if flip else {})}

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    flip = [t for t in bare.graph.initializer if t.name == "flip"]
    for tensor in flip:  # without its value it is an ordinary input, which causes no warning
        bare.graph.initializer.remove(tensor)
    with tempfile.TemporaryDirectory() as folder:
        joined, small = Path(folder) / "joined.onnx", Path(folder) / "int8.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(joined)  # fuses batch norms into the convolutions before them
        onnxruntime.InferenceSession(bare.SerializeToString(), options, providers=["CPUExecutionProvider"])
        prepared = onnx.load(joined)
        prepared.metadata_props.add(
            key="onnx.quant.pre_process", value="onnxruntime.quant"
        )  # otherwise it asks for this step
        onnx.save(prepared, joined)
        convolutions = [n for n in prepared.graph.node if n.op_type == "Conv"]
        teacher = [n.name for n in convolutions if "ensemble.teacher." in n.input[1]]
        students = [n.name for n in convolutions if n.name not in teacher]
        quantize_static(
            joined,
            small,
            Crops(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Relu"],
            nodes_to_exclude=[students[0], students[-1], *teacher],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        result = onnx.load(small)
    result.graph.initializer.extend(flip)
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    result.doc_string = model.doc_string
    return result
