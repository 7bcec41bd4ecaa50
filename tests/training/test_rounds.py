"""Algorithm 1: its order, its quota, and runs that are stopped and end as if they had not been."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, CropRule, cache_face
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.codec import HeatmapCodec
from fewmark.training import fit as fitting
from fewmark.training.events import Event, Validation
from fewmark.training.runner import RunContext, ignore
from fewmark.training.semi import rounds, students, teacher
from fewmark.training.semi.rounds import Loop, Round, run_rounds
from fewmark.training.semi.selection import SELECTION_NAMES, by_peak_score, lowest, quota, selection_rule
from fewmark.training.semi.students import StudentPlan, StudentTrainer
from fewmark.training.semi.teacher import TeacherPlan

torch.set_num_threads(1)
SIZE = 32
PAIR = LandmarkScheme("pair", ("left", "right"), mirror=(1, 0))
CODEC = HeatmapCodec(4, 3.0, decoding="soft-argmax", logits=True)
NARROW = {"widths": [8, 8, 8, 8, 8], "n_blocks": [1, 1, 1, 1], "decoder": 8, "dropout": 0.1}
SHALLOW = {"width": 0.0625, "batch_norm": True, "stride": 4, "n_stages": 1}
HOURGLASS = {"n_features": 8, "n_stacks": 1, "n_modules": 1, "depth": 2}
A = StudentPlan("a", "compact", CODEC, NARROW, n_epochs=2, n_batches=1, batch_size=4)
B = replace(A, name="b", architecture="convolutional_pose_machine", arguments=SHALLOW)
TEACHER = TeacherPlan(source="labelled", n_copies=2, width=8, n_steps=25, batch_size=2)
LOOP = Loop(n_rounds=2, ratio=0.25, labelled_share=0.3)


def make_faces(n: int, seed: int) -> list[CachedFace]:
    """Noise with two bright dots."""
    faces = []
    for i in range(n):
        rng = np.random.default_rng([seed, i])
        points = np.array([rng.uniform(10, 18, 2), rng.uniform(24, 32, 2)], np.float32)
        image = rng.integers(0, 90, (44, 44, 3)).astype(np.uint8)
        for x, y in points.round().astype(int):
            image[y - 1 : y + 2, x - 1 : x + 2] = 250
        sample = FaceSample(Path(f"{i}.png"), np.array([5, 5, 37, 37], np.float32), points)
        faces.append(cache_face(sample, CropRule(SIZE, 0.0), 2, image))
    return faces


LABELLED, UNLABELLED, HELD_OUT = make_faces(6, 0), make_faces(9, 1), make_faces(4, 2)
TRUTH = np.stack([f.landmarks for f in UNLABELLED])
VALIDATION = Validation(HELD_OUT, np.full(4, 20.0))


def run(name: str = "teacher", **changes: Any) -> list[Round]:
    arguments: dict[str, Any] = {
        "scheme": PAIR,
        "size": SIZE,
        "augment": AugmentRule(),
        "rule": selection_rule(name, seed=1),
        "loop": LOOP,
        "truth": TRUTH,
        **changes,
    }
    fabric = arguments.pop("fabric", None) or Fabric(accelerator="cpu", devices=1)
    arguments["context"] = RunContext(fabric, arguments.pop("folder", None), 5, arguments.pop("on_event", ignore))
    plans, plan = arguments.pop("plans", [A, B]), arguments.pop("teacher", TEACHER)
    labelled = arguments.pop("labelled", LABELLED)
    unlabelled = arguments.pop("unlabelled", UNLABELLED)
    return list(run_rounds(plans, plan, labelled, unlabelled, **arguments))


def state_of(module: nn.Module) -> bytes:
    return b"".join(v.contiguous().numpy().tobytes() for v in module.state_dict().values())


def outcome(found: list[Round]) -> tuple[list[bytes], bytes | None, list[list[int]], str]:
    """All that a run ends with: weights, the teacher's weights, selections, and the records of every round."""
    last = found[-1]
    weights = [state_of(m) for m in last.students]
    teacher_weights = None if last.teacher is None else state_of(last.teacher)
    selected = [s.tolist() for s in last.selected]
    return (
        weights,
        teacher_weights,
        selected,
        json.dumps([[r.to_dict() for r in round_.records] for round_ in found], sort_keys=True),
    )


class Spy:
    """Records who trains and predicts, in order, and with which weights."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, list[bytes], Any]] = []
        homes: dict[str, Any] = {
            "train": StudentTrainer,
            "train_teacher": rounds,
            "score_predictions": teacher,
            "write_pseudo_labels": students,
        }
        inner = {name: getattr(home, name) for name, home in homes.items()}

        def train(
            trainer: StudentTrainer, name: str, j: int, module: nn.Module, data: Any, *rest: Any, **more: Any
        ) -> None:
            before = state_of(module)
            inner["train"](trainer, name, j, module, data, *rest, **more)
            self.log.append((f"train {trainer.plans[j].name}", [before, state_of(module)], data))

        def train_teacher(*args: Any, **rest: Any) -> Any:
            module, state = inner["train_teacher"](*args, **rest)
            self.log.append(("teacher", [state_of(module)], (module, rest["seed"])))
            return module, state

        def score_predictions(networks: Any, codecs: Any, faces: Any, *args: Any, **rest: Any) -> Any:
            self.log.append(("score", [state_of(s) for s in networks], faces))
            return inner["score_predictions"](networks, codecs, faces, *args, **rest)

        def write_pseudo_labels(networks: Any, codecs: Any, faces: Any, **rest: Any) -> Any:
            found = inner["write_pseudo_labels"](networks, codecs, faces, **rest)
            if faces is UNLABELLED:
                self.log.append(("predict", [state_of(s) for s in networks], (found, rest["teacher"])))
            return found

        for function in (train, train_teacher, score_predictions, write_pseudo_labels):
            monkeypatch.setattr(homes[function.__name__], function.__name__, function)

    @property
    def order(self) -> list[str]:
        return [kind for kind, _, _ in self.log]

    def of(self, *kinds: str) -> list[tuple[str, list[bytes], Any]]:
        return [entry for entry in self.log if entry[0].split()[0] in kinds]


def test_the_order_of_algorithm_1(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    found = run("teacher")
    update = ["score", "teacher", "predict"]
    one_round = [*update, "train a", *update, "train b"]
    assert spy.order == ["train a", "train b", *one_round, *one_round]
    # what predicts, on L and on U, are the students as they are at that moment
    now: dict[str, bytes] = {}
    for kind, weights, _ in spy.log:
        if kind.startswith("train"):
            now[kind[-1]] = weights[1]
        elif kind in ("score", "predict"):
            assert weights == [now["a"], now["b"]]
    assert [state_of(m) for m in found[-1].students] == [now["a"], now["b"]]
    # a new teacher every time, and the new one estimates the quality
    teachers = [about for _, _, about in spy.of("teacher")]
    assert len({id(module) for module, _ in teachers}) == len({seed for _, seed in teachers}) == 4
    assert [about[1] for _, _, about in spy.of("predict")] == [module for module, _ in teachers]
    # students start from scratch: as built, never as trained
    starts = [weights[0] for _, weights, _ in spy.of("train")]
    ends = [weights[1] for _, weights, _ in spy.of("train")]
    assert len(set(starts)) == 6
    assert not set(starts) & set(ends)


def test_the_best_of_the_quota_join_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    loop = replace(LOOP, labelled_share=0.0)
    found = run("teacher", loop=loop)
    predictions = [about[0] for _, _, about in spy.of("predict")]
    trainings = [about for _, _, about in spy.of("train")]
    assert all(list(t.faces) == LABELLED for t in trainings[:2])
    for update, (labels, data) in enumerate(zip(predictions, trainings[2:], strict=True)):
        index, student = update // 2 + 1, update % 2
        n = quota(index, 0.25, 9)
        assert n == [2, 4][index - 1]
        selected = lowest(-labels.quality, n)  # this student's own, by the teacher of this moment
        assert found[index].selected[student].tolist() == selected.tolist()
        assert list(data.faces) == [*LABELLED, *(UNLABELLED[u] for u in selected)]
        assert np.array_equal(data.landmarks[6:], labels.landmarks[selected])
        assert np.array_equal(data.landmarks[:6], np.stack([f.landmarks for f in LABELLED]))
        assert data.weights.tolist() == [[1, 1]] * (6 + n)
        assert data.shares is None
        record = found[index].records[student].to_dict()
        assert record["selected"] == selected.tolist()
        assert record["student"] == "ab"[student]
        assert record["round"] == index
        assert record["true_error_all"] == pytest.approx(
            np.linalg.norm(labels.landmarks - TRUTH, axis=2).mean(), rel=1e-4
        )


def test_pseudo_labels_weigh_less_where_students_and_views_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    run("peak", plans=[A], loop=Loop(n_rounds=1, ratio=1.0, n_views=2, pseudo_weight=0.5, weigh_by_spread=True))
    (labels,) = (about[0] for _, _, about in spy.of("predict"))
    data = spy.of("train")[1][2]
    selected = by_peak_score(labels, 9)
    disagreement = labels.disagreement[selected]
    expected = 0.5 / (1 + (disagreement / (2 * np.median(labels.disagreement))) ** 2)
    assert data.weights[:6].tolist() == [[1, 1]] * 6
    assert data.weights[6:] == pytest.approx(expected, rel=1e-5)
    assert disagreement.std() > 0


def test_labels_come_last_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    found = run("peak", loop=replace(LOOP, last_length=0.5))
    trainings = spy.of("train")
    assert [t[0] for t in trainings[-2:]] == ["train a", "train b"]
    for before, after in zip(trainings[-4:-2], trainings[-2:], strict=True):
        assert list(after[2].faces) == LABELLED
        assert before[1][1] == after[1][0]  # they go on from the last round
    assert [r.index for r in found] == [0, 1, 2, 3]
    assert found[-1].records[0].to_dict() == {"round": 3, "student": "a"}


@pytest.mark.parametrize("restart", [True, False])
def test_the_students_of_folds_learn_what_those_of_the_round_learned(
    restart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    loop, plan = replace(LOOP, restart=restart, n_folds=2), replace(TEACHER, source="out-of-fold")
    found = run("teacher", plans=[A], loop=loop, teacher=plan)
    trainings = spy.of("train")
    # round 0, two folds, round 1, two folds, round 2
    assert len(trainings) == 7
    for first, second in zip(trainings[1:3], trainings[4:6], strict=True):
        assert len(first[2].faces) == 3
        assert list(second[2].faces) == [*first[2].faces, *(UNLABELLED[u] for u in found[1].selected[0])]
        assert (first[1][1] == second[1][0]) is not restart


def test_shares_keep_the_labels_from_drowning(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    run("peak", plans=[A], loop=Loop(n_rounds=1, ratio=1.0, labelled_share=0.7))
    shares = spy.of("train")[1][2].shares
    assert shares[:6].sum() == pytest.approx(0.7)
    assert shares.sum() == pytest.approx(1)
    assert len(shares) == 15


def test_no_rounds_is_the_training_on_labels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    found = run("teacher", loop=Loop(n_rounds=0), unlabelled=[], truth=None)
    assert [r.index for r in found] == [0]
    assert spy.order == ["train a", "train b"]
    assert [s.tolist() for s in found[0].selected] == [[], []]
    assert found[0].teacher is None


def test_students_go_on_where_restart_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    run("peak", loop=replace(LOOP, restart=False))
    trainings = spy.of("train")
    for before, after in zip(trainings[:-2], trainings[2:], strict=True):
        assert before[0] == after[0]
        assert before[1][1] == after[1][0]


def test_rounds_keep_their_own_students() -> None:
    found = run("random")
    assert found[0].students[0] is not found[1].students[0]
    assert len({state_of(r.students[1]) for r in found}) == 3


def test_spl_learns_from_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    found = run("spl")
    assert not spy.of("score", "teacher")
    now: dict[str, bytes] = {}
    student = 0
    for kind, weights, about in spy.log:
        if kind.startswith("train"):
            now[kind[-1]] = weights[1]
        else:
            assert weights == [now["ab"[student]]]  # this student, and no other
            labels = about[0]
            assert np.allclose(labels.landmarks, labels.own_landmarks[0])
            student = 1 - student
    alone = run("spl", plans=[A])[-1]
    assert state_of(alone.students[0]) == state_of(found[-1].students[0])
    assert alone.selected[0].tolist() == found[-1].selected[0].tolist()


def test_spaco_remembers_the_others_selections(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray[Any, Any]] = []
    rule = selection_rule("spaco")

    def select(labels: Any, n: int) -> Any:
        seen.append(labels.last_selected.copy())
        return rule.select(labels, n)

    found = run("spaco", rule=replace(rule, select=select))
    assert [m.sum(1).tolist() for m in seen] == [[0, 0], [2, 0], [2, 2], [4, 2]]
    assert np.flatnonzero(seen[1][0]).tolist() == sorted(found[1].selected[0].tolist())
    assert np.flatnonzero(seen[3][1]).tolist() == sorted(found[1].selected[1].tolist())


def test_validation_trains_nothing() -> None:
    with_it, without = run("spread", validation=VALIDATION), run("spread")
    assert [state_of(m) for m in with_it[-1].students] == [state_of(m) for m in without[-1].students]
    for round_ in with_it:
        for record in round_.records:
            assert record.val_nme is not None
            assert record.ensemble_val_nme is not None
            assert 0 < record.val_nme < 2
            assert 0 < record.ensemble_val_nme < 2
    assert "val_nme" not in without[-1].records[0].to_dict()


@pytest.mark.parametrize("source", ["validation", "out-of-fold"])
def test_where_the_teacher_learns(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    run(
        "teacher",
        teacher=replace(TEACHER, source=source),
        plans=[A],
        loop=Loop(n_rounds=1, ratio=0.3),
        validation=VALIDATION,
    )
    faces = [about for _, _, about in spy.of("score")]
    if source == "validation":
        assert faces == [HELD_OUT]
        return
    trainings = spy.of("train")
    assert spy.order == ["train a", "train a", "train a", "score", "score", "teacher", "predict", "train a"]
    for fold, (_, weights, held_out) in enumerate(spy.of("score")):
        trained_on = list(trainings[1 + fold][2].faces)
        assert weights == [trainings[1 + fold][1][1]]  # the student of this fold
        assert not {id(f) for f in trained_on} & {id(f) for f in held_out}
        assert {id(f) for f in [*trained_on, *held_out]} == {id(f) for f in LABELLED}


class KilledError(RuntimeError):
    pass


def kill_when(test: Callable[[Event], bool]) -> Callable[[Event], None]:
    def on_event(event: Event) -> None:
        if test(event):
            raise KilledError

    return on_event


KILLS: dict[str, Callable[[Event], bool]] = {
    "the first training": lambda e: e["kind"] == "epoch" and e["round"] == 0,
    "a training of round 1": lambda e: e["kind"] == "epoch" and (e["round"], e["student"]) == (1, "b"),
    "a teacher of round 2": lambda e: e["kind"] == "teacher" and (e["round"], e["student"]) == (2, "b"),
    "a selection of round 2": lambda e: e["kind"] == "training" and (e["round"], e["student"]) == (2, "a"),
    "the end of round 1": lambda e: e["kind"] == "round" and e["round"] == 1,
}


def settings_of(restart: bool) -> dict[str, Any]:
    return {
        "loop": replace(LOOP, restart=restart, n_views=2),
        "teacher": replace(TEACHER, source="labelled" if restart else "out-of-fold"),
        "validation": None if restart else VALIDATION,
    }


@cache
def uninterrupted(name: str, restart: bool) -> Any:
    return outcome(run(name, **settings_of(restart)))


TOGETHER = {"loop": replace(LOOP, n_rounds=1, mean_teacher_length=1.0, last_length=0.5)}
"""A round, the mean teacher, and a last training on labels."""
CASES = [
    *((name, "a training of round 1", name != "peak") for name in SELECTION_NAMES),
    *(("teacher", kill, kill != "the end of round 1") for kill in KILLS if kill != "a training of round 1"),
    ("spaco", "a selection of round 2", False),
]


@pytest.mark.parametrize(("name", "kill", "restart"), CASES)
def test_a_killed_run_ends_as_if_it_had_not_been(
    name: str, kill: str, restart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", -1.0)
    arguments = settings_of(restart)
    expected = uninterrupted(name, restart)
    arguments["folder"] = tmp_path
    with pytest.raises(KilledError):
        run(name, **arguments, on_event=kill_when(KILLS[kill]))
    done: list[Event] = []
    assert outcome(run(name, **arguments, on_event=done.append)) == expected
    if kill != "the first training":  # what was trained is not trained again
        assert not [e for e in done if e["kind"] == "training" and e["round"] == 0]
    assert not list(tmp_path.glob("*.state"))
    if name != "teacher":
        return
    # and a run that has ended is read, not trained
    again: list[Event] = []
    assert outcome(run(name, **arguments, on_event=again.append)) == expected
    assert {e["kind"] for e in again} == {"round"}


@pytest.mark.parametrize(
    "kill",
    [
        lambda e: e["kind"] == "epoch" and e.get("mean_teacher", False),
        lambda e: e["kind"] == "training" and e.get("last", False),
    ],
    ids=["while the averages teach", "before the last training"],
)
def test_a_killed_mean_teacher_ends_as_if_it_had_not_been(
    kill: Callable[[Event], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "SAVE_EVERY_S", -1.0)
    expected = outcome(run("peak", **TOGETHER))
    with pytest.raises(KilledError):
        run("peak", **TOGETHER, folder=tmp_path, on_event=kill_when(kill))
    done: list[Event] = []
    assert outcome(run("peak", **TOGETHER, folder=tmp_path, on_event=done.append)) == expected
    assert not [e for e in done if e["kind"] == "training" and e["round"] < 2]


def test_a_mean_teacher_comes_after_the_rounds_and_before_the_last_training(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    events: list[Event] = []
    found = run("peak", **TOGETHER, on_event=events.append)
    assert [r.index for r in found] == [0, 1, 2, 3]
    names = [e["name"] for e in events if e["kind"] == "training"]
    assert names == ["round0_a", "round0_b", "round1_a", "round1_b", "mean_teacher", "last_a", "last_b"]
    together = next(e for e in events if e.get("mean_teacher"))
    assert (together["student"], together["n_faces"], together["round"]) == ("a + b", 15, 2)
    # it changes both students, and the last training goes on from there
    for before, after in zip(spy.of("train")[-4:-2], spy.of("train")[-2:], strict=True):
        assert before[1][1] != after[1][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loop": Loop(n_rounds=0, mean_teacher_length=1.0), "unlabelled": [], "truth": None}, "no unlabelled faces"),
        (
            {"loop": TOGETHER["loop"], "plans": [A, replace(B, optimizer="rmsprop")], "name": "peak"},
            "one kind of optimizer",
        ),
        ({"loop": replace(TOGETHER["loop"], labelled_share=0.95), "plans": [A], "name": "peak"}, "cannot be shared"),
        ({"labelled": []}, "labelled list is empty"),
        ({"unlabelled": [], "truth": None}, "no unlabelled faces"),
        ({"name": "oracle", "truth": None}, "oracle"),
        ({"name": "oracle", "truth": TRUTH * np.nan}, "oracle"),
        ({"teacher": replace(TEACHER, source="validation")}, "validation list"),
        ({"teacher": replace(TEACHER, source="out-of-fold"), "labelled": LABELLED[:3]}, "given 3"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        run(**changes)
    assert "\n" not in str(caught.value)


def test_plans_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="stride"):
        replace(A, codec=replace(CODEC, stride=8)).build(2, 0)
    with pytest.raises(InputError, match=r"does not fit codec\.logits=False"):
        replace(A, codec=HeatmapCodec())
    with pytest.raises(InputError, match=r"does not fit codec\.logits=True"):
        replace(A, loss="mean")


def test_truth_of_some_faces_alone() -> None:
    """Faces without truth are reported as unknown, and the oracle selects them last."""
    some = TRUTH.copy()
    some[1:] = np.nan
    found = run("oracle", plans=[A], truth=some)
    record = found[1].records[0].to_dict()
    assert record["selected"][0] == 0
    assert record["true_error"][1:] == [None] * 8
    unknown = run("random", plans=[A], truth=TRUTH * np.nan)
    assert "true_error" not in unknown[1].records[0].to_dict()


@pytest.mark.parametrize(
    ("optimizer", "loss", "codec"),
    [("sgd", "sum", HeatmapCodec(4, 3.0, background=True)), ("rmsprop", "mean", HeatmapCodec(4, 3.0))],
)
def test_the_papers_students(optimizer: str, loss: str, codec: HeatmapCodec) -> None:
    cpm = {**SHALLOW, "n_stages": 2}
    plans = [
        replace(
            A,
            architecture="convolutional_pose_machine",
            arguments=cpm,
            codec=codec,
            loss=loss,
            optimizer=optimizer,
        ),  # type: ignore[arg-type]
        replace(
            B,
            architecture="stacked_hourglass",
            arguments=HOURGLASS,
            codec=replace(codec, background=False),
            loss="mean",
            milestones=(1,),
        ),
    ]
    found = run("teacher", plans=plans, loop=replace(LOOP, n_rounds=1))
    assert [len(s) for s in found[1].selected] == [2, 2]


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_rounds as t
from lightning_fabric import Fabric
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
folder = Path(sys.argv[2])
loop = t.replace(t.LOOP, n_rounds=1, labelled_share=0.5, mean_teacher_length=0.5)
found = t.run("peak", fabric=fabric, folder=folder / "state", loop=loop)
(folder / f"{fabric.global_rank}.bin").write_bytes(b"".join(t.outcome(found)[0]))
(folder / f"{fabric.global_rank}.txt").write_text(t.outcome(found)[3])
"""


def test_two_processes_end_with_one_result(tmp_path: Path) -> None:
    script = tmp_path / "rounds.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *launcher, str(script), str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "0.bin").read_bytes() == (tmp_path / "1.bin").read_bytes()
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text()
    assert sorted(p.name for p in (tmp_path / "state").glob("*.safetensors")) == [
        "mean_teacher.safetensors",
        "round0_a.safetensors",
        "round0_b.safetensors",
        "round1_a.safetensors",
        "round1_b.safetensors",
    ]
