"""What the page's overview shows: where the project stands, how its models do, and the faces that they are most in doubt about."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewmark.project.cut import find_cut
from fewmark.project.project import Project
from fewmark.project.status import MORE

N_WORST = 24
N_BINS = 24
N_CURVE = 24


def overview_data(project: Project) -> dict[str, Any]:
    """Counts, the NME of each training and its curve, what people did with predictions, how the model's doubts are spread, and its most
    doubtful faces."""
    run, status = project.last_run, project.status()
    data: dict[str, Any] = {"status": status.to_dict(), "doubts": None, "worst": [], "curve": None, "reviews": None}
    if run is None:
        return data
    curve = status.curve()
    if curve is not None:
        known = [p.n_labels for p in curve.points]
        n_labels = np.geomspace(min(known), max(max(known), status.n_labelled) + MORE, N_CURVE)
        data["curve"] = {"n_labels": n_labels.round(1).tolist(), "band": curve.nme(n_labels).round(6).tolist()}
    reviews = project.predictions.reviews(run.id)
    if reviews:
        data["reviews"] = {
            "n": len(reviews),
            "accepted": sum(r.accepted for r in reviews),
            "moved": float(np.mean([r.moved for r in reviews])),
        }
    values = np.array(project.predictions.all_doubts(run.id), np.float64)
    if len(values):
        top = float(np.quantile(values, 0.99)) or 1.0
        counts, edges = np.histogram(np.minimum(values, top), N_BINS, (0.0, top))
        data["doubts"] = {"counts": counts.tolist(), "edges": edges.round(5).tolist(), "calibrated": run.calibrated}
        cut = find_cut(reviews)
        if cut is not None:
            left = project.predictions.n_below(run.id, cut)
            data["cut"] = {"doubt": cut, "n_below": left}
    data["worst"] = [{"face": n, "doubt": d} for n, d in project.predictions.doubts(run.id, N_WORST)]
    return data
