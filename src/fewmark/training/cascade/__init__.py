"""Training of the coarse-to-fine cascade: one file per stage, the training of a network, and the run over all stages.

Imports `training.runner` and what is below it, `inference.cascade`, `models` and `data`; `training.run` imports it,
`training.semi` does not.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "angle": ["train_angle"],
        "coarse": ["train_coarse"],
        "component": ["train_component"],
        "faces": ["TrainingFaces", "cache_training_faces", "predict_landmarks"],
        "fit_stage": ["Schedule", "SyntheticFaces"],
        "plans": ["planned_cascade"],
        "point": ["train_point"],
        "run": ["CascadeOptions", "check_cascade", "train_cascade"],
    },
)
