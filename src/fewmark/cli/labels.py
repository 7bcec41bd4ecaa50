"""The verbs about labels and schemes: inspect, convert, scheme list, show and check. None needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import Json, LabelFormat, out, print_json
from fewmark.core.errors import InputError
from fewmark.core.text import count

if TYPE_CHECKING:
    from fewmark.landmarks.scheme import LandmarkScheme

scheme_app = typer.Typer(help="Annotation schemes: what the landmarks mean.", no_args_is_help=True)


def inspect(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="A model, a transfer, or a file or folder of labels; none: lists the packaged models."
        ),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Of the labels; their number is then checked.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a model file, a transfer between schemes or a label file holds; or which models are packaged."""
    from fewmark.cli.describe import describe_labels, describe_model, describe_transfer, list_packaged
    from fewmark.inference.checkpoint.metadata import (
        holds_transfer,
        packaged_names,
        read_metadata,
        read_transfer_metadata,
    )

    if file is None:
        _print_packaged(list_packaged(), as_json)
        return
    findings: list[str] = []
    if file.suffix == ".safetensors" and holds_transfer(file):
        from fewmark.inference.checkpoint.transfers import load_transfer

        data = read_transfer_metadata(file)
        facts = describe_transfer(load_transfer(file))
    elif file.suffix in (".safetensors", ".onnx") or (not file.exists() and str(file) in packaged_names()):
        data = read_metadata(file)
        facts = describe_model(data)
    else:
        from fewmark.landmarks.scheme import load_scheme

        data, facts = describe_labels(file, None if scheme is None else load_scheme(scheme))
        findings = data["findings"]
    if as_json:
        print_json(data)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts:
        table.add_row(Text(name, style="bold"), Text(value))
    out.print(table)
    for finding in findings:
        out.print(Text(f"- {finding}", style="yellow"))


def _print_packaged(models: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(models)
        return
    table = Table("model", "scheme", "landmarks", "parameters", "MB", "licence", box=None, padding=(0, 2, 0, 0))
    for m in models:
        size, n_bytes = f"{m['n_parameters'] / 1e6:.2f} M", f"{m['n_bytes'] / 1e6:.1f}"
        table.add_row(m["name"], m["scheme"], str(m["n_landmarks"]), size, n_bytes, m["licence"] or "not stated")
    out.print(table)


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Labels: a file, or a folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Where they go; for pts a folder.")],
    source_format: Annotated[
        LabelFormat | None, typer.Option("--from", help="Of SRC; its suffix says it else.")
    ] = None,
    target_format: Annotated[LabelFormat | None, typer.Option("--to", help="Of DST; its suffix says it else.")] = None,
    scheme: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What the landmarks mean; coco needs it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring labels from one file format into another."""
    from fewmark.data.formats.io import read_faces, write_faces
    from fewmark.landmarks.scheme import load_scheme

    meaning = None if scheme is None else load_scheme(scheme)
    if source.resolve() == target.resolve():
        raise InputError(f"{target}: SRC and DST are the same; name another DST")
    faces = read_faces(source, source_format and source_format.value, scheme=meaning)
    write_faces(target, target_format and target_format.value, faces, meaning)
    if as_json:
        print_json({"n_faces": len(faces), "out": str(target)})
    else:
        out.print(Text(f"{count(len(faces), 'face')}: {target}"))


@scheme_app.command("list")
def scheme_list(as_json: Json = False) -> None:
    """The packaged schemes."""
    from fewmark.landmarks.scheme import load_scheme, scheme_names

    schemes = [load_scheme(name) for name in scheme_names()]
    if as_json:
        print_json([_scheme_facts(s) for s in schemes])
        return
    table = Table(header_style="bold")
    for heading in ("scheme", "landmarks", "mirror", "normalizer"):
        table.add_column(heading, justify="right" if heading == "landmarks" else "left")
    for s in schemes:
        table.add_row(s.name, str(s.n_landmarks), "yes" if s.mirror is not None else "no", s.default_normalizer)
    out.print(table)


@scheme_app.command("show")
def scheme_show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A packaged scheme or a .toml file.")],
    image: Annotated[Path | None, typer.Option("--out", metavar="FILE.png", help="Write the numbered image.")] = None,
    as_json: Json = False,
) -> None:
    """A scheme's landmarks and, with --out, its numbered image."""
    from fewmark.landmarks.scheme import load_scheme

    meaning = load_scheme(name)
    if image is not None:
        from fewmark.data.images import write_image
        from fewmark.visualization.scheme import draw_scheme

        write_image(image, draw_scheme(meaning))
    if as_json:
        print_json({**_scheme_facts(meaning), "landmarks": list(meaning.landmarks)})
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
    if image is not None:
        out.print(Text(f"image: {image}"))


@scheme_app.command("check")
def scheme_check(
    name: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A scheme's .toml file or a packaged name.")],
    as_json: Json = False,
) -> None:
    """Whether a scheme can be used, and what to look at in it."""
    from fewmark.landmarks.scheme import load_scheme
    from fewmark.landmarks.scheme_check import check_scheme

    meaning = load_scheme(name)
    findings = check_scheme(meaning)
    if as_json:
        print_json({**_scheme_facts(meaning), "findings": findings})
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
