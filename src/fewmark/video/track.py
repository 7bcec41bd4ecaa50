"""Follow the faces of a video and write them to files, as `fewmark track` does."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.files import atomic_path, choose_folder, write_text
from fewmark.core.names import dump_json
from fewmark.video.metrics import WINDOW, window_variance
from fewmark.video.reader import Video
from fewmark.video.tracker import TrackedFace, Tracker
from fewmark.video.writer import VideoWriter
from fewmark.visualization.colours import BRIGHT
from fewmark.visualization.draw import draw_landmarks

TrackFormat = Literal["jsonl", "csv"]
FILES = {"jsonl": "faces.jsonl", "csv": "faces.csv"}


def track_video(
    tracker: Tracker,
    video: Video,
    folder: str | Path,
    *,
    form: TrackFormat = "jsonl",
    overlay: bool = False,
    seconds: float | None = None,
    force: bool = False,
    on_frame: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Follow the faces of a video and write them to files; Ctrl-C stops as the video's end does.

    Args:
        tracker: New, or after `Tracker.reset`.
        video: See `read_video`.
        folder: Output folder: faces.jsonl or faces.csv, one line per face and frame; summary.json; and overlay.mp4 with `overlay`.
        form: Format of the faces.
        overlay: Write the video with landmarks and ids drawn in.
        seconds: Stop at this time of the video; None: at its end.
        force: Replace earlier results in the folder; otherwise they are kept, and these go into results-2, results-3, ... in it.
        on_frame: Called after each frame.

    Returns:
        The contents of summary.json. `jitter` is a fraction of the face's size (`fewmark.video.metrics.jitter`), of the smoothed and
        the raw landmarks, over the still windows of all tracks; null if there is none. `frames_per_s` includes reading and drawing.

    Raises:
        InputError: The folder cannot be written to, a result would replace the video or, without `force`, a file beside it, or seconds is
            not above 0.
    """
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds: expected a number above 0, given {seconds}")
    files = [FILES[form], *(["overlay.mp4"] if overlay else []), "summary.json"]
    folder = choose_folder(Path(folder), lambda f: [f / name for name in files], [video.source], force=force)
    n_frames = n_faces = n_empty = 0
    last_s = 0.0
    notes: list[str] = []
    meter = JitterMeter()
    began = time.perf_counter()
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(folder / FILES[form]))
        lines = stack.enter_context(temporary.open("w", encoding="utf-8", newline=""))
        if form == "csv":
            lines.write(_csv_line(csv_header(tracker.scheme.n_landmarks)))
        film = stack.enter_context(VideoWriter(folder / "overlay.mp4", video.fps)) if overlay else None
        try:
            for frame in video:
                if seconds is not None and frame.time_s >= seconds:
                    break
                faces = tracker(frame.image, frame.time_s)
                for face in faces:
                    line = face_line(face, frame.index, frame.time_s)
                    lines.write(
                        _csv_line(_csv_cells(line)) if form == "csv" else json.dumps(line, allow_nan=False) + "\n"
                    )
                    meter.add(face)
                if film is not None:
                    film.write(_overlay(frame.image, faces, tracker), frame.time_s)
                n_frames, n_faces, last_s = n_frames + 1, n_faces + len(faces), frame.time_s
                n_empty += not faces
                on_frame()
        except KeyboardInterrupt:
            notes.append(f"stopped after {n_frames} frames")
    if film is not None:
        notes += film.notes
    elapsed = time.perf_counter() - began
    summary = {
        "source": video.source,
        "out": str(folder),
        "scheme": tracker.scheme.name,
        "n_frames": n_frames,
        "last_frame_s": round(last_s, 4),
        "fps": round(video.fps, 4),
        "n_faces": n_faces,
        "n_tracks": tracker.n_tracks,
        "n_frames_without_face": n_empty,
        "jitter": meter.result(),
        "frames_per_s": round(n_frames / elapsed, 2),
        "smoothing": None if tracker.smoothing is None else asdict(tracker.smoothing),
        "notes": [*video.notes, *notes],
        "files": files,
    }
    write_text(folder / "summary.json", dump_json(summary, 1) + "\n")
    return summary


class JitterMeter:
    """Measures `jitter` over the still windows of all tracks during tracking, in little memory.

    A window is `WINDOW` frames in which a track was seen.
    """

    def __init__(self) -> None:
        self._open: dict[int, list[TrackedFace]] = {}
        self._sums: NDArray[np.float64] | None = None  # (2, K): smoothed, raw
        self._n = 0

    def add(self, face: TrackedFace) -> None:
        faces = self._open.setdefault(face.id, [])
        faces.append(face)
        if len(faces) < WINDOW:
            return
        del self._open[face.id]
        smooth = window_variance(np.stack([f.landmarks for f in faces]))
        raw = window_variance(np.stack([f.raw_landmarks for f in faces]), None)
        if smooth is not None and raw is not None:
            both = np.stack([smooth, raw])
            self._sums = both if self._sums is None else self._sums + both
            self._n += 1

    def result(self) -> dict[str, float | int | None]:
        values = [None, None] if self._sums is None else np.sqrt(self._sums / self._n).mean(1).round(6).tolist()
        return {"smoothed": values[0], "raw": values[1], "n_still_windows": self._n}


def face_line(face: TrackedFace, index: int, time_s: float) -> dict[str, Any]:
    """Convert a face to a line of faces.jsonl."""
    data = face.to_dict()
    del data["scheme"]
    return {"frame": index, "time_s": round(time_s, 4), "id": face.id, **data}


def csv_header(k: int) -> list[str]:
    """The columns of faces.csv for K landmarks."""
    box = ["box_x0", "box_y0", "box_x1", "box_y1"]
    points = [f"{c}{i}" for i in range(k) for c in "xy"]
    return ["frame", "time_s", "id", *box, "angle", "box_score", "quality", *points, *(f"score{i}" for i in range(k))]


def _csv_cells(line: dict[str, Any]) -> list[Any]:
    points = [v for p in line["landmarks"] for v in (p or (None, None))]
    head = [line["frame"], line["time_s"], line["id"], *line["box_xyxy"]]
    return [*head, *(line[name] for name in ("angle", "box_score", "quality")), *points, *line["scores"]]


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _overlay(image: NDArray[np.uint8], faces: list[TrackedFace], tracker: Tracker) -> NDArray[np.uint8]:
    import cv2

    canvas = draw_landmarks(image, faces, tracker.scheme)
    for face in faces:
        x0, y0, x1 = (float(v) for v in face.box[:3])
        size = max(0.4, (x1 - x0) / 220)
        at = (round(x0), max(round(18 * size), round(y0 - 8 * size)))
        colour = BRIGHT[(face.id - 1) % len(BRIGHT)]
        for paint, width in (((20, 24, 30), 4), (colour, 2)):
            cv2.putText(
                canvas,
                str(face.id),
                at,
                cv2.FONT_HERSHEY_SIMPLEX,
                size,
                paint,
                max(1, round(width * size)),
                cv2.LINE_AA,
            )
    return canvas
