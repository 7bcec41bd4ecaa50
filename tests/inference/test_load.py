"""Loading a detector reads each file once and hashes one at most once."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fewmark.inference.checkpoint import exported
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.inference.detector import Detector

pytest.importorskip("onnxruntime")

_opened: Counter[str] = Counter()
_hashed: Counter[str] = Counter()


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith((".onnx", ".safetensors")):
        _opened[Path(arguments[0]).name] += 1


sys.addaudithook(_on_event)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    hash_of = exported.file_hash

    def counting(path: str | Path) -> str:
        _hashed[Path(path).name] += 1
        return hash_of(path)

    monkeypatch.setattr(exported, "file_hash", counting)
    _opened.clear()
    _hashed.clear()


def test_a_packaged_name() -> None:
    Detector.load("ibug-68")
    assert _opened == {"ibug-68.onnx": 1, "ibug-68.safetensors": 1}, "the second one is hashed"
    assert _hashed == {"ibug-68.safetensors": 1}


def test_a_model_file_with_an_export_alongside(tmp_path: Path) -> None:
    source = resolve_model("ibug-68-nano")
    for suffix in (".safetensors", ".onnx"):
        shutil.copy(source.with_suffix(suffix), tmp_path / f"ibug-68-nano{suffix}")
    _opened.clear()
    detector = Detector.load(tmp_path / "ibug-68-nano.safetensors")
    assert type(detector.predictor).__name__ == "OnnxPredictor"
    assert _opened == {"ibug-68-nano.onnx": 1, "ibug-68-nano.safetensors": 1}
    assert _hashed == {"ibug-68-nano.safetensors": 1}


def test_an_export_that_shares_its_weights() -> None:
    Detector.load(resolve_model("ibug-68").with_suffix(".onnx"))
    assert _opened == {"ibug-68.onnx": 1, "ibug-68.safetensors": 1}
    assert _hashed == {"ibug-68.safetensors": 1}


def test_an_export_that_holds_its_weights() -> None:
    Detector.load("ibug-68-nano-int8")
    assert _opened == {"ibug-68-nano-int8.onnx": 1}
    assert not _hashed


def test_a_model_file_by_torch() -> None:
    Detector.load("ibug-68-nano", runtime="torch")
    assert _opened == {"ibug-68-nano.safetensors": 1}
    assert not _hashed
