"""Many pictures in, files of faces out: what `fewmark detect` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewmark.data.samples import decode_image, read_image
from fewmark.errors import InputError
from fewmark.pictures_out import write_picture
from fewmark.results_out import FaceFormat, open_results
from fewmark.sources import Picture

if TYPE_CHECKING:
    from fewmark.detector import Detector
    from fewmark.draw_labels import Label


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
        on_picture: called after each.

    Raises:
        InputError: nothing can be written to the folder, or the model carries no transfer to the scheme.
    """
    from fewmark.draw import draw_landmarks
    from fewmark.draw_labels import magnify_for
    from fewmark.evaluation import flips

    folder, flip = Path(folder), flips(detector)
    meaning = detector.checkpoint.scheme_of(scheme)
    results = open_results(form, folder, meaning, detector.checkpoint.transfer_to(scheme))
    failures: dict[Path, str] = {}
    overlays: list[Path] = []
    n_faces = n_none = 0
    whole = False
    try:
        for picture in pictures:
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
                if str(picture.path) not in message:
                    message = f"{picture.path}: {message}"
                failures[picture.path] = message
                results.fail(picture, message)
                on_picture()
                continue
            n_faces, n_none = n_faces + len(found), n_none + (not found)
            results.add(picture, (image.shape[1], image.shape[0]), found)
            if overlay:
                overlays.append(folder / f"{picture.place}_landmarks.jpg")
                larger, points = magnify_for(label, image, [f.landmarks for f in found])
                drawn = draw_landmarks(larger, points, meaning, numbers=label == "numbers", names=label == "names")
                write_picture(overlays[-1], drawn)
            on_picture()
        whole = True
    finally:
        results.close(whole=whole)
    return DetectionResult([*results.files, *overlays], n_faces, n_none, failures)
