"""The docs say what is so: their links, commands, settings, functions and tables fit the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import sys
import tomllib
from enum import Enum
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer.main

from fewmark.core.errors import InputError
from fewmark.landmarks.scheme import load_scheme
from fewmark.landmarks.scheme_check import check_scheme
from fewmark.training.config import load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SETTING = re.compile(r"`((?:run|crop|augment|semi|teacher|cascade|model|students\.\w+)(?:\.\w+)+)`")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())


@cache
def tables() -> ModuleType:
    return _module(ROOT / "docs/tables.py")


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(path.parent) not in sys.path:  # experiments import each other
        sys.path.append(str(path.parent))
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path) -> list[list[str]]:
    """Every fewmark command line of a page's sh blocks and indented lines, as words after `fewmark`."""
    found = []
    indented = re.findall(r"^    (fewmark .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for block in [*blocks(page, "sh"), *indented]:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for start in ("fewmark",):
                if start in words:
                    found.append(words[words.index(start) + 1 :])
    return found


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        goal = (page.parent / file).resolve() if file else page
        assert goal.exists(), f"{page.name}: {target}: no such file"
        assert not anchor or anchor in anchors(goal), f"{page.name}: {target}: no such heading"


def test_every_page_is_linked_from_the_readme() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f"({page.relative_to(ROOT).as_posix()})" in text, page.name


@pages
def test_commands_exist_with_these_options(page: Path) -> None:
    for words in commands(page):
        check_command(words)


def check_command(words: list[str]) -> None:
    """Raises where a command line names a verb, option or choice that is not there, or lacks one."""
    command: Any = typer.main.get_command(typer_app())
    words = list(words)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]}: {words}"
        command = command.commands[words.pop(0)]
    options = {name: p for p in command.params if p.param_type_name == "option" for name in p.opts}
    known = {*options, "--help", "-h"}
    settings = []
    for i, word in enumerate(words):
        if not word.startswith("-"):
            continue
        assert word in known, f"no option {word}: {words}"
        parameter = options.get(word)
        if parameter is None or getattr(parameter, "is_flag", False):
            continue
        assert i + 1 < len(words), f"{word} without a value: {words}"
        choices = choices_of(parameter)
        assert not choices or words[i + 1] in choices, f"{word} {words[i + 1]}"
        if word == "--set":
            settings.append(words[i + 1])
    load_config("laptop", settings)
    for name, parameter in options.items():
        if parameter.required and "--help" not in words:
            assert name in words, f"{name} is needed: {words}"


def choices_of(parameter: Any) -> list[str]:
    """The words that an option with an enum takes; nothing for another."""
    kind = parameter.type_descriptor.annotation
    enums = [k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, Enum)]
    return [member.value for enum in enums for member in enum]


def typer_app() -> Any:
    from fewmark.cli.app import app

    return app


@pytest.mark.parametrize(
    "line",
    [
        "fly",
        "scheme fly",
        "detect m p --out d --format bmp",
        "curve d --wings 2 --out r",
        "inspect f --wing 2",
        "train d --labelled l --scheme s --out r --set semi.wings=2",
    ],
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    with pytest.raises((AssertionError, InputError)):
        check_command(shlex.split(line))


@pages
def test_functions_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for file, name in re.findall(r"`([\w/-]+\.py)(?::([\w.]+))?`", text):
        places = [base / file for base in (ROOT / "src/fewmark", ROOT)]
        path = next((p for p in places if p.is_file()), None)
        assert path is not None, f"{page.name}: {file}: no such file"
        if name:
            assert name in names_of(path), f"{page.name}: {file}:{name}: not in the file"


@cache
def names_of(path: Path) -> set[str]:
    """Functions, classes, methods, fields and constants of a file."""
    found: set[str] = set()

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)
            elif isinstance(node, ast.Assign):
                found.update(prefix + t.id for t in node.targets if isinstance(t, ast.Name))

    look(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


@pages
def test_settings_exist(page: Path) -> None:
    known = set(tables().setting_names())
    for setting in SETTING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        general = re.sub(r"^students\.\w+", "students.NAME", setting)
        assert general in known, f"{page.name}: no setting {setting}"


def test_every_setting_is_listed() -> None:
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for setting in tables().setting_names():
        assert f"| `{setting}` |" in text, setting


def rows_of(name: str) -> list[str]:
    """The lines of a table, wherever it stands."""
    found = [m for p in PAGES for m in tables().BLOCK.finditer(p.read_text(encoding="utf-8")) if m[2] == name]
    assert len(found) == 1, f"{name}: expected one block, given {len(found)}"
    return list(found[0][0].splitlines()[1:-1])


def test_every_table_stands_on_one_page() -> None:
    for name in tables().TABLES:
        rows_of(name)


@pytest.mark.parametrize(
    "name",
    [
        "readme",
        "found-faces",
        "settings",
        "schemes",
        "scheme-transfer",
        "dense-transfer",
        "peers",
        "peers-benchmark",
        "cascade",
        "expected-errors",
        "robustness",
    ],
)
def test_tables_are_those_of_the_code(name: str) -> None:
    assert rows_of(name) == tables().TABLES[name]().splitlines(), "out of date: run python docs/tables.py"


def test_floors_are_those_that_are_measured() -> None:
    floor = _module(ROOT / "experiments/codec_floor.py")
    given = [[c.strip() for c in row.split("|")[1:-1]] for row in rows_of("codec-floor")]
    assert given[0][2:] == list(floor.DECODINGS)
    measured = floor.measure(n=1500, seed=1)
    assert len(given) - 2 == sum(map(len, measured.values()))
    for what, sigma, *cells in given[2:]:
        for decoding, cell in zip(floor.DECODINGS, cells, strict=True):
            expected = 100 * measured[what][sigma][decoding]
            share = 0.15 if "noise" in what else 0.08  # a noisy map's decoding is now and then far off
            assert abs(float(cell) - expected) <= 0.05 + share * expected, (what, sigma, decoding, expected)


@pages
def test_toml_blocks_can_be_used(page: Path, tmp_path: Path) -> None:
    for i, block in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{i}.toml"
        file.write_text(block, encoding="utf-8")
        if "landmarks" in tomllib.loads(block):
            assert check_scheme(load_scheme(file)) == [], file
        else:
            load_config(file)


@pages
def test_csv_blocks_can_be_read(page: Path, tmp_path: Path) -> None:
    from fewmark.data.formats.csv import read_csv

    for i, block in enumerate(blocks(page, "csv")):
        file = tmp_path / f"{i}.csv"
        file.write_text(block, encoding="utf-8")
        faces = read_csv(file)
        assert faces[0].landmarks is not None
        assert faces[-1].landmarks is None


@pages
def test_imports_of_python_blocks_exist(page: Path) -> None:
    import importlib

    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}: {node.module}.{alias.name}"
