"""Transfers in files: what is written is read back, in a file of its own or inside a model, and what is broken is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from fewmark.cli.describe import describe_model, describe_transfer
from fewmark.core.errors import InputError
from fewmark.data.crops import CropRule
from fewmark.inference.checkpoint.edit import put_transfer
from fewmark.inference.checkpoint.io import Checkpoint, StudentPart, load_checkpoint, save_checkpoint
from fewmark.inference.checkpoint.metadata import read_metadata, read_transfer_metadata, scheme_from_metadata
from fewmark.inference.checkpoint.transfers import load_transfer, save_transfer
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.landmarks.transfer import SchemeTransfer
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec

FIVE, TEN = load_scheme("mtfl-5"), load_scheme("lfw-10")


def make_transfer(seed: int = 0, target: LandmarkScheme = TEN) -> SchemeTransfer:
    rng = np.random.default_rng(seed)
    assert FIVE.mean_face is not None
    assert target.mean_face is not None
    x = 100 * (FIVE.mean_face + 0.05 * rng.normal(size=(30, 5, 2)))
    y = 100 * (target.mean_face + 0.05 * rng.normal(size=(30, target.n_landmarks, 2)))
    return SchemeTransfer.fit(FIVE, target, x, y, ridge=0.1, provenance="drawn pairs", licence="Apache-2.0")


def make_model(path: Path, transfers: tuple[SchemeTransfer, ...] = ()) -> Path:
    torch.manual_seed(0)
    arguments = {"n_maps": 5, "n_stacks": 1, "n_features": 16, "depth": 2}
    module = build_model("stacked_hourglass", **arguments)
    student = StudentPart("hourglass", "stacked_hourglass", arguments, HeatmapCodec(), module)
    save_checkpoint(path, Checkpoint(FIVE, [student], CropRule(32, 0.2), transfers=transfers))
    return path


def assert_same(a: SchemeTransfer, b: SchemeTransfer) -> None:
    assert (a.source.to_dict(), a.target.to_dict()) == (b.source.to_dict(), b.target.to_dict())
    for name in ("mean_shape", "matrix", "expected_error_per_landmark"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for name in ("ridge", "n_pairs", "normalizer", "expected_error", "provenance", "licence"):
        assert getattr(a, name) == getattr(b, name), name


def test_a_file_of_its_own(tmp_path: Path) -> None:
    written = make_transfer()
    save_transfer(tmp_path / "t.safetensors", written)
    read = load_transfer(tmp_path / "t.safetensors")
    assert_same(written, read)
    points = np.random.default_rng(1).normal(size=(3, 5, 2)) * 40
    np.testing.assert_array_equal(written.apply(points), read.apply(points))
    data = read_transfer_metadata(tmp_path / "t.safetensors")
    assert data["target"]["landmarks"] == list(TEN.landmarks)
    assert np.shape(data["target_mean_shape"]) == (10, 2)
    text = " ".join(f"{n} {v}" for n, v in describe_transfer(read))
    for word in (
        "mtfl-5, 5 landmarks, to lfw-10, 10 landmarks",
        "of 30 pairs, ridge 0.1",
        "nose ",
        "Apache-2.0",
        "drawn pairs",
    ):
        assert word in text
    first = (tmp_path / "t.safetensors").read_bytes()
    save_transfer(tmp_path / "t.safetensors", read)
    assert (tmp_path / "t.safetensors").read_bytes() == first


def test_what_is_not_known_comes_back_as_that(tmp_path: Path) -> None:
    written = make_transfer()
    matrix = written.matrix.copy()
    matrix[:, 4:6] = np.nan
    errors = np.where(np.arange(10) == 2, np.nan, written.expected_error_per_landmark)
    written = replace(written, matrix=matrix, expected_error=float("nan"), expected_error_per_landmark=errors)
    save_transfer(tmp_path / "t.safetensors", written)
    read = load_transfer(tmp_path / "t.safetensors")
    np.testing.assert_array_equal(read.matrix, matrix)
    np.testing.assert_array_equal(read.expected_error_per_landmark, errors)
    assert np.isnan(read.expected_error)
    assert "not known" in dict(describe_transfer(read))["expected error"]


def test_inside_a_model(tmp_path: Path) -> None:
    ten, dense = make_transfer(0), make_transfer(1, load_scheme("ibug-68"))
    path = make_model(tmp_path / "m.safetensors", (ten, dense))
    read = load_checkpoint(path)
    for a, b in zip((ten, dense), read.transfers, strict=True):
        assert_same(a, b)
    assert read.transfer_to("ibug-68") is read.transfers[1]
    assert read.transfer_to(None) is None
    assert read.transfer_to("mtfl-5") is None
    with pytest.raises(InputError, match="'wflw-98': the model finds mtfl-5 and has transfers to lfw-10, ibug-68"):
        read.transfer_to("wflw-98")
    metadata = read_metadata(path)
    assert scheme_from_metadata(metadata, "ibug-68", "m")["landmarks"] == list(dense.target.landmarks)
    assert scheme_from_metadata(metadata, None, "m")["name"] == "mtfl-5"
    facts = [value for name, value in describe_model(metadata) if name == "transfer"]
    assert [f.split(":")[0] for f in facts] == ["to lfw-10", "to ibug-68"]
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, read, half=True)
    assert_same(load_checkpoint(half).transfers[0], ten)


def test_putting_one_into_a_model_changes_nothing_else(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors")
    before, tensors = read_metadata(path), safetensors.numpy.load_file(path)
    put_transfer(path, make_transfer(0))
    put_transfer(path, make_transfer(1, load_scheme("ibug-68")))
    put_transfer(path, make_transfer(2))  # replaces the first
    read = load_checkpoint(path)
    assert [t.target.name for t in read.transfers] == ["ibug-68", "lfw-10"]
    assert_same(read.transfers[1], make_transfer(2))
    after = safetensors.numpy.load_file(path)
    assert after.keys() - tensors.keys() == {"transfer0.matrix", "transfer1.matrix"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(after[name], tensor)
        assert after[name].dtype == tensor.dtype
    assert {k: v for k, v in read_metadata(path).items() if k != "transfers"} == {
        k: v for k, v in before.items() if k != "transfers"
    }


def test_a_model_file_from_before_there_were_transfers(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors")
    data = read_metadata(path)
    del data["transfers"]
    raw = safetensors.numpy.save(safetensors.numpy.load_file(path), {"fewmark": json.dumps(data)})
    path.write_bytes(raw)
    assert load_checkpoint(path).transfers == ()
    with pytest.raises(InputError, match="finds mtfl-5 and has no transfer; put one in with `fewmark transfer fit"):
        scheme_from_metadata(read_metadata(path), "ibug-68", "m")
    put_transfer(path, make_transfer())
    assert load_checkpoint(path).transfer_to("lfw-10") is not None


def broken(path: Path, key: str, change: dict[str, Any], tensors: dict[str, Any] | None = None) -> Path:
    """A transfer's file with fields of its metadata changed; None takes one out."""
    save_transfer(path, make_transfer())
    data = read_transfer_metadata(path) | change
    data = {k: v for k, v in data.items() if v is not None}
    given = safetensors.numpy.load_file(path) if tensors is None else tensors
    path.write_bytes(safetensors.numpy.save(given, {key: json.dumps(data)}))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format_version": 2}, "format_version: expected 1, given 2; install a newer fewmark"),
        ({"format_version": 0}, "format_version: expected 1, given 0; fit the transfer again"),
        ({"format_version": None}, "format_version: expected 1, given None"),
        ({"source": None}, "'source'"),
        ({"source": {"name": "x"}}, "source: field 'landmarks' is missing"),
        ({"target": FIVE.to_dict()}, r"tensor matrix: expected \(11, 10\), given \(11, 20\)"),
        ({"mean_shape": [[0, 0]]}, "mean_shape"),
        ({"mean_shape": "round"}, "a field of the transfer is wrong"),
        ({"expected_error_per_landmark": [0.1]}, "expected_error_per_landmark"),
        ({"n_pairs": "many"}, "a field of the transfer is wrong"),
        ({"ridge": None}, "'ridge'"),
    ],
)
def test_broken_files(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = broken(tmp_path / "t.safetensors", "fewmark_transfer", change)
    with pytest.raises(InputError, match=says) as error:
        load_transfer(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with pytest.raises(InputError, match="no such file; expected a transfer"):
        load_transfer(path)
    with pytest.raises(InputError, match=r"tensor matrix: .*given none"):
        load_transfer(broken(path, "fewmark_transfer", {}, {"other": np.zeros(2)}))
    with pytest.raises(InputError, match=r"expected a transfer.*given a model"):
        load_transfer(make_model(tmp_path / "m.safetensors"))
    with pytest.raises(InputError, match="given a safetensors file without 'fewmark_transfer'"):
        load_transfer(broken(path, "other", {}))
    save_transfer(path, make_transfer())
    with pytest.raises(InputError, match="expected a model that fewmark wrote, given a transfer"):
        load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="truncated"):
        load_transfer(path)
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        save_transfer(tmp_path / "t.json", make_transfer())


def test_a_transfer_of_another_scheme_or_to_the_own_one(tmp_path: Path) -> None:
    path, other = make_model(tmp_path / "m.safetensors"), make_transfer()
    before = path.read_bytes()
    with pytest.raises(
        InputError, match=r"from the model's scheme mtfl-5 \(5 landmarks\), given one from lfw-10 \(10\)"
    ):
        put_transfer(path, replace(other, source=TEN, target=FIVE))
    with pytest.raises(InputError, match="of scheme mtfl-5 already"):
        put_transfer(path, replace(other, target=FIVE))
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="copy a packaged model to a file first"):
        put_transfer("ibug-68", other)
    with pytest.raises(InputError, match="given one from lfw-10"):
        make_model(tmp_path / "n.safetensors", (replace(other, source=TEN, target=FIVE),))
    assert not (tmp_path / "n.safetensors").exists()


def test_a_model_whose_transfers_are_broken(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors", (make_transfer(),))
    data, tensors = read_metadata(path), safetensors.numpy.load_file(path)
    for transfers, says in (
        ([{**data["transfers"][0], "format_version": 9}], r"transfers\[0\]: format_version: expected 1, given 9"),
        (["x"], r"transfers\[0\]: expected the fields of a transfer, given str"),
        (7, "transfers: expected a list, given int"),
        (data["transfers"] * 2, r"tensor transfer1.matrix: .*given none"),
    ):
        copy = Path(shutil.copy(path, tmp_path / "copy.safetensors"))
        copy.write_bytes(safetensors.numpy.save(tensors, {"fewmark": json.dumps({**data, "transfers": transfers})}))
        with pytest.raises(InputError, match=says):
            load_checkpoint(copy)
