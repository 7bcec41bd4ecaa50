"""The command line: commands, help, usage errors, and imports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fewmark import __version__
from fewmark.cli.app import app


def commands(command: Any, path: str = "fewmark") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


ALL = dict(commands(typer.main.get_command(app)))


def test_the_verbs() -> None:
    top = {
        "add",
        "backup",
        "calibrate",
        "convert",
        "curve",
        "detect",
        "distill",
        "doctor",
        "evaluate",
        "export",
        "init",
        "inspect",
        "label",
        "review",
        "serve",
        "robustness",
        "scheme",
        "status",
        "track",
        "train",
        "transfer",
    }
    assert ALL.keys() == {
        "fewmark",
        *(f"fewmark {v}" for v in top),
        *(f"fewmark scheme {v}" for v in ("list", "show", "check", "new")),
        *(f"fewmark transfer {v}" for v in ("fit", "apply", "evaluate")),
    }


@pytest.mark.parametrize("verb", ALL)
def test_every_verb_has_help_for_every_option(cli: Any, verb: str) -> None:
    assert ALL[verb].help
    for option in ALL[verb].params:
        assert option.help, f"{verb} {option.opts}"
    assert "Usage:" in cli(*verb.split()[1:], "--help").stdout


@pytest.mark.parametrize(
    "verb",
    [
        "train",
        "distill",
        "calibrate",
        "export",
        "evaluate",
        "robustness",
        "inspect",
        "convert",
        "scheme new",
        "transfer fit",
        "transfer apply",
        "transfer evaluate",
    ],
)
def test_a_command_that_reads_labels_takes_missing(verb: str) -> None:
    assert "--missing" in {name for option in ALL[f"fewmark {verb}"].params for name in option.opts}


@pytest.mark.parametrize("verb", ALL)
def test_help_is_readable_at_80_columns(verb: str) -> None:
    """No name is cut short, and at least 30 columns are left for the meaning."""
    environment = {**os.environ, "COLUMNS": "80"}
    words = [sys.executable, "-m", "fewmark", *verb.split()[1:], "--help"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert "…" not in done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for option in ALL[verb].params:
        if option.param_type_name == "option":
            (line,) = [s for s in lines if re.search(rf"│[ *]+{option.opts[0]} ", s)]
            first = option.help.split()[0]
            assert 78 - line.index(f" {first}") >= 30, line


def test_a_path_at_home(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cli("scheme", "show", "mtfl-5", "--out", "~/a.png")
    cli("scheme", "show", "mtfl-5", "--out=~/b.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_help_and_version_and_schemes_need_no_torch() -> None:
    code = """
import sys
from typer.testing import CliRunner
from fewmark.cli.app import app
for words in (["--version"], ["train", "--help"], ["scheme", "list"], ["scheme", "show", "ibug-68"]):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
assert "torch" not in sys.modules and "lightning_fabric" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_help_of_every_verb_imports_no_numpy_opencv_or_torch() -> None:
    code = """
import sys
from typer.testing import CliRunner
from fewmark.cli.app import app
for words in sys.argv[1:]:
    assert CliRunner().invoke(app, [*words.split()[1:], "--help"]).exit_code == 0, words
print(*{"torch", "lightning_fabric", "numpy", "cv2"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code, *ALL], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == ""


def test_without_torch_a_packaged_model_runs_and_export_names_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['torch'] = None; from fewmark.cli.app import app; app(sys.argv[1:])"
    image = Path(__file__).parents[2] / "docs/images/grace_hopper.png"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", hidden, *words], capture_output=True, text=True, timeout=120)

    found = run("detect", "ibug-68", str(image), "--out", str(tmp_path / "found"), "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["n_faces"] >= 1
    refused = run("export", "ibug-68", "--out", str(tmp_path / "a.onnx"))
    assert refused.returncode == 1
    assert 'pip install "filelock>=' in refused.stderr
    assert "Traceback" not in refused.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, fewmark; assert not {'torch', 'numpy', 'cv2', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_package_gives_its_public_names() -> None:
    import fewmark

    for name in fewmark.__all__:
        assert getattr(fewmark, name) is not None
    assert set(fewmark.__all__) <= set(dir(fewmark))
    with pytest.raises(AttributeError, match="no_such"):
        _ = fewmark.no_such


def test_version(cli: Any) -> None:
    assert __version__ in cli("--version").stdout


@pytest.mark.parametrize(
    "words",
    [
        ["train", "data"],
        ["evaluate"],
        ["nonsense"],
        ["detect", "m", "p", "--out", "o", "--format", "xml"],
        ["evaluate", "m", "d", "--box", "mine"],
    ],
)
def test_usage_errors_exit_with_2(cli: Any, words: list[str]) -> None:
    cli(*words, code=2)


def test_values_after_an_option_that_takes_several(cli: Any, synthetic: Path, tiny_model: Path) -> None:
    """They belong to it only once the required arguments are there; an option in between ends it."""
    before = cli.json("evaluate", "--list", synthetic / "val.txt", "--box", "gt", tiny_model, synthetic)
    after = cli.json("evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--box", "gt")
    twice = cli.json(
        "evaluate", tiny_model, synthetic, "--list", synthetic / "val.txt", "--list", synthetic / "more.txt"
    )
    assert before == after
    assert set(twice["lists"]) == {"val", "more", "full"}
