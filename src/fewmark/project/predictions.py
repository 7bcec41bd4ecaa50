"""What models say of a project's faces. It is apart from the labels: nothing here writes to a face or a change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.project.cut import Review
from fewmark.project.database import Database, now
from fewmark.project.labels import State


@dataclass(frozen=True)
class Run:
    """A training of a project.

    Attributes:
        id: Its number.
        name: Name of its folder in `runs`.
        at: When it ended, ISO 8601, UTC.
        n_labelled: Number of labelled faces that it learned from.
        nme: NME of held-out faces, a fraction, or None.
        calibrated: Whether the errors of its predictions are expected errors; otherwise they say how far views of a face disagree.
    """

    id: int
    name: str
    at: str
    n_labelled: int
    nme: float | None
    calibrated: bool


@dataclass(frozen=True, eq=False)
class StoredPrediction:
    """What a run says of a face.

    Attributes:
        face: Number of the face.
        landmarks: (K, 2) image px.
        errors: (K,) see `Run.calibrated`; fractions of the longer side of the landmarks' box.
    """

    face: int
    landmarks: NDArray[np.float32]
    errors: NDArray[np.float32]


class Predictions:
    """Runs of a project, what they say of its faces, and embeddings of these.

    Args:
        database: The project's.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def set_embeddings(self, vectors: Iterable[tuple[int, NDArray[np.float32]]]) -> None:
        """Keep vectors of faces, in place of those that they have."""
        with self.database.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO embeddings (face, vector) VALUES (?, ?)",
                ((n, np.asarray(v, "<f4").tobytes()) for n, v in vectors),
            )

    def embedded(self) -> list[int]:
        """Numbers of the faces that have a vector."""
        return [n for (n,) in self.database.connection.execute("SELECT face FROM embeddings")]

    def embeddings(self, numbers: Sequence[int] | None = None) -> tuple[list[int], NDArray[np.float32]]:
        """Numbers and vectors (N, D) of the faces that have one, or of some of them."""
        query = "SELECT face, vector FROM embeddings ORDER BY face"
        values: tuple[str, ...] = ()
        if numbers is not None:
            query = "SELECT face, vector FROM embeddings WHERE face IN (SELECT value FROM json_each(?)) ORDER BY face"
            values = (json.dumps(list(numbers)),)
        found = [(n, np.frombuffer(v, "<f4")) for n, v in self.database.connection.execute(query, values)]
        vectors = np.stack([v for _, v in found]) if found else np.zeros((0, 0), np.float32)
        return [n for n, _ in found], vectors

    def add_run(self, name: str, n_labelled: int, nme: float | None, *, calibrated: bool) -> int:
        """Add a training that has ended."""
        with self.database.transaction() as db:
            cursor = db.execute(
                "INSERT INTO runs (name, at, n_labelled, nme, calibrated) VALUES (?, ?, ?, ?, ?)",
                (name, now(), n_labelled, nme, calibrated),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def runs(self) -> list[Run]:
        """All runs, the first first."""
        rows = self.database.connection.execute(
            "SELECT id, name, at, n_labelled, nme, calibrated FROM runs ORDER BY id"
        )
        return [Run(n, name, at, n_labelled, nme, bool(known)) for n, name, at, n_labelled, nme, known in rows]

    def set_predictions(self, run: int, predictions: Iterable[StoredPrediction]) -> None:
        """Keep what a run says of faces, in place of what it said before."""
        with self.database.transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO predictions (run, face, landmarks, errors, doubt) VALUES (?, ?, ?, ?, ?)",
                (
                    (
                        run,
                        p.face,
                        np.asarray(p.landmarks, "<f4").tobytes(),
                        np.asarray(p.errors, "<f4").tobytes(),
                        float(p.errors.mean()),
                    )
                    for p in predictions
                ),
            )

    def predicted(self, run: int) -> list[int]:
        """Numbers of the faces that a run has seen."""
        return [n for (n,) in self.database.connection.execute("SELECT face FROM predictions WHERE run = ?", (run,))]

    def delete_predictions(self, run: int) -> None:
        """Forget what a run said."""
        with self.database.transaction() as db:
            db.execute("DELETE FROM predictions WHERE run = ?", (run,))

    def prediction(self, run: int, face: int) -> StoredPrediction | None:
        """What a run says of a face, or None."""
        row = self.database.connection.execute(
            "SELECT face, landmarks, errors FROM predictions WHERE run = ? AND face = ?", (run, face)
        ).fetchone()
        return None if row is None else _prediction(row)

    def predictions(self, run: int, state: State | None = None) -> Iterator[StoredPrediction]:
        """What a run says of all faces, or of those of one state, in the order of their numbers."""
        clause = "" if state is None else "AND faces.state = ?"
        rows = self.database.connection.execute(
            "SELECT predictions.face, predictions.landmarks, predictions.errors FROM predictions "
            f"JOIN faces ON faces.id = predictions.face WHERE run = ? {clause} ORDER BY predictions.face",
            (run,) if state is None else (run, state),
        )
        for row in rows:
            yield _prediction(row)

    def all_doubts(self, run: int) -> list[float]:
        """How doubtful a run is about each face that it has seen."""
        return [d for (d,) in self.database.connection.execute("SELECT doubt FROM predictions WHERE run = ?", (run,))]

    def reviews(self, run: int) -> list[Review]:
        """What became of a run's predictions that were accepted or fixed after it."""
        rows = self.database.connection.execute(
            "SELECT p.face, p.doubt, faces.how, p.landmarks, faces.landmarks FROM predictions p "
            "JOIN faces ON faces.id = p.face JOIN runs ON runs.id = p.run "
            "JOIN changes c ON c.face = faces.id AND c.version = faces.version "
            "WHERE p.run = ? AND faces.state = 'labelled' AND faces.how IN ('accepted', 'fixed') AND c.at >= runs.at "
            "ORDER BY p.face",
            (run,),
        )
        found = []
        for face, doubt, how, predicted, label in rows:
            said, true = (np.frombuffer(b, "<f4").reshape(-1, 2) for b in (predicted, label))
            distance = np.linalg.norm(said - true, axis=1)
            moved = float(np.nanmean(distance) / np.ptp(said, axis=0).max()) if np.isfinite(distance).any() else 0.0
            found.append(Review(face, doubt, how == "accepted", moved))
        return found

    def n_below(self, run: int, doubt: float) -> int:
        """The number of unlabelled faces of which a run is less in doubt."""
        (n,) = self.database.connection.execute(
            "SELECT COUNT(*) FROM predictions JOIN faces ON faces.id = predictions.face "
            "WHERE run = ? AND faces.state = 'unlabelled' AND doubt < ?",
            (run, doubt),
        ).fetchone()
        return int(n)

    def nearest(self, run: int, n: int, doubt: float) -> list[tuple[int, float]]:
        """The n unlabelled faces whose doubt is the nearest to a value, and their doubts, the nearest first."""
        rows = self.database.connection.execute(
            "SELECT predictions.face, doubt FROM predictions JOIN faces ON faces.id = predictions.face "
            "WHERE run = ? AND faces.state = 'unlabelled' ORDER BY abs(doubt - ?), predictions.face LIMIT ?",
            (run, doubt, n),
        )
        return list(rows)

    def doubts_of(self, run: int, numbers: Sequence[int]) -> dict[int, float]:
        """How doubtful a run is about faces, of those that it has seen."""
        rows = self.database.connection.execute(
            "SELECT face, doubt FROM predictions WHERE run = ? AND face IN (SELECT value FROM json_each(?))",
            (run, json.dumps(list(numbers))),
        )
        return dict(rows.fetchall())

    def doubts(self, run: int, n: int, state: State = "unlabelled") -> list[tuple[int, float]]:
        """The n faces of a state that a run is most in doubt about, and how much, the most doubtful first."""
        rows = self.database.connection.execute(
            "SELECT predictions.face, doubt FROM predictions JOIN faces ON faces.id = predictions.face "
            "WHERE run = ? AND faces.state = ? ORDER BY doubt DESC, predictions.face LIMIT ?",
            (run, state, n),
        )
        return list(rows)


def _prediction(row: Sequence[Any]) -> StoredPrediction:
    face, landmarks, errors = row
    return StoredPrediction(face, np.frombuffer(landmarks, "<f4").reshape(-1, 2), np.frombuffer(errors, "<f4"))
