"""The same faces in two data sets are found by file and order, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewmark.core.errors import InputError
from fewmark.data.pairs import match_faces
from fewmark.data.samples import FaceSample


def face(folder: str, name: str, value: float | None, k: int = 2, group: str = "") -> FaceSample:
    landmarks = None if value is None else np.arange(2 * k, dtype=np.float32).reshape(k, 2) + np.float32(value)
    return FaceSample(Path(folder) / name.partition("#")[0], landmarks=landmarks, name=name, group=group)


def test_by_the_same_image_whatever_it_is_called() -> None:
    ours = [face("/data", "images/a.jpg", 1), face("/data", "images/b.jpg", 2), face("/data", "images/c.jpg", 3)]
    theirs = [
        face("/data/images", "c.jpg", 30, k=3),
        face("/data/images", "a.jpg", 10, k=3),
        face("/data/images", "x.jpg", 0, k=3),
    ]
    pairs = match_faces(ours, theirs)
    assert [s.name for s in pairs.source] == ["images/a.jpg", "images/c.jpg"]
    assert [s.name for s in pairs.target] == ["a.jpg", "c.jpg"]
    assert pairs.source_points[:, 0, 0].tolist() == [1, 3]
    assert pairs.target_points[:, 0, 0].tolist() == [10, 30]
    assert pairs.target_points.shape == (2, 3, 2)
    assert (pairs.n_source, pairs.n_target) == (3, 3)
    assert pairs.boxes.tolist() == [[10, 11, 14, 15], [30, 31, 34, 35]]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("images/a.jpg", "images/a.jpg"), ("images/a.jpg", "other/a.png"), ("a.jpg", "./a.jpg"), ("a#1.jpg", "a#1.jpg")],
)
def test_by_file_name_in_other_folders(ours: str, theirs: str) -> None:
    pairs = match_faces([face("/one", ours, 1)], [face("/two", theirs, 2)])
    assert len(pairs.source) == 1


def test_faces_of_one_image_are_matched_by_their_order() -> None:
    ours = [face("/one", "a.jpg#1", 1), face("/one", "b.jpg", 2), face("/one", "a.jpg#2", 3)]
    theirs = [face("/two", "b.jpg", 20), face("/two", "a.jpg#1", 10), face("/two", "a.jpg#2", 30)]
    pairs = match_faces(ours, theirs)
    assert [(a.name, b.name) for a, b in zip(pairs.source, pairs.target, strict=True)] == [
        ("a.jpg#1", "a.jpg#1"),
        ("a.jpg#2", "a.jpg#2"),
        ("b.jpg", "b.jpg"),
    ]
    with pytest.raises(
        InputError, match=r"few.csv: .*a.jpg: expected 2 faces as in many.csv, given 1; .*by their order"
    ):
        match_faces(ours, theirs[:2], ("many.csv", "few.csv"))


def test_unlabelled_faces_are_left_out_but_count_in_the_order() -> None:
    ours = [face("/one", "a.jpg#1", None), face("/one", "a.jpg#2", 3)]
    theirs = [face("/two", "a.jpg#1", 10), face("/two", "a.jpg#2", 30)]
    pairs = match_faces(ours, theirs)
    assert pairs.target_points[:, 0, 0].tolist() == [30]
    assert (pairs.n_source, pairs.n_target) == (1, 2)
    with pytest.raises(InputError, match="labelled in both data sets, given none of 1 images"):
        match_faces(ours[:1], theirs[:1])


def test_groups_are_what_either_says() -> None:
    ours = [face("/one", "a.jpg", 1, group="ann"), face("/one", "b.jpg", 2), face("/one", "c.jpg", 3)]
    theirs = [face("/two", "a.jpg", 1, group="other"), face("/two", "b.jpg", 2, group="bo"), face("/two", "c.jpg", 3)]
    assert match_faces(ours, theirs).groups == ["ann", "bo", str(Path("/one/c.jpg"))]


def test_some_of_the_pairs() -> None:
    faces = [face("/one", f"{i}.jpg", i) for i in range(4)]
    some = match_faces(faces, faces).only([3, 1], "list.txt")
    assert [s.name for s in some.target] == ["3.jpg", "1.jpg"]
    assert some.n_source == 4
    with pytest.raises(InputError, match=r"list.txt: expected faces labelled in both data sets, given none of 2"):
        some.only([], "list.txt")


def test_nothing_in_common() -> None:
    ours, theirs = [face("/one", "images/a.jpg", 1)], [face("/two", "b.jpg", 1)]
    with pytest.raises(InputError, match=r"dst.csv: expected the faces of src.csv.*images/a.jpg there, b.jpg here"):
        match_faces(ours, theirs, ("src.csv", "dst.csv"))
    with pytest.raises(InputError, match="given no such face: nothing there"):
        match_faces([], theirs)


def test_a_name_that_fits_two_images() -> None:
    ours = [
        face("/one", "x/a.jpg", 1),
        face("/one", "y/a.jpg", 2),
        face("/one", "y/b.jpg", 2),
        face("/one", "x/b.jpg", 2),
    ]
    with pytest.raises(InputError, match=r"SRC: a: two images have this name .*use the same folders"):
        match_faces(ours, [face("/two", "z/a.jpg", 1)])
