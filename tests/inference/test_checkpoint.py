"""Model files: what is written is read back, and what is broken is refused in one line."""

from __future__ import annotations

import json
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from fewmark.cli.describe import list_packaged
from fewmark.core.errors import InputError
from fewmark.data.crops import CropRule
from fewmark.inference.checkpoint.io import (
    Checkpoint,
    StudentPart,
    TeacherPart,
    load_checkpoint,
    read_metadata,
    save_checkpoint,
)
from fewmark.inference.checkpoint.metadata import packaged_names, resolve_model
from fewmark.landmarks.calibration import ErrorCalibration
from fewmark.landmarks.scheme import load_scheme
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec

ARGUMENTS = {"n_maps": 5, "n_stacks": 1, "n_features": 16, "depth": 2}


def make_checkpoint(seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    codec = HeatmapCodec(stride=4, sigma=3.0)
    students = [
        StudentPart(
            f"hourglass{i}",
            "stacked_hourglass",
            ARGUMENTS,
            codec,
            build_model("stacked_hourglass", **ARGUMENTS),
        )
        for i in range(2)
    ]
    judge = {"n_maps": 5, "width": 8, "n_layers": 2}
    return Checkpoint(
        scheme=load_scheme("mtfl-5"),
        students=students,
        crop=CropRule(size=32, margin=0.2),
        teacher=TeacherPart("teacher", judge, build_model("teacher", **judge)),
        box_from_detector=(0.01, 0.14, 0.9),
        accuracy=[{"data": "drawn", "nme": np.float32(0.25), "auc": float("nan"), "n_faces": 3}],
        counts={"labelled": 3, "pseudo": 2, "unlabelled": 9},
        seed=7,
        config={"semi": {"ratio": 0.1}, "out": Path("run")},
        data_hash="abc",
        licence="Apache-2.0",
        provenance="synthetic faces",
        calibration=ErrorCalibration(np.array([0.1, 0.6]), np.array([0.08, 0.02]), np.ones(5), 30, 0.4),
    )


def tensors_of(checkpoint: Checkpoint) -> list[dict[str, torch.Tensor]]:
    assert checkpoint.teacher is not None
    return [m.state_dict() for m in [*(s.module for s in checkpoint.students), checkpoint.teacher.module]]


def test_several_packaged_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import resources

    (tmp_path / "inference/weights").mkdir(parents=True)
    for name in ("small", "small-large"):
        save_checkpoint(tmp_path / "inference/weights" / f"{name}.safetensors", make_checkpoint())
    (tmp_path / "inference/weights" / "small.onnx").write_bytes(b"")  # a part of small
    (tmp_path / "inference/weights" / "small-int8.onnx").write_bytes(b"")  # a model by itself
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert packaged_names() == ["small", "small-int8", "small-large"]
    assert resolve_model("small") == tmp_path / "inference/weights" / "small.safetensors"
    assert resolve_model("small-int8") == tmp_path / "inference/weights" / "small-int8.onnx"
    assert resolve_model("small-large") == tmp_path / "inference/weights" / "small-large.safetensors"
    assert load_checkpoint("small").scheme.name == "mtfl-5"
    with pytest.raises(InputError, match=r"packaged name \(small, small-int8, small-large\), given none of them"):
        read_metadata("smal")
    (tmp_path / "inference/weights" / "small-int8.onnx").unlink()
    found = list_packaged()
    assert [m["name"] for m in found] == ["small", "small-large"]
    assert found[0]["n_landmarks"] == 5
    assert found[0]["n_parameters"] > 0


def test_everything_comes_back(tmp_path: Path) -> None:
    written = make_checkpoint()
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, written)
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    read = load_checkpoint(path)
    assert torch.equal(torch.rand(1), expected_draw), "loading must not touch the caller's random numbers"
    for a, b in zip(tensors_of(written), tensors_of(read), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[n], b[n]) for n in a)
    assert not any(s.module.training for s in read.students)
    assert read.scheme.to_dict() == written.scheme.to_dict()
    assert read.students[1].codec == written.students[1].codec
    assert read.students[1].name == "hourglass1"
    assert (read.crop, read.box_from_detector) == (CropRule(32, 0.2), (0.01, 0.14, 0.9))
    assert read.accuracy == [{"data": "drawn", "nme": 0.25, "auc": None, "n_faces": 3}]
    assert (read.counts, read.seed, read.data_hash) == (written.counts, 7, "abc")
    assert (read.licence, read.provenance) == ("Apache-2.0", "synthetic faces")
    assert read.calibration is not None
    assert read.calibration.to_dict() == {
        "scores": [0.1, 0.6],
        "errors": [0.08, 0.02],
        "factors": [1.0] * 5,
        "n_faces": 30,
        "least_score": 0.4,
    }
    assert read.config == {"semi": {"ratio": 0.1}, "out": "run"}
    assert asdict(read.crop) == read_metadata(path)["crop"]


@pytest.mark.parametrize("flip", [True, False])
def test_flip_is_a_field_and_was_a_setting(tmp_path: Path, flip: bool) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, replace(make_checkpoint(), flip=flip))
    assert read_metadata(path)["flip"] is flip
    assert load_checkpoint(path).flip is flip
    for config, expected in (({"model": {"flip": flip}}, flip), ({"model": {}}, True), ({}, True)):
        assert load_checkpoint(broken(tmp_path, flip=None, config=config)).flip is expected


def test_saving_is_repeatable(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / f"{name}.safetensors", make_checkpoint())
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_half_is_smaller_and_close(tmp_path: Path) -> None:
    written = make_checkpoint()
    big = next(p for p in written.students[0].module.parameters() if p.ndim == 4)
    with torch.no_grad():
        big.view(-1)[0] = 1e6  # beyond float16
    save_checkpoint(tmp_path / "full.safetensors", written)
    save_checkpoint(tmp_path / "half.safetensors", written, half=True)
    full, half = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half"))
    read = load_checkpoint(tmp_path / "half.safetensors")
    for a, b in zip(tensors_of(written), tensors_of(read), strict=True):
        for n in a:
            assert b[n].dtype == a[n].dtype
            torch.testing.assert_close(a[n], b[n], rtol=1e-3, atol=1e-6)
    assert half < 0.75 * full


def test_metadata_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, make_checkpoint())
    code = (
        "import sys; from fewmark.inference.checkpoint.metadata import read_metadata; d = read_metadata(sys.argv[1]);"
        "print(d['students'][0]['architecture'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["stacked_hourglass", "False"]


def broken(tmp_path: Path, **changes: Any) -> Path:
    """A model file with some fields of its metadata changed; None takes a field out."""
    path = tmp_path / "broken.safetensors"
    save_checkpoint(path, make_checkpoint())
    data = read_metadata(path) | changes
    data = {k: v for k, v in data.items() if k not in changes or v is not None}
    path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), {"fewmark": json.dumps(data)}))
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 2}, "format_version: expected 1, given 2; install a newer"),
        ({"format_version": None}, "format_version: expected 1, given None"),
        ({"crop": None}, "'crop'"),
        ({"crop": {"size": 32}}, "crop|margin"),
        ({"mean": [0, 0, 0]}, "mean"),
        ({"students": []}, "at least one"),
        ({"students": [{"name": "a"}]}, "codec"),
        ({"scheme": {"name": "x"}}, "landmarks"),
    ],
)
def test_wrong_metadata(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = broken(tmp_path, **changes)
    with pytest.raises(InputError, match=says) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_network_and_tensors_do_not_fit(tmp_path: Path) -> None:
    path = broken(tmp_path)
    data = read_metadata(path)
    tensors = safetensors.torch.load_file(path)
    name = sorted(n for n in tensors if n.startswith("student1."))[0]
    missing = {n: t for n, t in tensors.items() if n != name}
    path.write_bytes(safetensors.torch.save(missing, {"fewmark": json.dumps(data)}))
    with pytest.raises(InputError, match=rf"tensor {re.escape(name)}: .*given none"):
        load_checkpoint(path)
    data["students"][0]["arguments"] = ARGUMENTS | {"n_features": 24}
    path.write_bytes(safetensors.torch.save(tensors, {"fewmark": json.dumps(data)}))
    with pytest.raises(InputError, match=r"tensor student0.*do not fit"):
        load_checkpoint(path)
    data["students"][0]["architecture"] = "unheard_of"
    path.write_bytes(safetensors.torch.save(tensors, {"fewmark": json.dumps(data)}))
    with pytest.raises(InputError, match="unheard_of"):
        load_checkpoint(path)


def test_not_a_model_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for raw, says in (
        (b"", "safetensors file"),
        (b"\x80\x04\x95 a pickle of something else", "safetensors file"),
        (struct.pack("<Q", 4) + b"nope", "JSON header"),
        (struct.pack("<Q", 2) + b"[]", "JSON header"),
        (struct.pack("<Q", 500) + b"{}", "truncated"),
    ):
        path.write_bytes(raw)
        with pytest.raises(InputError, match=says):
            read_metadata(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="that fewmark wrote"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="no-such-model"):
        load_checkpoint("no-such-model")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="given a folder"):
        load_checkpoint(tmp_path / "bare")


@pytest.mark.parametrize("keep", [0.05, 0.5, 0.999])
def test_truncated(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, make_checkpoint())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(InputError, match=r"truncated: expected [0-9]+ bytes"):
        load_checkpoint(path)


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, make_checkpoint(seed=0))
    before = path.read_bytes()
    with largest_file(10_000), pytest.raises(InputError, match="cannot be written"):
        save_checkpoint(path, make_checkpoint(seed=1))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.safetensors"):
        save_checkpoint(tmp_path / "model.pt", make_checkpoint())
    empty = replace(make_checkpoint(), students=[])
    with pytest.raises(InputError, match="at least one student"):
        save_checkpoint(tmp_path / "model.safetensors", empty)
