"""Faces over the frames of a video: reading and writing videos, tracking, smoothing, and measures of jitter and lag.

Imports core, data, landmarks, inference and visualization; only cli imports it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "metrics": ["jitter", "lag"],
        "reader": ["Frame", "Video", "camera_number", "read_video"],
        "smoothing": ["OneEuroFilter", "Smoothing"],
        "track": ["track_video"],
        "tracker": ["TrackedFace", "Tracker"],
        "writer": ["VideoWriter"],
    },
)
