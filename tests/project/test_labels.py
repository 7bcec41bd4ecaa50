"""Labels of a project: nothing that a person did is lost, whoever else writes, and whatever happens to the predictions."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewmark.core.errors import InputError
from fewmark.project.database import Database
from fewmark.project.labels import MISSING, OCCLUDED, VISIBLE, ConflictError, Labels
from fewmark.project.predictions import Predictions, StoredPrediction

POINTS = np.arange(8, dtype=np.float32).reshape(4, 2)
BOX = np.array([1, 2, 30, 40], np.float32)


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    return Labels(Database(tmp_path / "project.sqlite", create=True))


def add_face(labels: Labels, name: str = "a.jpg") -> int:
    image = labels.add_image(name, name.encode(), (100, 80))
    assert image is not None
    return labels.add_face(image, BOX)


def test_a_label_is_kept_as_it_was_given(labels: Labels) -> None:
    face = add_face(labels)
    points = POINTS.copy()
    points[2] = np.nan
    after = labels.change(
        face, "labelled", "placed", "anna", landmarks=points, visibility=np.array([2, 1, 2, 2], np.uint8)
    )
    again = Labels(Database(labels.database.path)).face(face)
    for found in (after, again):
        assert np.array_equal(found.landmarks, points, equal_nan=True)  # type: ignore[arg-type]
        assert found.visibility is not None
        assert found.visibility.tolist() == [VISIBLE, OCCLUDED, MISSING, VISIBLE]
        assert (found.state, found.how, found.version) == ("labelled", "placed", 1)
        assert found.box is not None
        assert found.box.tolist() == BOX.tolist()


def test_every_change_is_kept_with_who_when_and_what(labels: Labels) -> None:
    face = add_face(labels)
    labels.change(face, "labelled", "accepted", "anna", landmarks=POINTS)
    labels.change(face, "labelled", "fixed", "bert", landmarks=POINTS + 1)
    labels.change(face, "rejected", "rejected", "anna")
    history = labels.history(face)
    assert [(c.who, c.after.how, c.after.state) for c in history] == [
        ("anna", "accepted", "labelled"),
        ("bert", "fixed", "labelled"),
        ("anna", "rejected", "rejected"),
    ]
    assert [c.at for c in history] == sorted(c.at for c in history)
    assert history[1].after.landmarks is not None
    assert history[1].after.landmarks.tolist() == (POINTS + 1).tolist()
    assert labels.restore(face, 1, "bert").landmarks.tolist() == POINTS.tolist()  # type: ignore[union-attr]
    assert labels.face(face).state == "labelled"
    assert labels.restore(face, 0, "bert").landmarks is None
    assert len(labels.history(face)) == 5
    with pytest.raises(InputError, match="from 0 to 5, given 9"):
        labels.restore(face, 9, "bert")


@pytest.mark.parametrize("sql", ["DELETE FROM changes", "UPDATE changes SET who = 'x'"])
def test_the_database_itself_refuses_to_change_the_past(labels: Labels, sql: str) -> None:
    labels.change(add_face(labels), "labelled", "placed", "anna", landmarks=POINTS)
    with pytest.raises(sqlite3.IntegrityError, match="never"):
        labels.database.connection.execute(sql)
    assert len(labels.history(1)) == 1


def test_two_tabs_on_one_face(labels: Labels) -> None:
    face = add_face(labels)
    seen = labels.face(face).version
    labels.change(face, "labelled", "placed", "anna", landmarks=POINTS, version=seen)
    with pytest.raises(ConflictError) as caught:
        labels.change(face, "labelled", "placed", "bert", landmarks=POINTS + 5, version=seen)
    assert caught.value.face.landmarks is not None
    assert caught.value.face.landmarks.tolist() == POINTS.tolist()
    assert [c.who for c in labels.history(face)] == ["anna"]
    labels.change(face, "labelled", "fixed", "bert", landmarks=POINTS + 5, version=caught.value.face.version)


def test_a_label_needs_landmarks(labels: Labels) -> None:
    face = add_face(labels)
    with pytest.raises(InputError, match="expected landmarks"):
        labels.change(face, "labelled", "accepted", "anna")
    assert labels.history(face) == []
    with pytest.raises(InputError, match="face 99"):
        labels.change(99, "rejected", "rejected", "anna")


def test_nothing_done_to_predictions_touches_a_label(labels: Labels) -> None:
    faces = [add_face(labels, f"{i}.jpg") for i in range(3)]
    for face in faces:
        labels.change(face, "labelled", "placed", "anna", landmarks=POINTS)
    before = list(labels.database.connection.execute("SELECT * FROM faces"))
    predictions = Predictions(labels.database)
    for n in range(2):
        run = predictions.add_run(f"{n}", 3, 0.05, calibrated=True)
        said = [StoredPrediction(f, POINTS + n, np.full(4, 0.01 * f, np.float32)) for f in faces]
        predictions.set_predictions(run, said)
    assert predictions.doubts(1, 5, "labelled")[0][0] == faces[-1]
    predictions.delete_predictions(1)
    assert list(predictions.predictions(1)) == []
    assert len(list(predictions.predictions(2, "labelled"))) == 3
    labels.database.connection.execute("DELETE FROM runs")  # by hand, with all it holds
    assert list(predictions.predictions(2)) == []
    assert list(labels.database.connection.execute("SELECT * FROM faces")) == before
    assert len(labels.history(faces[0])) == 1


def test_the_same_image_is_added_once(labels: Labels) -> None:
    assert labels.add_image("a.jpg", b"pixels", (10, 10)) == 1
    assert labels.add_image("b.jpg", b"pixels", (10, 10)) is None
    assert labels.counts()["images"] == 1


def test_many_threads_lose_no_change(labels: Labels) -> None:
    faces = [add_face(labels, f"{i}.jpg") for i in range(4)]

    def work(who: str) -> None:
        for step in range(10):
            for face in faces:
                labels.change(face, "labelled", "fixed", who, landmarks=POINTS + step)
        labels.database.close()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for face in faces:
        history = labels.history(face)
        assert [c.after.version for c in history] == list(range(1, 31))
        assert sorted({c.who for c in history}) == ["a", "b", "c"]


WRITER = """
import sys
from pathlib import Path
import numpy as np
from fewmark.project.database import Database
from fewmark.project.labels import Labels
labels = Labels(Database(Path(sys.argv[1])))
for step in range(100000):
    labels.change(1, "labelled", "fixed", "anna", landmarks=np.full((4, 2), step, np.float32))
    print(step, flush=True)
"""


def test_a_killed_writer_loses_no_label_that_it_told_of(labels: Labels) -> None:
    add_face(labels)
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(labels.database.path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.05)
        writer.kill()
        told = [0, *(int(line) for line in writer.stdout.read().split("\n")[:-1] if line)]
        writer.wait()
        face = labels.face(1)
        assert face.landmarks is not None
        assert face.landmarks[0, 0] >= told[-1]
        assert face.version == len(labels.history(1))
        assert labels.database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_backup_while_others_write(labels: Labels, tmp_path: Path) -> None:
    face = add_face(labels)
    labels.change(face, "labelled", "placed", "anna", landmarks=POINTS)
    labels.database.backup(tmp_path / "copy.sqlite")
    labels.change(face, "rejected", "rejected", "anna")
    copy = Labels(Database(tmp_path / "copy.sqlite"))
    assert (copy.face(face).state, len(copy.history(face))) == ("labelled", 1)


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Database(tmp_path / "nothing.sqlite")
    other = tmp_path / "other.sqlite"
    other.write_text("not a database at all, but long enough to be looked at as if it were one" * 20)
    with pytest.raises(InputError, match="not a project's database"):
        Database(other)
    later = tmp_path / "later.sqlite"
    Database(later, create=True).connection.execute("PRAGMA user_version = 9")
    with pytest.raises(InputError, match="version 1, given 9"):
        Database(later)
    with pytest.raises(InputError, match="exists already"):
        Database(later, create=True)


steps = st.lists(st.tuples(st.sampled_from(["place", "reject", "restore"]), st.integers(0, 6)), max_size=12)


@settings(max_examples=25)
@given(steps)
def test_any_state_can_be_had_back(tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, int]]) -> None:
    labels = Labels(Database(tmp_path_factory.mktemp("p") / "project.sqlite", create=True))
    face = add_face(labels)
    states = [labels.face(face)]
    for what, value in done:
        if what == "place":
            states.append(labels.change(face, "labelled", "placed", "a", landmarks=POINTS + value))
        elif what == "reject":
            states.append(labels.change(face, "rejected", "rejected", "a"))
        elif value < len(states):
            states.append(labels.restore(face, value, "a"))
    for version, then in enumerate(states):
        now = labels.restore(face, version, "b")
        assert now.state == then.state
        assert (now.landmarks is None) == (then.landmarks is None)
        if now.landmarks is not None and then.landmarks is not None:
            assert np.array_equal(now.landmarks, then.landmarks)
    labels.database.close()
