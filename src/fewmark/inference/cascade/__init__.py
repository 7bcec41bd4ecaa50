"""The coarse-to-fine cascade: a fold over stages (angle, coarse, component, point) that refine face states.

Needs torch. Imports core, landmarks, models and `fewmark.data.crops`; the rest of inference and `fewmark.training.cascade` may import
it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "angle": ["AngleStage"],
        "coarse": ["CoarsePart", "CoarseStage"],
        "component": ["ComponentStage"],
        "networks": ["NetworkPart"],
        "pipeline": ["Cascade", "Truth"],
        "point": ["PatchLayout", "PointStage"],
        "predict": ["run_cascade", "run_stages"],
        "serialization": ["cascade_from_data", "cascade_modules", "cascade_to_data"],
        "state": ["FaceState", "Stage"],
    },
)
