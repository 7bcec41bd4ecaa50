"""Many pictures in, files of faces out: what `fewmark detect` does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fewmark.atomic import write_text
from fewmark.data.formats_csv import write_csv
from fewmark.data.formats_pts import write_pts
from fewmark.data.samples import IMAGE_SUFFIXES, FaceSample, read_image
from fewmark.errors import InputError
from fewmark.pictures_out import write_picture
from fewmark.transfer_file import transfer_facts

if TYPE_CHECKING:
    from fewmark.detector import Detector
    from fewmark.face import Face
    from fewmark.scheme import LandmarkScheme
    from fewmark.transfer import SchemeTransfer

FaceFormat = Literal["json", "csv", "pts"]


@dataclass(frozen=True)
class Picture:
    """A picture to look at.

    Attributes:
        path: the file.
        place: where its results go, relative to the results' folder, without a suffix; unique.
    """

    path: Path
    place: str


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


def find_pictures(paths: Sequence[str | Path]) -> list[Picture]:
    """The pictures that paths name; a folder is all pictures in it and below.

    Raises:
        InputError: a path is missing, or a folder has no picture.
    """
    found: dict[Path, str] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
            files = [f for f in files if not any(p.startswith(".") for p in f.relative_to(path).parts)]
            if not files:
                raise InputError(f"{path}: expected pictures ({', '.join(IMAGE_SUFFIXES)}), given a folder without")
            for f in files:
                found.setdefault(f, f.relative_to(path).with_suffix("").as_posix())
        elif path.exists():
            found.setdefault(path, path.stem)
        else:
            raise InputError(f"{path}: no such picture or folder; check the path")
    used: set[str] = set()
    pictures = []
    for f, place in found.items():
        unique, n = place, 2
        while unique.lower() in used:
            unique, n = f"{place}-{n}", n + 1
        used.add(unique.lower())
        pictures.append(Picture(f, unique))
    return pictures


def detect_pictures(
    detector: Detector,
    pictures: Sequence[Picture],
    folder: str | Path,
    *,
    form: FaceFormat = "json",
    boxes: Mapping[Path, NDArray[np.float32]] | None = None,
    overlay: bool = False,
    scheme: str | None = None,
    on_picture: Callable[[], None] = lambda: None,
) -> DetectionResult:
    """Find the faces of pictures and write them; a picture that cannot be used does not stop the others.

    Args:
        detector: its settings say whether it looks at the flipped picture too.
        pictures: see `find_pictures`.
        folder: gets faces.json or faces.csv, or a .pts file a face; and, with `overlay`, PLACE_landmarks.jpg.
        form: of the faces.
        boxes: resolved path -> (N, 4) x0 y0 x1 y1 image px; a picture without an entry fails. None: faces are
            looked for.
        overlay: write pictures with the landmarks drawn in.
        scheme: of the landmarks, see `Detector.detect`.
        on_picture: called after each.

    Raises:
        InputError: nothing can be written to the folder, or the model carries no transfer to the scheme.
    """
    from fewmark.draw import draw_landmarks
    from fewmark.evaluation import flips

    folder, flip = Path(folder), flips(detector)
    meaning, transfer = detector.checkpoint.scheme_of(scheme), detector.checkpoint.transfer_to(scheme)
    faces: dict[Path, list[Face]] = {}
    failures: dict[Path, str] = {}
    files: list[Path] = []
    for picture in pictures:
        try:
            image = read_image(picture.path)
            given = None
            if boxes is not None:
                given = boxes.get(picture.path.resolve())
                if given is None:
                    raise InputError(f"{picture.path}: the file of boxes has none for this picture; add a row")
            faces[picture.path] = detector.detect(image, given, flip=flip, scheme=scheme)
        except InputError as error:
            message = str(error).removeprefix("picture 0: ")  # one picture at a time goes in
            if str(picture.path) not in message:
                message = f"{picture.path}: {message}"
            failures[picture.path] = message
            on_picture()
            continue
        found = faces[picture.path]
        if form == "pts":
            for i, face in enumerate(found):
                name = picture.place if len(found) == 1 else f"{picture.place}_{i + 1}"
                files.append(folder / f"{name}.pts")
                write_pts(files[-1], face.landmarks)
        if overlay:
            files.append(folder / f"{picture.place}_landmarks.jpg")
            write_picture(files[-1], draw_landmarks(image, found, meaning))
        on_picture()
    if form == "json":
        files.append(folder / "faces.json")
        write_text(files[-1], _as_json(meaning, transfer, faces, failures))
    elif form == "csv":
        files.append(folder / "faces.csv")
        samples = [FaceSample(p, f.box, f.landmarks) for p, found in faces.items() for f in found]
        if samples:
            write_csv(files[-1], samples)
        else:
            k = meaning.n_landmarks
            header = [
                "file",
                "box_x0",
                "box_y0",
                "box_x1",
                "box_y1",
                *(f"{c}{i}" for i in range(k) for c in "xy"),
            ]
            write_text(files[-1], ",".join(header) + "\n")
    n_none = sum(not found for found in faces.values())
    return DetectionResult(files, sum(map(len, faces.values())), n_none, failures)


def _as_json(
    scheme: LandmarkScheme,
    transfer: SchemeTransfer | None,
    faces: Mapping[Path, Sequence[Face]],
    failures: Mapping[Path, str],
) -> str:
    def name(path: Path) -> str:
        return Path(os.path.abspath(path)).as_posix()

    data: dict[str, Any] = {"scheme": scheme.name, "landmarks": list(scheme.landmarks)}
    if transfer is not None:
        data["transfer"] = transfer_facts(transfer)
    data |= {
        "pictures": [{"file": name(p), "faces": [f.to_dict() for f in found]} for p, found in faces.items()],
        "failed": [{"file": name(p), "error": error} for p, error in failures.items()],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
