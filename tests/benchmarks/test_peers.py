"""benchmarks/peers.py on synthetic faces, and its parts that need no process."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peer_contenders
import peer_process
import peers
import pytest

from fewmark.core.geometry import box_centre, box_size
from fewmark.data.formats.io import write_faces
from fewmark.data.samples import FaceSample
from fewmark.data.synthetic.faces import render_face
from fewmark.inference.face_detection.backends import IBUG68_FROM_DLIB
from fewmark.inference.face_detection.base import adapt_box
from fewmark.landmarks.scheme import load_scheme

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cv2

    folder = tmp_path_factory.mktemp("faces")
    scheme = load_scheme("ibug-68")
    samples = []
    for i in range(3):
        face = render_face(np.random.default_rng(i), scheme=scheme)
        cv2.imwrite(str(folder / f"{i}.png"), face.image[..., ::-1])
        samples.append(FaceSample(folder / f"{i}.png", landmarks=face.landmarks, name=f"{i}.png"))
    write_faces(folder, "csv", samples, scheme)
    (folder / "two.txt").write_text("0.png\n1.png\n", encoding="utf-8")
    (folder / "one.txt").write_text("2.png\n", encoding="utf-8")
    return folder


def test_a_run_on_synthetic_faces(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "peers.json"
    lists = [str(faces / name) for name in ("two.txt", "one.txt")]
    options = ["--models", "ibug-68", "--flip", "off", "--peers", "opencv", "--threads", "1", "--repeats", "2"]
    peers.main([str(faces), "--list", *lists, *options, "--json", str(file)])
    result = json.loads(file.read_text(encoding="utf-8"))
    assert result["lists"] == {"two": 2, "one": 1, "full": 3}
    missing, _, row = result["rows"]
    times = row["times"]["1"]
    assert row["name"] == "fewmark ibug-68, one view"
    assert 0 < times["ms"] < 1000
    assert times["faces_per_s"] >= 1000 / times["ms"]
    assert times["peak_mb"] > times["bare_mb"] + 10
    assert 1 < row["model_mb"] < 100
    assert {name: s["n_faces"] for name, s in row["accuracy"].items()} == result["lists"]
    assert "pip install" in missing["missing"]
    shown = capsys.readouterr().out
    assert "fewmark ibug-68, one view" in shown
    assert missing["missing"] in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--threads", "0"], "--threads: expected 1 or more, given 0"),
        (["--models", "nobody"], "model 'nobody'"),
        (["--peers-python", "/no/python"], "--peers-python"),
        (["--opencv-model", str(BENCHMARKS / "peers.py")], "n_landmarks: 68"),
    ],
)
def test_errors_say_what_to_do(faces: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main([str(faces), *options])
    assert said in capsys.readouterr().err


def test_a_process_that_stops_leaves_its_row_empty(tmp_path: Path) -> None:
    order = {"contender": "nobody", "given": {}, "python": sys.executable, "only_if_it_flips": False}
    row: dict[str, Any] = {"name": "nobody", "order": order, "times": {}}
    peer_process.run_threads([row], 1, tmp_path, 1, lambda _: None)
    assert row["missing"] == "it stopped: KeyError: 'nobody'"


def test_the_peers_side_needs_numpy_alone() -> None:
    code = "import peer_contenders, sys; print(*{'fewmark', 'torch', 'cv2', 'dlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", [peer_contenders, peer_process])
def test_docstring_examples(module: Any) -> None:
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


def test_dlib_is_given_the_box_that_its_detector_draws() -> None:
    tight = np.array([100.0, 50.0, 200.0, 150.0])
    back = adapt_box(peer_contenders.square(tight, peer_contenders.Dlib.rule), IBUG68_FROM_DLIB)
    np.testing.assert_allclose(box_centre(back), box_centre(tight), atol=0.2)
    np.testing.assert_allclose(box_size(back), box_size(tight), atol=0.2)


def test_the_mesh_has_a_point_for_each_of_the_68() -> None:
    assert len(set(peer_contenders.MESH_FROM_68)) == 68
    assert set(peer_contenders.MESH_FROM_68) <= set(range(468))


def test_a_face_elsewhere_is_not_the_one_asked_for() -> None:
    assert peer_contenders.best_of([(50, 50, 60, 60)], np.array([0.0, 0.0, 10.0, 10.0])) is None
    assert peer_contenders.best_of([], np.array([0.0, 0.0, 10.0, 10.0])) is None


def test_table_of_what_was_and_was_not_measured() -> None:
    result = {
        "lists": {"all": 4},
        "threads": [1],
        "rows": [
            {"name": "gone", "times": {}, "missing": "pip install gone"},
            {
                "name": "here",
                "times": {"1": {"ms": 2.0, "faces_per_s": 500.0, "bare_mb": 10.0, "peak_mb": 90.0}},
                "model_mb": 1.25,
                "accuracy": {"all": {"nme": 0.04, "auc": 0.5, "failure_rate": 0.25, "n_undetected": 1}},
            },
        ],
    }
    rows = peers.as_table(result).splitlines()[2:]
    assert rows == [
        "| gone | - | - | - | - | - | - | - | - |",
        "| here | 4.00 % | 50.0 % | 25.0 % (1 not found) | 2.00 | 500 | 90 | 80 | 1.2 |",
    ]
    assert peers.not_measured(result) == ["not measured: gone: pip install gone"]
