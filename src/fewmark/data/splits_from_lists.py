"""The faces of a training run from what a person names on the command line: data, lists, more data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fewmark.core.errors import InputError
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import check_disjoint, select
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme


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
        if s.landmarks is None or not np.isfinite(s.landmarks).all(1).any():
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
