"""Annotation schemes and arithmetic on landmarks: metrics, transfer between schemes, calibrated errors, label bias.

Imports `fewmark.core` and NumPy alone; every other room but `core` and `models` may import it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "calibration": ["ErrorCalibration", "Reliability"],
        "metrics": ["Score", "score"],
        "names": ["find_landmarks"],
        "scheme": ["LandmarkScheme", "load_scheme", "scheme_names"],
        "transfer": ["SchemeTransfer"],
    },
)
