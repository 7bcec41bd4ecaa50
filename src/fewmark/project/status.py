"""What a project holds, and what to do next and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fewmark.core.errors import InputError
from fewmark.core.text import count, percent
from fewmark.project.labels import Labels
from fewmark.project.predictions import Predictions, Run
from fewmark.training.learning_curve import CurvePoint, LearningCurve

FIRST_LABELS = 20
"""Labels from which a first training is advised: docs/results.md has what they give."""
NEW_SHARE = 0.5
"""New labels, relative to those of the last training, from which the next training is advised."""
MORE = 50
"""Labels whose worth is foretold."""


@dataclass(frozen=True)
class ProjectStatus:
    """What is there.

    Attributes:
        n_images: Images.
        n_unlabelled, n_labelled, n_rejected: Faces by state.
        n_by_how: Labelled faces by how they came to their label: placed, fixed, accepted, imported.
        runs: Trainings, the first first.
        n_new: Faces labelled since the last training.
        next_command: The verb that comes next.
        why: Why, in a sentence.
        gain: What `MORE` more labels would do to the NME, relative: lower edge of an 80 % band, middle, upper edge; None where too few
            trainings were measured to tell.
        curve_points: The trainings that tell it: the project's own, or those of `fewmark curve`.
    """

    n_images: int
    n_unlabelled: int
    n_labelled: int
    n_rejected: int
    n_by_how: dict[str, int]
    runs: Sequence[Run]
    n_new: int
    next_command: str
    why: str
    gain: tuple[float, float, float] | None
    curve_points: Sequence[CurvePoint]

    def curve(self) -> LearningCurve | None:
        """The NME by the number of labels; None where too few trainings were measured to tell."""
        return _curve(self.curve_points)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `fewmark status --json` prints it."""
        return asdict(self)


def project_status(labels: Labels, predictions: Predictions, measured: Sequence[CurvePoint] = ()) -> ProjectStatus:
    """The status of a project.

    Args:
        labels: Its labels.
        predictions: Its trainings.
        measured: The runs of its last learning curve.
    """
    counts, runs = labels.counts(), predictions.runs()
    n_labelled = counts["labelled"]
    n_new = n_labelled - (runs[-1].n_labelled if runs else 0)
    points = [CurvePoint(r.n_labelled, 0, r.nme) for r in runs if r.nme is not None and r.n_labelled]
    points = points if _curve(points) is not None else list(measured)
    gain = _gain(points, n_labelled)
    command, why = _next(counts, runs, n_new, gain)
    by_how = {k.removeprefix("labelled_"): n for k, n in counts.items() if k.startswith("labelled_")}
    return ProjectStatus(
        counts["images"],
        counts["unlabelled"],
        n_labelled,
        counts["rejected"],
        by_how,
        runs,
        n_new,
        command,
        why,
        gain,
        points,
    )


def _next(
    counts: dict[str, int], runs: Sequence[Run], n_new: int, gain: tuple[float, float, float] | None
) -> tuple[str, str]:
    n_labelled, n_unlabelled = counts["labelled"], counts["unlabelled"]
    if not counts["images"]:
        return "add", "there are no images yet"
    if not runs and n_labelled < FIRST_LABELS and n_unlabelled:
        missing = FIRST_LABELS - n_labelled
        return "label", f"a first training needs about {FIRST_LABELS} labels: {missing} more"
    if not runs:
        return "train", f"{count(n_labelled, 'face')} labelled, and no model yet"
    if n_new >= max(1, NEW_SHARE * runs[-1].n_labelled):
        return "train", f"{count(n_new, 'new label')} since the last training, which had {runs[-1].n_labelled}"
    if not n_unlabelled:
        return "export", "every face is labelled or rejected"
    if gain is None or gain[1] <= 0:  # nothing measured, or trainings that differ by chance
        return "review", "the model's most doubtful faces teach it most"
    return "review", f"{MORE} more labels would lower the error by about {percent(gain[1])} of it"


def _curve(points: Sequence[CurvePoint]) -> LearningCurve | None:
    try:
        return LearningCurve(points)
    except InputError:  # too few trainings
        return None


def _gain(points: Sequence[CurvePoint], n_labelled: int) -> tuple[float, float, float] | None:
    curve = _curve(points)
    if curve is None:
        return None
    low, middle, high = curve.gain(max(1, n_labelled), MORE).tolist()
    return low, middle, high
