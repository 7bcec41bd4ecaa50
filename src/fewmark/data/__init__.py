"""Faces in images: samples, image files, label formats, benchmarks, lists and splits, crops, augmentation, batches, synthetic faces.

Imports `fewmark.core` and `fewmark.landmarks`; never torch.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "augment": ["AugmentRule", "apply_augmentation", "draw_augmentation"],
        "batches": ["Batch", "Batches"],
        "crops": ["CachedFace", "CropRule", "FaceCrop", "cache_faces"],
        "images": ["as_rgb", "decode_image", "read_image", "to_rgb", "write_image"],
        "lists": ["TrainingLists", "read_list", "read_training_lists", "select"],
        "samples": ["FaceSample", "stack_landmarks"],
        "splits": ["few_labels", "split_groups"],
    },
)
