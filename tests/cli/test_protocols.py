"""Published benchmarks from the command line, on drawn faces that lie as the originals do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewmark.core.errors import InputError
from fewmark.data.benchmarks.protocols import PROTOCOLS, find_protocol
from fewmark.data.formats.pts import write_pts
from fewmark.data.images import write_image
from fewmark.data.lists import TrainingLists, hide_labels
from fewmark.data.samples import FaceSample
from fewmark.data.synthetic.faces import render_face
from fewmark.landmarks.scheme import load_scheme, scheme_names

PARTS = {"afw": 3, "helen/trainset": 2, "lfpw/trainset": 3, "helen/testset": 1, "lfpw/testset": 1, "ibug": 2}


@pytest.fixture(scope="module")
def w300(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300-W as iBUG distributes it, without the boxes' files, of 8 training and 4 test faces."""
    root, scheme, seed = tmp_path_factory.mktemp("300w"), load_scheme("ibug-68"), 0
    for part, n in PARTS.items():
        (root / part).mkdir(parents=True)
        for i in range(n):
            face, seed = render_face(np.random.default_rng([21, seed]), scheme=scheme, size=96), seed + 1
            write_image(root / part / f"face_{i}.png", face.image)
            write_pts(root / part / f"face_{i}.pts", face.landmarks)
    return root


def test_train_on_a_share_and_evaluate(cli: Any, w300: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    shared = ["--protocol", "300w", "--incomplete", "--json"]
    arguments = ["train", w300, "--scheme", "ibug-68", "--out", tmp_path / "run", "--recipe", tiny_recipe, *shared]
    run = json.loads(cli(*arguments, "--label-share", "0.5").stdout)
    assert (run["n_labelled"], run["n_validation"]) == (4, 0)
    assert run["n_unlabelled"] == 4
    result = json.loads(cli("evaluate", tmp_path / "run", w300, *shared).stdout)
    assert {name: s["n_faces"] for name, s in result["lists"].items()} == {"common": 2, "challenging": 2, "full": 4}
    assert result["box"] == "gt"
    assert result["normalizer"] == "outer-eye-corners"


def test_what_does_not_fit_a_protocol(cli: Any, w300: Path, tmp_path: Path) -> None:
    evaluate = ["evaluate", "ibug-68", w300, "--protocol"]
    train = ["train", w300, "--out", tmp_path / "run", "--protocol", "300w", "--scheme"]
    assert "expected 330 as published, given 1" in cli(*evaluate, "300w", code=1).stderr
    assert "expected one of 300w, aflw" in cli(*evaluate, "lfw", code=1).stderr
    assert "leave one of --list and --protocol" in cli(*evaluate, "300w", "--list", w300, code=1).stderr
    assert "expected scheme ibug-68, given cofw-29" in cli(*train, "cofw-29", code=1).stderr
    assert "expected its folder as DATA" in cli("train", *train[2:], "ibug-68", code=1).stderr
    assert "above 0 and at most 1" in cli(*train, "ibug-68", "--incomplete", "--label-share", "1.5", code=1).stderr


def test_hidden_labels_leave_no_box() -> None:
    faces = [
        FaceSample(Path(f"{i}.png"), np.array([0, 0, 9, 9], np.float32), np.ones((3, 2), np.float32)) for i in range(10)
    ]
    lists = hide_labels(TrainingLists(faces, [], []), 0.3, seed=1)
    assert len(lists.labelled) == 3
    assert all(s.box is not None for s in lists.labelled)
    assert [s.box for s in lists.unlabelled] == [None] * 7
    assert {s.image for s in [*lists.labelled, *lists.unlabelled]} == {s.image for s in faces}
    again = hide_labels(TrainingLists(faces, [], []), 0.3, seed=1)
    assert [s.image for s in again.labelled] == [s.image for s in lists.labelled]


def test_every_protocol_is_of_a_packaged_scheme() -> None:
    assert {p.scheme for p in PROTOCOLS.values()} <= set(scheme_names())
    with pytest.raises(InputError, match="300vw"):
        find_protocol("300")
