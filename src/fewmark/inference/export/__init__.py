"""Export of model files to ONNX: the traced graph, its comparison with torch, and 8-bit quantization.

Needs torch, onnx and onnxruntime. Imports the rest of inference; only cli imports it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "onnx": ["Export", "export_onnx"],
    },
)
