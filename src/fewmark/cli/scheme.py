"""The commands `scheme list`, `scheme show`, `scheme check` and `scheme new`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import Command, Force, Json, Missing, missing_value, out, print_json
from fewmark.core.text import count

if TYPE_CHECKING:
    from fewmark.landmarks.scheme import LandmarkScheme

scheme_app = typer.Typer(
    help="List, show, check and make annotation schemes: names and order of the landmarks.", no_args_is_help=True
)


@scheme_app.command("list", cls=Command)
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


@scheme_app.command("show", cls=Command)
def scheme_show(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Packaged scheme or scheme file (.toml).")],
    image: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write an image of the numbered landmarks.")
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


@scheme_app.command("check", cls=Command)
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


@scheme_app.command("new", cls=Command)
def scheme_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new scheme.")],
    labels: Annotated[
        Path, typer.Option("--from", metavar="DATA", help="Folder or label file with labelled faces; ten are enough.")
    ],
    file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Scheme file to write (.toml); NAME.toml by default.")
    ] = None,
    missing: Missing = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Propose a scheme from labelled faces: names, mirror, components, edges and mean face.

    The mirror comes from the landmarks that the packaged model finds in the same faces. Look at the image that is written
    beside the file, correct the file where it is wrong, then run `fewmark scheme check FILE`.
    """
    from fewmark.cli.scheme_labels import propose_scheme_from
    from fewmark.core.files import check_outputs, write_text
    from fewmark.data.formats.io import files_read, read_faces
    from fewmark.data.images import write_image
    from fewmark.landmarks.scheme import scheme_to_toml
    from fewmark.landmarks.scheme_check import check_scheme
    from fewmark.visualization.scheme import draw_scheme

    target = file or Path(f"{name}.toml")
    image = target.with_suffix(".png")
    faces = read_faces(labels, missing=missing_value(missing))
    check_outputs([target, image], files_read(labels, faces), force=force)
    proposal, unused = propose_scheme_from(name, labels, faces)
    scheme = proposal.scheme
    doubts = proposal.doubtful
    mirror = scheme.mirror or tuple(range(scheme.n_landmarks))
    lines = [f"{i} {scheme.landmarks[i]}: {mirror[i]}, or {other}" for i, other in doubts.items()]
    comments = [f"# mirror to check: {line}\n" for line in lines]
    write_text(target, "".join(comments) + scheme_to_toml(scheme))
    write_image(image, draw_scheme(scheme))
    findings = check_scheme(scheme)
    if as_json:
        facts = {
            "landmarks": list(scheme.landmarks),
            "n_faces": proposal.n_faces,
            "doubtful": [scheme.landmarks[i] for i in doubts],
            "doubts": [
                {"index": i, "landmark": scheme.landmarks[i], "mirror": mirror[i], "or": other}
                for i, other in doubts.items()
            ],
            "findings": findings,
        }
        print_json({**_scheme_facts(scheme), **facts, "out": [str(target), str(image)]})
        return
    out.print(Text(f"{name}: {scheme.n_landmarks} landmarks, from {count(proposal.n_faces, 'labelled face')}"))
    for line in unused:
        out.print(Text(f"- {line}", style="yellow"))
    if scheme.mirror is None:
        out.print(Text("mirror: none, the faces show no symmetry; images will not be flipped in training"))
    else:
        pairs = sum(i < j for i, j in enumerate(scheme.mirror))
        out.print(Text(f"mirror: {pairs} pairs, {scheme.n_landmarks - 2 * pairs} on the midline"))
    out.print(Text("components: " + ", ".join(f"{n} {len(i)}" for n, i in scheme.components.items())))
    if doubts:
        text = f"- mirror to check by the numbers in {image.name}, another is nearly as near: {'; '.join(lines)}"
        out.print(Text(text, style="yellow"))
    for finding in findings:
        out.print(Text(f"- {finding}", style="yellow"))
    out.print(Text(f"scheme: {target}\nimage:  {image}"))


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
