"""The command `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from fewmark.cli.base import Json, Missing, missing_value, out, print_json, warn

if TYPE_CHECKING:
    from fewmark.cli.describe import Facts


def inspect(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Model, transfer, run folder, or labels: a file or folder."),
    ] = None,
    scheme: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Annotation scheme with which to check the labels."),
    ] = None,
    missing: Missing = None,
    as_json: Json = False,
) -> None:
    """Describe a model, transfer, training run or labels; without FILE, list the packaged models."""
    from fewmark.cli.describe import describe_labels, describe_model, describe_transfer, list_packaged
    from fewmark.cli.describe_run import describe_run, is_run
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
    if is_run(file):
        data, facts = describe_run(file)
    elif file.suffix == ".safetensors" and holds_transfer(file):
        from fewmark.inference.checkpoint.transfers import load_transfer

        data = read_transfer_metadata(file)
        facts = describe_transfer(load_transfer(file))
    elif file.suffix in (".safetensors", ".onnx") or (not file.exists() and str(file) in packaged_names()):
        data = read_metadata(file)
        facts = describe_model(data)
    else:
        from fewmark.landmarks.scheme import load_scheme

        known = None if scheme is None else load_scheme(scheme)
        data, facts, findings = describe_labels(file, known, missing_value(missing))
    _print(data, facts, findings, as_json)


def _print(data: dict[str, Any], facts: Facts, findings: list[str], as_json: bool) -> None:
    if as_json:
        for finding in findings:
            warn(finding)
        print_json(data)
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")  # a path is shown whole
    for name, value in facts:
        table.add_row(Text(name, style="bold"), Text(value))
    out.print(table)
    for finding in findings:
        out.print(Text(f"- {finding}", style="yellow"))


def _print_packaged(models: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(models)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("model", "scheme", "landmarks", "parameters", "MB", "licence"):
        table.add_column(heading, justify="right" if heading in ("landmarks", "parameters", "MB") else "left")
    for m in models:
        size, n_bytes = f"{m['n_parameters'] / 1e6:.2f} M", f"{m['n_bytes'] / 1e6:.1f}"
        table.add_row(m["name"], m["scheme"], str(m["n_landmarks"]), size, n_bytes, m["licence"] or "not stated")
    out.print(table)
