"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import Json, LabelFormat, Missing, missing_value, out, print_json, scheme_of, select_labelled
from fewmark.cli.project import export_project
from fewmark.core.errors import InputError

ONNX = "onnx"
FORMATS = (ONNX, *(f.value for f in LabelFormat))


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Model file (.safetensors), packaged name, e.g. ibug-68, or project folder."
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help=f"Format to write: {ONNX}; of a project also its labels: {', '.join(FORMATS[1:])}.",
        ),
    ] = ONNX,
    path: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="File to write; for onnx by default next to MODEL."),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Average with the flipped crop; --no-flip: do not. By default as MODEL does."
        ),
    ] = None,
    share_weights: Annotated[
        bool,
        typer.Option(
            "--share-weights", help="Keep the weights in MODEL's file, next to which the ONNX file must stay."
        ),
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize convolutions to 8 bits if the NME rises by at most 2 %.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option("--calibrate", metavar="DATA", help="Labelled faces in MODEL's scheme, for --int8.")
    ] = None,
    faces: Annotated[
        Path | None, typer.Option("--list", metavar="LIST", help="List of the faces of --calibrate to use.")
    ] = None,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Export a model to an ONNX file that needs no torch, and check it against torch."""
    from fewmark.inference.checkpoint.metadata import packaged_names, resolve_model

    if to not in FORMATS:
        raise typer.BadParameter(f"expected one of {', '.join(FORMATS)}, given {to!r}", param_hint="--to")
    if to != ONNX:
        if path is None:
            raise InputError(f"--to {to}: --out FILE is missing")
        export_project(Path(model), path, to, as_json=as_json)
        return
    if int8 != (calibration is not None):
        raise InputError(
            "--int8 and --calibrate DATA belong together: the loss of accuracy is measured on labelled faces"
        )
    if faces is not None and calibration is None:
        raise InputError("--list needs --calibrate DATA; add it")
    source = resolve_model(model)
    if path is None:
        is_packaged = str(model) in packaged_names() and not Path(model).is_file()
        path = Path(f"{model}.onnx") if is_packaged else source.with_suffix(".onnx")
    samples = None
    if calibration is not None:
        from fewmark.data.formats.io import read_faces

        samples = read_faces(calibration, scheme=scheme_of(model), missing=missing_value(missing))
        samples = select_labelled(calibration, samples, None if faces is None else [faces])

    from fewmark.inference.export.onnx import export_onnx

    result = export_onnx(model, path, flip=flip, share_weights=share_weights, int8_faces=samples)
    if as_json:
        print_json({"format": to, **vars(result), "path": str(result.path)})
        return
    out.print(Text(f"{result.path}: {result.n_bytes / 1e6:.2f} MB, flip averaging {'on' if result.flip else 'off'}"))
    out.print(f"difference from torch: at most {result.parity_px:.2g} crop px, on synthetic faces")
    if result.int8 is not None:
        before, after = 100 * result.int8["nme_float"], 100 * result.int8["nme"]
        out.print(
            f"int8: NME {before:.3f} % -> {after:.3f} % by {result.int8['normalizer']}, {result.int8['n_faces']} faces"
        )
