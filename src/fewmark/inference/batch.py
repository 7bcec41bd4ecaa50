"""Detect the faces of many images and write them to files, as `fewmark detect` does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError, OutputError
from fewmark.core.files import choose_folder
from fewmark.data.image_sources import ImageSource
from fewmark.data.images import decode_image, read_image, write_image
from fewmark.inference.writers import FaceFormat, open_results, overlay_file, planned_files

if TYPE_CHECKING:
    from fewmark.inference.detector import Detector
    from fewmark.inference.face import Face
    from fewmark.visualization.labels import Label

_AHEAD = 2  # images per job in progress or waiting to be written


@dataclass(frozen=True)
class _Outcome:
    """The faces of one image, or why it failed.

    Attributes:
        size: (width, height) px.
        faces: The faces.
        overlay: The overlay's file, if one was written.
        failure: The reason for a failure, with the image's path.
        overlay_failure: Why the overlay could not be written; the faces can be.
    """

    size: tuple[int, int] = (0, 0)
    faces: Sequence[Face] = ()
    overlay: Path | None = None
    failure: str | None = None
    overlay_failure: str | None = None


@dataclass(frozen=True)
class DetectionResult:
    """Summary of `detect_images`.

    Attributes:
        folder: Where they are, see `detect_images`.
        files: Files written.
        n_faces: Faces found.
        n_without_face: Images that could be read and have no face.
        failures: Image -> why it could not be used, or a result of it not be written.
    """

    folder: Path
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
    turned: bool | None = None,
    jobs: int = 1,
    inputs: Iterable[str | Path] = (),
    force: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> DetectionResult:
    """Find the faces of images and write them to files.

    An image that cannot be used, or one whose own result cannot be written, does not stop the others. No result replaces an input.

    Args:
        detector: Finds faces and landmarks.
        sources: The images, see `find_images`.
        folder: Output folder: the files of `form`, and PLACE_landmarks.jpg with `overlay`.
        form: Format of the faces, see `fewmark.inference.writers`; jsonl and csv are written image by image, and no face is kept.
        boxes: Resolved path -> (N, 4) x0 y0 x1 y1 image px; an image without an entry fails. None: detect the faces.
        overlay: Write images with the landmarks drawn in.
        label: Labels in the overlays: each landmark's number or name; small faces are magnified for them.
        scheme: Annotation scheme of the landmarks, see `Detector.detect`.
        turned: Detect faces on their side and upside down, see `Detector.detect`.
        jobs: Images processed at the same time, one thread each; best with a detector of one thread. The files are the same for any
            number, in the same order.
        inputs: Files besides the images that no result may replace, e.g. the model's and that of the boxes.
        force: Replace earlier results in the folder; otherwise they are kept, and these go into results-2, results-3, ... in it.
        on_image: Called after each image.

    Raises:
        InputError: The folder cannot be written to, a result would replace an input or, without `force`, a file beside the inputs, the model has no
            transfer to the scheme, or jobs is below 1.
        OutputError: The disk is full, or the file of all results cannot be written.
    """
    from fewmark.visualization.draw import draw_landmarks
    from fewmark.visualization.labels import magnify_for

    if jobs < 1:
        raise InputError(f"jobs: expected 1 or more, given {jobs}")
    target = detector.checkpoint.scheme_of(scheme)
    transfer = detector.checkpoint.transfer_to(scheme)
    files = [source.path for source in sources if source.data is None]
    folder = choose_folder(
        Path(folder), lambda f: planned_files(form, f, sources, overlay=overlay), [*files, *inputs], force=force
    )
    results = open_results(form, folder, target, transfer, images=sources, force=force)
    failures: dict[Path, str] = {}
    overlays: list[Path] = []
    n_faces = n_none = 0

    def process(source: ImageSource) -> _Outcome:
        try:
            image = read_image(source.path) if source.data is None else decode_image(source.data, "-")
            given = None
            if boxes is not None:
                given = boxes.get(source.path.resolve())
                if given is None:
                    raise InputError(f"{source.path}: the file of boxes has none for this image; add a row")
        except InputError as error:
            return _Outcome(failure=str(error))
        try:
            found = detector.detect(image, given, scheme=scheme, turned=turned)
        except InputError as error:
            return _Outcome(failure=f"{source.path}: {error}")
        size = image.shape[1], image.shape[0]
        if not overlay:
            return _Outcome(size, found)
        file = overlay_file(folder, source)
        larger, points = magnify_for(label, image, [f.landmarks for f in found])
        drawn = draw_landmarks(larger, points, target, numbers=label == "numbers", names=label == "names")
        try:
            write_image(file, drawn, replace=force)
        except OutputError:
            raise
        except InputError as error:
            return _Outcome(size, found, overlay_failure=str(error))
        return _Outcome(size, found, file)

    whole = False
    try:
        for source, outcome in _process_each(process, sources, jobs):
            failure = outcome.failure
            if failure is None:
                try:
                    results.add(source, outcome.size, outcome.faces)
                    n_faces, n_none = n_faces + len(outcome.faces), n_none + (not outcome.faces)
                except OutputError:
                    raise
                except InputError as error:
                    failure = str(error)
            if failure is not None:
                results.fail(source, failure)
            failure = failure or outcome.overlay_failure
            if failure is not None:
                failures[source.path] = failure
            if outcome.overlay is not None:
                overlays.append(outcome.overlay)
            on_image()
        whole = True
    finally:
        results.close(whole=whole)
    return DetectionResult(folder, [*results.files, *overlays], n_faces, n_none, failures)


def _process_each(
    process: Callable[[ImageSource], _Outcome], sources: Sequence[ImageSource], jobs: int
) -> Iterator[tuple[ImageSource, _Outcome]]:
    """Each image and its outcome, in order, by `jobs` threads; few images are in progress, however slow the consumer is."""
    if jobs == 1:
        yield from ((source, process(source)) for source in sources)
        return
    waiting: deque[tuple[ImageSource, Future[_Outcome]]] = deque()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for source in sources:
                if len(waiting) >= _AHEAD * jobs:
                    first, future = waiting.popleft()
                    yield first, future.result()
                waiting.append((source, pool.submit(process, source)))
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # stopping early waits only for the images in progress
