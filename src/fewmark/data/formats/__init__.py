"""Label files: CSV, COCO keypoints, dlib XML and .pts, each read and written in a file of its own; `io` chooses by name and content.

Imports `fewmark.core`, `fewmark.landmarks`, and samples and images of `fewmark.data`.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "io": ["check_samples", "read_faces", "write_faces"],
    },
)
