"""The verbs about transfers between schemes: transfer fit, apply and evaluate. None needs torch."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import Json, LabelFormat, err, out, print_json
from fewmark.core.errors import InputError
from fewmark.core.text import count, percent

if TYPE_CHECKING:
    from fewmark.data.pairs import FacePairs
    from fewmark.data.samples import FaceSample
    from fewmark.landmarks.scheme import LandmarkScheme
    from fewmark.landmarks.transfer import SchemeTransfer

transfer_app = typer.Typer(
    help="Transfers between schemes: another scheme's landmarks from the ones that are there.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(metavar="SRC", help="Faces with landmarks of the source scheme.")]
Target = Annotated[Path, typer.Argument(metavar="DST", help="The same faces with landmarks of the target scheme.")]
Transfer = Annotated[Path, typer.Argument(metavar="TRANSFER", help="A file that `transfer fit` wrote.")]
FaceList = Annotated[Path | None, typer.Option("--list", metavar="LIST", help="Only these faces of DST.")]
ContourFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="The same faces in the target scheme, found directly: take their contour, not the transfer's.",
    ),
]


@transfer_app.command("fit")
def transfer_fit(
    source: Source,
    target: Target,
    source_scheme: Annotated[str, typer.Option(metavar="NAME|FILE", help="What the landmarks of SRC mean.")],
    target_scheme: Annotated[str, typer.Option(metavar="NAME|FILE", help="What the landmarks of DST mean.")],
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the transfer goes; .safetensors.")],
    ridge: Annotated[str, typer.Option(metavar="auto|NUMBER", help="The penalty; auto cross-validates it.")] = "auto",
    names: FaceList = None,
    into: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Put it into this model file of the source scheme too.")
    ] = None,
    provenance: Annotated[str, typer.Option(metavar="TEXT", help="What the faces are; the files' names else.")] = "",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="What the faces' licence allows.")] = "not stated",
    as_json: Json = False,
) -> None:
    """Fit a transfer on faces that are labelled in two schemes."""
    from fewmark.inference.checkpoint.edit import put_transfer
    from fewmark.inference.checkpoint.metadata import read_metadata
    from fewmark.inference.checkpoint.transfers import check_source, save_transfer, transfer_facts
    from fewmark.landmarks.scheme import load_scheme, scheme_from_dict
    from fewmark.landmarks.transfer import SchemeTransfer

    penalty = _ridge(ridge)
    from_scheme, to_scheme = load_scheme(source_scheme), load_scheme(target_scheme)
    if file.suffix != ".safetensors":
        raise InputError(f"--out {file}: expected a file name that ends in .safetensors")
    if into is not None:
        if not into.is_file():
            raise InputError(f"--into {into}: expected a model file; copy a packaged model to a file first")
        model_scheme = scheme_from_dict(read_metadata(into)["scheme"], f"{into}: scheme")
        check_source(model_scheme, from_scheme, to_scheme, f"--into {into}")
        if into.resolve() == file.resolve():
            raise InputError(f"--out {file}: is the model of --into; name another file")
    pairs = _pairs(source, target, from_scheme, to_scheme, names)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        transfer = SchemeTransfer.fit(
            from_scheme,
            to_scheme,
            pairs.source_points,
            pairs.target_points,
            ridge=penalty,
            groups=pairs.groups,
            boxes_xyxy=pairs.boxes,
            provenance=provenance or f"{len(pairs.source)} faces of {source.name} and {target.name}",
            licence=licence,
        )
    for warning in caught:
        err.print(Text(str(warning.message), style="yellow"), soft_wrap=True)
    save_transfer(file, transfer)
    if into is not None:
        put_transfer(into, transfer)
    if as_json:
        counts = {"n_source": pairs.n_source, "n_target": pairs.n_target, "n_matched": len(pairs.source)}
        places = {"out": str(file), "into": None if into is None else str(into)}
        print_json({**transfer_facts(transfer), **counts, "warnings": [str(w.message) for w in caught], **places})
        return
    left = len(pairs.source) - transfer.n_pairs
    out.print(
        f"{count(transfer.n_pairs, 'pair')} of {pairs.n_source} and {pairs.n_target} labelled faces"
        + (f", {left} left out for missing landmarks" if left else "")
        + f"; ridge {transfer.ridge:g}"
    )
    _print_errors("held-out faces", transfer, {f"expected error ({transfer.normalizer})": _expected(transfer)})
    out.print(Text(f"transfer: {file}" + ("" if into is None else f"\nmodel:    {into}")))


@transfer_app.command("apply")
def transfer_apply(
    file: Transfer,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Faces with landmarks of the source scheme.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where the labels go; for pts a folder.")],
    target_format: Annotated[LabelFormat | None, typer.Option("--to", help="Of OUT; its suffix says it else.")] = None,
    contour_from: ContourFrom = None,
    as_json: Json = False,
) -> None:
    """Turn a data set's labels into the target scheme's."""
    from fewmark.data.formats.io import read_faces, write_faces
    from fewmark.data.relabelling import relabel_faces
    from fewmark.inference.checkpoint.transfers import load_transfer, transfer_facts

    transfer = load_transfer(file)
    if data.resolve() == target.resolve():
        raise InputError(f"{target}: DATA and OUT are the same; name another OUT")
    faces = read_faces(data, scheme=transfer.source)
    n_labelled = sum(s.landmarks is not None for s in faces)
    if not n_labelled:
        raise InputError(f"{data}: expected labelled faces, given {len(faces)} without landmarks")
    relabelled = relabel_faces(transfer, faces, _contours(contour_from, transfer))
    write_faces(target, target_format and target_format.value, relabelled, transfer.target)
    n_done = sum(s.landmarks is not None for s in relabelled)
    if as_json:
        counts = {"n_faces": len(faces), "n_labelled": n_labelled, "n_transferred": n_done}
        print_json({**counts, "transfer": transfer_facts(transfer), "out": str(target)})
        return
    lost = f", {n_labelled - n_done} lack a landmark of {transfer.source.name}" if n_done < n_labelled else ""
    out.print(Text(f"{count(n_done, 'face')} of {len(faces)} with landmarks of {transfer.target.name}{lost}: {target}"))
    error = percent(transfer.expected_error, missing="not known")
    out.print(f"expected error {error} by {transfer.normalizer}, beside that of the labels themselves")


@transfer_app.command("evaluate")
def transfer_evaluate(
    file: Transfer,
    source: Source,
    target: Target,
    names: FaceList = None,
    normalizer: Annotated[
        str | None, typer.Option(metavar="NAME", help="What errors are divided by; the target scheme's default else.")
    ] = None,
    contour_from: ContourFrom = None,
    as_json: Json = False,
) -> None:
    """Measure a transfer on faces that are labelled in both schemes."""
    from fewmark.data.relabelling import score_transfer
    from fewmark.inference.checkpoint.transfers import load_transfer, transfer_facts

    transfer = load_transfer(file)
    transfer.target.get_normalizer(normalizer or transfer.target.default_normalizer)
    pairs = _pairs(source, target, transfer.source, transfer.target, names)
    direct = _contours(contour_from, transfer)
    found = score_transfer(transfer, pairs, contour_from=direct, normalizer=normalizer)
    if as_json:
        print_json({**found.to_dict(), "transfer": transfer_facts(transfer)})
        return
    score = found.score
    columns = {f"NME ({score.normalizer})": {"all": score.nme, **score.per_component}}
    if score.normalizer == transfer.normalizer:
        columns["expected"] = _expected(transfer)
    _print_errors(f"{file} on {count(score.n_faces, 'face')}", transfer, columns)
    if math.isfinite(found.tangent):
        out.print(
            f"contour: {percent(found.tangent, missing='not known')} along it, {percent(found.normal, missing='not known')} across it"
        )
    notes = ((score.n_undetected, "without an answer"), (score.n_left_out, "left out: the normalizer has no length"))
    for n, what in notes:
        if n:
            out.print(f"{count(n, 'face')} {what}")


def _ridge(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"expected auto or a number from 0 on, given {text!r}", param_hint="--ridge")
    return value


def _pairs(
    source: Path, target: Path, from_scheme: LandmarkScheme, to_scheme: LandmarkScheme, names: Path | None
) -> FacePairs:
    from fewmark.data.formats.io import read_faces
    from fewmark.data.lists import select
    from fewmark.data.pairs import match_faces

    ours, theirs = read_faces(source, scheme=from_scheme), read_faces(target, scheme=to_scheme)
    pairs = match_faces(ours, theirs, (str(source), str(target)))
    if names is None:
        return pairs
    wanted = {id(s) for s in select(theirs, names)}
    return pairs.only([i for i, s in enumerate(pairs.target) if id(s) in wanted], str(names))


def _contours(path: Path | None, transfer: SchemeTransfer) -> list[FaceSample] | None:
    from fewmark.data.formats.io import read_faces

    return None if path is None else read_faces(path, scheme=transfer.target)


def _expected(transfer: SchemeTransfer) -> dict[str, float]:
    return {"all": transfer.expected_error, **transfer.expected_error_per_component}


def _print_errors(title: str, transfer: SchemeTransfer, columns: dict[str, dict[str, float]]) -> None:
    name = f"{transfer.source.name} -> {transfer.target.name}: {title}"
    table = Table(title=name, title_justify="left", header_style="bold")
    table.add_column("landmarks")
    for heading in columns:
        table.add_column(heading, justify="right")
    for part in next(iter(columns.values())):
        table.add_row(part, *(percent(errors[part], missing="not known") for errors in columns.values()))
    out.print(table)
