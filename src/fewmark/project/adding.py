"""Images into a project: files, folders, frames of videos and label files; each image once, with the faces found in it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError, warn_of_data
from fewmark.core.files import atomic_path
from fewmark.core.geometry import Box, box_of_points
from fewmark.core.geometry import Image as Pixels
from fewmark.core.text import count
from fewmark.data.decoders import video_kind
from fewmark.data.formats.io import read_faces
from fewmark.data.formats.text import read_json
from fewmark.data.formats.tools.labelme import is_labelme, read_labelme
from fewmark.data.formats.tools.sleap import read_sleap_project
from fewmark.data.image_sources import VIDEO_SUFFIXES, find_images
from fewmark.data.images import read_image, write_image
from fewmark.data.samples import FaceSample
from fewmark.inference.face_detection.base import FaceDetector, FullImage, box_overlap
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.project.choice import farthest_first
from fewmark.project.labels import OCCLUDED, VISIBLE, Labels

LABEL_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".xml", ".h5")
"""Files that are read as labels, not as images."""
MIN_OVERLAP = 0.2
"""Intersection over union from which a labelled face is a detected one."""
_THUMBNAIL = 16


@dataclass
class Added:
    """What was added.

    Attributes:
        images: Number of new images.
        faces: Number of new faces, labelled ones included.
        labelled: Number of new labels.
        duplicates: Images that the project had already, by their pixels.
        without_face: Images in which no face was found; each has one face without a box, to be placed by hand.
        unreadable: File and reason of images that cannot be read.
    """

    images: int = 0
    faces: int = 0
    labelled: int = 0
    duplicates: list[str] = field(default_factory=list)
    without_face: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Incoming:
    """An image to add: a file, or a frame that is not one yet."""

    name: str
    path: Path | None
    pixels: Pixels | None = None
    source: str = ""
    frame: int | None = None
    labels: Sequence[FaceSample] = ()


def add_sources(
    labels: Labels,
    folder: Path,
    sources: Sequence[str | Path],
    scheme: LandmarkScheme,
    face_detector: FaceDetector,
    *,
    copy: bool = False,
    every: int = 1,
    frames: int | None = None,
    who: str = "",
    on_image: Callable[[str], None] = lambda name: None,
) -> Added:
    """Add images and their faces to a project.

    Args:
        labels: The project's.
        folder: The project's folder.
        sources: Image files, folders, globs, videos and label files, of SLEAP with the frames that are labelled. Of an image, a .pts file or a file of LabelMe beside it is read, too.
        scheme: Scheme of labels in label files.
        face_detector: Finds the faces.
        copy: Copy image files into the project; otherwise they are linked by their path. Frames are always written into it.
        every: Take every n-th frame of a video.
        frames: Of these, take so many that are most unlike each other; None: all.
        who: Whose labels those of label files are.
        on_image: Called with the name of each image.

    Raises:
        InputError: A source does not exist, holds no image, or its labels do not fit the scheme. What was added before stays.
    """
    if every < 1 or (frames is not None and frames < 1):
        raise InputError(f"add: expected every and frames of 1 or more, given {every} and {frames}")
    added = Added()
    for incoming in _incoming(sources, scheme, every, frames):
        on_image(incoming.name)
        _add_one(labels, folder, incoming, face_detector, copy, who, added)
    return added


def _incoming(
    sources: Sequence[str | Path], scheme: LandmarkScheme, every: int, frames: int | None
) -> Iterator[_Incoming]:
    images: list[str | Path] = []
    for source in map(Path, sources):
        if source.suffix.lower() == ".slp" and source.is_file():
            yield from _of_sleap(source, scheme)
        elif (source.suffix.lower() in LABEL_SUFFIXES and source.is_file()) or (
            source.is_dir() and (source / "annotations.csv").is_file()
        ):
            yield from _labelled(read_faces(source, scheme=scheme), str(source))
        elif source.is_file() and _is_video(source):
            yield from _frames(source, every, frames)
        else:
            images.append(source)
    if images:
        for found in find_images(images):
            labels = _labels_beside(found.path, scheme)
            yield _Incoming(str(found.path), found.path, source=str(found.path.parent), labels=labels)


def _labels_beside(image: Path, scheme: LandmarkScheme) -> list[FaceSample]:
    """The faces of a .pts file or a file of LabelMe that is named after the image; one that does not fit is told and left out."""
    table, points = image.with_suffix(".json"), image.with_suffix(".pts")
    try:
        if table.is_file() and is_labelme(read_json(table)):
            return [s for s in read_labelme(table, scheme=scheme) if s.landmarks is not None]
        return read_faces(points, scheme=scheme) if points.is_file() else []
    except InputError as error:
        warn_of_data(f"{error}; {image.name} is added without this label")
        return []


def _labelled(samples: Iterable[FaceSample], source: str) -> Iterator[_Incoming]:
    by_image: dict[Path, list[FaceSample]] = {}
    for sample in samples:
        by_image.setdefault(sample.image, []).append(sample)
    for path, faces in by_image.items():
        yield _Incoming(str(path), path, source=source, labels=faces)


def _of_sleap(path: Path, scheme: LandmarkScheme) -> Iterator[_Incoming]:
    """The images and frames of a file of SLEAP, with their labels."""
    from fewmark.video.reader import read_video

    samples, frames = read_sleap_project(path, scheme)
    yield from _labelled(samples, str(path))
    wanted: dict[Path, dict[int, list[FaceSample]]] = {}
    for frame in frames:
        if frame.pixels is None:
            wanted.setdefault(frame.video, {}).setdefault(frame.index, []).extend(frame.faces)
        else:
            name = f"{path.name}:{frame.index}"
            yield _Incoming(name, None, frame.pixels, str(path), frame.index, frame.faces)
    for video, of_video in wanted.items():
        for shown in read_video(video):
            faces = of_video.pop(shown.index, None)
            if faces is not None:
                yield _Incoming(f"{video.name}:{shown.index}", None, shown.image, str(video), shown.index, faces)
            if not of_video:
                break
        if of_video:
            told = f"{count(len(of_video), 'labelled frame')} of {video.name}, e.g. {min(of_video)}, cannot be read"
            warn_of_data(f"{path}: {told}; the video may be another one than was labelled")


def _is_video(path: Path) -> bool:
    with path.open("rb") as file:
        return video_kind(file.read(64)) is not None or path.suffix.lower() in VIDEO_SUFFIXES


def _frames(path: Path, every: int, wanted: int | None) -> Iterator[_Incoming]:
    """Every n-th frame of a video, or those of them that are most unlike each other, which takes a look before."""
    from fewmark.video.reader import read_video

    chosen: set[int] | None = None
    if wanted is not None:
        looked = [(f.index, _thumbnail(f.image)) for f in read_video(path) if f.index % every == 0]
        picked = farthest_first(np.stack([t for _, t in looked]), min(wanted, len(looked)))
        chosen = {looked[i][0] for i in picked}
    for frame in read_video(path):
        if frame.index % every == 0 and (chosen is None or frame.index in chosen):
            name = f"{path.name}:{frame.index}"
            yield _Incoming(name, None, frame.image, str(path), frame.index)


def _thumbnail(image: Pixels) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).ravel()


def _add_one(
    labels: Labels, folder: Path, incoming: _Incoming, face_detector: FaceDetector, copy: bool, who: str, added: Added
) -> None:
    try:
        pixels = incoming.pixels if incoming.pixels is not None else read_image(incoming.path or "")
    except InputError as error:
        added.unreadable.append((incoming.name, str(error)))
        return
    content, whole = digest(pixels), isinstance(face_detector, FullImage)
    known = labels.image_with(content)
    if known is not None:
        if not incoming.labels:
            added.duplicates.append(incoming.name)
        _add_labels(labels, known.id, incoming, who, added, whole)
        return
    detected = [f.box_xyxy for f in face_detector(pixels)]
    boxes: list[Box | None] = list(detected)
    for sample in incoming.labels:
        if not whole and _nearest(_box_of(sample), detected) is None:
            boxes.append(_box_of(sample))
    if not boxes:
        added.without_face.append(incoming.name)
        boxes = [None]
    stored = _store_image(folder, incoming, pixels, content, copy)
    height, width = pixels.shape[:2]
    with labels.database.transaction():
        image = labels.add_image(stored, content, (width, height), incoming.source, incoming.frame)
        if image is None:  # another process was faster
            added.duplicates.append(incoming.name)
            return
        for box in boxes:
            labels.add_face(image, box)
        added.images += 1
        added.faces += len(boxes)
        _add_labels(labels, image, incoming, who, added, whole)


def _add_labels(labels: Labels, image: int, incoming: _Incoming, who: str, added: Added, whole: bool) -> None:
    """Give faces of an image the labels of a label file. A face that a person has labelled or rejected keeps what it has.

    Of an image that is one object as a whole, the first label is this object's, however small its part of the image.
    """
    for sample in incoming.labels:
        if not sample.is_labelled or sample.landmarks is None:
            continue
        faces = list(labels.faces(image=image))
        box = _box_of(sample)
        found = _nearest(box, [f.box for f in faces])
        if found is None and whole and faces and faces[0].state == "unlabelled":
            found = 0
        number = labels.add_face(image, box) if found is None else faces[found].id
        if labels.face(number).state != "unlabelled":
            continue
        hidden = sample.occluded
        visibility = None if hidden is None else np.where(hidden, OCCLUDED, VISIBLE).astype(np.uint8)
        labels.change(number, "labelled", "imported", who, landmarks=sample.landmarks, visibility=visibility)
        added.labelled += 1


def _box_of(sample: FaceSample) -> Box | None:
    """Where a face of a label file is: about its landmarks, or else its box."""
    if sample.is_labelled and sample.landmarks is not None:
        return box_of_points(sample.landmarks)
    return sample.box


def _nearest(box: Box | None, others: Sequence[Box | None]) -> int | None:
    """The index of the box that overlaps another most, or None where none does."""
    if box is None:
        return None
    overlaps = [0.0 if other is None else box_overlap(box, other) for other in others]
    best = int(np.argmax(overlaps)) if overlaps else 0
    return best if overlaps and overlaps[best] > MIN_OVERLAP else None


def _store_image(folder: Path, incoming: _Incoming, pixels: Pixels, content: bytes, copy: bool) -> str:
    """The path under which the project keeps an image: linked, or written into its folder."""
    if incoming.path is not None and not copy:
        path = Path(os.path.abspath(incoming.path))
        inside = path.is_relative_to(folder.resolve())
        return str(path.relative_to(folder.resolve())) if inside else str(path)
    stem = incoming.path.stem if incoming.path is not None else f"{Path(incoming.source).stem}-{incoming.frame:06d}"
    suffix = incoming.path.suffix if incoming.path is not None else ".png"
    target = folder / "images" / f"{_safe(stem)}-{content.hex()[:8]}{suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if incoming.path is None:
        write_image(target, pixels)
    else:
        with atomic_path(target) as temporary:
            shutil.copyfile(incoming.path, temporary)
    return target.relative_to(folder).as_posix()


def _safe(stem: str) -> str:
    """A file's stem without what a file system or an address may not like."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem)
    return kept.lstrip(".")[:80] or "image"


def digest(pixels: Pixels) -> bytes:
    """16 bytes that differ where the pixels (H, W, 3) do."""
    made = hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16)
    made.update(str(pixels.shape).encode())
    return made.digest()
