"""The option that lists all settings of a training, from the models that validate them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from fewmark.cli.base import out


def show_settings(wanted: bool) -> None:
    """Print every setting with its type, default and meaning.

    Raises:
        typer.Exit: Nothing else is done.
    """
    if not wanted:
        return
    from fewmark.training.config import describe_settings

    table = Table(
        header_style="bold", title="Settings: --set KEY=VALUE, or a TOML file for the recipe", title_justify="left"
    )
    for heading in ("setting", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for s in describe_settings():
        choices = f" ({s.type})" if "," in s.type else ""
        table.add_row(s.name, _text(s.default), f"{s.description}{choices}")
    out.print(table)
    raise typer.Exit


ListSettings = Annotated[
    bool,
    typer.Option("--list-settings", callback=show_settings, is_eager=True, help="List all settings and exit."),
]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in ([], {}, "") else str(value)
