"""Synthetic faces: a 3-D face shape with pose and expression, skin, hair, glasses, light and background, rendered with its landmarks.

Imports `fewmark.core`, `fewmark.landmarks` and image writing; never torch. `faces` is the entrance, the others are its parts.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "faces": ["SyntheticFace", "render_dataset", "render_face", "render_faces"],
    },
)
