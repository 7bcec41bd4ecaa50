"""The connection to a project's database: one a thread, transactions, backup."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fewmark.core.errors import InputError
from fewmark.project.schema import TABLES, VERSION

_WAIT_S = 30.0


class Database:
    """An open database.

    Args:
        path: The file; made if `create`.
        create: Make a new one; it must not exist.

    Raises:
        InputError: The file does not exist, exists already, is no database of a project, or is of a later version.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._local = threading.local()
        if create == path.is_file():
            raise InputError(
                f"{path}: " + ("the project exists already" if create else "no such file; is this a project folder?")
            )
        if create:
            with self.connection as db:
                db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        try:
            (version,) = self.connection.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path}: not a project's database ({error})") from error
        if version != VERSION:
            raise InputError(
                f"{path}: expected tables of version {VERSION}, given {version}; use the fewmark that made them"
            )

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # a saved label is on the disk
            db.execute("PRAGMA foreign_keys = ON")
            self._local.db = db
        return db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is written, or nothing; other writers wait."""
        db = self.connection
        if db.in_transaction:
            yield db
            return
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def close(self) -> None:
        """Close this thread's connection."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is not None:
            db.close()
            self._local.db = None

    def backup(self, path: Path) -> None:
        """Copy the database while others may write to it."""
        with sqlite3.connect(path) as copy:
            self.connection.backup(copy)
        copy.close()


def now() -> str:
    """The time, ISO 8601, UTC, to milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
