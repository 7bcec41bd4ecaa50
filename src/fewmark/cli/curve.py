"""The command `curve`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import Json, Missing, err, missing_value, out, print_json
from fewmark.cli.project import missing_option, refuse_options
from fewmark.core.text import percent

if TYPE_CHECKING:
    from fewmark.training.events import Event
    from fewmark.training.learning_curve import LearningCurve


def curve(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="Folder or label file of the faces, or a project folder, which needs no option."
        ),
    ],
    scheme: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Annotation scheme of the landmarks; see `fewmark scheme list`."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the runs and the curve; made if missing, gone on with if not."
        ),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="List of the labelled faces; if not given, all that no other list names."),
    ] = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(metavar="LIST|DATA...", help="Unlabelled faces, as for `train`."),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="LIST",
            help="List of validation faces; if not given, a third of the labelled faces is held out in each draw.",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Recipe of every run, as for `train`.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model with the initial weights, as for `train`.")
    ] = None,
    counts: Annotated[
        list[int] | None,
        typer.Option(
            "--count",
            metavar="N",
            help="Number of labelled faces to learn from; repeat it. If not given: a quarter, a half, all.",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the labelled faces.")] = 2,
    more: Annotated[int, typer.Option(min=1, help="Number of further labels whose worth is asked.")] = 50,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of every run.")
    ] = None,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Train on parts of the labels, and tell what more labels would buy."""
    from fewmark.project.project import is_project

    if is_project(data):
        others = {"--scheme": scheme, "--out": folder, "--labelled": labelled, "--unlabelled": unlabelled, "--val": val}
        refuse_options(data, others)
        found, folder = _of_project(data, recipe, settings or [], start, counts or [], draws, more)
        _show(found, folder, more, as_json)
        return
    if scheme is None or folder is None:
        raise missing_option("--scheme" if scheme is None else "--out")
    from fewmark.data.lists import read_training_lists
    from fewmark.landmarks.scheme import load_scheme
    from fewmark.training.config import load_config

    first, chosen = None, recipe
    if start is not None:
        from fewmark.inference.checkpoint.io import load_checkpoint
        from fewmark.training.start import usual_recipe

        first = load_checkpoint(start)
        chosen = chosen or usual_recipe(first)
    config = load_config(chosen or "laptop", settings or [])
    landmarks = load_scheme(scheme)
    lists = read_training_lists(
        data, labelled, unlabelled or (), val, scheme=landmarks, missing=missing_value(missing), all_labelled=True
    )

    from fewmark.training.curve_runs import measure_learning_curve
    from fewmark.training.faces import TrainingData
    from fewmark.training.learning_curve import write_curve

    faces = TrainingData(landmarks, lists.labelled, lists.unlabelled, lists.validation)
    found = measure_learning_curve(
        config, faces, folder, counts=counts or (), n_draws=draws, start=first, on_run=_tell_of(draws)
    )
    write_curve(folder, found, more)
    _show(found, folder, more, as_json)


def _of_project(
    data: Path,
    recipe: str | None,
    settings: Sequence[str],
    start: str | None,
    counts: Sequence[int],
    draws: int,
    more: int,
) -> tuple[LearningCurve, Path]:
    """The curve of a project's labels and its folder."""
    from fewmark.project.curve import curve_folder
    from fewmark.project.project import open_project

    with open_project(data) as project:
        found = project.learning_curve(
            recipe, settings, start=start, counts=counts, n_draws=draws, n_more=more, on_run=_tell_of(draws)
        )
        return found, curve_folder(data, project.labels.last_change())


def _tell_of(draws: int) -> Callable[[int, int], Callable[[Event], None]]:
    """Tells of each run and its notes."""

    def on_run(n_labels: int, draw: int) -> Callable[[Event], None]:
        err.print(f"{n_labels} labels, draw {draw + 1} of {draws}")

        def show(event: Event) -> None:
            if event["kind"] == "note":
                err.print(Text(event["text"]), soft_wrap=True)

        return show

    return on_run


def _show(found: LearningCurve, folder: Path, more: int, as_json: bool) -> None:
    """Draw a curve beside its numbers, and print it."""
    from fewmark.core.files import write_text
    from fewmark.training.learning_curve import CURVE_FILE, curve_data

    picture = folder / "curve.svg"
    write_text(picture, _chart(found, more))
    if as_json:
        print_json(curve_data(found, more) | {"picture": str(picture)})
        return
    out.print(_table(found))
    for line in _verdict(found, more):
        out.print(line)
    out.print(Text(f"picture: {picture}\nnumbers: {folder / CURVE_FILE}"))


def _table(found: LearningCurve) -> Table:
    table = Table(header_style="bold")
    for heading in ("labels", "runs", "NME", "fitted, 80 % band"):
        table.add_column(heading, justify="right")
    for n in sorted({p.n_labels for p in found.points}):
        nmes = [p.nme for p in found.points if p.n_labels == n]
        low, middle, high = found.nme(n)
        table.add_row(
            str(n),
            str(len(nmes)),
            ", ".join(percent(v) for v in nmes),
            f"{percent(middle)} ({percent(low)} to {percent(high)})",
        )
    return table


def _verdict(found: LearningCurve, more: int) -> list[str]:
    most = max(p.n_labels for p in found.points)
    low, middle, high = found.gain(most, more)
    after = found.nme(most + more)
    lines = [
        f"{more} more labels: NME {percent(after[1])} ({percent(after[0])} to {percent(after[2])}), "
        f"{percent(middle)} of the error less ({percent(low)} to {percent(high)})"
    ]
    if low <= 0:
        lines.append(
            "The runs differ more by chance than by their labels: no gain is shown. More draws (--draws) would tell more."
        )
    if more > most:
        lines.append(
            f"{more} is more than the {most} labels there are: the band holds only if the error goes on falling as it does."
        )
    return lines


def _chart(found: LearningCurve, more: int) -> str:
    import numpy as np

    from fewmark.visualization.charts import line_chart

    counts = [p.n_labels for p in found.points]
    x = np.geomspace(min(counts), max(counts) + more, 60)
    low, middle, high = 100 * found.nme(x).T
    name = "fitted, 80 % band"
    return line_chart(
        {name: list(zip(x.tolist(), middle.tolist(), strict=True))},
        title="Error by the number of labelled faces",
        x_label="labelled faces",
        y_label="NME of held-out faces, %",
        bands={name: list(zip(x.tolist(), low.tolist(), high.tolist(), strict=True))},
        marks={"runs": [(p.n_labels, 100 * p.nme) for p in found.points]},
    )
