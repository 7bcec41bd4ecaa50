"""The commands `scheme list`, `scheme show` and `scheme check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import Json, out, print_json

if TYPE_CHECKING:
    from fewmark.landmarks.scheme import LandmarkScheme

scheme_app = typer.Typer(
    help="List, show and check annotation schemes: names and order of the landmarks.", no_args_is_help=True
)


@scheme_app.command("list")
def scheme_list(as_json: Json = False) -> None:
    """List the packaged schemes."""
    from fewmark.landmarks.scheme import load_scheme, scheme_names

    schemes = [load_scheme(name) for name in scheme_names()]
    if as_json:
        print_json([_scheme_facts(s) for s in schemes])
        return
    table = Table(header_style="bold")
    for heading in ("scheme", "landmarks", "mirror", "default normalizer"):
        table.add_column(heading, justify="right" if heading == "landmarks" else "left")
    for s in schemes:
        table.add_row(s.name, str(s.n_landmarks), "yes" if s.mirror is not None else "no", s.default_normalizer)
    out.print(table)


@scheme_app.command("show")
def scheme_show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Packaged scheme or scheme file (.toml).")],
    image: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.png", help="Write an image of the numbered landmarks.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a scheme's landmarks."""
    from fewmark.landmarks.scheme import load_scheme

    scheme = load_scheme(name)
    if image is not None:
        from fewmark.core.files import check_outputs
        from fewmark.data.images import write_image
        from fewmark.visualization.scheme import draw_scheme

        check_outputs([image], [name], force=True)
        write_image(image, draw_scheme(scheme))
    if as_json:
        print_json({**_scheme_facts(scheme), "landmarks": list(scheme.landmarks)})
        return
    out.print(Text(f"{scheme.name}: {scheme.n_landmarks} landmarks; {scheme.source}"))
    component = {i: n for n, indices in scheme.components.items() for i in indices}
    table = Table(header_style="bold")
    for heading in ("index", "landmark", "component", "mirror"):
        table.add_column(heading, justify="left" if heading in ("landmark", "component") else "right")
    for i, landmark in enumerate(scheme.landmarks):
        mirror = "" if scheme.mirror is None else str(scheme.mirror[i])
        table.add_row(str(i), landmark, component.get(i, ""), mirror)
    out.print(table)
    out.print(Text(f"normalizers: {', '.join(scheme.normalizer_names)}; default {scheme.default_normalizer}"))
    if image is not None:
        out.print(Text(f"image: {image}"))


@scheme_app.command("check")
def scheme_check(
    name: Annotated[str, typer.Argument(metavar="FILE|NAME", help="Scheme file (.toml) or packaged scheme.")],
    as_json: Json = False,
) -> None:
    """Check a scheme file, and list what looks wrong in it."""
    from fewmark.landmarks.scheme import load_scheme
    from fewmark.landmarks.scheme_check import check_scheme

    scheme = load_scheme(name)
    findings = check_scheme(scheme)
    if as_json:
        print_json({**_scheme_facts(scheme), "findings": findings})
        return
    found = "no findings" if not findings else "valid, but look at"
    out.print(Text(f"{scheme.name}: {scheme.n_landmarks} landmarks, {found}"))
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
