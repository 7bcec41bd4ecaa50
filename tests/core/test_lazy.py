"""Rooms: a paragraph and public names that are there."""

from __future__ import annotations

import importlib
import subprocess
import sys
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


WITHOUT_TORCH = (
    "core",
    "landmarks",
    "data",
    "visualization",
    "inference",
    "evaluation",
    "video",
    "project",
    "web",
    "cli",
)
"""Rooms whose modules can be imported where torch is not installed."""
NETWORKS = (
    "cli/progress.py",
    "inference/cascade/",
    "inference/checkpoint/io.py",
    "inference/export/",
    "inference/predictor_torch.py",
    "project/heatmap.py",
    "project/training.py",
)
"""The exceptions: what runs, reads, exports or trains torch networks."""


def test_rooms_without_torch() -> None:
    files = [
        p.relative_to(PACKAGE).as_posix() for room in WITHOUT_TORCH for p in sorted((PACKAGE / room).rglob("*.py"))
    ]
    modules = [
        "fewmark." + f.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for f in files
        if not f.startswith(NETWORKS)
    ]
    assert len(modules) > 80
    code = (
        "import importlib, sys\nsys.modules['torch'] = sys.modules['lightning_fabric'] = None\n"
        "for m in sys.argv[1:]: importlib.import_module(m)"
    )
    done = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
