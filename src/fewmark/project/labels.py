"""Images, faces and their human labels, with every change of them.

Many threads and processes may use them at once. A label is written in one transaction with its change, and is on the disk when the call
returns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Box
from fewmark.inference.face_detection.base import box_overlap
from fewmark.project.database import Database, now

State = Literal["unlabelled", "labelled", "rejected"]
How = Literal["added", "placed", "fixed", "accepted", "imported", "rejected", "restored"]
MISSING, OCCLUDED, VISIBLE = 0, 1, 2
"""Visibility of a landmark, as COCO's keypoints have it."""


class ConflictError(InputError):
    """A face was changed by someone else since it was read.

    Attributes:
        face: The face as it is now.
    """

    def __init__(self, face: Face) -> None:
        super().__init__(
            f"face {face.id}: it was changed since you opened it (version {face.version} now); look at it again before you save"
        )
        self.face = face


@dataclass(frozen=True)
class Image:
    """An image of a project.

    Attributes:
        id: Its number.
        path: As stored: relative to the project, or absolute.
        width, height: px.
        source: The video or folder that it came from.
        frame: Its number in a video, or None.
    """

    id: int
    path: str
    width: int
    height: int
    source: str
    frame: int | None


@dataclass(frozen=True, eq=False)
class Face:
    """A face of a project, with its human label if it has one.

    Attributes:
        id: Its number.
        image: Number of its image.
        box: (4,) x0 y0 x1 y1 image px, or None.
        state: unlabelled, labelled or rejected.
        how: How it came to its state.
        landmarks: (K, 2) image px, NaN where missing; None if it was never labelled.
        visibility: (K,) `MISSING`, `OCCLUDED` or `VISIBLE`; None with the landmarks.
        version: Number of its changes.
    """

    id: int
    image: int
    box: Box | None
    state: State
    how: How
    landmarks: NDArray[np.float32] | None
    visibility: NDArray[np.uint8] | None
    version: int


@dataclass(frozen=True, eq=False)
class Change:
    """A change of a face, and the face after it.

    Attributes:
        id: Its number.
        at: Time, ISO 8601, UTC.
        who: Name of the person.
        after: The face.
    """

    id: int
    at: str
    who: str
    after: Face


class Labels:
    """Images and faces of a project, with their labels.

    Args:
        database: The project's.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def add_image(
        self, path: str, content: bytes, size: tuple[int, int], source: str = "", frame: int | None = None
    ) -> int | None:
        """Add an image of (width, height); None if an image with the same content is there."""
        with self.database.transaction() as db:
            try:
                cursor = db.execute(
                    "INSERT INTO images (path, content, width, height, source, frame, added_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (path, content, *size, source, frame, now()),
                )
            except sqlite3.IntegrityError:
                return None
            return cursor.lastrowid

    def image_with(self, content: bytes) -> Image | None:
        """The image with this content, or None."""
        row = self.database.connection.execute(
            "SELECT id, path, width, height, source, frame FROM images WHERE content = ?", (content,)
        ).fetchone()
        return None if row is None else Image(*row)

    def image(self, number: int) -> Image:
        """An image by its number.

        Raises:
            InputError: There is none.
        """
        row = self.database.connection.execute(
            "SELECT id, path, width, height, source, frame FROM images WHERE id = ?", (number,)
        ).fetchone()
        if row is None:
            raise InputError(f"image {number}: the project has none of this number")
        return Image(*row)

    def add_face(self, image: int, box: Box | None) -> int:
        """Add an unlabelled face to an image."""
        with self.database.transaction() as db:
            cursor = db.execute(
                "INSERT INTO faces (image, x0, y0, x1, y1) VALUES (?, ?, ?, ?, ?)", (image, *_box_cells(box))
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def face(self, number: int) -> Face:
        """A face by its number.

        Raises:
            InputError: There is none.
        """
        row = self.database.connection.execute(f"SELECT {_FACE} FROM faces WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise InputError(f"face {number}: the project has none of this number")
        return _face(row)

    def faces(self, state: State | None = None, image: int | None = None) -> Iterator[Face]:
        """Faces in the order of their numbers, of one state or image if given."""
        where = [f"{name} = ?" for name, value in (("state", state), ("image", image)) if value is not None]
        values = [value for value in (state, image) if value is not None]
        clause = f"WHERE {' AND '.join(where)}" if where else ""
        for row in self.database.connection.execute(f"SELECT {_FACE} FROM faces {clause} ORDER BY id", values):
            yield _face(row)

    def face_numbers(self, state: State | None = None) -> list[int]:
        """Numbers of all faces, or of those of one state."""
        query = (
            "SELECT id FROM faces ORDER BY id" if state is None else "SELECT id FROM faces WHERE state = ? ORDER BY id"
        )
        return [n for (n,) in self.database.connection.execute(query, () if state is None else (state,))]

    def neighbour(self, number: int) -> Face | None:
        """The labelled face at the same place in the nearest labelled frame of the same video, or None."""
        face = self.face(number)
        image = self.image(face.image)
        if image.frame is None or face.box is None:
            return None
        rows = self.database.connection.execute(
            f"SELECT abs(images.frame - ?) AS far, {', '.join(f'faces.{c}' for c in _FACE.split(', '))} "
            "FROM faces JOIN images ON images.id = faces.image WHERE images.source = ? AND images.frame IS NOT NULL "
            "AND faces.state = 'labelled' AND faces.id != ? ORDER BY far LIMIT 16",
            (image.frame, image.source, number),
        ).fetchall()
        near = [_face(row[1:]) for row in rows if row[0] == rows[0][0]]
        overlaps = [0.0 if f.box is None else box_overlap(f.box, face.box) for f in near]
        return near[int(np.argmax(overlaps))] if near and max(overlaps) > 0 else None

    def numbers_after(self, number: int, n: int, state: State | None = None) -> list[int]:
        """The next n numbers of faces after one, of one state if given."""
        clause, values = ("", ()) if state is None else ("AND state = ?", (state,))
        rows = self.database.connection.execute(
            f"SELECT id FROM faces WHERE id > ? {clause} ORDER BY id LIMIT ?", (number, *values, n)
        )
        return [i for (i,) in rows]

    def counts(self) -> dict[str, int]:
        """Numbers of images, of faces by state, and of labelled faces by how they came to their label."""
        db = self.database.connection
        (n_images,) = db.execute("SELECT count(*) FROM images").fetchone()
        found = {"images": n_images, "unlabelled": 0, "labelled": 0, "rejected": 0}
        found |= dict(db.execute("SELECT state, count(*) FROM faces GROUP BY state"))
        found |= {
            f"labelled_{how}": n
            for how, n in db.execute("SELECT how, count(*) FROM faces WHERE state = 'labelled' GROUP BY how")
        }
        return found

    def change(
        self,
        number: int,
        state: State,
        how: How,
        who: str,
        *,
        landmarks: NDArray[np.float32] | None = None,
        visibility: NDArray[np.uint8] | None = None,
        box: Box | None = None,
        version: int | None = None,
    ) -> Face:
        """Change a face, and keep the change.

        Args:
            number: The face.
            state: Its new state.
            how: What was done.
            who: Who did it.
            landmarks: (K, 2) image px, NaN where missing; None keeps those that it has.
            visibility: (K,); None: what the landmarks say.
            box: (4,) image px; None keeps its box.
            version: The version that the person saw; None: whatever it is.

        Returns:
            The face after the change.

        Raises:
            ConflictError: It has another version.
            InputError: There is no such face, or it would be labelled without landmarks.
        """
        with self.database.transaction() as db:
            current = self.face(number)
            if version is not None and version != current.version:
                raise ConflictError(current)
            if landmarks is not None:
                landmarks = np.asarray(landmarks, "<f4")
                present = np.asarray(np.isfinite(landmarks).all(1), bool)
                given = (
                    np.full(len(landmarks), VISIBLE, np.uint8)
                    if visibility is None
                    else np.asarray(visibility, np.uint8)
                )
                visibility = np.where(present, np.maximum(given, OCCLUDED), MISSING).astype(np.uint8)
                landmarks = np.where(present[:, None], landmarks, np.float32(np.nan)).astype("<f4")
            else:
                landmarks, visibility = current.landmarks, current.visibility
            if state == "labelled" and landmarks is None:
                raise InputError(f"face {number}: expected landmarks for a label, given none")
            after = Face(
                number,
                current.image,
                current.box if box is None else box,
                state,
                how,
                landmarks,
                visibility,
                current.version + 1,
            )
            return self._write(db, after, who)

    def _write(self, db: sqlite3.Connection, face: Face, who: str) -> Face:
        blobs = (_blob(face.landmarks), _blob(face.visibility))
        cells = _box_cells(face.box)
        db.execute(
            "UPDATE faces SET state = ?, how = ?, x0 = ?, y0 = ?, x1 = ?, y1 = ?, landmarks = ?, visibility = ?, version = ? WHERE id = ?",
            (face.state, face.how, *cells, *blobs, face.version, face.id),
        )
        db.execute(
            "INSERT INTO changes (face, version, at, who, how, state, x0, y0, x1, y1, landmarks, visibility) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (face.id, face.version, now(), who, face.how, face.state, *cells, *blobs),
        )
        return face

    def held_out(self) -> set[int]:
        """Numbers of the labelled faces that train nothing."""
        rows = self.database.connection.execute(
            "SELECT face FROM held_out JOIN faces ON faces.id = held_out.face WHERE state = 'labelled'"
        )
        return {n for (n,) in rows}

    def hold_out(self, wanted: int, seed: int = 0, *, since: str | None = None) -> set[int]:
        """Hold out labelled faces, drawn at random, until there are so many; who is held out stays so.

        Args:
            wanted: Number of faces held out.
            seed: Of the draw.
            since: When the last training ended. Only faces that were first labelled after it are new to all models; half of these are
                held out at most, so that the next model learns from the others. None: there was no training.

        Returns:
            Numbers of all faces that are held out now.
        """
        with self.database.transaction() as db:
            held = self.held_out()
            labelled, most = self.face_numbers("labelled"), wanted - len(held)
            if since is not None:
                rows = db.execute("SELECT DISTINCT face FROM changes WHERE state = 'labelled' AND at <= ?", (since,))
                labelled = sorted(set(labelled).difference(n for (n,) in rows))
                most = min(most, len(labelled) // 2 - len(held.intersection(labelled)))
            free = [n for n in labelled if n not in held]
            drawn = np.random.default_rng([seed, len(held)]).permutation(len(free))[: max(0, most)]
            db.executemany("INSERT OR IGNORE INTO held_out (face) VALUES (?)", [(free[i],) for i in drawn])
            return held | {free[i] for i in drawn}

    def history(self, number: int) -> list[Change]:
        """All changes of a face, the first first."""
        image = self.face(number).image
        rows = self.database.connection.execute(
            f"SELECT id, at, who, face, {image}, x0, y0, x1, y1, state, how, landmarks, visibility, version "
            "FROM changes WHERE face = ? ORDER BY version",
            (number,),
        )
        return [Change(row[0], row[1], row[2], _face(row[3:])) for row in rows]

    def last_change(self) -> int:
        """The number of the last change of any face; 0: there is none."""
        (number,) = self.database.connection.execute("SELECT coalesce(max(id), 0) FROM changes").fetchone()
        return int(number)

    def restore(self, number: int, version: int, who: str) -> Face:
        """Give a face the state that it had after one of its changes; 0: as it was added. This is a change, too.

        Raises:
            InputError: The face never had this version.
        """
        with self.database.transaction() as db:
            current = self.face(number)
            before = {c.after.version: c.after for c in self.history(number)}
            if version and version not in before:
                raise InputError(f"face {number}: expected a version from 0 to {current.version}, given {version}")
            then = before.get(version)
            after = Face(
                number,
                current.image,
                current.box if then is None else then.box,
                "unlabelled" if then is None else then.state,
                "restored",
                None if then is None else then.landmarks,
                None if then is None else then.visibility,
                current.version + 1,
            )
            return self._write(db, after, who)


_FACE = "id, image, x0, y0, x1, y1, state, how, landmarks, visibility, version"


def _face(row: Sequence[Any]) -> Face:
    number, image, *box, state, how, landmarks, visibility, version = row
    return Face(
        number,
        image,
        None if box[0] is None else np.array(box, np.float32),
        state,
        how,
        None if landmarks is None else np.frombuffer(landmarks, "<f4").reshape(-1, 2),
        None if visibility is None else np.frombuffer(visibility, np.uint8),
        version,
    )


def _blob(values: NDArray[Any] | None) -> bytes | None:
    return None if values is None else np.ascontiguousarray(values).tobytes()


def _box_cells(box: Box | None) -> tuple[float | None, ...]:
    return (None,) * 4 if box is None else tuple(float(v) for v in box)
