"""Modules under the names that they had in version 0.1, for code written then: `from fewmark.scheme import load_scheme`."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

MOVED = {
    "checkpoint": "inference.checkpoint.io",
    "config": "training.config",
    "data.training_lists": "data.lists",
    "detection": "inference.batch",
    "detector": "inference.detector",
    "draw": "visualization.draw",
    "errors": "core.errors",
    "face": "inference.face",
    "faces": "inference.face_detection.base",
    "geometry": "core.geometry",
    "metrics": "landmarks.metrics",
    "pictures_out": "data.images",
    "relabelling": "data.relabelling",
    "scheme": "landmarks.scheme",
    "sources": "data.image_sources",
    "tracking": "video.tracker",
    "transfer": "landmarks.transfer",
    "transfer_file": "inference.checkpoint.transfers",
    "video_in": "video.reader",
}
"""Old module -> new one, both below `fewmark`."""

RENAMED = {"write_picture": "write_image", "BadPictureWarning": "BadImageWarning", "find_pictures": "find_images"}


class _OldModules:
    """Imports an old module as a thin one that looks its names up in the new one.

    A finder and loader of importlib; their abstract classes are not imported, which would cost more than all else in `import fewmark`.
    """

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package != "fewmark" or name not in MOVED:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(fullname, self)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """The module is made as usual."""

    def exec_module(self, module: ModuleType) -> None:
        import warnings

        home = "fewmark." + MOVED[module.__name__.partition(".")[2]]
        warnings.warn(f"{module.__name__} is now {home}", DeprecationWarning, stacklevel=2)

        def get(name: str) -> Any:
            return getattr(import_module(home), RENAMED.get(name, name))

        module.__dict__["__getattr__"] = get


def install() -> None:
    """Make the old names importable; they are looked for last, so imports of others cost nothing."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())
