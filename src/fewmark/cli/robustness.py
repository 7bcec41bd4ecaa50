"""The verb `robustness`: a detector on perturbed faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import Json, err, image_progress, out, print_json
from fewmark.core.errors import InputError


def robustness(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file or a packaged name, e.g. ibug-68.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder or label file of the faces.")],
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            "--list", metavar="LIST...", help="Lists of DATA, measured together; all labelled faces if not given."
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--out", metavar="FILE...", help="Write charts and tables: .html .json .png"),
    ] = None,
    normalizer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What errors are divided by; the scheme's default if not given."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="So many of the faces at most, evenly spread over the lists.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a detector where the box is off, the image is turned, the face is small or the head is turned."""
    from fewmark.data.formats.io import read_faces
    from fewmark.data.lists import select
    from fewmark.inference.checkpoint.metadata import read_metadata
    from fewmark.landmarks.scheme import scheme_from_dict

    if limit is not None and limit < 1:
        raise InputError(f"--limit: expected 1 or more faces, given {limit}")
    meaning = scheme_from_dict(read_metadata(model)["scheme"], model)
    meaning.get_normalizer(normalizer or meaning.default_normalizer)
    samples = read_faces(data, scheme=meaning)
    if lists:
        chosen = [s for path in lists for s in select(samples, path)]
    else:
        chosen = [s for s in samples if s.landmarks is not None]
        if not chosen:
            raise InputError(f"{data}: expected labelled faces to measure on, given {len(samples)} without landmarks")
    chosen = list({(s.image, s.name): s for s in chosen}.values())
    if limit is not None and limit < len(chosen):
        chosen = [chosen[i * len(chosen) // limit] for i in range(limit)]

    from fewmark.evaluation.robustness import measure_robustness
    from fewmark.evaluation.robustness_report import check_output, summary_lines, table_of, title_of, write_robustness
    from fewmark.inference.detector import Detector

    for path in files or ():
        check_output(path)
    detector = Detector.load(model)
    with image_progress(err) as bar:
        task = bar.add_task("faces", total=len(chosen))
        result = measure_robustness(
            detector, chosen, normalizer=normalizer, on_faces=lambda n: bar.update(task, completed=n)
        )
    about = {"model": model, "scheme": meaning.name, "lists": [p.stem for p in lists or ()]}
    for path in files or ():
        write_robustness(path, result, title=f"Robustness of {model}", context=about)
    if as_json:
        print_json({**about, **result.to_dict()})
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
