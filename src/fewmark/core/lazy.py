"""Lazy imports of a package's public names (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def attach(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` for a package's `__init__.py`, which import each name at its first use.

    Args:
        package: `__name__` of the package.
        names: module in the package (may contain dots) -> public names it defines.

    >>> _, directory, public = attach("fewmark.core", {"errors": ["InputError"]})
    >>> public
    ['InputError']
    """
    homes = {name: f"{package}.{module}" for module, defined in names.items() for name in defined}
    public = sorted(homes)

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def directory() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public})

    return get, directory, public
