"""Training: TS3's rounds (`semi`), the coarse-to-fine cascade (`cascade`) and distillation, from settings and faces to a run folder.

`run` joins the methods, which do not know each other. Imports `inference` and the rooms below it; only `cli` imports it.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": ["SettingDescription", "describe_settings", "load_config", "recipe_names", "to_toml"],
        "faces": ["TrainingData"],
        "run": ["RunResult", "distill", "train"],
        "settings": ["Config"],
        "work_plan": ["WorkPlan", "plan_distillation", "plan_training"],
    },
)
