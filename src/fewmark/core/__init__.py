"""What every other room needs and what knows nothing of faces: errors, files, JSON, text, geometry of points and images, images as arrays.

Imports NumPy and OpenCV, and Pillow for a Pillow image; every room may import it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "errors": ["BadImageWarning", "DataWarning", "InputError", "OutputError"],
        "files": ["atomic_path", "check_outputs", "write_text"],
        "geometry": ["Similarity", "box_centre", "box_of_points", "box_size", "fit_similarity", "warp_image"],
        "install": ["install_hint"],
        "json": ["json_value"],
        "names": ["dump_json", "escape_name", "one_line", "unescape_name"],
        "pixels": ["as_rgb"],
        "procrustes": ["fit_similarities", "mean_shape"],
        "text": ["count", "percent"],
    },
)
