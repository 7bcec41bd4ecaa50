"""Code written for version 0.1 imports modules by their old names."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

import fewmark
from fewmark.core.moved import MOVED, RENAMED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_new_module(old: str) -> None:
    sys.modules.pop(f"fewmark.{old}", None)
    with pytest.warns(DeprecationWarning, match=MOVED[old].replace(".", r"\.")):
        module = import_module(f"fewmark.{old}")
    home = import_module(f"fewmark.{MOVED[old]}")
    public = [n for n in vars(home) if not n.startswith("_")]
    assert all(getattr(module, name) is getattr(home, name) for name in public)


def test_renamed_functions_are_found_by_both_names() -> None:
    for old, new in RENAMED.items():
        module = next(m for m in MOVED if hasattr(import_module(f"fewmark.{MOVED[m]}"), new))
        assert getattr(import_module(f"fewmark.{module}"), old) is getattr(
            import_module(f"fewmark.{MOVED[module]}"), new
        )


def test_names_of_version_0_1() -> None:
    from fewmark.errors import InputError
    from fewmark.scheme import load_scheme

    from fewmark.data.samples import read_image

    assert read_image is fewmark.read_image
    assert InputError is fewmark.InputError
    assert load_scheme is fewmark.load_scheme


def test_a_module_that_never_was_is_still_missing() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_module("fewmark.nothing")
