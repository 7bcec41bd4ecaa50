"""The `fewmark` command: one module for each subcommand, which imports torch and the rooms above `core` only when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from fewmark.cli.base import Command, Group, command_with_lists, out
from fewmark.cli.calibrate import calibrate
from fewmark.cli.convert import convert
from fewmark.cli.curve import curve
from fewmark.cli.detect import EXAMPLES, detect
from fewmark.cli.distill import distill
from fewmark.cli.doctor import doctor
from fewmark.cli.evaluate import evaluate
from fewmark.cli.export import export
from fewmark.cli.inspect import inspect
from fewmark.cli.label import label, review
from fewmark.cli.project import add, backup, init, status
from fewmark.cli.robustness import robustness
from fewmark.cli.scheme import scheme_app
from fewmark.cli.serve import serve
from fewmark.cli.track import track
from fewmark.cli.train import train
from fewmark.cli.transfer import transfer_app
from fewmark.core.threads import spin_briefly
from fewmark.core.version import __version__

app = typer.Typer(
    cls=Group,
    name="fewmark",
    help="Train facial landmark detectors from a few labelled and many unlabelled faces, and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    spin_briefly()
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"fewmark {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command(rich_help_panel="Detect", cls=Command, epilog=EXAMPLES)(detect)
app.command(rich_help_panel="Detect", cls=Command)(track)
app.command(rich_help_panel="Detect", cls=Command)(serve)
app.command(rich_help_panel="Project", cls=Command)(init)
app.command(rich_help_panel="Project", cls=Command)(add)
app.command(rich_help_panel="Project", cls=Command)(label)
app.command(rich_help_panel="Project", cls=Command)(review)
app.command(rich_help_panel="Project", cls=Command)(status)
app.command(rich_help_panel="Project", cls=Command)(backup)
app.command(rich_help_panel="Train", cls=command_with_lists("--unlabelled"))(train)
app.command(rich_help_panel="Train", cls=command_with_lists("--unlabelled"))(distill)
app.command(rich_help_panel="Train", cls=command_with_lists("--unlabelled"))(curve)
app.command(rich_help_panel="Train", cls=Command)(calibrate)
app.command(rich_help_panel="Train", cls=Command)(export)
app.command(rich_help_panel="Evaluate", cls=command_with_lists("--list"))(evaluate)
app.command(rich_help_panel="Evaluate", cls=command_with_lists("--list", "--out"))(robustness)
app.command(rich_help_panel="Models, labels and schemes", cls=Command)(inspect)
app.command(rich_help_panel="Models, labels and schemes", cls=Command)(convert)
app.command(rich_help_panel="Models, labels and schemes", cls=Command)(doctor)
app.add_typer(scheme_app, name="scheme", rich_help_panel="Models, labels and schemes")
app.add_typer(transfer_app, name="transfer", rich_help_panel="Models, labels and schemes")
