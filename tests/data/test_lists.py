"""The training faces that lists and folders select."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewmark.core.errors import InputError
from fewmark.data.lists import read_training_lists
from fewmark.landmarks.scheme import load_scheme

SCHEME = load_scheme("mtfl-5")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images; a, b, c and d are labelled in labels.csv, e and f are not."""
    (tmp_path / "images").mkdir()
    rows = ["file," + ",".join(f"x{i},y{i}" for i in range(5))]
    for name in "abcdef":
        cv2.imwrite(str(tmp_path / f"images/{name}.png"), np.zeros((60, 60, 3), np.uint8))
        if name in "abcd":
            rows.append(f"images/{name}.png,10,10,40,10,25,25,15,40,35,40")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("d\n", encoding="utf-8")
    (tmp_path / "hidden.txt").write_text("c\n", encoding="utf-8")
    return tmp_path


def names(faces: object) -> str:
    return "".join(s.image.stem for s in faces)  # type: ignore[attr-defined]


def test_without_a_list_all_other_labelled_faces_are_learned_from(folder: Path) -> None:
    lists = read_training_lists(
        folder / "labels.csv", None, [folder / "hidden.txt"], folder / "val.txt", scheme=SCHEME, all_labelled=True
    )
    assert (names(lists.labelled), names(lists.unlabelled), names(lists.validation)) == ("ab", "c", "d")
    none = read_training_lists(folder / "labels.csv", None, [folder / "hidden.txt"], scheme=SCHEME)
    assert none.labelled == []


def test_labelled_and_validation_faces_are_left_out_of_a_folder(folder: Path) -> None:
    lists = read_training_lists(
        folder / "labels.csv", None, [folder / "images"], folder / "val.txt", scheme=SCHEME, all_labelled=True
    )
    assert names(lists.unlabelled) == "ef"
    assert lists.n_known == 4


def test_a_label_file_is_no_list(folder: Path) -> None:
    """The message names the mistake and does not repeat the table."""
    with pytest.raises(InputError, match=r"labels\.csv: a label file, expected a list: a text file") as raised:
        read_training_lists(folder / "labels.csv", folder / "labels.csv", scheme=SCHEME)
    assert len(str(raised.value)) < 300


def test_a_list_that_contradicts_another_is_refused(folder: Path) -> None:
    (folder / "few.txt").write_text("a\nc\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"few\.txt and --unlabelled .*hidden\.txt: expected no face in both, given 1"):
        read_training_lists(folder / "labels.csv", folder / "few.txt", [folder / "hidden.txt"], scheme=SCHEME)
