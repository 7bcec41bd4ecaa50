"""Rooms: a paragraph and public names that are there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import fewmark

PACKAGE = Path(fewmark.__file__).parent
ROOMS = sorted(
    ".".join(("fewmark", *p.parent.relative_to(PACKAGE).parts))
    for p in PACKAGE.rglob("__init__.py")
    if p.parent != PACKAGE
)


@pytest.mark.parametrize("name", ROOMS)
def test_public_names_of_a_room_exist(name: str) -> None:
    room = importlib.import_module(name)
    for public in getattr(room, "__all__", []):
        assert getattr(room, public) is not None
        assert public in dir(room)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        room.nothing  # noqa: B018
