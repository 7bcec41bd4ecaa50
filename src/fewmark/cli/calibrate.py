"""The command `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import (
    BoxFrom,
    BoxOption,
    Json,
    Missing,
    OneList,
    missing_value,
    out,
    print_json,
    scheme_of,
    select_labelled,
)
from fewmark.core.errors import InputError
from fewmark.core.text import percent


def calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, to which the calibration is added.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Labelled faces that the model was not trained on.")],
    names: OneList = None,
    box: BoxOption = BoxFrom.detect,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Add the expected error of every landmark, in pixels, to a model, from held-out faces."""
    from fewmark.data.formats.io import read_faces
    from fewmark.data.samples import stack_landmarks
    from fewmark.inference.checkpoint.edit import put_calibration

    if not model.is_file():
        raise InputError(f"{model}: expected a model file; copy a packaged model to a file first")
    samples = select_labelled(
        data,
        read_faces(data, scheme=scheme_of(model), missing=missing_value(missing)),
        None if names is None else [names],
    )

    import numpy as np

    from fewmark.inference.detector import Detector
    from fewmark.inference.labelled import predict_samples
    from fewmark.landmarks.calibration import (
        MIN_FACES,
        ErrorCalibration,
        cross_validated_errors,
        relative_errors,
        reliability,
    )

    detector = Detector.load(model)
    found, scores = predict_samples(detector, samples, box.value, flip=detector.checkpoint.flip)
    errors = relative_errors(found, stack_landmarks(samples))
    calibration = ErrorCalibration.fit(scores, errors)
    if calibration is None:
        raise InputError(
            f"{data}: expected at least {MIN_FACES} labelled faces that are detected, with scores that vary, given "
            f"{int(np.isfinite(scores).any(1).sum())} of {len(samples)}; a cascade needs a coarse stage with heatmaps"
        )
    put_calibration(model, calibration)
    expected = cross_validated_errors(scores, errors)
    if not np.isfinite(expected).any():  # too few faces to leave some out
        expected = calibration.expected_errors(scores, np.ones(len(scores))).astype(np.float64)
    bins = reliability(expected, errors)
    pairs = [(float(a), float(b)) for a, b in zip(bins.expected, bins.true, strict=True)]
    if as_json:
        parts = [{"expected": a, "true": b} for a, b in pairs]
        print_json({"model": str(model), "n_faces": calibration.n_faces, "ratio": bins.ratio, "bins": parts})
        return
    table = Table(title="cross-validated errors, as a share of the face's size", title_justify="left")
    for heading in ("landmarks, by expected error", "expected", "true"):
        table.add_column(heading, justify="right")
    for i, (a, b) in enumerate(pairs):
        table.add_row(f"{10 * i} to {10 * i + 10} %", percent(a), percent(b))
    out.print(table)
    out.print(
        Text(f"{calibration.n_faces} faces; sum of expected over sum of true errors: {bins.ratio:.2f}\nmodel: {model}")
    )
