"""Exported models: as torch says, alone in a file, in threads and in processes; and what is not one."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fewmark.inference.export.onnx
from fewmark.core.errors import InputError
from fewmark.data.crops import CropRule
from fewmark.data.formats.io import read_faces
from fewmark.data.synthetic.faces import render_faces
from fewmark.inference.checkpoint.exported import file_hash
from fewmark.inference.checkpoint.io import Checkpoint, StudentPart, TeacherPart, load_checkpoint, save_checkpoint
from fewmark.inference.checkpoint.metadata import packaged_names, read_metadata, resolve_model
from fewmark.inference.checkpoint.onnx_metadata import read_properties
from fewmark.inference.checkpoint.seal import KEY
from fewmark.inference.detector import Detector
from fewmark.inference.export.onnx import export_onnx
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.landmarks.transfer import SchemeTransfer
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec

onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "fewmark[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install onnxruntime")

COMPACT = {"widths": [8, 8, 8, 8, 8], "decoder": 8, "n_blocks": [1, 1, 1, 1]}
HOURGLASS = {"n_stacks": 1, "n_modules": 1, "n_features": 16, "depth": 2}
EYES = LandmarkScheme("eyes-2", ("right", "left"), mirror=(1, 0))
ONE = LandmarkScheme("nose-2", ("tip", "root"))
THREE = LandmarkScheme("eyes-3", ("right", "middle", "left"))


def make_model(
    path: Path,
    scheme: LandmarkScheme = EYES,
    *,
    n_students: int = 1,
    flip: bool = True,
    teacher: bool | dict[str, Any] = False,
) -> Path:
    """A small model with random weights, and for the scheme EYES a transfer to THREE."""
    torch.manual_seed(1)
    k = scheme.n_landmarks
    first = HeatmapCodec(stride=4, sigma=3.0, decoding="soft-argmax", logits=True)
    second = HeatmapCodec(stride=2, sigma=3.0, decoding="soft-argmax", background=True)
    parts = [
        StudentPart("unet", "compact", {"n_maps": k, **COMPACT}, first, build_model("compact", n_maps=k, **COMPACT)),
        StudentPart(
            "hourglass",
            "stacked_hourglass",
            {"n_maps": k + 1, "stride": 2, **HOURGLASS},
            second,
            build_model("stacked_hourglass", n_maps=k + 1, stride=2, **HOURGLASS),
        ),
    ][:n_students]
    for part in parts:
        for p in part.module.parameters():  # answers that differ from face to face
            p.data += 0.1 * torch.randn_like(p)
    checkpoint = Checkpoint(scheme, parts, CropRule(32, 0.1), (0.0, 0.1, 0.9), flip=flip)
    checkpoint = replace(checkpoint, box_from_detector=(0.0, 0.1, 0.9), teacher=None, licence="for tests")
    if teacher:
        judge = {"n_maps": k, "width": 8, "norm": "batch", "groups": [[0, 1], [1]], "peaks": True}
        judge |= {} if teacher is True else teacher
        module = build_model("teacher", **judge)
        checkpoint = replace(checkpoint, teacher=TeacherPart("teacher", judge, module))
        for p in module.parameters():
            p.data += 0.1 * torch.randn_like(p)
    if scheme is EYES:
        x = np.random.default_rng(0).uniform(0, 100, (9, 2, 2))
        middle = np.stack([x[:, 0], x.mean(1), x[:, 1]], 1)
        bias, transfer = np.array([[0.05, 0.02], [0.04, -0.02]]), SchemeTransfer.fit(EYES, THREE, x, middle)
        checkpoint = replace(checkpoint, label_bias=bias, transfers=(transfer,))
    save_checkpoint(path, checkpoint, half=True)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "eyes.safetensors")


@pytest.fixture(scope="module")
def exported(model: Path) -> Path:
    """It does not lie under the model's name, so that the model itself stays torch's."""
    path = model.with_name("alone.onnx")
    export_onnx(model, path)
    return path


def make_image(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (60, 70, 3), np.uint8)


BOX = np.array([[10.0, 8.0, 50.0, 47.0]])


def answers(path: Path, **options: Any) -> NDArray[np.float32]:
    """What a process of its own says of the image; at the top of the module, as spawned processes need it."""
    return Detector.load(path, **options).detect(make_image(), BOX)[0].landmarks


@settings(max_examples=10)
@given(seed=st.integers(0, 99), n=st.integers(1, 40), flip=st.sampled_from([None, True, False]))
def test_it_predicts_what_torch_predicts(model: Path, exported: Path, seed: int, n: int, flip: bool | None) -> None:
    boxes = np.random.default_rng(seed).uniform(2, 20, (n, 4)) + np.array([0, 0, 20, 20])
    by_torch = Detector.load(model, runtime="torch").detect(make_image(seed), boxes, flip=flip, passes=2)
    by_onnx = Detector.load(exported).detect(make_image(seed), boxes, flip=flip, passes=2)
    assert len(by_onnx) == n
    for a, b in zip(by_torch, by_onnx, strict=True):
        np.testing.assert_allclose(b.landmarks, a.landmarks, atol=0.02)  # of a crop that is magnified up to 1.5 times
        np.testing.assert_allclose(b.scores, a.scores, atol=1e-4)
        assert b.landmarks.dtype == b.scores.dtype == np.float32


@pytest.mark.parametrize("scheme", [EYES, ONE])
def test_students_of_two_strides_and_a_scheme_without_a_mirror(tmp_path: Path, scheme: LandmarkScheme) -> None:
    path = make_model(tmp_path / "two.safetensors", scheme, n_students=2)
    made = export_onnx(path, tmp_path / "other.onnx")
    assert made.parity_px <= fewmark.inference.export.onnx.PARITY
    assert made.flip == (scheme is EYES)
    np.testing.assert_allclose(answers(made.path), answers(path), atol=0.02)


@pytest.mark.parametrize("n_students", [1, 2])
@pytest.mark.parametrize("share", [False, True])
def test_the_teachers_quality_is_an_output(tmp_path: Path, n_students: int, share: bool) -> None:
    path = make_model(tmp_path / "judged.safetensors", n_students=n_students, teacher=True)
    made = export_onnx(path, tmp_path / "judged.onnx", share_weights=share)
    session = Detector.load(path, runtime="onnx").predictor._session()  # type: ignore[attr-defined]
    assert [o.name for o in session.get_outputs()] == ["landmarks", "scores", "quality"]
    assert made.n_bytes < 200_000 or not share
    for flip in (False, True):
        by_torch, by_onnx = (
            Detector.load(path, runtime=r).detect(make_image(), np.concatenate([BOX, BOX + 3]), flip=flip, passes=2)  # type: ignore[arg-type]
            for r in ("torch", "onnx")
        )
        assert [f.quality for f in by_onnx] == pytest.approx([f.quality for f in by_torch], abs=1e-3)
        assert by_onnx[0].quality != by_onnx[1].quality
    kept = [
        t.name
        for t in onnx.load(made.path, load_external_data=False).graph.initializer
        if "teacher" in t.name and t.data_location != onnx.TensorProto.EXTERNAL and t.dims
    ]
    assert bool(kept) != share
    onnx.checker.check_model(onnx.load(made.path))


def test_any_batch_is_judged_as_by_torch(tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [{"norm": norm} for norm in ("instance", "group", "batch", "none")]
    kinds += [
        {"norm": "instance", "groups": None, "peaks": False},
        {"n_layers": 2, "shrink": 2},
    ]  # the first is the paper's
    crops = np.random.default_rng(1).integers(0, 256, (32, 32, 32, 3), np.uint8)
    for kind in kinds:
        path = make_model(tmp_path / "m.safetensors", n_students=2, teacher=kind)
        export_onnx(path, tmp_path / "m.onnx")
        by_torch, by_onnx = (Detector.load(path, runtime=r).predictor for r in ("torch", "onnx"))  # type: ignore[arg-type]
        for flip in (False, True):
            for n in (0, 1, 2, 7, 32):
                found = by_onnx.predict_crops(crops[:n], flip=flip)
                assert found.quality is not None
                assert (found.landmarks.shape, found.scores.shape, found.quality.shape) == ((n, 2, 2), (n, 2), (n,))
                if n:
                    true = by_torch.predict_crops(crops[:n], flip=flip)
                    np.testing.assert_allclose(found.landmarks, true.landmarks, atol=0.01)
                    np.testing.assert_allclose(found.scores, true.scores, atol=1e-4)
                    np.testing.assert_allclose(found.quality, true.quality, atol=1e-3)


def test_files_of_older_versions_say_no_quality(tmp_path: Path) -> None:
    made = export_onnx(make_model(tmp_path / "m.safetensors", teacher=True), tmp_path / "m.onnx")
    graph = onnx.load(made.path)
    del graph.graph.output[-1]
    made.path.write_bytes(graph.SerializeToString().replace(KEY.encode(), b"no_digest_then"))
    assert Detector.load(made.path).detect(make_image(), BOX)[0].quality is None


def test_the_file_alone_is_a_detector(model: Path, exported: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(exported, tmp_path / "moved.onnx"))
    written, read = load_checkpoint(model), Detector.load(moved).checkpoint
    data = read_metadata(moved)
    assert {k: v for k, v in data.items() if k != "export"} == written.to_metadata()
    assert data["export"]["parity_px"] <= fewmark.inference.export.onnx.PARITY
    for name in ("crop", "box_from_detector", "licence", "config", "package_version"):
        assert getattr(read, name) == getattr(written, name)
    assert read.scheme.to_dict() == written.scheme.to_dict()
    np.testing.assert_array_equal(read.transfers[0].matrix, written.transfers[0].matrix)
    (face,) = Detector.load(moved).detect(make_image(), BOX, scheme="eyes-3")
    assert face.landmarks.shape == (3, 2)
    assert face.quality is None
    properties = read_properties(moved)
    assert properties == {p.key: p.value for p in onnx.load(moved).metadata_props}


def test_ten_lines_outside_fewmark(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported))
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    landmarks, scores = session.run(None, {"crops": crops})
    assert landmarks.shape == (3, 2, 2)
    assert scores.shape == (3, 2)
    flipped, _ = session.run(None, {"crops": crops, "flip": np.array(True)})
    np.testing.assert_array_equal(landmarks, flipped)
    plain, _ = session.run(None, {"crops": crops, "flip": np.array(False)})
    assert not np.array_equal(landmarks, plain)
    onnx.checker.check_model(onnx.load(exported))


def test_flip_is_the_models_unless_another_is_asked_for(tmp_path: Path, model: Path) -> None:
    asks_not = make_model(tmp_path / "plain.safetensors", flip=False)
    assert not export_onnx(asks_not, tmp_path / "a.onnx").flip
    assert export_onnx(asks_not, tmp_path / "b.onnx", flip=True).flip
    a, b = Detector.load(tmp_path / "a.onnx"), Detector.load(tmp_path / "b.onnx")
    image = make_image()
    one, both = a.detect(image, BOX)[0].landmarks, b.detect(image, BOX)[0].landmarks
    assert not np.array_equal(one, both)
    np.testing.assert_array_equal(one, b.detect(image, BOX, flip=False)[0].landmarks)
    np.testing.assert_array_equal(both, a.detect(image, BOX, flip=True)[0].landmarks)
    assert a.checkpoint.flip is False
    assert b.checkpoint.flip is True


def test_alongside_its_model_it_is_used_if_it_was_made_from_it(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors")
    beside = tmp_path / "m.onnx"

    def runs(**options: Any) -> str:
        return type(Detector.load(path, **options).predictor).__name__

    assert runs() == "TorchPredictor"
    with pytest.raises(InputError, match=r"m\.onnx made from this file; .*fewmark export"):
        runs(runtime="onnx")
    made = export_onnx(path, beside, share_weights=True)
    assert made.n_bytes < path.stat().st_size + 100_000
    assert runs() == runs(runtime="onnx") == "OnnxPredictor"
    assert runs(runtime="torch") == "TorchPredictor"
    np.testing.assert_allclose(answers(path), answers(path, runtime="torch"), atol=0.02)
    make_model(path, n_students=2)  # trained again
    assert runs() == "TorchPredictor"
    with pytest.raises(InputError, match=r"expected m\.safetensors, whose weights it shares.*another file"):
        Detector.load(beside)
    path.unlink()
    with pytest.raises(InputError, match="given none; export it again"):
        Detector.load(beside)
    beside.write_bytes(b"nothing")
    make_model(path)
    assert runs() == "TorchPredictor"


def test_shared_weights_are_in_the_other_file_alone(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors")
    export_onnx(path, tmp_path / "m.onnx", share_weights=True)
    tensors = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
    kept = [t for t in tensors if t.data_location != onnx.TensorProto.EXTERNAL]
    assert sum(len(t.raw_data) for t in kept) < 1000


def test_threads_share_a_detector(exported: Path) -> None:
    detector = Detector.load(exported, threads=1)
    expected = [detector.detect(make_image(i), BOX)[0].landmarks for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: detector.detect(make_image(i), BOX)[0].landmarks, range(12)))
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_makes_a_session_of_its_own(exported: Path, threads: int) -> None:
    code = f"""
import os, sys
import numpy as np
from fewmark.inference.detector import Detector
image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
box = np.array({BOX.tolist()})
detector = Detector.load({str(exported)!r}, threads={threads})
expected = detector.detect(image, box)[0].landmarks
child = os.fork()
same = np.array_equal(detector.detect(image, box)[0].landmarks, expected)
if child == 0:
    detector = None  # the session of the parent is not ended
    os._exit(0 if same else 3)  # as multiprocessing does: in a fork, onnxruntime alone hangs at the end of an interpreter
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert same and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_spawned_process_and_a_pickled_detector(exported: Path, tmp_path: Path) -> None:
    detector = Detector.load(exported, threads=1)
    expected = detector.detect(make_image(), BOX)[0].landmarks
    again = pickle.loads(pickle.dumps(detector.predictor))
    assert again._sessions == {}
    found = Detector(again.checkpoint, predictor=again).detect(make_image(), BOX)[0].landmarks
    np.testing.assert_array_equal(found, expected)
    (tmp_path / "predictor.pickle").write_bytes(pickle.dumps(detector.predictor))
    code = f"""
import sys, pickle
from pathlib import Path
from fewmark.inference.detector import Detector
predictor = pickle.loads(Path({str(tmp_path / "predictor.pickle")!r}).read_bytes())
import numpy as np
image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
print(Detector(predictor.checkpoint, predictor=predictor).detect(image, np.array({BOX.tolist()}))[0].landmarks.tobytes().hex())
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    np.testing.assert_array_equal(np.frombuffer(bytes.fromhex(done.stdout), np.float32).reshape(2, 2), expected)


def test_commands(cli: Any, tiny_model: Path, synthetic: Path, tmp_path: Path) -> None:
    """export, inspect, evaluate and detect, int8 among them."""
    path = tmp_path / "drawn.onnx"
    told = cli.json("export", tiny_model, "--to", "onnx", "--out", path, "--no-flip")
    assert told["path"] == str(path)
    assert told["n_bytes"] == path.stat().st_size
    assert told["flip"] is False
    assert told["int8"] is None
    assert "exported" in cli("inspect", path).stdout
    assert cli.json("inspect", path)["export"]["flip"] is False
    scores = cli.json("evaluate", path, synthetic, "--list", synthetic / "val.txt")
    detector = Detector.load(tiny_model, runtime="torch")
    faces = [s for s in read_faces(synthetic, scheme=load_scheme("ibug-68")) if s.name.endswith(("10.jpg", "11.jpg"))]
    assert scores["n_faces"] == 4
    by_torch = predict_samples(detector, faces, flip=False).landmarks
    np.testing.assert_allclose(predict_samples(Detector.load(path), faces).landmarks, by_torch, atol=0.05)
    cli("detect", path, synthetic / "images" / "000012.jpg", "--out", tmp_path / "found")
    assert (tmp_path / "found" / "faces.json").is_file()
    words = ["--int8", "--calibrate", synthetic, "--list", synthetic / "few.txt"]
    small = tmp_path / "small.onnx"
    text = cli("export", tiny_model, "--out", small, *words).stdout
    assert "int8: NME" in text
    assert "int8" in cli("inspect", small).stdout
    data = read_metadata(small)["export"]["int8"]
    assert data["n_faces"] == 4
    assert data["nme"] <= 1.02 * data["nme_float"]
    nodes = onnx.load(small).graph.node
    assert any(n.op_type == "QuantizeLinear" for n in nodes)
    judges = [n for n in nodes if n.op_type == "Conv" and "teacher" in n.name]
    assert len(judges) == 5
    assert all(not n.input[1].endswith("DequantizeLinear_Output") for n in judges)
    crops = np.random.default_rng(1).integers(0, 256, (32, 32, 32, 3), np.uint8)
    predictor = Detector.load(small).predictor
    whole = predictor.predict_crops(crops, flip=True)
    for n in (0, 1, 2, 7):
        part = predictor.predict_crops(crops[:n], flip=True)
        for name in ("landmarks", "scores", "quality"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[:n], atol=1e-4)
    images = [s.image for s in read_faces(synthetic, scheme=load_scheme("ibug-68"))[:2]]
    for faces in Detector.load(small).detect_batch(images, [np.array([[10, 10, 54, 54]])] * 2):
        assert faces[0].quality is not None


def test_nothing_is_written_where_an_answer_differs(
    model: Path, tmp_path: Path, synthetic: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fewmark.inference.export.onnx, "PARITY", -1.0)
    with pytest.raises(InputError, match=r"not written: .* px, .*decodes by soft-argmax"):
        export_onnx(model, tmp_path / "m.onnx")
    monkeypatch.undo()
    monkeypatch.setattr(fewmark.inference.export.onnx, "INT8_COST", -0.5)
    faces = [s for s in read_faces(synthetic, scheme=load_scheme("ibug-68")) if s.name.endswith("1.jpg")]
    with pytest.raises(InputError, match=r"not written: int8 raises the NME of \d faces"):
        export_onnx(tiny_model, tmp_path / "m.onnx", int8_faces=faces)
    assert list(tmp_path.iterdir()) == []


def test_bad_requests(cli: Any, model: Path, tmp_path: Path) -> None:
    for words, says in (
        (["--out", tmp_path / "m.pt"], "ends in .onnx"),
        (["--out", tmp_path / "m.onnx", "--int8"], "belong together"),
        (["--out", tmp_path / "m.onnx", "--list", tmp_path / "x.txt"], "--calibrate"),
        (["--out", tmp_path / "m.onnx", "--share-weights"], "whose weights it shares"),
    ):
        assert says in cli.error("export", model, *words)
    assert "torch cannot run" in cli.error("export", model.with_name("alone.onnx"))


def test_files_that_are_none_of_ours(exported: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    whole = exported.read_bytes()
    for content, says in (
        (b"", "given an ONNX file without 'fewmark'"),
        (b"\xff" * 40, "another kind of file or a truncated one"),
        (b"PK\x03\x04 a zip file", "expected an ONNX file"),
        (whole[:-9], "truncated"),
        (whole[: len(whole) // 2], "truncated"),
    ):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=says):
            Detector.load(bad)
    foreign = onnx.load(exported)
    del foreign.metadata_props[:]
    bad.write_bytes(foreign.SerializeToString())
    with pytest.raises(InputError, match="given an ONNX file without 'fewmark'"):
        Detector.load(bad)
    broken = onnx.load(exported)
    broken.graph.node[-1].op_type = "NoSuchThing"
    bad.write_bytes(broken.SerializeToString().replace(KEY.encode(), b"no_digest_then"))
    with pytest.raises(InputError, match=r"ONNX Runtime .* cannot run it"):
        Detector.load(bad)
    with pytest.raises(InputError, match="on the CPU, given runtime torch"):
        Detector.load(exported, runtime="torch")
    with pytest.raises(InputError, match="given device cuda"):
        Detector.load(exported, device="cuda")
    with pytest.raises(InputError, match="runtime: expected auto, onnx, torch"):
        Detector.load(exported, runtime="tensorrt")  # type: ignore[arg-type]


@settings(max_examples=60)
@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with suppress(InputError):
        assert isinstance(read_properties(path), dict)


def test_without_the_extra(exported: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r'pip install "onnxruntime>='):
        Detector.load(exported)
    assert read_metadata(exported)["scheme"]["name"] == "eyes-2"
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r'pip install "filelock.*"lightning.*"onnx>=.*"onnxruntime>='):
        export_onnx(model, tmp_path / "m.onnx")


@pytest.mark.parametrize("name", packaged_names())
def test_a_packaged_model_runs_without_torch(tmp_path: Path, name: str) -> None:
    code = f"""
import sys
import numpy as np
from typer.testing import CliRunner
from fewmark import Detector
from fewmark.cli.app import app
detector = Detector.load({name!r}, threads=1)
assert type(detector.predictor).__name__ == "OnnxPredictor"
image = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
assert detector.detect(image, np.array([[10, 10, 70, 70]]))[0].landmarks.shape == (detector.scheme.n_landmarks, 2)
import cv2
cv2.imwrite({str(tmp_path / "p.png")!r}, image)
result = CliRunner().invoke(app, ["detect", {name!r}, {str(tmp_path / "p.png")!r}, "--out", {str(tmp_path)!r}])
assert result.exit_code == 0, result.output
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_cascade_stays_torchs(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OfCascade:
        cascade = object()

    monkeypatch.setattr(fewmark.inference.export.onnx, "load_checkpoint", lambda path: OfCascade())
    with pytest.raises(InputError, match="given a cascade"):
        export_onnx(model, tmp_path / "m.onnx")


@pytest.mark.parametrize("name", [n for n in packaged_names() if n.endswith("-int8")])
def test_a_packaged_model_of_8_bits_answers_as_its_model(name: str) -> None:
    model = name.removesuffix("-int8")
    assert read_metadata(name)["export"]["source"] == file_hash(resolve_model(model)), "export it again"
    small, whole = Detector.load(name), Detector.load(model)
    assert small.checkpoint.flip == whole.checkpoint.flip
    for f in render_faces(4, small.scheme, seed=1):  # none of them in the dark
        a, b = (d.detect(f.image, f.box)[0].landmarks for d in (small, whole))
        apart = np.linalg.norm(a - b, axis=1).mean() / np.ptp(b, axis=0).max()
        assert 0 < apart < 0.01
