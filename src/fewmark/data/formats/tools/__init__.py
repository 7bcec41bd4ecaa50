"""Files of other people's labelling tools: LabelMe, Label Studio, CVAT and DeepLabCut. Landmarks are known by their names."""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "cvat": ["read_cvat", "write_cvat"],
        "deeplabcut": ["read_deeplabcut", "write_deeplabcut"],
        "label_studio": ["read_label_studio", "write_label_studio"],
        "labelme": ["read_labelme", "write_labelme"],
        "sleap": ["read_sleap", "write_sleap"],
    },
)
