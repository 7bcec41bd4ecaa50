"""Many pictures in, files of faces out: what `fewmark detect` does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.data.image_sources import Picture
from fewmark.data.image_writer import write_picture
from fewmark.data.samples import decode_image, read_image
from fewmark.inference.writers import FaceFormat, open_results

if TYPE_CHECKING:
    from fewmark.inference.detector import Detector
    from fewmark.inference.face import Face
    from fewmark.visualization.labels import Label

_AHEAD = 2  # pictures a job that are under way or wait to be written


@dataclass(frozen=True)
class _Seen:
    """What became of one picture: its faces, or why it failed.

    Attributes:
        size: (width, height) px.
        faces: found.
        overlay: the file that was written.
        failure: why there are none.
    """

    size: tuple[int, int] = (0, 0)
    faces: Sequence[Face] = ()
    overlay: Path | None = None
    failure: str | None = None


@dataclass(frozen=True)
class DetectionResult:
    """What became of the pictures.

    Attributes:
        files: written.
        n_faces: found.
        n_without_face: pictures that could be read and have no face.
        failures: picture -> why it failed.
    """

    files: list[Path]
    n_faces: int
    n_without_face: int
    failures: dict[Path, str]


def detect_pictures(
    detector: Detector,
    pictures: Sequence[Picture],
    folder: str | Path,
    *,
    form: FaceFormat = "json",
    boxes: Mapping[Path, NDArray[np.float32]] | None = None,
    overlay: bool = False,
    label: Label = "none",
    scheme: str | None = None,
    jobs: int = 1,
    on_picture: Callable[[], None] = lambda: None,
) -> DetectionResult:
    """Find the faces of pictures and write them; a picture that cannot be used does not stop the others.

    Args:
        detector: its settings say whether it looks at the flipped picture too.
        pictures: see `find_pictures`.
        folder: gets the files of `form`; and, with `overlay`, PLACE_landmarks.jpg.
        form: of the faces, see `results_out`; jsonl and csv are written picture by picture, and no face is kept.
        boxes: resolved path -> (N, 4) x0 y0 x1 y1 image px; a picture without an entry fails. None: faces are
            looked for.
        overlay: write pictures with the landmarks drawn in.
        label: of an overlay: each landmark's number or name; small faces are magnified for it.
        scheme: of the landmarks, see `Detector.detect`.
        jobs: pictures that are looked at beside each other, by as many threads; best with a detector of one thread. What is
            written is the same, and in the same order.
        on_picture: called after each.

    Raises:
        InputError: nothing can be written to the folder, the model carries no transfer to the scheme, or jobs below 1.
    """
    from fewmark.visualization.draw import draw_landmarks
    from fewmark.visualization.labels import magnify_for

    if jobs < 1:
        raise InputError(f"jobs: expected 1 or more, given {jobs}")
    folder, flip = Path(folder), detector.checkpoint.flip
    meaning = detector.checkpoint.scheme_of(scheme)
    results = open_results(form, folder, meaning, detector.checkpoint.transfer_to(scheme))
    failures: dict[Path, str] = {}
    overlays: list[Path] = []
    n_faces = n_none = 0

    def look(picture: Picture) -> _Seen:
        try:
            image = read_image(picture.path) if picture.data is None else decode_image(picture.data, "-")
            given = None
            if boxes is not None:
                given = boxes.get(picture.path.resolve())
                if given is None:
                    raise InputError(f"{picture.path}: the file of boxes has none for this picture; add a row")
            found = detector.detect(image, given, flip=flip, scheme=scheme)
        except InputError as error:
            message = str(error).removeprefix("picture 0: ")  # one picture at a time goes in
            return _Seen(failure=message if str(picture.path) in message else f"{picture.path}: {message}")
        file = None
        if overlay:
            file = folder / f"{picture.place}_landmarks.jpg"
            larger, points = magnify_for(label, image, [f.landmarks for f in found])
            drawn = draw_landmarks(larger, points, meaning, numbers=label == "numbers", names=label == "names")
            write_picture(file, drawn)
        return _Seen((image.shape[1], image.shape[0]), found, file)

    whole = False
    try:
        for picture, seen in _each(look, pictures, jobs):
            if seen.failure is not None:
                failures[picture.path] = seen.failure
                results.fail(picture, seen.failure)
            else:
                n_faces, n_none = n_faces + len(seen.faces), n_none + (not seen.faces)
                results.add(picture, seen.size, seen.faces)
            if seen.overlay is not None:
                overlays.append(seen.overlay)
            on_picture()
        whole = True
    finally:
        results.close(whole=whole)
    return DetectionResult([*results.files, *overlays], n_faces, n_none, failures)


def _each(look: Callable[[Picture], _Seen], pictures: Sequence[Picture], jobs: int) -> Iterator[tuple[Picture, _Seen]]:
    """Every picture and what is seen of it, in order, by some threads; few pictures are under way, however slow the reader is."""
    if jobs == 1:
        yield from ((picture, look(picture)) for picture in pictures)
        return
    waiting: deque[tuple[Picture, Future[_Seen]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for picture in pictures:
                if len(waiting) >= _AHEAD * jobs:
                    first, future = waiting.popleft()
                    yield first, future.result()
                waiting.append((picture, pool.submit(look, picture)))
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # whoever stops early waits for the pictures under way alone
