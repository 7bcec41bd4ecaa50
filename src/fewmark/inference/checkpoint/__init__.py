"""Model files: reading, writing and editing them, and the `Checkpoint` in them.

Reading metadata, transfers and exported models needs no torch; `io` and the networks do. Imports core, landmarks, models, data and
`fewmark.inference.cascade`; every other part of inference may import it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "edit": ["put_calibration", "put_transfer"],
        "exported": ["ExportedModel", "file_hash", "read_exported"],
        "io": ["load_checkpoint", "save_checkpoint"],
        "metadata": ["packaged_names", "read_metadata", "resolve_model", "scheme_from_metadata"],
        "model": ["Checkpoint", "StudentPart", "TeacherPart"],
        "transfers": ["load_transfer", "save_transfer"],
    },
)
