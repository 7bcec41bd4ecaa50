"""The commands `init`, `add`, `status` and `backup`, and what `train`, `curve`, `evaluate` and `export` do with a project folder."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from fewmark.cli.base import Json, err, image_progress, out, print_json, warn
from fewmark.cli.page import NoBrowser, run_page
from fewmark.core.errors import InputError
from fewmark.core.text import count, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fewmark.data.samples import FaceSample
    from fewmark.project.status import ProjectStatus


class ObjectKind(StrEnum):
    faces = "faces"
    whole_images = "whole-images"


ProjectArgument = Annotated[Path, typer.Argument(metavar="PROJECT", help="Project folder, made by `fewmark init`.")]


def init(
    folder: Annotated[Path, typer.Argument(metavar="PROJECT", help="A new or an empty folder.")],
    scheme: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Annotation scheme; it is copied. See `fewmark scheme list`."),
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option(metavar="IMAGE", help="In place of --scheme: open a page and draw the scheme on this face."),
    ] = None,
    no_browser: NoBrowser = False,
    objects: Annotated[
        ObjectKind,
        typer.Option(metavar="KIND", help="faces, which are looked for, or whole-images: each is one object."),
    ] = ObjectKind.faces,
    as_json: Json = False,
) -> None:
    """Make a project folder: images, labels, models and what to do next in one place."""
    from fewmark.project.project import Project

    if (scheme is None) == (example is None):
        raise typer.BadParameter("give one of --scheme and --example", param_hint="--scheme")
    if example is not None:
        if not example.is_file():
            raise InputError(f"{example}: no such image; expected one with an upright face")
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder}: expected an empty folder or a new one, given one with files in it")
        options = ["--design", str(example), "--objects", objects.value]
        run_page(folder, [*options, *(["--no-browser"] if no_browser else [])])
        return
    assert scheme is not None
    project = Project.create(folder, scheme, objects=objects.value)
    if as_json:
        print_json({"project": str(folder), "scheme": project.scheme.name, "objects": project.objects})
        return
    out.print(Text(f"{folder}: a project of {project.scheme.name}, {count(project.scheme.n_landmarks, 'landmark')}"))
    out.print(Text(f"next:  fewmark add {folder} IMAGES..."))


def add(
    folder: ProjectArgument,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Images, folders, globs, videos, and label files with their images."),
    ],
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the images into the project; otherwise they stay where they are.")
    ] = False,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Take every n-th frame of a video.")] = 1,
    frames: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Of these frames, take the N that are most unlike each other."),
    ] = None,
    who: Annotated[str | None, typer.Option(metavar="NAME", help="Whose labels those of label files are.")] = None,
    as_json: Json = False,
) -> None:
    """Add images to a project, each once, and the faces that are found in them."""
    from fewmark.project.project import open_project

    with open_project(folder) as project, image_progress(err, quiet=as_json) as progress:
        task = progress.add_task("reading", total=None)
        added = project.add(
            sources, copy=copy, every=every, frames=frames, who=who, on_image=lambda name: progress.advance(task)
        )
        status = project.status()
    if as_json:
        print_json(asdict(added))
        return
    labels = f", {count(added.labelled, 'label')}" if added.labelled else ""
    out.print(f"{count(added.images, 'new image')}, {count(added.faces, 'face')}{labels}")
    if added.duplicates:
        out.print(Text(f"{count(len(added.duplicates), 'image')} known already: {_some(added.duplicates)}"))
    if added.without_face:
        out.print(Text(f"no face was found in {count(len(added.without_face), 'image')}: {_some(added.without_face)}"))
    for name, reason in added.unreadable:
        warn(f"{name}: left out: {reason}")
    _print_next(folder, status)


def status(folder: ProjectArgument, as_json: Json = False) -> None:
    """Say what a project holds, and what to do next and why."""
    from fewmark.project.project import open_project

    with open_project(folder) as project:
        found, name = project.status(), project.scheme.name
    if as_json:
        print_json(found.to_dict())
        return
    out.print(Text(f"{folder}: {name}"))
    out.print(f"images      {found.n_images}")
    how = ", ".join(f"{n} {name}" for name, n in sorted(found.n_by_how.items()))
    out.print(f"labelled    {found.n_labelled}{f' ({how})' if how else ''}")
    out.print(f"unlabelled  {found.n_unlabelled}")
    if found.n_rejected:
        out.print(f"rejected    {found.n_rejected}")
    for run in found.runs[-3:]:
        nme = "" if run.nme is None else f", NME {percent(run.nme)} on held-out faces"
        out.print(f"model {run.name}   {count(run.n_labelled, 'label')}{nme}")
    if found.gain is not None:
        low, middle, high = found.gain
        buys = f"{percent(middle)} of the error less" if middle > 0 else "no gain is shown by the trainings so far"
        out.print(f"50 more labels: {buys} ({percent(low)} to {percent(high)})")
    _print_next(folder, found)


def backup(
    folder: ProjectArgument,
    path: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new file.")],
    as_json: Json = False,
) -> None:
    """Copy a project's labels, with every change, and predictions into one file, while others may work on them."""
    from fewmark.project.project import open_project

    with open_project(folder) as project:
        project.backup(path)
    if as_json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
        return
    out.print(Text(f"{path}: {path.stat().st_size / 1e6:.1f} MB; to go back, put it in the place of project.sqlite"))


def refuse_options(folder: Path, options: Mapping[str, object]) -> None:
    """Refuse options that a project decides itself.

    Raises:
        InputError: One of them has a value.
    """
    wrong = [name for name, value in options.items() if value]
    if wrong:
        raise InputError(f"{folder}: a project, whose faces, scheme and runs are its own; leave out {', '.join(wrong)}")


def missing_option(name: str) -> typer.BadParameter:
    """The error that an option is missing that only a project goes without."""
    return typer.BadParameter("missing; only a project folder goes without", param_hint=name)


def train_project(
    folder: Path, recipe: str | None, settings: Sequence[str], start: str | None, *, resume: bool, as_json: bool
) -> None:
    """`fewmark train PROJECT`: a training on all labels, and predictions for all faces."""
    from fewmark.cli.progress import TrainingDisplay, run_displayed
    from fewmark.project.project import open_project
    from fewmark.training.work_plan import WorkPlan

    with open_project(folder) as project:
        display = TrainingDisplay(err, WorkPlan([]))
        result = run_displayed(
            display, lambda: project.train(recipe, settings, start=start, resume=resume, on_event=display)
        )
        found, report = project.status(), result.path.parent / "report.html"
    nme = None if result.scores is None else result.scores.nme
    if as_json:
        print_json(
            {"model": str(result.path), "report": str(report), "nme": nme, "n_labelled": found.runs[-1].n_labelled}
        )
        return
    if nme is not None and result.scores is not None:
        out.print(f"held out: NME {percent(nme)} by {result.scores.normalizer}, {result.scores.n_faces} faces")
    out.print(Text(f"model:  {result.path}\nreport: {report}"))
    _print_next(folder, found)


def export_project(folder: Path, path: Path, fmt: str | None, *, as_json: bool) -> None:
    """`fewmark export PROJECT --to FORMAT`: the labels in another format."""
    from fewmark.project.project import open_project

    with open_project(folder) as project:
        n = project.export(path, fmt)
    if as_json:
        print_json({"path": str(path), "n_faces": n})
        return
    out.print(Text(f"{path}: {count(n, 'labelled face')}"))


def require_model(folder: Path) -> None:
    """Raises an `InputError` that says so where a project has no model yet."""
    from fewmark.project.project import open_project

    with open_project(folder) as project:
        project.model_path()


def held_out_faces(folder: Path) -> list[FaceSample]:
    """The labelled faces of a project that train nothing.

    Raises:
        InputError: It is no project, or too few faces are labelled to hold some out.
    """
    from fewmark.project.project import open_project
    from fewmark.project.training import LEAST_TO_HOLD_OUT

    with open_project(folder) as project:
        faces = list(project.training_data().validation)
    if not faces:
        raise InputError(
            f"{folder}: no face is held out yet; a training with {LEAST_TO_HOLD_OUT} labels or more holds some out, or give labelled faces as DATA"
        )
    return faces


def _print_next(folder: Path, found: ProjectStatus) -> None:
    out.print(Text(f"next: fewmark {found.next_command} {folder}  ({found.why})"))


def _some(names: Sequence[str], n: int = 3) -> str:
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more
