"""Write detected faces as JSON, JSON Lines, COCO, CSV or .pts; JSON Lines and CSV image by image."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
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


class JsonFaces:
    """Writes faces.json: one document, at the end."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None) -> None:
        self.files: list[Path] = []
        self.path = folder / "faces.json"
        self.head: dict[str, Any] = {"scheme": scheme.name, "landmarks": list(scheme.landmarks)}
        if transfer is not None:
            self.head["transfer"] = transfer_facts(transfer)
        self.images: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        self.images.append({"file": _file(image), "faces": [f.to_dict() for f in faces]})

    def fail(self, image: ImageSource, error: str) -> None:
        self.failed.append({"file": _file(image), "error": error})

    def close(self, *, whole: bool) -> None:
        if whole:
            data = self.head | {"pictures": self.images, "failed": self.failed}
            write_text(self.path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
            self.files.append(self.path)


class JsonLines:
    """Writes faces.jsonl: one line per image, before the next image is processed."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None) -> None:
        self.files = [folder / "faces.jsonl"]
        self.scheme = scheme
        self.stream = _open(self.files[0])

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        found = [f.to_dict() for f in faces]
        self._write(
            {
                "file": _file(image),
                "width": size[0],
                "height": size[1],
                "scheme": self.scheme.name,
                "faces": found,
            }
        )

    def fail(self, image: ImageSource, error: str) -> None:
        self._write({"file": _file(image), "error": error})

    def _write(self, line: dict[str, Any]) -> None:
        self.stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self.stream.flush()

    def close(self, *, whole: bool) -> None:
        self.stream.close()


class CsvFaces:
    """Writes faces.csv: one row per face, before the next image is processed. `read_faces` reads it."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None) -> None:
        self.files = [folder / "faces.csv"]
        self.folder = Path(os.path.abspath(folder))
        self.stream = _open(self.files[0])
        self.rows = csv.writer(self.stream, lineterminator="\n")
        self.rows.writerow(
            ["file", *BOX_COLUMNS, *(f"{c}{i}" for i in range(scheme.n_landmarks) for c in "xy"), "quality"]
        )
        self.stream.flush()

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        file = _file(image) if image.path == STDIN else relative_file(image.path, self.folder)
        qualities = ["" if f.quality is None else round(f.quality, 3) for f in faces]
        self.rows.writerows(
            [file, *cells(f.box), *cells(f.landmarks), quality] for f, quality in zip(faces, qualities, strict=True)
        )
        self.stream.flush()

    def fail(self, image: ImageSource, error: str) -> None:
        pass

    def close(self, *, whole: bool) -> None:
        self.stream.close()


class CocoFaces:
    """Writes faces.coco.json: COCO keypoints with every image that could be read, at the end."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None) -> None:
        self.files: list[Path] = []
        self.path, self.scheme = folder / "faces.coco.json", scheme
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
            write_text(self.path, json.dumps(data, allow_nan=False) + "\n")
            self.files.append(self.path)


class PtsFaces:
    """Writes PLACE.pts, or PLACE_1.pts, PLACE_2.pts, ... for an image with several faces."""

    def __init__(self, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None) -> None:
        self.files: list[Path] = []
        self.folder = folder

    def add(self, image: ImageSource, size: tuple[int, int], faces: Sequence[Face]) -> None:
        for i, face in enumerate(faces):
            name = image.place if len(faces) == 1 else f"{image.place}_{i + 1}"
            self.files.append(self.folder / f"{name}.pts")
            write_pts(self.files[-1], np.asarray(face.landmarks))

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
    form: FaceFormat, folder: Path, scheme: LandmarkScheme, transfer: SchemeTransfer | None = None
) -> Results:
    """Open the files of a format in a folder.

    Call `add` or `fail` once per image, then `close`. `close(whole=False)` after an interruption leaves out a document that is written
    at the end.

    Args:
        form: The format.
        folder: Made if missing.
        scheme: Annotation scheme of the landmarks.
        transfer: The transfer that they come from, if any.

    Raises:
        InputError: The format is unknown, or the file cannot be written.
    """
    if form not in _KINDS:
        raise InputError(f"format {form!r}: expected one of {', '.join(_KINDS)}")
    return _KINDS[form](folder, scheme, transfer)


def _open(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error


def _file(image: ImageSource) -> str:
    return "-" if image.path == STDIN else Path(os.path.abspath(image.path)).as_posix()
