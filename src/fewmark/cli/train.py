"""The command `train`."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from fewmark.cli.base import (
    Incomplete,
    Json,
    Missing,
    ProtocolOption,
    Resume,
    err,
    missing_value,
    out,
    print_json,
    warn,
)
from fewmark.cli.project import missing_option, refuse_options, train_project
from fewmark.cli.settings import ListSettings
from fewmark.core.errors import InputError
from fewmark.core.text import count, percent

if TYPE_CHECKING:
    from fewmark.data.samples import FaceSample


class Selection(StrEnum):
    teacher = "teacher"
    spl = "spl"
    spaco = "spaco"
    peak = "peak"
    spread = "spread"
    random = "random"
    oracle = "oracle"
    none = "none"


_ROUND_KEYS = (
    "round",
    "student",
    "n_selected",
    "val_nme",
    "ensemble_val_nme",
    "true_error_selected",
    "rank_correlation",
)


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="Folder or label file of the faces, or a project folder, which needs no option; if not given, synthetic faces alone "
            "are learned.",
        ),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Annotation scheme of the landmarks; see `fewmark scheme list`."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--out", metavar="RUN", help="Run folder with the model, made if missing.")
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="LIST",
            help="List of the labelled faces, by their names in DATA; if not given, all that no other list names.",
        ),
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LIST|DATA...",
            help="Unlabelled faces: lists (.txt) of faces in DATA, or other folders or label files.",
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="List of labelled validation faces, which are not trained on."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Recipe, a set of settings: laptop (40 min on two cores), adapt (2 min, from ibug-68), strong (a "
            "GPU), cascade (25 min and more), paper (21 h; takes a GPU), drawn (no label: synthetic faces alone) or a file. If not given: "
            "adapt for a start from ibug-68, else strong on a GPU and laptop without one.",
        ),
    ] = None,
    selection: Annotated[
        Selection | None,
        typer.Option(
            metavar="RULE",
            help="How pseudo labels are selected, in place of the recipe's way: teacher, spl, spaco, peak, spread, random, oracle; or "
            "none: labelled faces only.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model with the initial weights. One of another scheme teaches its landmarks too, converted by the labelled faces.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. semi.rounds=2; see --list-settings."),
    ] = None,
    label_share: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Learn from this fraction of the labelled faces, drawn by run.seed; the others become unlabelled.",
        ),
    ] = None,
    protocol: ProtocolOption = None,
    incomplete: Incomplete = False,
    resume: Resume = False,
    list_settings: ListSettings = False,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Train a detector from a few labelled and many unlabelled faces."""
    from fewmark.project.project import is_project

    if data is not None and is_project(data):
        others = {"--scheme": scheme, "--out": run, "--labelled": labelled, "--unlabelled": unlabelled, "--val": val}
        refuse_options(data, others)
        rule = [] if selection is None else [f"semi.selection={selection.value}"]
        train_project(data, recipe, [*rule, *(settings or [])], start, resume=resume, as_json=as_json)
        return
    if scheme is None or run is None:
        raise missing_option("--scheme" if scheme is None else "--out")
    from fewmark.data.lists import hide_labels, read_training_lists
    from fewmark.landmarks.scheme import load_scheme
    from fewmark.training.config import load_config

    selected = [] if selection is None else [f"semi.selection={selection.value}"]
    first, chosen, why = None, recipe, ""
    if start is not None:
        from fewmark.inference.checkpoint.io import load_checkpoint
        from fewmark.training.start import usual_recipe

        first = load_checkpoint(start)
        chosen = chosen or usual_recipe(first)
    if chosen is None:
        from fewmark.training.launch import recipe_for_machine

        chosen, found = recipe_for_machine()
        why = f" (this machine has {found})"
    config = load_config(chosen, [*selected, *(settings or [])])
    landmarks = load_scheme(scheme)
    given: Path | list[FaceSample] | None = data
    if protocol is not None:
        from fewmark.data.benchmarks.protocols import check_scheme, find_protocol

        check_scheme(protocol, landmarks.name)
        if data is None:
            raise InputError(f"--protocol {protocol}: expected its folder as DATA, given none")
        given = find_protocol(protocol).read(data, "train", not incomplete)
    lists = read_training_lists(
        given, labelled, unlabelled or (), val, scheme=landmarks, missing=missing_value(missing), all_labelled=True
    )
    if label_share is not None:
        lists = hide_labels(lists, label_share, config.run.seed)
    if not lists.labelled:
        warn("no face is labelled: synthetic faces are learned in place of labelled ones")
    if lists.n_known:
        warn(f"--unlabelled: {count(lists.n_known, 'face')} left out, which are labelled or validation faces")

    from fewmark.cli.progress import TrainingDisplay, rounds_table, run_displayed, stage_lines
    from fewmark.training.cascade.run import check_cascade
    from fewmark.training.faces import TrainingData
    from fewmark.training.run import train as run_training
    from fewmark.training.start import same_scheme
    from fewmark.training.work_plan import plan_training

    if config.cascade.stages:
        check_cascade(config, landmarks, scheme)
    faces = TrainingData(landmarks, lists.labelled, lists.unlabelled, lists.validation)
    converts = first is not None and not same_scheme(first, landmarks)
    plan = plan_training(config, landmarks, len(lists.labelled), len(lists.unlabelled), converted=converts)
    display = TrainingDisplay(err, plan)
    if recipe is None:
        err.print(f"recipe: {chosen}{why}")
    if first is not None and converts:
        text = f"start:  {start}, whose landmarks a transfer fitted on the labelled faces converts to {landmarks.name}"
        err.print(Text(text), soft_wrap=True)
    result = run_displayed(
        display, lambda: run_training(config, faces, run, start=first, resume=resume, on_event=display)
    )
    report, score = run / "report.html", result.scores
    if as_json:
        records = [r.to_dict() for part in display.records for r in part]
        details = ("per_face", "per_landmark")
        print_json(
            {
                "model": str(result.path),
                "report": str(report),
                "n_labelled": len(lists.labelled),
                "n_unlabelled": len(lists.unlabelled),
                "n_validation": len(lists.validation),
                "rounds": [{k: r[k] for k in _ROUND_KEYS if k in r} for r in records],
                "stages": [{k: v for k, v in e.items() if k != "kind"} for e in display.stages],
                "start_nme": result.start_nme if math.isfinite(result.start_nme) else None,
                "validation": None if score is None else {k: v for k, v in score.to_dict().items() if k not in details},
            }
        )
        return
    if config.cascade.stages:
        for line in stage_lines(display.stages):
            out.print(line)
    else:
        out.print(rounds_table(display.records))
    if score is not None:
        out.print(f"validation: NME {percent(score.nme)} by {score.normalizer}, {score.n_faces} faces")
        if math.isfinite(result.start_nme):
            out.print(Text(f"converted landmarks of {start} alone: NME {percent(result.start_nme)}"))
    out.print(Text(f"model:  {result.path}\nreport: {report}"))
