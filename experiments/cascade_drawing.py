"""How cascade_figures.py draws: the angle stage's errors (Fig. 2) and cumulative error distributions (Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from fewmark.landmarks.metrics import auc, ced, failure_rate

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FARTHEST = 30.0
"""Degrees, end of the angle figure."""
END = 0.1
"""NME, end of the error curves."""
MUTED = ("#2f8f6b", "#9bbf3b", "#8a63b3", "#b5803c", "#6b7280", "#b4b9c1", "#c06c9a", "#4fa3a5")
COLUMNS = {"NME, %": 0.71, "AUC, %": 0.85, "failures, %": 1.04}
"""Of the numbers beside the curves: their right ends."""

Floats = NDArray[np.float64]


def draw_angles(errors: Mapping[str, Floats], path: Path) -> None:
    """Which share of the faces has an angle error of at most x.

    Args:
        errors: name -> (N,) |degrees|; two of them.
        path: a PNG.
    """
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    axis.axvspan(0, 5, color="0.94", zorder=0)
    x = np.linspace(0, FARTHEST, 601)
    for (name, e), color, style in zip(errors.items(), ("#1f5fa8", "#d9702b"), ("-", (0, (5, 2))), strict=True):
        share = 100 * np.mean(e <= 5)
        axis.plot(x, 100 * ced(e, x)[1], color=color, linestyle=style, linewidth=2.2, label=name)
        axis.plot(5, share, "o", color=color, markersize=6, zorder=4)
        axis.plot([], [], " ", label=f"    {share:.1f} % within 5°, half within {np.median(e):.1f}°")
    axis.axvline(5, color="0.35", linewidth=1, linestyle=":")
    axis.annotate("5°", (5, 0), xytext=(4, 5), textcoords="offset points", color="0.3")
    axis.set(xlim=(0, FARTHEST), ylim=(0, 101.5), xlabel="error of the angle, degrees", ylabel="share of faces, %")
    n = len(next(iter(errors.values())))
    axis.set_title(f"Angle stage: how far from upright {n} test faces are left", fontsize=11, loc="left")
    axis.legend(loc="lower right", frameon=False, title="images", alignment="left")
    _finish(axis)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_ced(groups: Mapping[str, Mapping[str, Floats]], path: Path) -> None:
    """Which share of the faces has an NME of at most x, and the numbers of each curve beside it.

    Args:
        groups: title -> name -> (N,) NME, infinite where nothing was found. The first group (stages in order) is drawn in
            blues, the second in red, the third in muted dashes.
        path: a PNG.
    """
    looks: dict[str, dict[str, Any]] = {}
    for i, group in enumerate(groups.values()):
        blues = plt.get_cmap("Blues")(np.linspace(0.45, 0.95, len(group)))
        for j, name in enumerate(group):
            color = (blues[j], "#cc3311", MUTED[j % len(MUTED)])[i]
            dashed = {"linewidth": 1.4, "linestyle": (0, (5, 1.5)), "zorder": 2}
            looks[name] = {"color": color, **(dashed if i == 2 else {"linewidth": 2.2, "zorder": 3})}
    figure, (axis, side) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained", width_ratios=[1.35, 1])
    curves = {name: nme for group in groups.values() for name, nme in group.items()}
    x = np.linspace(0, END, 1001)
    for name, nme in curves.items():
        axis.plot(100 * x, 100 * ced(nme, x)[1], **looks[name])
    axis.axvline(8, color="0.35", linewidth=1, linestyle=":")
    note = {"xytext": (5, 6), "textcoords": "offset points", "color": "0.3", "fontsize": 9}
    axis.annotate("beyond 8 %:\na failure", (8, 0), bbox={"color": "white", "alpha": 0.85, "pad": 1}, zorder=5, **note)
    axis.set(xlim=(0, 100 * END), ylim=(0, 101.5), xlabel="NME by the outer eye corners, %", ylabel="share of faces, %")
    n = len(next(iter(curves.values())))
    axis.set_title(f"Landmark error of {n} test faces, common and challenging", fontsize=11, loc="left")
    _finish(axis)
    _draw_numbers(side, groups, looks)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_numbers(
    axis: plt.Axes, groups: Mapping[str, Mapping[str, Floats]], looks: Mapping[str, Mapping[str, Any]]
) -> None:
    """The legend as a table."""
    axis.axis("off")
    for head, place in COLUMNS.items():
        axis.text(place, 0, head, ha="right", va="center", color="0.35", fontsize=9)
    line, notes = 1.0, []
    for title, group in groups.items():
        axis.text(0, line, title, va="center", fontsize=10, fontweight="bold")
        for name, nme in group.items():
            line += 1
            seen = np.isfinite(nme)
            mark = "" if seen.all() else "*"
            axis.plot([0, 0.08], [line, line], **looks[name])
            axis.text(0.1, line, name, va="center", fontsize=10)
            numbers = (f"{100 * nme[seen].mean():.2f}", f"{100 * auc(nme):.1f}", f"{100 * failure_rate(nme):.1f}")
            for place, number in zip(COLUMNS.values(), numbers, strict=True):
                axis.text(place, line, number, ha="right", va="center", fontsize=10)
            if mark:
                axis.text(COLUMNS["NME, %"], line, mark, va="center", fontsize=10)
                notes.append(f"* of the {seen.sum()} faces that it found; the others are failures")
        line += 1.5
    if any("†" in name for name in looks):
        notes.append("† trained on AFW, where the challenging faces are from,\n   and perhaps on HELEN's test faces")
    axis.text(0, line - 0.2, "\n".join(notes), va="top", fontsize=8.5, color="0.35")
    axis.set(xlim=(0, 1.05), ylim=(line + 2, -0.5))


def _finish(axis: plt.Axes) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
