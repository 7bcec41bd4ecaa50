"""A person's project: images, labels, runs and predictions in one folder, and what to do next.

Imports `training`, `video` and the rooms below them; `web` and `cli` import it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "database": ["Database"],
        "labels": ["ConflictError", "Face", "Labels"],
        "predictions": ["Predictions"],
        "project": ["Project", "is_project", "open_project"],
    },
)
