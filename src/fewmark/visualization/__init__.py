"""Landmarks, schemes, curves and reports as pictures: PNG and JPEG by OpenCV and Pillow, charts and reports as SVG and HTML.

Imports `fewmark.core` and `fewmark.landmarks`; never torch, and matplotlib only to write a chart as PNG or PDF.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "ced": ["write_ced"],
        "charts": ["line_chart", "scatter_chart"],
        "draw": ["draw_landmarks", "face_tile"],
        "report": ["write_report"],
        "scheme": ["draw_scheme"],
    },
)
