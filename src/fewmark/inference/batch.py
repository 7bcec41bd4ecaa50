"""Many images in, files of faces out: what `fewmark detect` does."""

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
from fewmark.data.image_sources import ImageSource
from fewmark.data.images import decode_image, read_image, write_image
from fewmark.inference.writers import FaceFormat, open_results

if TYPE_CHECKING:
    from fewmark.inference.detector import Detector
    from fewmark.inference.face import Face
    from fewmark.visualization.labels import Label

_AHEAD = 2  # images a job that are under way or wait to be written


@dataclass(frozen=True)
class _Seen:
    """What became of one image: its faces, or why it failed.

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
    """What became of the images.

    Attributes:
        files: written.
        n_faces: found.
        n_without_face: images that could be read and have no face.
        failures: image -> why it failed.
    """

    files: list[Path]
    n_faces: int
    n_without_face: int
    failures: dict[Path, str]


def detect_images(
    detector: Detector,
    sources: Sequence[ImageSource],
    folder: str | Path,
    *,
    form: FaceFormat = "json",
    boxes: Mapping[Path, NDArray[np.float32]] | None = None,
    overlay: bool = False,
    label: Label = "none",
    scheme: str | None = None,
    jobs: int = 1,
    on_image: Callable[[], None] = lambda: None,
) -> DetectionResult:
    """Find the faces of images and write them; an image that cannot be used does not stop the others.

    Args:
        detector: its settings say whether it looks at the flipped image too.
        sources: see `find_images`.
        folder: gets the files of `form`; and, with `overlay`, PLACE_landmarks.jpg.
        form: of the faces, see `results_out`; jsonl and csv are written image by image, and no face is kept.
        boxes: resolved path -> (N, 4) x0 y0 x1 y1 image px; an image without an entry fails. None: faces are
            looked for.
        overlay: write images with the landmarks drawn in.
        label: of an overlay: each landmark's number or name; small faces are magnified for it.
        scheme: of the landmarks, see `Detector.detect`.
        jobs: images that are looked at beside each other, by as many threads; best with a detector of one thread. What is
            written is the same, and in the same order.
        on_image: called after each.

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

    def look(source: ImageSource) -> _Seen:
        try:
            image = read_image(source.path) if source.data is None else decode_image(source.data, "-")
            given = None
            if boxes is not None:
                given = boxes.get(source.path.resolve())
                if given is None:
                    raise InputError(f"{source.path}: the file of boxes has none for this image; add a row")
            found = detector.detect(image, given, flip=flip, scheme=scheme)
        except InputError as error:
            message = str(error).removeprefix("image 0: ")  # one image at a time goes in
            return _Seen(failure=message if str(source.path) in message else f"{source.path}: {message}")
        file = None
        if overlay:
            file = folder / f"{source.place}_landmarks.jpg"
            larger, points = magnify_for(label, image, [f.landmarks for f in found])
            drawn = draw_landmarks(larger, points, meaning, numbers=label == "numbers", names=label == "names")
            write_image(file, drawn)
        return _Seen((image.shape[1], image.shape[0]), found, file)

    whole = False
    try:
        for source, seen in _each(look, sources, jobs):
            if seen.failure is not None:
                failures[source.path] = seen.failure
                results.fail(source, seen.failure)
            else:
                n_faces, n_none = n_faces + len(seen.faces), n_none + (not seen.faces)
                results.add(source, seen.size, seen.faces)
            if seen.overlay is not None:
                overlays.append(seen.overlay)
            on_image()
        whole = True
    finally:
        results.close(whole=whole)
    return DetectionResult([*results.files, *overlays], n_faces, n_none, failures)


def _each(
    look: Callable[[ImageSource], _Seen], sources: Sequence[ImageSource], jobs: int
) -> Iterator[tuple[ImageSource, _Seen]]:
    """Every image and what is seen of it, in order, by some threads; few images are under way, however slow the reader is."""
    if jobs == 1:
        yield from ((source, look(source)) for source in sources)
        return
    waiting: deque[tuple[ImageSource, Future[_Seen]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for source in sources:
                if len(waiting) >= _AHEAD * jobs:
                    first, future = waiting.popleft()
                    yield first, future.result()
                waiting.append((source, pool.submit(look, source)))
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # whoever stops early waits for the images under way alone
