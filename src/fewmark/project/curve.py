"""The learning curve of a project: where its runs lie, and what the last one measured."""

from __future__ import annotations

import json
from pathlib import Path

from fewmark.training.learning_curve import CURVE_FILE, CurvePoint


def curve_folder(project: Path, last_change: int) -> Path:
    """The runs of the curve of the labels as they are: after another change they are others."""
    return project / "curves" / f"{last_change:06d}"


def read_last_curve(project: Path) -> list[CurvePoint]:
    """The runs of the last curve that was measured whole, or none."""
    files = sorted((project / "curves").glob(f"*/{CURVE_FILE}"))
    if not files:
        return []
    runs = json.loads(files[-1].read_text(encoding="utf-8"))["runs"]
    return [CurvePoint(r["n_labels"], r["draw"], r["nme"]) for r in runs]
