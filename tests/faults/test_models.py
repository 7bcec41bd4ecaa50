"""Model files that were damaged, cut or made to harm: one line, never another answer."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from fewmark import Detector
from fewmark.core.errors import InputError
from fewmark.inference.checkpoint.io import load_checkpoint, save_checkpoint
from fewmark.inference.checkpoint.metadata import METADATA_KEY, resolve_model
from fewmark.inference.checkpoint.seal import BLANK, KEY, seal

N_FLIPS = 60


@pytest.fixture(scope="module")
def files(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model file, and what `fewmark export` makes of it."""
    from fewmark.inference.export.onnx import export_onnx

    folder = tmp_path_factory.mktemp("models")
    path = folder / "model.safetensors"
    save_checkpoint(path, load_checkpoint(tiny_model))
    export_onnx(path, folder / "model.onnx")
    return {"safetensors": path, "onnx": folder / "model.onnx"}


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_no_flipped_bit_answers_in_silence(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    raw, rng = files[kind].read_bytes(), random.Random(0)
    path = tmp_path / files[kind].name
    path.write_bytes(raw)
    Detector(path)
    for _ in range(N_FLIPS):
        at = rng.randrange(len(raw))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :])
        with pytest.raises(InputError) as raised:
            Detector(path)
        assert "\n" not in str(raised.value)


def test_a_flipped_bit_of_a_packaged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = resolve_model("ibug-68").with_name("ibug-68-int8.onnx")
    for name in (source.name, "sha256.txt"):
        shutil.copy(source.with_name(name), tmp_path / name)
    monkeypatch.setattr("fewmark.inference.checkpoint.seal._weights", lambda: tmp_path)
    path = tmp_path / source.name
    Detector(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(bytes(raw))
    with pytest.raises(InputError, match=r"ibug-68-int8\.onnx: damaged: .* copy or install it again"):
        Detector(path)


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 0.999])
def test_a_cut_file(kind: str, share: float, files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / files[kind].name
    raw = files[kind].read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(InputError, match=str(path.name)):
        Detector(path)


def rewritten(path: Path, target: Path, **changes: Any) -> Path:
    """A model file with other metadata, and a whole digest."""
    data = safetensors.numpy.load(path.read_bytes())
    with safetensors.safe_open(path, "numpy") as opened:
        metadata = json.loads(opened.metadata()[METADATA_KEY])
    raw = safetensors.numpy.save(data, {METADATA_KEY: json.dumps({**metadata, **changes, KEY: BLANK})})
    target.write_bytes(seal(raw))
    return target


@pytest.mark.parametrize("size", [10**6, 32.5, -64, 0, "64", None, True])
def test_a_crop_that_cannot_be(size: Any, files: dict[str, Path], tmp_path: Path, cli: Any) -> None:
    path = rewritten(files["safetensors"], tmp_path / "m.safetensors", crop={"size": size, "margin": 0.1})
    with pytest.raises(InputError, match=r"m\.safetensors"):
        Detector(path)
    done = cli("inspect", path, code=1)
    assert "Traceback" not in done.stderr
    assert "m.safetensors" in done.stderr


def test_tensors_of_another_shape(files: dict[str, Path], tmp_path: Path) -> None:
    path = files["safetensors"]
    tensors = safetensors.numpy.load(path.read_bytes())
    name = next(n for n in tensors if tensors[n].ndim == 4)
    tensors[name] = np.zeros((3, 3, 3, 3), np.float32)
    with safetensors.safe_open(path, "numpy") as opened:
        text = json.dumps({**json.loads(opened.metadata()[METADATA_KEY]), KEY: BLANK})
    (tmp_path / "m.safetensors").write_bytes(seal(safetensors.numpy.save(tensors, {METADATA_KEY: text})))
    with pytest.raises(InputError, match=f"tensor {name}: expected"):
        Detector(tmp_path / "m.safetensors")


def test_a_file_of_a_later_version(files: dict[str, Path], tmp_path: Path) -> None:
    path = rewritten(files["safetensors"], tmp_path / "m.safetensors", format_version=99)
    with pytest.raises(InputError, match="format_version: expected 1, given 99; install a newer fewmark"):
        Detector(path)


class Harm:
    """What a pickle does when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "m.pt", "m.pkl"])
def test_a_pickle_is_never_opened(name: str, tmp_path: Path) -> None:
    sign = tmp_path / "opened"
    (tmp_path / name).write_bytes(pickle.dumps(Harm(sign)))
    with pytest.raises(InputError, match=name):
        Detector(tmp_path / name)
    torch.save({"a": Harm(sign)}, tmp_path / name)
    with pytest.raises(InputError, match=name):
        Detector(tmp_path / name)
    assert not sign.exists()


def test_an_onnx_file_with_outside_data(files: dict[str, Path], tmp_path: Path) -> None:
    import onnx

    (tmp_path / "secret.bin").write_bytes(bytes(10**6))
    graph = onnx.load(str(files["onnx"]))
    weights = max(graph.graph.initializer, key=lambda t: len(t.raw_data))
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="secret.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(InputError, match=r"m\.onnx"):
        Detector(path)
