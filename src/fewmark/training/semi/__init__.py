"""TS3, Algorithm 1: students write pseudo labels, a teacher estimates their quality, the best join the next round's training set.

Read `rounds` first. Imports `training.runner` and what is below it, `models`, `data` without file formats, and `landmarks`;
`training.run` and `training.distillation` import it, `training.cascade` does not.
"""

from fewmark.core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "plans": ["make_loop", "make_selection", "planned_rounds", "student_plans", "teacher_plan"],
        "pseudo_labels": ["PseudoLabels", "write_pseudo_labels"],
        "rounds": ["Loop", "Round", "RoundRecord", "run_rounds"],
        "selection": ["SELECTION_NAMES", "Selection", "SelectionRule", "quota", "selection_rule"],
        "students": ["StudentPlan", "StudentTrainer", "TrainingSet"],
        "teacher": ["TeacherPlan", "train_teacher"],
    },
)
