"""The tables of a project's database. Human labels and predictions share no table, and a change of a label is never changed itself."""

from __future__ import annotations

VERSION = 1
"""Of the tables, as SQLite's user_version."""

TABLES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,          -- relative to the project, or absolute where the image is linked
    content BLOB NOT NULL UNIQUE,       -- digest of the pixels: the same image is added once
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    source TEXT NOT NULL,               -- the video or folder that it came from
    frame INTEGER,                      -- number in the video, or NULL
    added_at TEXT NOT NULL
);
CREATE TABLE faces (
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images (id),
    x0 REAL, y0 REAL, x1 REAL, y1 REAL, -- box, image px, or NULL
    state TEXT NOT NULL DEFAULT 'unlabelled' CHECK (state IN ('unlabelled', 'labelled', 'rejected')),
    how TEXT NOT NULL DEFAULT 'added',  -- the last change's: placed, fixed, accepted, imported, rejected, restored
    landmarks BLOB,                     -- K x 2 float32, little endian, image px, NaN where missing
    visibility BLOB,                    -- K uint8: 0 missing, 1 occluded, 2 visible
    version INTEGER NOT NULL DEFAULT 0  -- number of changes
);
CREATE INDEX faces_by_state ON faces (state, id);
CREATE INDEX faces_by_image ON faces (image);
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    face INTEGER NOT NULL REFERENCES faces (id),
    version INTEGER NOT NULL,
    at TEXT NOT NULL,
    who TEXT NOT NULL,
    how TEXT NOT NULL,
    state TEXT NOT NULL,
    x0 REAL, y0 REAL, x1 REAL, y1 REAL,
    landmarks BLOB,
    visibility BLOB,
    UNIQUE (face, version)
);
CREATE TRIGGER changes_stay BEFORE UPDATE ON changes BEGIN SELECT RAISE(ABORT, 'changes are never changed'); END;
CREATE TRIGGER changes_are_kept BEFORE DELETE ON changes BEGIN SELECT RAISE(ABORT, 'changes are never deleted'); END;
CREATE TABLE held_out (                 -- faces that train nothing, once and for all
    face INTEGER PRIMARY KEY REFERENCES faces (id)
);
CREATE TABLE embeddings (
    face INTEGER PRIMARY KEY REFERENCES faces (id),
    vector BLOB NOT NULL                -- float32
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    at TEXT NOT NULL,
    n_labelled INTEGER NOT NULL,
    nme REAL,                           -- of held-out faces, a fraction, or NULL
    calibrated INTEGER NOT NULL         -- whether errors of its predictions are expected errors, or else disagreements of views
);
CREATE TABLE predictions (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    face INTEGER NOT NULL REFERENCES faces (id),
    landmarks BLOB NOT NULL,
    errors BLOB NOT NULL,               -- K float32, fractions of the longer side of the landmarks' box
    doubt REAL NOT NULL,                -- their mean
    PRIMARY KEY (run, face)
) WITHOUT ROWID;
CREATE INDEX predictions_by_doubt ON predictions (run, doubt);
"""
