"""Lists of faces: text files that name faces, one a line, and the faces of a training run that they select."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from fewmark.core.errors import InputError
from fewmark.data.formats.io import read_faces
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme


def read_list(path: str | Path) -> list[str]:
    """The names in a list file; blank lines and lines that begin with # are left out.

    Raises:
        InputError: the file cannot be read, has no name, or has one twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a text file of names, one a line"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: expected a UTF-8 text file of names, one a line, given other bytes at {error.start}"
        ) from error
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name in lines:
            raise InputError(f"{path}: line {number}: {name!r} is there twice, first in line {lines[name]}; delete one")
        lines[name] = number
    if not lines:
        raise InputError(f"{path}: the list is empty; expected the `file` names of faces, one a line")
    return list(lines)


def select(samples: Sequence[FaceSample], list_path: str | Path) -> list[FaceSample]:
    """The faces that a list names, in the list's order.

    A line is a face's name; its image's file (all faces of that image); or, where only one image in
    the data has it, the file without its folders, without its suffix, or without both.

    Raises:
        InputError: the list is empty or cannot be read; a name is not in the data, fits several images, or
            comes twice.
    """
    names = read_list(list_path)
    index: list[dict[str, list[int]]] = [{}, {}, {}]  # the face, its file, shorter forms of the file
    files = [_file_of(s) for s in samples]
    for i, (s, file) in enumerate(zip(samples, files, strict=True)):
        index[0].setdefault(_clean(s.name or file), []).append(i)
        index[1].setdefault(file, []).append(i)
        pure = PurePosixPath(file)
        for short in {pure.name, pure.stem, str(pure.with_suffix("")) if pure.name else ""} - {file}:
            index[2].setdefault(short, []).append(i)
    chosen: list[int] = []
    owner: dict[int, str] = {}
    unknown: list[str] = []
    for name in names:
        found = next((level[_clean(name)] for level in index if _clean(name) in level), None)
        if found is None:
            unknown.append(name)
            continue
        images = sorted({files[i] for i in found})
        if len(images) > 1:
            raise InputError(
                f"{list_path}: {name!r} fits {len(images)} images ({images[0]}, {images[1]}); "
                "write the whole `file` name"
            )
        for i in found:
            if i in owner:
                raise InputError(f"{list_path}: {name!r} is there twice, first as {owner[i]!r}; delete one")
            owner[i] = name
            chosen.append(i)
    if unknown:
        given = f"{unknown[0]!r} is not among the data's {len(samples)} faces"
        more = f" (nor are {len(unknown) - 1} more of {len(names)})" if len(unknown) > 1 else ""
        raise InputError(
            f"{list_path}: {given}{more}; expected `file` names of the data, such as {files[0] if files else '(none)'}"
        )
    return [samples[i] for i in chosen]


def check_disjoint(a: Sequence[FaceSample], b: Sequence[FaceSample], what: str = "labelled and unlabelled") -> None:
    """See that no face is in both sets.

    Args:
        a, b: the sets; the same face has the same image and the same number in it.
        what: the two sets' names, for the message.

    Raises:
        InputError: a face is in both.
    """
    in_a = {_key(s) for s in a}
    both = [s for s in b if _key(s) in in_a]
    if both:
        raise InputError(
            f"{what}: expected no face in both, given {len(both)}, the first "
            f"{both[0].name or both[0].image}; take them out of one list"
        )


def _clean(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")


def _file_of(sample: FaceSample) -> str:
    return re.sub(r"#\d+$", "", _clean(sample.name)) or sample.image.as_posix()


def _key(sample: FaceSample) -> tuple[str, str]:
    number = re.search(r"#(\d+)$", sample.name)
    return os.path.abspath(sample.image), number.group(1) if number else ""


@dataclass(frozen=True, eq=False)
class TrainingLists:
    """The three parts of a run's faces.

    Attributes:
        labelled: every face has at least one landmark.
        unlabelled: boxes and hidden labels are kept where the data has them.
        validation: as `labelled`; may share images with `unlabelled`.
    """

    labelled: list[FaceSample]
    unlabelled: list[FaceSample]
    validation: list[FaceSample]


def read_training_lists(
    data: str | Path,
    labelled: str | Path | None,
    unlabelled: Sequence[str | Path] = (),
    validation: str | Path | None = None,
    *,
    scheme: LandmarkScheme,
) -> TrainingLists:
    """Read the faces of a run.

    Args:
        data: a folder or a label file, see `read_faces`.
        labelled: a list over `data`, or None.
        unlabelled: each a list over `data` (a .txt file), or other data (anything else). Landmarks of another
            scheme are dropped from other data.
        validation: a list over `data`, or None.
        scheme: of the labels.

    Raises:
        InputError: a file cannot be read; a labelled or validation face has no landmarks; a face is both
            labelled and unlabelled, both labelled and validation, or unlabelled twice.
    """
    faces = read_faces(data, scheme=scheme)
    few = [] if labelled is None else _with_labels(select(faces, labelled), labelled)
    held_out = [] if validation is None else _with_labels(select(faces, validation), validation)
    check_disjoint(few, held_out, f"--labelled {labelled} and --val {validation}")
    many: list[FaceSample] = []
    for source in unlabelled:
        is_list = Path(source).suffix.lower() == ".txt"
        part = select(faces, source) if is_list else _other_data(source, scheme)
        check_disjoint(few, part, f"--labelled {labelled} and --unlabelled {source}")
        check_disjoint(many, part, f"--unlabelled {source} and the --unlabelled before it")
        many += part
    return TrainingLists(few, many, held_out)


def read_distillation_lists(
    unlabelled: Sequence[str | Path],
    data: str | Path | None = None,
    labelled: str | Path | None = None,
    validation: str | Path | None = None,
    *,
    scheme: LandmarkScheme,
) -> TrainingLists:
    """Read the faces of a distillation, which needs no labels.

    Args:
        unlabelled: see `read_training_lists`; without `data`, other data.
        data: a folder or a label file that the lists are of, or None.
        labelled: a list over `data`, or None.
        validation: a list over `data`, or None.
        scheme: of the labels.

    Raises:
        InputError: lists without data, or the reasons of `read_training_lists`.
    """
    if data is None:
        lists = [labelled, validation, *(u for u in unlabelled if Path(u).suffix.lower() == ".txt")]
        if given := next((u for u in lists if u is not None), None):
            raise InputError(f"{given}: a list names faces of some data; give it by --data DATA")
        faces: list[FaceSample] = []
        for source in unlabelled:
            part = _other_data(source, scheme)
            check_disjoint(faces, part, f"--unlabelled {source} and the --unlabelled before it")
            faces += part
        return TrainingLists([], faces, [])
    return read_training_lists(data, labelled, unlabelled, validation, scheme=scheme)


def _with_labels(samples: list[FaceSample], where: str | Path) -> list[FaceSample]:
    for s in samples:
        if not s.is_labelled:
            raise InputError(
                f"{where}: {s.name or s.image}: expected a labelled face, given one without landmarks; "
                "label it or take it out of the list"
            )
    return samples


def _other_data(source: str | Path, scheme: LandmarkScheme) -> list[FaceSample]:
    return [
        replace(s, landmarks=None, occluded=None)
        if s.landmarks is not None and len(s.landmarks) != scheme.n_landmarks
        else s
        for s in read_faces(source)
    ]
