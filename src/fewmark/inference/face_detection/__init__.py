"""Face detectors: the packaged one, others behind the same interface, tiled search, and boxes from files.

Imports core and data, and no torch; the rest of inference, training, video and cli may import it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "backends": ["DlibFaceDetector", "UltraLightFaceDetector", "YuNetFaceDetector", "make_face_detector"],
        "base": [
            "DetectedFace",
            "FaceDetector",
            "FullImage",
            "SlimeFaceDetector",
            "adapt_box",
            "box_overlap",
            "boxes_from_file",
            "fit_box_adapter",
        ],
        "directions": ["detect_in_direction"],
        "tiling": ["TiledFaceDetector"],
    },
)
