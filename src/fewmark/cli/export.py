"""The verb that writes a model in another form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import Json, out, print_json
from fewmark.core.errors import InputError


class ExportFormat(StrEnum):
    onnx = "onnx"


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .safetensors file or a packaged name, e.g. ibug-68.")
    ],
    to: Annotated[ExportFormat, typer.Option(help="The format.")] = ExportFormat.onnx,
    path: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.onnx", help="Where it goes; beside MODEL if not given.")
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Average with the flipped crop unless told otherwise; as MODEL asks if not given."
        ),
    ] = None,
    share_weights: Annotated[
        bool, typer.Option("--share-weights", help="Leave the weights in MODEL's file, beside which FILE must lie.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit convolutions, if they cost at most 2 % of the NME.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option("--calibrate", metavar="DATA", help="Of --int8: labelled faces in MODEL's scheme.")
    ] = None,
    faces: Annotated[
        Path | None, typer.Option("--list", metavar="LIST", help="Of --calibrate: only these faces.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model as one ONNX file that needs no torch, checked against torch."""
    from fewmark.inference.checkpoint.metadata import read_metadata, resolve_model

    if int8 != (calibration is not None):
        raise InputError("--int8 and --calibrate DATA belong together: labelled faces say what 8 bits cost")
    if faces is not None and calibration is None:
        raise InputError("--list is of --calibrate DATA, which is not given")
    source = resolve_model(model)
    if path is None:
        path = source.with_suffix(".onnx") if Path(model).is_file() else Path(f"{model}.onnx")
    samples = None
    if calibration is not None:
        from fewmark.data.formats.io import read_faces
        from fewmark.data.lists import select
        from fewmark.landmarks.scheme import scheme_from_dict

        meaning = scheme_from_dict(read_metadata(source)["scheme"], model)
        samples = read_faces(calibration, scheme=meaning)
        samples = [s for s in samples if s.landmarks is not None] if faces is None else select(samples, faces)

    from fewmark.inference.export.onnx import export_onnx

    result = export_onnx(model, path, flip=flip, share_weights=share_weights, int8_faces=samples)
    if as_json:
        print_json({"format": to.value, **vars(result), "path": str(result.path)})
        return
    out.print(Text(f"{result.path}: {result.n_bytes / 1e6:.2f} MB, flip averaging {'on' if result.flip else 'off'}"))
    out.print(f"differs from torch by at most {result.parity_px:.2g} px of the crop, on synthetic faces")
    if result.int8 is not None:
        before, after = 100 * result.int8["nme_float"], 100 * result.int8["nme"]
        out.print(
            f"int8: NME {before:.3f} % -> {after:.3f} % by {result.int8['normalizer']}, {result.int8['n_faces']} faces"
        )
