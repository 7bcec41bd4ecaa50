"""Face lists: text files with one face name per line, and the training faces they select."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from fewmark.core.errors import InputError
from fewmark.data.formats.io import read_faces
from fewmark.data.formats.text import read_text
from fewmark.data.image_names import clean_name
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme

LABEL_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".xml", ".pts", ".mat", ".xlsx")
"""Suffixes of files that are taken for labels, and so for no list."""


def read_list(path: str | Path) -> list[str]:
    """Read the names in a list file, ignoring blank lines and lines starting with #.

    Raises:
        InputError: The file cannot be read, contains no names, or contains a name twice.
    """
    path = Path(path)
    if path.suffix.lower() in LABEL_SUFFIXES:
        raise InputError(
            f"{path}: a label file, expected a list: a text file with one `file` name per line, such as the first column of a CSV"
        )
    text = read_text(path, "a text file with one name per line")
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name in lines:
            raise InputError(f"{path}: line {number}: {name!r} is there twice, first in line {lines[name]}; delete one")
        lines[name] = number
    if not lines:
        raise InputError(f"{path}: the list is empty; expected one `file` name per line")
    return list(lines)


def select(samples: Sequence[FaceSample], list_path: str | Path) -> list[FaceSample]:
    """Select the faces named in a list, in list order.

    Each line holds the name of a face or an image file (which selects all faces in that image). The folders,
    the suffix or both may be omitted from the file name if the result matches only one image in the data.

    Raises:
        InputError: The list is empty or cannot be read; a name is not in the data, matches several images, or
            appears twice.
    """
    names = read_list(list_path)
    index: list[dict[str, list[int]]] = [{}, {}, {}]  # by face name, by file, by shortened file name
    files = [_file_of(s) for s in samples]
    for i, (s, file) in enumerate(zip(samples, files, strict=True)):
        index[0].setdefault(clean_name(s.name or file), []).append(i)
        index[1].setdefault(file, []).append(i)
        pure = PurePosixPath(file)
        for short in {pure.name, pure.stem, str(pure.with_suffix("")) if pure.name else ""} - {file}:
            index[2].setdefault(short, []).append(i)
    chosen: list[int] = []
    owner: dict[int, str] = {}
    unknown: list[str] = []
    for name in names:
        found = next((level[clean_name(name)] for level in index if clean_name(name) in level), None)
        if found is None:
            found = _by_end(clean_name(name), index)
        if found is None:
            unknown.append(name)
            continue
        images = sorted({files[i] for i in found})
        if len(images) > 1:
            raise InputError(
                f"{list_path}: {name!r} fits {len(images)} images ({images[0]}, {images[1]}); "
                "write the full `file` name"
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


def _by_end(name: str, index: Sequence[dict[str, list[int]]]) -> list[int] | None:
    """The faces that the end of an absolute path names, e.g. of another machine; the longest end decides."""
    parts = name.split("/")
    if parts[0] and not re.fullmatch("[A-Za-z]:", parts[0]):
        return None
    ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
    return next((level[end] for end in ends for level in index[:2] if end in level), None)


def check_disjoint(a: Sequence[FaceSample], b: Sequence[FaceSample], what: str = "labelled and unlabelled") -> None:
    """Check that no face is in both sets.

    Args:
        a, b: Sets of faces; two faces are the same if they have the same image and the same number in it.
        what: Names of the two sets, for the error message.

    Raises:
        InputError: A face is in both sets.
    """
    in_a = {_key(s) for s in a}
    both = [s for s in b if _key(s) in in_a]
    if both:
        raise InputError(
            f"{what}: expected no face in both, given {len(both)}, the first "
            f"{both[0].name or both[0].image}; take them out of one list"
        )


def _file_of(sample: FaceSample) -> str:
    return re.sub(r"#\d+$", "", clean_name(sample.name)) or sample.image.as_posix()


def _key(sample: FaceSample) -> tuple[str, str]:
    number = re.search(r"#(\d+)$", sample.name)
    return os.path.abspath(sample.image), number.group(1) if number else ""


@dataclass(frozen=True, eq=False)
class TrainingLists:
    """Labelled, unlabelled and validation faces of a run.

    Attributes:
        labelled: Faces with at least one landmark each.
        unlabelled: Faces to pseudo-label; boxes and hidden labels are kept if the data has them.
        validation: Faces with at least one landmark each; those of a list may share images with `unlabelled`.
        n_known: Faces of other data that are labelled or validation faces, and were left out of `unlabelled`.
    """

    labelled: list[FaceSample]
    unlabelled: list[FaceSample]
    validation: list[FaceSample]
    n_known: int = 0


def read_training_lists(
    data: str | Path | Sequence[FaceSample] | None,
    labelled: str | Path | None,
    unlabelled: Sequence[str | Path] = (),
    validation: str | Path | None = None,
    *,
    scheme: LandmarkScheme,
    missing: int | None = None,
    all_labelled: bool = False,
) -> TrainingLists:
    """Read the faces of a run.

    Args:
        data: Folder or label file, see `read_faces`, or faces that were read; None where no face is labelled.
        labelled: List of faces in `data`, or None.
        unlabelled: Lists of faces in `data` (.txt files) or other data (anything else). Other data loses its
            landmarks if they belong to another scheme; labelled and validation faces in it are left out.
        validation: List of faces in `data`, or None.
        scheme: Scheme of the labels.
        missing: See `read_faces`.
        all_labelled: Whether, without a list, all labelled faces of `data` that no other list names are the labelled ones.

    Raises:
        InputError: A file cannot be read; lists are given without `data`; a labelled or validation face has no landmarks;
            a face of a list is both labelled and unlabelled, both labelled and validation, or unlabelled twice.
    """
    if data is None:
        lists = [labelled, validation, *(u for u in unlabelled if _is_list(u))]
        if named := next((u for u in lists if u is not None), None):
            raise InputError(f"{named}: a list names faces of DATA; give that folder or label file, too")
    faces = read_faces(data, scheme=scheme, missing=missing) if isinstance(data, str | Path) else list(data or ())
    held_out = [] if validation is None else _with_labels(select(faces, validation), validation)
    listed = {source: select(faces, source) for source in unlabelled if _is_list(source)}
    if labelled is not None:
        few = _with_labels(select(faces, labelled), labelled)
    elif all_labelled:
        others = {_key(s) for part in (held_out, *listed.values()) for s in part}
        few = [s for s in faces if s.is_labelled and _key(s) not in others]
    else:
        few = []
    check_disjoint(few, held_out, f"--labelled {labelled} and --val {validation}")
    many: list[FaceSample] = []
    n_known = 0
    for source in unlabelled:
        if source in listed:
            part = listed[source]
            check_disjoint(few, part, f"--labelled {labelled} and --unlabelled {source}")
        else:
            given = _other_data(source, scheme, missing)
            part = _without(given, [*few, *held_out])
            n_known += len(given) - len(part)
        check_disjoint(many, part, f"--unlabelled {source} and the --unlabelled before it")
        many += part
    return TrainingLists(few, many, held_out, n_known)


def hide_labels(lists: TrainingLists, share: float, seed: int) -> TrainingLists:
    """Keep a share of the labelled faces, drawn by the seed; the others become unlabelled.

    Their boxes are taken from them, because those of labels say where the landmarks are: the face detector finds them again.

    Raises:
        InputError: The share is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise InputError(f"--label-share: expected a fraction above 0 and at most 1, given {share:g}")
    n = max(1, round(share * len(lists.labelled)))
    order = np.random.default_rng(seed).permutation(len(lists.labelled))
    kept, hidden = sorted(order[:n].tolist()), sorted(order[n:].tolist())
    unlabelled = [*lists.unlabelled, *(replace(lists.labelled[i], box=None) for i in hidden)]
    return replace(lists, labelled=[lists.labelled[i] for i in kept], unlabelled=unlabelled)


def _is_list(source: str | Path) -> bool:
    return Path(source).suffix.lower() == ".txt"


def _without(samples: Sequence[FaceSample], known: Sequence[FaceSample]) -> list[FaceSample]:
    """The faces that are not among others; an image without a box is that of all its faces."""
    keys, images = {_key(s) for s in known}, {_key(s)[0] for s in known}
    return [s for s in samples if _key(s) not in keys and not (s.box is None and _key(s)[0] in images)]


def _with_labels(samples: list[FaceSample], where: str | Path) -> list[FaceSample]:
    for s in samples:
        if not s.is_labelled:
            raise InputError(
                f"{where}: {s.name or s.image}: expected a labelled face, given one without landmarks; "
                "label it or take it out of the list"
            )
    return samples


def _other_data(source: str | Path, scheme: LandmarkScheme, missing: int | None) -> list[FaceSample]:
    return [
        replace(s, landmarks=None, occluded=None)
        if s.landmarks is not None and len(s.landmarks) != scheme.n_landmarks
        else s
        for s in read_faces(source, missing=missing)
    ]
