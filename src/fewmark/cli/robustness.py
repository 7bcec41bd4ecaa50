"""The command `robustness`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import (
    DataArgument,
    Json,
    Missing,
    ModelArgument,
    Normalizer,
    err,
    image_progress,
    missing_value,
    out,
    print_json,
    scheme_of,
    select_labelled,
)
from fewmark.core.errors import InputError


def robustness(
    model: ModelArgument,
    data: DataArgument,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", metavar="LIST...", help="Lists of faces in DATA; all labelled faces if not given."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--out", metavar="FILE...", help="Write charts and tables: .html .json .png"),
    ] = None,
    normalizer: Normalizer = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Largest number of faces, taken evenly from the lists.")
    ] = None,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Evaluate a detector on inaccurate boxes, rotated images, small faces and turned heads."""
    from fewmark.core.files import check_outputs
    from fewmark.data.formats.io import files_read, read_faces

    if limit is not None and limit < 1:
        raise InputError(f"--limit: expected 1 or more faces, given {limit}")
    scheme = scheme_of(model)
    scheme.get_normalizer(normalizer or scheme.default_normalizer)
    faces = select_labelled(data, read_faces(data, scheme=scheme, missing=missing_value(missing)), lists)
    if limit is not None and limit < len(faces):
        faces = [faces[i * len(faces) // limit] for i in range(limit)]

    from fewmark.evaluation.robustness import measure_robustness
    from fewmark.evaluation.robustness_report import check_output, summary_lines, table_of, title_of, write_robustness
    from fewmark.inference.checkpoint.metadata import resolve_model
    from fewmark.inference.detector import Detector

    for path in files or ():
        check_output(path)
    check_outputs(files or (), [*files_read(data, faces), *(lists or ()), resolve_model(model)], force=True)
    detector = Detector.load(model)
    with image_progress(err) as bar:
        task = bar.add_task("faces", total=len(faces))
        result = measure_robustness(
            detector, faces, normalizer=normalizer, on_faces=lambda n: bar.update(task, completed=n)
        )
    context = {"model": model, "scheme": scheme.name, "lists": [p.stem for p in lists or ()]}
    for path in files or ():
        write_robustness(path, result, title=f"Robustness of {model}", context=context)
    if as_json:
        print_json({**context, **result.to_dict()})
        return
    for line in summary_lines(result):
        out.print(Text(line))
    for curve in result.curves:
        headings, rows = table_of(curve)
        table = Table(title=title_of(curve), title_justify="left", header_style="bold")
        for i, heading in enumerate(headings):
            table.add_column(heading, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        out.print(table)
    for path in files or ():
        out.print(Text(f"written: {path}"))
