"""The commands `transfer fit`, `transfer apply` and `transfer evaluate`."""

from __future__ import annotations

import math
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import (
    Command,
    Force,
    Json,
    LabelFormat,
    Missing,
    MissingValue,
    Normalizer,
    missing_value,
    out,
    print_json,
    scheme_of,
    warn,
)
from fewmark.core.errors import InputError
from fewmark.core.text import count, percent

if TYPE_CHECKING:
    from fewmark.data.pairs import FacePairs
    from fewmark.data.samples import FaceSample
    from fewmark.landmarks.scheme import LandmarkScheme
    from fewmark.landmarks.transfer import SchemeTransfer

transfer_app = typer.Typer(
    help="Convert landmarks of one annotation scheme to another by a fitted transfer.", no_args_is_help=True
)

Source = Annotated[Path, typer.Argument(metavar="SRC", help="Faces labelled in the source scheme.")]
Target = Annotated[Path, typer.Argument(metavar="DST", help="The same faces labelled in the target scheme.")]
Transfer = Annotated[Path, typer.Argument(metavar="TRANSFER", help="Transfer file written by `transfer fit`.")]
FaceList = Annotated[Path | None, typer.Option("--list", metavar="LIST", help="List of the faces of DST to use.")]
ContourFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="The same faces detected in the target scheme, whose contour replaces the transferred one.",
    ),
]


@transfer_app.command("fit", cls=Command)
def transfer_fit(
    source: Source,
    target: Target,
    source_scheme: Annotated[str, typer.Option(metavar="NAME|FILE", help="Annotation scheme of SRC.")],
    target_scheme: Annotated[str, typer.Option(metavar="NAME|FILE", help="Annotation scheme of DST.")],
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Transfer file to write (.safetensors).")],
    ridge: Annotated[
        str, typer.Option(metavar="NUMBER", help="Ridge penalty; auto: chosen by cross-validation.")
    ] = "auto",
    names: FaceList = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL",
            help="Model file of the source scheme to which the transfer is added. A new file becomes a copy of the packaged model "
            "named as the source scheme, e.g. ibug-68.",
        ),
    ] = None,
    provenance: Annotated[
        str, typer.Option(metavar="TEXT", help="Origin of the faces; the names of the files if not given.")
    ] = "",
    licence: Annotated[str, typer.Option(metavar="TEXT", help="Licence of the faces.")] = "not stated",
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Fit a transfer on faces that are labelled in two schemes."""
    from fewmark.core.files import atomic_path, check_outputs
    from fewmark.data.formats.io import files_read
    from fewmark.data.relabelling import fit_transfer_on_pairs
    from fewmark.inference.checkpoint.edit import put_transfer
    from fewmark.inference.checkpoint.metadata import packaged_names, resolve_model
    from fewmark.inference.checkpoint.transfers import check_source, save_transfer, transfer_facts
    from fewmark.landmarks.scheme import load_scheme

    penalty = _ridge(ridge)
    from_scheme, to_scheme = load_scheme(source_scheme), load_scheme(target_scheme)
    if file.suffix != ".safetensors":
        raise InputError(f"--out {file}: expected a file name that ends in .safetensors")
    if into is not None:
        if not into.is_file() and (into.suffix != ".safetensors" or from_scheme.name not in packaged_names()):
            raise InputError(
                f"--into {into}: expected a model file, or a new .safetensors file and a scheme with a packaged model"
            )
        base = str(into) if into.is_file() else from_scheme.name
        check_source(scheme_of(base), from_scheme, to_scheme, f"--into {into}")
        if into.resolve() == file.resolve():
            raise InputError(f"--out {file}: is the model of --into; name another file")
    pairs = _pairs(source, target, from_scheme, to_scheme, names, missing)
    inputs = [*files_read(source, pairs.source), *files_read(target, pairs.target), *([] if names is None else [names])]
    check_outputs([file], [*inputs, source_scheme, target_scheme], force=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        transfer = fit_transfer_on_pairs(
            pairs,
            from_scheme,
            to_scheme,
            ridge=penalty,
            provenance=provenance or f"{len(pairs.source)} faces of {source.name} and {target.name}",
            licence=licence,
        )
    for warning in caught:
        warn(str(warning.message))
    save_transfer(file, transfer)
    if into is not None:
        if not into.is_file():
            with atomic_path(into, replace=False) as temporary:
                shutil.copyfile(resolve_model(from_scheme.name), temporary)
        put_transfer(into, transfer)
    if as_json:
        counts = {"n_source": pairs.n_source, "n_target": pairs.n_target, "n_matched": len(pairs.source)}
        files = {"out": str(file), "into": None if into is None else str(into)}
        print_json({**transfer_facts(transfer), **counts, "warnings": [str(w.message) for w in caught], **files})
        return
    left = len(pairs.source) - transfer.n_pairs
    out.print(
        f"{count(transfer.n_pairs, 'pair')} of {pairs.n_source} and {pairs.n_target} labelled faces"
        + (f", {left} left out for missing landmarks" if left else "")
        + f"; ridge {transfer.ridge:g}"
    )
    _print_errors("held-out faces", transfer, {f"expected error ({transfer.normalizer})": _expected(transfer)})
    out.print(Text(f"transfer: {file}" + ("" if into is None else f"\nmodel:    {into}")))


@transfer_app.command("apply", cls=Command)
def transfer_apply(
    file: Transfer,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Faces labelled in the source scheme.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Label file to write; for pts a folder.")],
    target_format: Annotated[
        LabelFormat | None,
        typer.Option(
            "--to", metavar="FORMAT", help="csv, pts, coco or dlib: format of OUT; by its suffix if not given."
        ),
    ] = None,
    contour_from: ContourFrom = None,
    force: Force = False,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Convert labels to the target scheme."""
    from fewmark.core.files import check_outputs
    from fewmark.data.formats.io import files_read, files_written, read_faces, write_faces
    from fewmark.data.relabelling import relabel_faces
    from fewmark.inference.checkpoint.transfers import load_transfer, transfer_facts

    transfer = load_transfer(file)
    if data.resolve() == target.resolve():
        raise InputError(f"{target}: DATA and OUT are the same; name another OUT")
    faces = read_faces(data, scheme=transfer.source, missing=missing_value(missing))
    n_labelled = sum(s.landmarks is not None for s in faces)
    if not n_labelled:
        raise InputError(f"{data}: expected labelled faces, given {len(faces)} without landmarks")
    form = target_format and target_format.value
    contours = _contours(contour_from, transfer)
    inputs = [file, *files_read(data, faces)]
    if contour_from is not None:
        inputs += files_read(contour_from, contours or [])
    check_outputs(files_written(target, form, faces), inputs, force=force, instead="OUT")
    relabelled = relabel_faces(transfer, faces, contours)
    write_faces(target, form, relabelled, transfer.target)
    n_done = sum(s.landmarks is not None for s in relabelled)
    if as_json:
        counts = {"n_faces": len(faces), "n_labelled": n_labelled, "n_transferred": n_done}
        print_json({**counts, "transfer": transfer_facts(transfer), "out": str(target)})
        return
    lost = f", {n_labelled - n_done} lack a landmark of {transfer.source.name}" if n_done < n_labelled else ""
    out.print(Text(f"{count(n_done, 'face')} of {len(faces)} with landmarks of {transfer.target.name}{lost}: {target}"))
    error = percent(transfer.expected_error, missing="not known")
    out.print(f"expected error {error} by {transfer.normalizer}, in addition to that of the labels")


@transfer_app.command("evaluate", cls=Command)
def transfer_evaluate(
    file: Transfer,
    source: Source,
    target: Target,
    names: FaceList = None,
    normalizer: Normalizer = None,
    contour_from: ContourFrom = None,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Evaluate a transfer on faces that are labelled in both schemes."""
    from fewmark.data.relabelling import score_transfer
    from fewmark.inference.checkpoint.transfers import load_transfer, transfer_facts

    transfer = load_transfer(file)
    transfer.target.get_normalizer(normalizer or transfer.target.default_normalizer)
    pairs = _pairs(source, target, transfer.source, transfer.target, names, missing)
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
        out.print(f"contour: {percent(found.tangent)} along it, {percent(found.normal)} across it")
    notes = ((score.n_undetected, "without a result"), (score.n_left_out, "left out: the normalizer's length is 0"))
    for n, note in notes:
        if n:
            out.print(f"{count(n, 'face')} {note}")


def _ridge(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise typer.BadParameter(f"expected auto or a number of 0 or more, given {text!r}", param_hint="--ridge")
    return value


def _pairs(
    source: Path,
    target: Path,
    from_scheme: LandmarkScheme,
    to_scheme: LandmarkScheme,
    names: Path | None,
    missing: MissingValue | None,
) -> FacePairs:
    from fewmark.data.formats.io import read_faces
    from fewmark.data.lists import select
    from fewmark.data.pairs import match_faces

    given = missing_value(missing)
    ours = read_faces(source, scheme=from_scheme, missing=given)
    theirs = read_faces(target, scheme=to_scheme, missing=given)
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
