"""Write detected faces as JSON, JSON Lines, COCO, CSV or .pts; JSON Lines and CSV image by image.

Names of images that are no UTF-8 are escaped as in `fewmark.core.names`.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from fewmark.core.errors import InputError, OutputError
from fewmark.core.files import write_text
from fewmark.core.names import dump_json, escape_name
from fewmark.data.formats.coco import coco_data
from fewmark.data.formats.csv import BOX_COLUMNS, cells, relative_file
from fewmark.data.formats.pts import write_pts
from fewmark.data.image_sources import STDIN, ImageSource
from fewmark.data.samples import FaceSample
from fewmark.inference.checkpoint.transfers import transfer_facts

if TYPE_CHECKING:
    from fewmark.inference.face import Face
    from fewmark.landmarks.scheme import LandmarkScheme
    from fewmark.landmarks.transfer import SchemeTransfer

FaceFormat = Literal["json", "jsonl", "coco", "csv", "pts"]
_FILES = {"json": "faces.json", "jsonl": "faces.jsonl", "coco": "faces.coco.json", "csv": "faces.csv"}


def planned_files(
    form: FaceFormat, folder: str | Path, images: Sequence[ImageSource], *, overlay: bool = False
) -> list[Path]:
    """The files that the results of images may be written to.

    How many .pts files an image gets is known only with its faces; its PLACE_1.pts, PLACE_2.pts, ... are named where they are there.
    """
    folder = Path(folder)
    files = [folder / _FILES[form]] if form in _FILES else [folder / f"{i.place}.pts" for i in images]
    if form == "pts":
        files += _numbered_files(folder, images)
    return files + [overlay_file(folder, i) for i in images if overlay]


def overlay_file(folder: Path, image: ImageSource) -> Path:
    """The file of an image with its landmarks drawn in."""
    return folder / f"{image.place}_landmarks.jpg"


def _numbered_files(folder: Path, images: Iterable[ImageSource]) -> Iterator[Path]:
    names: dict[Path, dict[str, str]] = {}
    for image in images:
        path = folder / image.place
        names.setdefault(path.parent, {})[path.name.lower()] = path.name
    for parent, places in names.items():
        with suppress(OSError):
            for file in sorted(os.listdir(parent)):
                numbered = re.fullmatch(r"(.+)(_\d+)\.pts", file.lower(), re.DOTALL)
                if numbered and numbered[1] in places:
                    yield parent / f"{places[numbered[1]]}{numbered[2]}.pts"


class JsonFaces:
    """Writes faces.json: one document, at the end."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None, force: bool) -> None:
        self.files: list[Path] = []
        self.folder = Path(os.path.abspath(folder))
        self.path, self.force = folder / _FILES["json"], force
        self.head: dict[str, Any] = {"scheme": scheme.name, "landmarks": list(scheme.landmarks)}
        if transfer is not None:
            self.head["transfer"] = transfer_facts(transfer)
        self.images: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        self.images.append({"file": _file(image, self.folder), "faces": [f.to_dict() for f in faces]})

    def fail(self, image: ImageSource, error: str) -> None:
        self.failed.append({"file": _file(image, self.folder), "error": error})

    def close(self, *, whole: bool) -> None:
        if whole:
            data = self.head | {"pictures": self.images, "failed": self.failed}
            write_text(self.path, dump_json(data, 1) + "\n", replace=self.force)
            self.files.append(self.path)


class JsonLines:
    """Writes faces.jsonl: one line per image, before the next image is processed."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None, force: bool) -> None:
        self.files = [folder / _FILES["jsonl"]]
        self.folder = Path(os.path.abspath(folder))
        self.scheme = scheme
        self.stream = _open(self.files[0], force)

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        found = [f.to_dict() for f in faces]
        self._write(
            {
                "file": _file(image, self.folder),
                "width": size[0],
                "height": size[1],
                "scheme": self.scheme.name,
                "faces": found,
            }
        )

    def fail(self, image: ImageSource, error: str) -> None:
        self._write({"file": _file(image, self.folder), "error": error})

    def _write(self, line: dict[str, Any]) -> None:
        with _writing(self.files[0]):
            self.stream.write(dump_json(line) + "\n")
            self.stream.flush()

    def close(self, *, whole: bool) -> None:
        with _writing(self.files[0]):
            self.stream.close()


class CsvFaces:
    """Writes faces.csv: one row per face, before the next image is processed. `read_faces` reads it."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None, force: bool) -> None:
        self.files = [folder / _FILES["csv"]]
        self.folder = Path(os.path.abspath(folder))
        self.stream = _open(self.files[0], force)
        self.rows = csv.writer(self.stream, lineterminator="\n")
        points = (f"{c}{i}" for i in range(scheme.n_landmarks) for c in "xy")
        self._write([["file", *BOX_COLUMNS, *points, "quality"]])

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        file = escape_name(_file(image, self.folder))
        qualities = ["" if f.quality is None else round(f.quality, 3) for f in faces]
        self._write([[file, *cells(f.box), *cells(f.landmarks), q] for f, q in zip(faces, qualities, strict=True)])

    def _write(self, rows: list[list[Any]]) -> None:
        with _writing(self.files[0]):
            self.rows.writerows(rows)
            self.stream.flush()

    def fail(self, image: ImageSource, error: str) -> None:
        pass

    def close(self, *, whole: bool) -> None:
        with _writing(self.files[0]):
            self.stream.close()


class CocoFaces:
    """Writes faces.coco.json: COCO keypoints with every image that could be read, at the end."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None, force: bool) -> None:
        self.files: list[Path] = []
        self.path, self.scheme, self.force = folder / _FILES["coco"], scheme, force
        self.samples: list[FaceSample] = []
        self.quality: list[float | None] = []  # per face, in the order of the annotations
        self.sizes: dict[Path, tuple[int, int]] = {}

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        self.sizes[image.path] = size
        found = [FaceSample(image.path, f.box, f.landmarks) for f in faces]
        self.samples += found or [FaceSample(image.path)]
        self.quality += [None if f.quality is None else round(f.quality, 3) for f in faces]

    def fail(self, image: ImageSource, error: str) -> None:
        pass

    def close(self, *, whole: bool) -> None:
        if whole:
            data = coco_data(self.samples, self.scheme, Path(os.path.abspath(self.path)).parent, sizes=self.sizes)
            for annotation, quality in zip(data["annotations"], self.quality, strict=True):
                annotation["quality"] = quality
            write_text(self.path, dump_json(data, ascii_only=True) + "\n", replace=self.force)
            self.files.append(self.path)


class PtsFaces:
    """Writes PLACE.pts, or PLACE_1.pts, PLACE_2.pts, ... for an image with several faces; no file is written twice."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None, force: bool) -> None:
        self.files: list[Path] = []
        self.folder, self.force = folder, force
        self.taken: set[str] = set()  # names that no numbered file may have

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        written: list[Path] = []
        try:
            for i, face in enumerate(faces):
                name = image.place if len(faces) == 1 else self._free(f"{image.place}_{i + 1}")
                path = self.folder / f"{name}.pts"
                write_pts(path, np.asarray(face.landmarks), replace=self.force)
                written.append(path)
        except InputError:
            for path in written:  # an image's faces are all there or none
                path.unlink(missing_ok=True)
            raise
        self.files += written

    def _free(self, name: str) -> str:
        free, n = name, 2
        while free.lower() in self.taken:
            free, n = f"{name}-{n}", n + 1
        self.taken.add(free.lower())
        return free

    def fail(self, image: ImageSource, error: str) -> None:
        pass

    def close(self, *, whole: bool) -> None:
        pass


Results = JsonFaces | JsonLines | CsvFaces | CocoFaces | PtsFaces

_KINDS: dict[str, type[Results]] = {
    "json": JsonFaces,
    "jsonl": JsonLines,
    "coco": CocoFaces,
    "csv": CsvFaces,
    "pts": PtsFaces,
}


def open_results(
    form: FaceFormat,
    folder: Path,
    scheme: LandmarkScheme,
    transfer: SchemeTransfer | None = None,
    *,
    images: Sequence[ImageSource] = (),
    force: bool = False,
) -> Results:
    """Open the files of a format in a folder.

    Call `add` or `fail` once per image, then `close`. `close(whole=False)` after an interruption leaves out a document that is written
    at the end. An `InputError` of `add` is that image's, an `OutputError` the run's.

    Args:
        form: The format.
        folder: Made if missing.
        scheme: Annotation scheme of the landmarks.
        transfer: The transfer that they come from, if any.
        images: All images of the run: the numbered .pts files of one do not take the name of another.
        force: Replace files that exist.

    Raises:
        InputError: The format is unknown, a file exists and `force` is false, or nothing can be written in the folder.
    """
    if form not in _KINDS:
        raise InputError(f"format {form!r}: expected one of {', '.join(_KINDS)}")
    try:  # better known now than at the end
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror}); choose another --out") from error
    results = _KINDS[form](folder, scheme, transfer, force)
    if isinstance(results, PtsFaces):
        results.taken = {image.place.lower() for image in images}
    return results


def _open(path: Path, force: bool) -> IO[str]:
    with _writing(path):
        return path.open("w" if force else "x", encoding="utf-8", newline="")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Report an error of a file that holds the results of all images."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); free space or choose another --out"
        ) from error


def _file(image: ImageSource, folder: Path) -> str:
    """The image's path relative to the absolute folder of the results, so that both can be moved together; - for standard input."""
    return "-" if image.path == STDIN else relative_file(image.path, folder)
