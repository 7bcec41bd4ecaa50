"""Faults in the middle of a training: what was done is kept, and the run ends with the weights of one that nothing befell."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewmark import TrainingData, train
from fewmark.core.errors import InputError
from fewmark.data.images import write_image
from fewmark.training.config import load_config
from fewmark.training.events import Event

N_KILLS = 20


def command(synthetic: Path, recipe: Path, out: Path) -> list[str]:
    """A run in a process of its own."""
    words = ["train", synthetic, "--labelled", synthetic / "few.txt", "--unlabelled", synthetic / "many.txt"]
    words += ["--val", synthetic / "val.txt", "--scheme", "ibug-68", "--recipe", recipe, "--out", out]
    return [sys.executable, "-m", "fewmark", *map(str, words)]


@pytest.fixture
def stopped(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that was stopped just before its model was written."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    (folder / "detector.safetensors").unlink()
    return folder


def go_on(folder: Path, data: TrainingData, recipe: Path) -> list[str]:
    """Resume a run; its notes."""
    events: list[Event] = []
    train(load_config(recipe), data, folder, resume=True, on_event=events.append)
    return [str(e["text"]) for e in events if e["kind"] == "note"]


def test_cut_files_are_made_again(stopped: Path, tiny_run: Path, tiny_data: TrainingData, tiny_recipe: Path) -> None:
    files = sorted(p for p in (stopped / "state").iterdir() if p.is_file())
    assert {".safetensors", ".json", ".npy"} <= {p.suffix for p in files}
    teacher = (stopped / "state" / "teacher.safetensors").read_bytes()
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        (stopped / "detector.safetensors").unlink(missing_ok=True)
        notes = go_on(stopped, tiny_data, tiny_recipe)
        assert any(path.name in n and "made again" in n for n in notes), path.name
        assert path.read_bytes() == whole, path.name
        assert (stopped / "state" / "teacher.safetensors").read_bytes() == teacher, path.name
        assert path.with_name(f"{path.name}.damaged").read_bytes() == whole[: len(whole) // 2]
        path.with_name(f"{path.name}.damaged").unlink()
    model = (stopped / "detector.safetensors").read_bytes()
    assert model == (tiny_run / "detector.safetensors").read_bytes()


def test_a_cut_state_begins_its_training_anew(
    stopped: Path, tiny_run: Path, tiny_data: TrainingData, tiny_recipe: Path
) -> None:
    for path in (stopped / "state").glob("round1_*"):
        path.unlink()
    (stopped / "state" / "round0_unet.safetensors").unlink(missing_ok=True)
    names = [p.stem for p in (tiny_run / "state").glob("round1_*.safetensors")]
    (stopped / "state" / f"{names[0]}.state").write_bytes(b"PK\x03\x04 half of a state")
    assert any(".state was damaged" in n for n in go_on(stopped, tiny_data, tiny_recipe))
    assert (stopped / "detector.safetensors").read_bytes() == (tiny_run / "detector.safetensors").read_bytes()


def test_torn_lines_of_the_logs(stopped: Path, tiny_run: Path, tiny_data: TrainingData, tiny_recipe: Path) -> None:
    for name in ("metrics.jsonl", "rounds.jsonl"):
        text = (stopped / name).read_text(encoding="utf-8")
        (stopped / name).write_text(text[: len(text) - 40], encoding="utf-8")
    (stopped / "state" / "round1_unet.safetensors").unlink(missing_ok=True)
    go_on(stopped, tiny_data, tiny_recipe)
    for name in ("metrics.jsonl", "rounds.jsonl"):
        for line in (stopped / name).read_text(encoding="utf-8").splitlines():
            assert isinstance(json.loads(line), dict)
    rounds = [json.loads(line) for line in (stopped / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    whole = [json.loads(line) for line in (tiny_run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(r["round"], r["student"]) for r in rounds] == [(r["round"], r["student"]) for r in whole]


def test_two_runs_in_one_folder(tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom fewmark.training.folder_lock import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n    print('in', flush=True)\n    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="another process trains in this folder"):
            train(load_config(tiny_recipe), tiny_data, folder)
    finally:
        other.kill()
        other.communicate()
    train(load_config(tiny_recipe, ["semi.rounds=0"]), tiny_data, folder)  # a killed process leaves it open
    assert (folder / "detector.safetensors").is_file()


def test_a_run_that_is_refused_leaves_no_folder(tiny_data: TrainingData, tiny_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to go on with"):
        train(load_config(tiny_recipe), tiny_data, tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_an_image_or_a_mirror_that_has_changed(
    tiny_data: TrainingData, tiny_recipe: Path, synthetic: Path, tmp_path: Path
) -> None:
    image = tmp_path / "other.jpg"
    shutil.copy(tiny_data.labelled[0].image, image)
    mine = replace(tiny_data, labelled=[replace(tiny_data.labelled[0], image=image), *tiny_data.labelled[1:]])
    folder, recipe = tmp_path / "run", load_config(tiny_recipe, ["semi.rounds=0"])
    train(recipe, mine, folder)
    write_image(image, np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match=r"other\.jpg: has changed since the run was started"):
        train(recipe, mine, folder, resume=True)
    shutil.copy(tiny_data.labelled[0].image, image)
    train(recipe, mine, folder, resume=True)
    unmirrored = replace(mine, scheme=replace(mine.scheme, mirror=None))
    with pytest.raises(InputError, match="scheme ibug-68: has changed"):
        train(recipe, unmirrored, folder, resume=True)
    image.unlink()
    with pytest.raises(InputError, match=r"other\.jpg: cannot be read"):
        train(recipe, mine, folder, resume=True)


def test_a_full_disk(synthetic: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    """No file may be larger than 30,000 bytes, as if no more room were left."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    words = command(synthetic, tiny_recipe, tmp_path / "run")
    done = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit, timeout=240)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot be written (File too large)" in last
    assert not [p for p in (tmp_path / "run").rglob("*") if p.name.startswith(".")]
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "detector.safetensors").is_file()


def test_killed_at_twenty_moments(synthetic: Path, tiny_recipe: Path, tmp_path: Path, tiny_run: Path) -> None:
    rng, folder = random.Random(0), tmp_path / "run"
    words = command(synthetic, tiny_recipe, folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    for _ in range(N_KILLS):
        go = [*words, "--resume"] if (folder / "config.toml").is_file() else words
        process = subprocess.Popen(go, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        began = set(folder.rglob("*")) if folder.is_dir() else set()
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:  # until it writes, and a moment more
            if folder.is_dir() and set(folder.rglob("*")) - began:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills > N_KILLS // 4
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    never = tmp_path / "never"
    subprocess.run(
        command(synthetic, tiny_recipe, never), check=True, capture_output=True, env=environment, timeout=240
    )
    killed, whole = ((f / "detector.safetensors").read_bytes() for f in (folder, never))
    assert killed == whole
