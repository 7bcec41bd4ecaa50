"""Networks, one a file, and what their outputs mean: the heatmap codec, losses, and ensembles of students.

Imports `fewmark.core` and torch; knows no data set, file format or training method. `normalization` alone is free of torch.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "build": ["build_model", "count_multiply_adds", "count_outputs", "count_parameters", "load_weights"],
        "codec": ["HeatmapCodec", "average_heatmaps"],
        "ensemble": ["Ensemble", "EnsemblePrediction"],
        "losses": ["heatmap_loss", "integral_loss", "landmark_loss"],
        "teacher": ["Teacher"],
    },
)
