"""How good a detector is on labelled faces: NME, AUC and failure rate, and robustness to perturbed boxes and images.

`fewmark.evaluate` is `evaluate.evaluate`. Imports core, data, landmarks, inference and visualization; only cli imports it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "evaluate": ["evaluate", "evaluate_lists"],
        "perturbation": ["Perturbation", "perturb"],
        "robustness": ["Robustness", "measure_robustness"],
        "robustness_report": ["write_robustness"],
    },
)
