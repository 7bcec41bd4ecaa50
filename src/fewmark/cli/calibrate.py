"""The verb that makes a model say how far its landmarks are expected to be from the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import BoxFrom, Json, out, print_json
from fewmark.core.errors import InputError


def calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file; the calibration is put into it.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Labelled faces that have not trained the model.")],
    names: Annotated[Path | None, typer.Option("--list", metavar="LIST", help="Only these faces of DATA.")] = None,
    box: Annotated[
        BoxFrom,
        typer.Option(help="gt: tight box of the true landmarks; detect: found; column: the data's own."),
    ] = BoxFrom.detect,
    as_json: Json = False,
) -> None:
    """Make a model foretell the error of every landmark, in pixels, from held-out faces."""
    from fewmark.data.formats.io import read_faces
    from fewmark.data.lists import select
    from fewmark.data.samples import stack_landmarks
    from fewmark.inference.checkpoint.edit import put_calibration
    from fewmark.inference.checkpoint.metadata import read_metadata
    from fewmark.landmarks.scheme import scheme_from_dict

    if not model.is_file():
        raise InputError(f"{model}: expected a model file; copy a packaged model to a file first")
    scheme = scheme_from_dict(read_metadata(model)["scheme"], f"{model}: scheme")
    samples = read_faces(data, scheme=scheme)
    samples = select(samples, names) if names is not None else [s for s in samples if s.landmarks is not None]

    from fewmark.inference.detector import Detector
    from fewmark.inference.labelled import predict_samples
    from fewmark.landmarks.calibration import (
        MIN_FACES,
        ErrorCalibration,
        cross_validated,
        relative_errors,
        reliability,
    )

    detector = Detector.load(model)
    found, scores = predict_samples(detector, samples, box.value, flip=detector.checkpoint.flip)
    truth = stack_landmarks(samples)
    errors = relative_errors(found, truth)
    calibration = ErrorCalibration.fit(scores, errors)
    if calibration is None:
        raise InputError(
            f"{data}: expected at least {MIN_FACES} labelled faces that are found, with scores that vary, given "
            f"{int(np.isfinite(scores).any(1).sum())} of {len(samples)}; a cascade needs a coarse stage with heatmaps"
        )
    put_calibration(model, calibration)
    foretold = cross_validated(scores, errors)
    if not np.isfinite(foretold).any():  # too few faces to leave some out
        foretold = calibration.expected_errors(scores, np.ones(len(scores))).astype(np.float64)
    told = reliability(foretold, errors)
    if as_json:
        bins = [{"expected": float(a), "true": float(b)} for a, b in zip(told.expected, told.true, strict=True)]
        print_json({"model": str(model), "n_faces": calibration.n_faces, "ratio": told.ratio, "bins": bins})
        return
    table = Table(title="expected and true error, % of the face's size, cross-validated", title_justify="left")
    for heading in ("landmarks", "expected", "true"):
        table.add_column(heading, justify="right")
    for i, (a, b) in enumerate(zip(told.expected, told.true, strict=True)):
        table.add_row(f"{10 * i} to {10 * i + 10} %", f"{100 * a:.2f}", f"{100 * b:.2f}")
    out.print(table)
    out.print(
        Text(f"{calibration.n_faces} faces; all expected errors over all true ones: {told.ratio:.2f}\nmodel: {model}")
    )
