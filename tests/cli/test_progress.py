"""The display of a training and its work plan."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fewmark.cli.progress import TrainingDisplay, duration
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.semi.rounds import RoundRecord
from fewmark.training.work_plan import plan_training


def test_the_work_plan_names_the_trainings_of_a_run(tiny_run: Path) -> None:
    epochs = [json.loads(line) for line in (tiny_run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    names = [e["name"] for e in epochs if e["kind"] == "epoch"]
    scheme = load_scheme("ibug-68")
    plan = plan_training(load_config(tiny_run / "config.toml"), scheme, 4, 6)
    assert plan.order == list(dict.fromkeys(names))
    synthetic = plan_training(load_config(tiny_run / "config.toml", ["synthetic.faces=9"]), scheme, 4, 6)
    assert synthetic.order[:2] == ["synthetic_unet", "synthetic_hourglass"]
    assert synthetic.total > plan.total


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display(terminal: bool) -> None:
    config = load_config("laptop-64", ["semi.rounds=1"])
    plan = plan_training(config, load_scheme("ibug-68"), 20, 100)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=100, color_system=None)
    context = {"name": "round0_unet", "student": "unet", "round": 0}
    with TrainingDisplay(console, plan) as display:
        display({"kind": "reading", "n_faces": 120})
        display({"kind": "training", "n_faces": 20, **context})
        lefts = []
        for epoch in range(1, 4):
            event = {"epoch": epoch, "n_epochs": 36, "loss": None if epoch == 3 else 0.5, "seconds": 2.0 * epoch}
            display({"kind": "epoch", **event, **({"val_nme": 0.05} if epoch == 3 else {}), **context})
            lefts.append(plan.seconds_left())
        record = RoundRecord(0, "unet", 0.05, 0.04)
        display({"kind": "round", "round": 0, "records": [record]})
        under_way = str(display._bar.tasks[0].fields["left"]) if terminal else stream.getvalue()
        display({"kind": "done", "seconds": 75.0})
        assert not terminal or display._bar.tasks[0].fields["left"] == ""
    assert lefts[0] is None
    assert lefts[1] is not None
    assert lefts[2] is not None
    assert lefts[1] - lefts[2] == pytest.approx(2.0)
    text = stream.getvalue()
    assert "done in 1:15 min" in text
    assert "left" not in text.rstrip().splitlines()[-1]
    assert "5.00 %" in text
    assert "about" in under_way
    assert terminal == ("pseudo labels" in text)  # the table of rounds stands above the bar
    assert terminal or "round 0: unet, epoch 3 of 36, validation NME 5.00 %" in text
    assert duration(3700) == "1:01 h"
