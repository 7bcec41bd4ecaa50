"""Loading a detector reads each file once and hashes one at most once."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fewmark.core.errors import InputError
from fewmark.inference.checkpoint import exported
from fewmark.inference.checkpoint.metadata import resolve_model
from fewmark.inference.detector import Detector

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the packaged model of 8 bits, as a.onnx."""
    shutil.copy(resolve_model("ibug-68-nano-int8"), tmp_path / "a.onnx")
    return tmp_path


def scheme_of(*arguments: Any, **options: Any) -> str:
    return Detector(*arguments, **options).scheme.name


def test_the_constructor_loads_names_files_and_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    for model in ("ibug-68-nano-int8", folder / "a.onnx", str(folder / "a.onnx"), folder, "~/a.onnx", Path("~/a.onnx")):
        assert scheme_of(model, threads=1) == "ibug-68"
        assert type(Detector.load(model)) is Detector
    loaded = Detector("ibug-68-nano", runtime="torch", keep_unlikely=True)
    assert loaded.keep_unlikely
    assert type(loaded.predictor).__name__ == "TorchPredictor"
    assert scheme_of(loaded.checkpoint, threads=1) == "ibug-68"


def test_the_model_of_a_folder(folder: Path) -> None:
    source = resolve_model("ibug-68-nano")
    shutil.copy(source, folder / "b.safetensors")
    shutil.copy(source.with_suffix(".onnx"), folder / "b.onnx")
    with pytest.raises(InputError, match=r"a folder of 2 models; give one, e\.g\. .*a\.onnx"):
        resolve_model(folder)
    (folder / "a.onnx").unlink()
    assert resolve_model(folder) == folder / "b.safetensors", "b.onnx is its export"
    shutil.copy(source, folder / "detector.safetensors")
    assert resolve_model(folder) == folder / "detector.safetensors"
    (folder / "bare").mkdir()
    with pytest.raises(InputError, match=r"a folder without one; a training run writes detector\.safetensors"):
        Detector(folder / "bare")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("ibug68", r"packaged name \(ibug-68, .*did you mean 'ibug-68'\?"),
        ("IBUG-68-NANO", "did you mean 'ibug-68-nano'"),
        ("ibug-68.safetensors", "did you mean 'ibug-68'"),
        ("runs/mine.safetensors", "given none of them; check the path"),
        ("~/none.safetensors", "given none of them; check the path"),
        (None, "given NoneType; packaged are ibug-68"),
        (68, "given int; packaged are"),
    ],
)
def test_unknown_models(model: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Detector(model)
    assert "\n" not in str(caught.value)


def test_what_does_not_go_together() -> None:
    loaded = Detector("ibug-68-nano")
    with pytest.raises(InputError, match="load_checkpoint"):
        Detector("ibug-68-nano", predictor=loaded.predictor)
    with pytest.raises(InputError, match="with a model file"):
        Detector(loaded.checkpoint, predictor=loaded.predictor, threads=2)
    with pytest.raises(InputError, match="with a model file"):
        Detector(loaded.checkpoint, runtime="onnx")
    with pytest.raises(InputError, match="threads: expected 1 or more"):
        Detector(loaded.checkpoint, threads=0)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason='needs torch: pip install "fewmark[train]"')
    for device in ("gpu", "cuda:99"):
        with pytest.raises(InputError, match=rf"device {device}: torch .*leave it away for the CPU") as caught:
            Detector("ibug-68-nano", device=device)
        assert "\n" not in str(caught.value)
    assert str(Detector("ibug-68-nano", device=torch.device("cpu")).checkpoint.scheme.name) == "ibug-68"
    with pytest.raises(InputError, match=r"ONNX Runtime runs it on the CPU, given device cuda; load its \.safetensors"):
        Detector("ibug-68-nano-int8", device="cuda")
    monkeypatch.setitem(sys.modules, "fewmark.inference.checkpoint.io", None)
    with pytest.raises(
        InputError, match=r'device cuda needs torch, .*pip install "filelock>=.*" "lightning-fabric>=.*" "torch>='
    ):
        Detector("ibug-68-nano", device="cuda")
