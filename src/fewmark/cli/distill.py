"""The command `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import Json, Missing, Resume, RunFolder, err, missing_value, out, print_json, scheme_of
from fewmark.cli.settings import ListSettings
from fewmark.core.text import percent


def distill(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="One or more models of one scheme; their predictions are averaged."),
    ],
    unlabelled: Annotated[
        list[Path],
        typer.Option(
            metavar="LIST|DATA...", help="Unlabelled faces: lists (.txt) of faces in --data, folders or label files."
        ),
    ],
    run: RunFolder,
    to: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE", help="Recipe of the new model: compact, compact-nano, compact-large or a file."
        ),
    ] = "compact",
    data: Annotated[Path | None, typer.Option(metavar="DATA", help="Folder or label file of the listed faces.")] = None,
    labelled: Annotated[
        Path | None, typer.Option(metavar="LIST", help="List of labelled faces in --data to train on as well.")
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="List of labelled validation faces in --data, which are not trained on."),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model of the same network with the initial weights.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a setting, e.g. distillation.views=8; see --list-settings."
        ),
    ] = None,
    resume: Resume = False,
    list_settings: ListSettings = False,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Train a small, fast model on the predictions of larger ones for unlabelled faces."""
    from fewmark.data.lists import read_training_lists
    from fewmark.training.config import load_config

    config = load_config(to, settings or [], distillation=True)
    scheme = scheme_of(models[0])
    lists = read_training_lists(data, labelled, unlabelled, val, scheme=scheme, missing=missing_value(missing))

    from fewmark.cli.progress import TrainingDisplay, run_displayed
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
        f"trained on {counts['pseudo']} of {counts['unlabelled']} unlabelled and {counts['labelled']} labelled faces"
    )
    if score is not None:
        out.print(f"validation: NME {percent(score.nme)} by {score.normalizer}, {score.n_faces} faces")
    out.print(Text(f"model:  {result.path}\nreport: {report}"))
