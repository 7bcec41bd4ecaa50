"""The command `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import Force, Json, LabelFormat, Missing, missing_value, out, print_json
from fewmark.core.errors import InputError
from fewmark.core.text import count


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Label file or folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Label file to write; for pts and labelme a folder.")],
    source_format: Annotated[
        LabelFormat | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help=f"Format of SRC: {', '.join(LabelFormat)}; by its suffix and content if not given.",
        ),
    ] = None,
    target_format: Annotated[
        LabelFormat | None,
        typer.Option("--to", metavar="FORMAT", help="Format of DST, of the same; by its suffix if not given."),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Annotation scheme of the labels; required for coco.")
    ] = None,
    force: Force = False,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Convert labels from one file format to another."""
    from fewmark.core.files import check_outputs
    from fewmark.data.formats.io import files_read, files_written, read_faces, write_faces
    from fewmark.landmarks.scheme import load_scheme

    landmarks = None if scheme is None else load_scheme(scheme)
    if source.resolve() == target.resolve():
        raise InputError(f"{target}: SRC and DST are the same; name another DST")
    faces = read_faces(source, source_format and source_format.value, scheme=landmarks, missing=missing_value(missing))
    form = target_format and target_format.value
    inputs: list[str | Path] = [*files_read(source, faces), *([] if scheme is None else [scheme])]
    check_outputs(files_written(target, form, faces), inputs, force=force, instead="DST")
    write_faces(target, form, faces, landmarks)
    if as_json:
        print_json({"n_faces": len(faces), "out": str(target)})
    else:
        out.print(Text(f"{count(len(faces), 'face')}: {target}"))
