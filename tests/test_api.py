"""The public names: present, typed for editors, and imported only when used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fewmark


def test_the_names_that_editors_see_are_those_that_are_there() -> None:
    tree = ast.parse(Path(fewmark.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }
    assert typed == set(fewmark.__all__)
    for name in fewmark.__all__:
        assert getattr(fewmark, name) is not None


def test_every_name_stands_in_the_help() -> None:
    assert fewmark.__doc__ is not None
    for name in fewmark.__all__:
        assert name in fewmark.__doc__ or name == "__version__", f"{name}: not in fewmark.__doc__"


def test_the_package_is_typed() -> None:
    assert Path(fewmark.__file__).with_name("py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fewmark.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, fewmark; print(sorted({'torch', 'numpy', 'cv2', 'onnxruntime', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_face_detector_has_its_old_option_too() -> None:
    from typer.main import get_command

    from fewmark.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    for verb in ("detect", "evaluate", "track"):
        assert any({"--finder", "--face-detector"} <= set(p.opts) for p in commands[verb].params), verb
