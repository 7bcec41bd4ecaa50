"""The command that trains a small, fast model on the predictions of larger ones for unlabelled faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import Json, err, out, print_json
from fewmark.cli.settings import ListSettings


def distill(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="One or more models of one scheme; their answers are averaged."),
    ],
    unlabelled: Annotated[
        list[Path],
        typer.Option(metavar="LIST|DATA...", help="Unlabelled faces: lists of --data (.txt), folders or label files."),
    ],
    run: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run; made.")],
    to: Annotated[
        str, typer.Option(metavar="compact|compact-nano|compact-large|FILE", help="The new model, a recipe.")
    ] = "compact",
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Folder or label file that the lists are of.")
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Labelled faces of --data to learn from as well.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Labelled faces of --data to measure on; they train nothing.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model of the same network from whose weights it begins.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. distillation.views=8; see --list-settings."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False,
    list_settings: ListSettings = False,
    as_json: Json = False,
) -> None:
    """Train a small fast model on the predictions of larger ones for unlabelled faces."""
    from fewmark.data.lists import read_distillation_lists
    from fewmark.inference.checkpoint.metadata import read_metadata
    from fewmark.landmarks.scheme import scheme_from_dict
    from fewmark.training.config import load_config

    config = load_config(to, settings or [], distillation=True)
    scheme = scheme_from_dict(read_metadata(models[0])["scheme"], models[0])
    lists = read_distillation_lists(unlabelled, data, labelled, val, scheme=scheme)

    from fewmark.cli.progress import TrainingDisplay, run_displayed
    from fewmark.core.text import percent
    from fewmark.inference.checkpoint.io import load_checkpoint
    from fewmark.inference.detector import Detector
    from fewmark.training.faces import TrainingData
    from fewmark.training.run import distill as run_distillation
    from fewmark.training.work_plan import plan_distillation

    teachers = [Detector.load(m) for m in models]
    faces = TrainingData(scheme, lists.labelled, lists.unlabelled, lists.validation)
    plan = plan_distillation(config, len(lists.labelled), len(lists.unlabelled))
    display = TrainingDisplay(err, plan)
    result = run_displayed(
        display,
        lambda: run_distillation(
            config,
            faces,
            run,
            teachers=teachers,
            start=None if start is None else load_checkpoint(start),
            resume=resume,
            on_event=display,
        ),
    )
    counts, report = result.checkpoint.counts, run / "report.html"
    score = result.scores
    if as_json:
        print_json(
            {
                "model": str(result.path),
                "report": str(report),
                "n_labelled": counts["labelled"],
                "n_unlabelled": counts["unlabelled"],
                "n_pseudo": counts["pseudo"],
                "validation": None if score is None else {"nme": score.nme, "normalizer": score.normalizer},
            }
        )
        return
    out.print(
        f"learned from {counts['pseudo']} of {counts['unlabelled']} unlabelled and {counts['labelled']} labelled faces"
    )
    if score is not None:
        out.print(f"validation: NME {percent(score.nme)} by {score.normalizer}, {score.n_faces} faces")
    out.print(Text(f"model:  {result.path}\nreport: {report}"))
