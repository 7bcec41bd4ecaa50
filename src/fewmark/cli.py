"""The command line: thin verbs. torch and everything above it are imported inside a verb: help is instant."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from fewmark import __version__
from fewmark.errors import InputError

if TYPE_CHECKING:
    from fewmark.scheme import LandmarkScheme

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


class Selection(StrEnum):
    teacher = "teacher"
    spl = "spl"
    spaco = "spaco"
    peak = "peak"
    spread = "spread"
    random = "random"
    oracle = "oracle"
    none = "none"


class BoxFrom(StrEnum):
    gt = "gt"
    detect = "detect"
    column = "column"


class FaceFormat(StrEnum):
    json = "json"
    csv = "csv"
    pts = "pts"


class LabelFormat(StrEnum):
    csv = "csv"
    pts = "pts"
    coco = "coco"
    dlib = "dlib"


class _Group(TyperGroup):
    """Turns what a person can mend into one red line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _fail(str(error))
        except OSError as error:
            if error.errno is None:
                raise
            _fail(f"{error.filename or 'a file'}: {error.strerror}; check the path, its rights and the disk")
        raise typer.Exit(1)


def _spreading(*names: str) -> type[TyperCommand]:
    """A command some of whose options take several values: `--list A B` is `--list A --list B`.

    A word after such an option belongs to it once all required arguments have come.
    """

    class Spreading(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            options = [p for p in self.params if p.param_type_name == "option"]
            valued = {o for p in options if not getattr(p, "is_flag", False) for o in p.opts}
            needed = sum(p.param_type_name == "argument" and p.required for p in self.params)
            result: list[str] = []
            option, arguments = "", 0  # the last option and whether it still waits for its value
            waiting = False
            for i, word in enumerate(args):
                if word == "--":
                    result += args[i:]
                    break
                if waiting:
                    waiting = False
                elif word.startswith("-") and len(word) > 1:
                    option = word.partition("=")[0]
                    waiting = option in valued and "=" not in word
                elif option in names and arguments >= needed:
                    result.append(option)
                else:
                    arguments += 1
                result.append(word)
            return super().parse_args(ctx, result)

    return Spreading


app = typer.Typer(
    cls=_Group,
    name="fewmark",
    help="A few labelled faces and many unlabelled ones in, a facial landmark detector out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
scheme_app = typer.Typer(help="Annotation schemes: what the landmarks mean.", no_args_is_help=True)
app.add_typer(scheme_app, name="scheme")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SchemeOption = Annotated[
    str, typer.Option("--scheme", metavar="NAME|FILE", help="What the landmarks mean; see `fewmark scheme list`.")
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


@app.command(cls=_spreading("--unlabelled"))
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder or label file of the faces.", show_default=False)],
    labelled: Annotated[Path, typer.Option(metavar="LIST", help="The labelled faces: a list of DATA's `file` names.")],
    scheme: SchemeOption,
    run: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run; made.")],
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="LIST|DATA...", help="Unlabelled faces: lists of DATA (.txt), or other folders or label files."
        ),
    ] = None,
    val: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Labelled faces to measure on; they train nothing.")
    ] = None,
    recipe: Annotated[str, typer.Option(metavar="paper|laptop|FILE", help="The settings.")] = "laptop",
    selection: Annotated[
        Selection | None, typer.Option(help="Who picks the pseudo labels; none = labelled faces only.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. semi.rounds=2.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN.")] = False,
    as_json: Json = False,
) -> None:
    """Train a detector from a few labelled and many unlabelled faces."""
    from fewmark.config import load_config
    from fewmark.data.training_lists import read_training_lists
    from fewmark.scheme import load_scheme

    chosen = [] if selection is None else [f"semi.selection={selection.value}"]
    config = load_config(recipe, [*chosen, *(settings or [])])
    meaning = load_scheme(scheme)
    lists = read_training_lists(data, labelled, unlabelled or (), val, scheme=meaning)

    from fewmark.cli_progress import TrainingDisplay, WorkPlan, percent, rounds_table
    from fewmark.training import TrainingData, run_training

    faces = TrainingData(meaning, lists.labelled, lists.unlabelled, lists.validation)
    display = TrainingDisplay(err, WorkPlan(config, len(lists.labelled), len(lists.unlabelled)))
    try:
        with display:
            result = run_training(config, faces, run, resume=resume, on_event=display)
    except KeyboardInterrupt:
        words = [*sys.argv[1:], *([] if "--resume" in sys.argv else ["--resume"])]
        err.print(Text(f"stopped; go on with: fewmark {shlex.join(words)}", style="yellow"), soft_wrap=True)
        raise typer.Exit(130) from None
    report = run / "report.html"
    if as_json:
        rounds = [{k: r[k] for k in _ROUND_KEYS if k in r} for part in display.records for r in part]
        _print_json(
            {
                "model": str(result.path),
                "report": str(report),
                "n_labelled": len(lists.labelled),
                "n_unlabelled": len(lists.unlabelled),
                "n_validation": len(lists.validation),
                "rounds": rounds,
                "validation": None if result.scores is None else _short(result.scores.to_dict()),
            }
        )
        return
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


@app.command(cls=_spreading("--list"))
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file or a packaged name, e.g. ibug-68.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder or label file of the faces.")],
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", metavar="LIST...", help="Lists of DATA; each is scored, and all together."),
    ] = None,
    normalizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="What errors are divided by; the scheme's default if not given.")
    ] = None,
    box: Annotated[
        BoxFrom, typer.Option(help="gt: tight box of the true landmarks; detect: found; column: the data's own.")
    ] = BoxFrom.gt,
    threshold: Annotated[float, typer.Option(help="Of AUC and failure rate, a fraction.")] = 0.08,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the error curve: .png .svg .pdf .html .csv")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a detector on labelled faces."""
    from fewmark.checkpoint_metadata import read_metadata
    from fewmark.data.formats import read_faces
    from fewmark.data.lists import select
    from fewmark.scheme import scheme_from_dict

    meaning = scheme_from_dict(read_metadata(model)["scheme"], model)
    meaning.get_normalizer(normalizer or meaning.default_normalizer)
    samples = read_faces(data, scheme=meaning)
    if lists:
        names = _list_names(lists)
        parts = {name: select(samples, path) for name, path in zip(names, lists, strict=True)}
    else:
        parts = {"all": [s for s in samples if s.landmarks is not None]}
        if not parts["all"]:
            raise InputError(f"{data}: expected labelled faces to measure on, given {len(samples)} without landmarks")

    from fewmark.detector import Detector
    from fewmark.evaluation import FULL, check_plot, evaluate_lists, summary, write_ced

    if plot is not None:
        check_plot(plot)
    detector = Detector.load(model)
    scores = evaluate_lists(detector, parts, box=box.value, normalizer=normalizer, threshold=threshold)
    if plot is not None:
        write_ced(plot, scores)
    whole = scores.get(FULL, next(iter(scores.values())))
    if as_json:
        each = {name: summary(s, box.value) for name, s in scores.items()}
        _print_json({**summary(whole, box.value), "lists": each})
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
        row = [name, f"{100 * s.nme:.2f} %", f"{100 * s.auc:.2f} %", f"{100 * s.failure_rate:.2f} %", str(s.n_faces)]
        table.add_row(*row, *(str(getattr(s, n)) for _, n in shown))
    out.print(table)
    if plot is not None:
        out.print(Text(f"curve: {plot}"))


@app.command()
def detect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file or a packaged name, e.g. ibug-68.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|DIR...", help="Pictures, or folders of pictures.")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go; made.")],
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV: file,box_x0,box_y0,box_x1,box_y1; faces are looked for otherwise."),
    ] = None,
    form: Annotated[
        FaceFormat, typer.Option("--format", help="faces.json, faces.csv, or a .pts file a face.")
    ] = FaceFormat.json,
    overlay: Annotated[bool, typer.Option("--overlay", help="Write pictures with the landmarks drawn in.")] = False,
    as_json: Json = False,
) -> None:
    """Find faces and their landmarks in pictures."""
    from fewmark.checkpoint_metadata import resolve_model
    from fewmark.detection import find_pictures

    resolve_model(model)
    pictures = find_pictures(images)

    from fewmark.cli_progress import picture_progress
    from fewmark.detection import detect_pictures
    from fewmark.detector import Detector
    from fewmark.faces import boxes_from_file

    given = None if boxes is None else boxes_from_file(boxes)
    detector = Detector.load(model)
    with picture_progress(err) as bar:
        task = bar.add_task("pictures", total=len(pictures))
        result = detect_pictures(
            detector,
            pictures,
            folder,
            form=form.value,
            boxes=given,
            overlay=overlay,
            on_picture=lambda: bar.advance(task),
        )
    for line in result.failures.values():
        _fail(line)
    if as_json:
        _print_json(
            {
                "n_pictures": len(pictures),
                "n_faces": result.n_faces,
                "n_without_face": result.n_without_face,
                "failed": [{"file": str(p), "error": e} for p, e in result.failures.items()],
                "out": [str(p) for p in result.files],
            }
        )
    else:
        none = f", no face in {result.n_without_face}" if result.n_without_face else ""
        out.print(Text(f"{result.n_faces} faces in {len(pictures)} pictures{none}: {folder}"))
    if result.failures:
        _fail(f"{len(result.failures)} of {len(pictures)} pictures failed; the others are done")
        raise typer.Exit(1)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A model, or a file or folder of labels.")],
    scheme: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Of the labels; their number is then checked.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model file or a label file holds."""
    from fewmark.checkpoint_metadata import packaged_names, read_metadata
    from fewmark.inspection import describe_labels, describe_model

    if file.suffix == ".safetensors" or (not file.exists() and str(file) in packaged_names()):
        data = read_metadata(file)
        facts, findings = describe_model(data), []
    else:
        from fewmark.scheme import load_scheme

        data, facts = describe_labels(file, None if scheme is None else load_scheme(scheme))
        findings = data["findings"]
    if as_json:
        _print_json(data)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts:
        table.add_row(Text(name, style="bold"), Text(value))
    out.print(table)
    for finding in findings:
        out.print(Text(f"- {finding}", style="yellow"))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Labels: a file, or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Where they go; for pts a folder.")],
    source_format: Annotated[LabelFormat | None, typer.Option("--from", help="Of SRC; its suffix says it else.")] = None,
    target_format: Annotated[LabelFormat | None, typer.Option("--to", help="Of DST; its suffix says it else.")] = None,
    scheme: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What the landmarks mean; coco needs it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring labels from one file format into another."""
    from fewmark.data.formats import read_faces, write_faces
    from fewmark.scheme import load_scheme

    meaning = None if scheme is None else load_scheme(scheme)
    if source.resolve() == target.resolve():
        raise InputError(f"{target}: SRC and DST are the same; name another DST")
    faces = read_faces(source, source_format and source_format.value, scheme=meaning)
    write_faces(target, target_format and target_format.value, faces, meaning)
    if as_json:
        _print_json({"n_faces": len(faces), "out": str(target)})
    else:
        out.print(Text(f"{len(faces)} faces: {target}"))


@scheme_app.command("list")
def scheme_list(as_json: Json = False) -> None:
    """The packaged schemes."""
    from fewmark.scheme import load_scheme, scheme_names

    schemes = [load_scheme(name) for name in scheme_names()]
    if as_json:
        _print_json([_scheme_facts(s) for s in schemes])
        return
    table = Table(header_style="bold")
    for heading in ("scheme", "landmarks", "mirror", "normalizer", "source"):
        table.add_column(heading, justify="right" if heading == "landmarks" else "left")
    for s in schemes:
        mirror = "yes" if s.mirror is not None else "no"
        table.add_row(s.name, str(s.n_landmarks), mirror, s.default_normalizer, s.source)
    out.print(table, soft_wrap=False)


@scheme_app.command("show")
def scheme_show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A packaged scheme or a .toml file.")],
    picture: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.png", help="Write the numbered picture.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A scheme's landmarks and, with --out, its numbered picture."""
    from fewmark.scheme import load_scheme

    meaning = load_scheme(name)
    if picture is not None:
        from fewmark.pictures_out import write_picture
        from fewmark.scheme_picture import draw_scheme

        write_picture(picture, draw_scheme(meaning))
    if as_json:
        _print_json({**_scheme_facts(meaning), "landmarks": list(meaning.landmarks)})
        return
    out.print(Text(f"{meaning.name}: {meaning.n_landmarks} landmarks; {meaning.source}"))
    part = {i: n for n, indices in meaning.components.items() for i in indices}
    table = Table(header_style="bold")
    for heading in ("index", "landmark", "component", "mirror"):
        table.add_column(heading, justify="left" if heading in ("landmark", "component") else "right")
    for i, landmark in enumerate(meaning.landmarks):
        table.add_row(str(i), landmark, part.get(i, ""), "" if meaning.mirror is None else str(meaning.mirror[i]))
    out.print(table)
    out.print(Text(f"normalizers: {', '.join(meaning.normalizer_names)}; default {meaning.default_normalizer}"))
    if picture is not None:
        out.print(Text(f"picture: {picture}"))


@scheme_app.command("check")
def scheme_check(
    name: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A scheme's .toml file or a packaged name.")],
    as_json: Json = False,
) -> None:
    """Whether a scheme can be used, and what to look at in it."""
    from fewmark.scheme import load_scheme
    from fewmark.scheme_check import check_scheme

    meaning = load_scheme(name)
    findings = check_scheme(meaning)
    if as_json:
        _print_json({**_scheme_facts(meaning), "findings": findings})
        return
    out.print(Text(f"{meaning.name}: {meaning.n_landmarks} landmarks, can be used"))
    for finding in findings:
        out.print(Text(f"- {finding}", style="yellow"))


def _scheme_facts(s: LandmarkScheme) -> dict[str, Any]:
    return {
        "name": s.name,
        "n_landmarks": s.n_landmarks,
        "mirror": None if s.mirror is None else list(s.mirror),
        "components": {n: list(i) for n, i in s.components.items()},
        "normalizers": list(s.normalizer_names),
        "default_normalizer": s.default_normalizer,
        "source": s.source,
    }


def _list_names(paths: Sequence[Path]) -> list[str]:
    """Short names of lists, longer ones where short ones are not unique."""
    for names in ([p.stem for p in paths], [p.as_posix() for p in paths]):
        if len(set(names)) == len(names) and "full" not in names:
            return names
    raise InputError(f"--list: expected different lists, none of them named full, given {', '.join(map(str, paths))}")


def _short(score: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in score.items() if k not in ("per_face", "per_landmark")}


def _print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def _fail(line: str) -> None:
    err.print(Text(line, style="red"), soft_wrap=True)


if __name__ == "__main__":
    main()
