"""TS3's loop: Algorithm 1, with any number of students, any selection, and resumable at every training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewmark.atomic import atomic_path, write_text
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace
from fewmark.errors import InputError
from fewmark.fitting import Epoch
from fewmark.metrics import spearman
from fewmark.scheme import LandmarkScheme
from fewmark.semi.pseudo import PseudoLabels, write_pseudo_labels
from fewmark.semi.selection import SelectionRule, quota
from fewmark.semi.students import StudentPlan, TrainingSet, train_student
from fewmark.semi.teaching import (
    JudgedPredictions,
    TeacherPlan,
    join_judged,
    judge_predictions,
    train_teacher,
)

Event = dict[str, Any]

TEACHER_FLIP = 0.5
"""Flips of the faces that the teacher learns from, whatever the students' are. Source: TS3, section 4.2."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Labelled faces that are held out.

    Attributes:
        faces: cached, with their true landmarks.
        lengths: (V,) px of the upright crops that errors are divided by.
    """

    faces: Sequence[CachedFace]
    lengths: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Round:
    """The students after a round; round 0 is the initial training on L.

    Attributes:
        index: i of Algorithm 1.
        students: their networks, in order.
        teacher: the last one trained, or None.
        selected: for each student the indices of U that it was trained on, best first.
        records: one a student, as in rounds.jsonl.
    """

    index: int
    students: list[nn.Module]
    teacher: nn.Module | None
    selected: list[NDArray[np.int64]]
    records: list[Event]


@dataclass(frozen=True)
class Loop:
    """The settings of Algorithm 1 and the choices that it leaves open.

    Attributes:
        n_rounds: S.
        ratio: r.
        restart: students are retrained from scratch (the paper), or go on from their weights.
        n_views: views that a pseudo label is averaged over, see `write_pseudo_labels`.
        labelled_share: least share of the human labels among the faces drawn; 0 = as they come (the paper).
        pseudo_weight: of pseudo labels in the loss.
        n_folds: for the out-of-fold teacher.
        fold_length: length of a fold's training relative to a student's.
        first_length: length of the initial training relative to a round's.
        drawn_length: length of the training on drawn faces, where there are any, relative to a round's.
    """

    n_rounds: int = 6
    ratio: float = 0.1
    restart: bool = True
    n_views: int = 1
    labelled_share: float = 0.0
    pseudo_weight: float = 1.0
    n_folds: int = 2
    fold_length: float = 0.5
    first_length: float = 1.0
    drawn_length: float = 1.0


class _Run:
    """What stays the same over the rounds, and where the state is kept."""

    def __init__(
        self,
        plans: Sequence[StudentPlan],
        scheme: LandmarkScheme,
        size: int,
        augment: AugmentRule,
        fabric: Fabric,
        seed: int,
        folder: Path | None,
        n_threads: int,
        on_event: Callable[[Event], None],
        validation: Validation | None,
    ) -> None:
        self.plans, self.scheme, self.size, self.augment = plans, scheme, size, augment
        self.fabric, self.seed, self.folder, self.n_threads = fabric, seed, folder, n_threads
        self.on_event, self.validation = on_event, validation

    def file(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name

    def load(self, name: str, module: nn.Module) -> bool:
        """Weights of a training that has ended, if there are any."""
        path = self.file(f"{name}.safetensors")
        if path is None or not path.is_file():
            return False
        module.load_state_dict(load_file(path))
        module.eval()
        return True

    def save(self, name: str, module: nn.Module) -> None:
        path = self.file(f"{name}.safetensors")
        if path is not None and self.fabric.is_global_zero:
            with atomic_path(path) as temporary:
                save_file({k: v.contiguous() for k, v in module.state_dict().items()}, temporary)
            state = self.file(f"{name}.state")
            if state is not None:
                state.unlink(missing_ok=True)
        self.fabric.barrier()

    def seed_of(self, *place: int) -> int:
        return int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])

    def train(
        self,
        name: str,
        index: int,
        module: nn.Module,
        data: TrainingSet,
        seed: int,
        length: float,
        about: Event,
    ) -> None:
        """Train, or take the weights of the training that has ended already."""
        if self.load(name, module):
            return
        plan = self.plans[index]
        self.on_event({"kind": "training", "name": name, "student": plan.name, "n_faces": len(data.faces), **about})

        def tell(epoch: Epoch) -> None:
            event: Event = {
                "kind": "epoch",
                "name": name,
                "student": plan.name,
                "epoch": epoch.index + 1,
                "n_epochs": epoch.n_epochs,
                "loss": epoch.loss,
                "seconds": epoch.seconds,
                **about,
            }
            every = max(1, epoch.n_epochs // 5)
            last = epoch.index + 1 == epoch.n_epochs
            if self.validation is not None and (last or (epoch.index + 1) % every == 0):
                event["val_nme"] = self.nme([module], [index])
                module.train()
            self.on_event(event)

        train_student(
            plan,
            module,
            data,
            scheme=self.scheme,
            size=self.size,
            augment=self.augment,
            fabric=self.fabric,
            seed=seed,
            length=length,
            state_path=self.file(f"{name}.state"),
            on_epoch=tell,
            n_threads=self.n_threads,
        )
        self.save(name, module)

    def predict(
        self,
        modules: Sequence[nn.Module],
        indices: Sequence[int],
        faces: Sequence[CachedFace],
        n_views: int = 1,
        teacher: nn.Module | None = None,
    ) -> PseudoLabels:
        for module in modules:
            module.eval()
        return write_pseudo_labels(
            modules,
            [self.plans[i].codec for i in indices],
            faces,
            size=self.size,
            mirror=self.scheme.mirror,
            n_views=n_views,
            seed=self.seed,
            teacher=teacher,
            device=self.fabric.device,
        )

    def nme(self, modules: Sequence[nn.Module], indices: Sequence[int]) -> float:
        """Validation NME, a fraction, of one view."""
        if self.validation is None:
            return float("nan")
        truth = np.stack([f.landmarks for f in self.validation.faces])
        found = self.predict(modules, indices, self.validation.faces).landmarks
        errors = _mean_errors(found, truth)
        return float(np.nanmean(errors / self.validation.lengths))


def run_rounds(
    plans: Sequence[StudentPlan],
    teacher: TeacherPlan,
    labelled: Sequence[CachedFace],
    unlabelled: Sequence[CachedFace],
    *,
    scheme: LandmarkScheme,
    size: int,
    augment: AugmentRule,
    rule: SelectionRule,
    loop: Loop,
    fabric: Fabric,
    seed: int,
    drawn: Sequence[CachedFace] = (),
    folder: Path | None = None,
    validation: Validation | None = None,
    truth: NDArray[np.float32] | None = None,
    n_threads: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Iterator[Round]:
    """Train students on L and, round by round, on the best pseudo labels of U.

    Yields round 0 (trained on L) and then each round, after all its students were updated in turn. All
    randomness follows from `seed`; with a `folder`, a run that was killed goes on at the epoch where it was
    saved and ends with the same weights.

    Args:
        plans: the students; two unlike ones are the paper's.
        teacher: how the teacher is trained; not used by a rule that needs none.
        labelled: L.
        unlabelled: U; their landmarks are not looked at.
        size: crop px.
        rule: which pseudo labels are taken.
        drawn: faces on which every student is trained first; its "scratch" is then what it learned from them,
            as the paper's CPM starts from ImageNet's weights. None = random weights.
        folder: where weights and states are kept, or None.
        validation: measured after every training; trains nothing unless `teacher.source` is "validation".
        truth: (U, K, 2) true landmarks of U, px of the upright crops, NaN where unknown: for the oracle and
            for reports.
        on_event: told of trainings, epochs, teachers and rounds, as plain dicts.

    Raises:
        InputError: no labels; no unlabelled faces for a round; the oracle without truth; the teacher's
            source without faces.

    Source: TS3, Algorithm 1.
    """
    if not labelled:
        raise InputError("training: the labelled list is empty; at least one labelled face is needed")
    if loop.n_rounds and not unlabelled:
        raise InputError("training: there are no unlabelled faces for the rounds; give some, or set semi.rounds=0")
    if rule.name == "oracle" and (truth is None or np.isnan(truth).all()):
        raise InputError("selection oracle: expected true landmarks of the unlabelled faces, given none")
    if rule.needs_teacher and teacher.source == "validation" and validation is None:
        raise InputError("teacher.source validation: expected a validation list, given none; use out-of-fold")
    if rule.needs_teacher and teacher.source == "out-of-fold" and len(labelled) < 2 * loop.n_folds:
        raise InputError(
            f"teacher.source out-of-fold: {loop.n_folds} folds need {2 * loop.n_folds} labelled faces, "
            f"given {len(labelled)}"
        )
    k = scheme.n_landmarks
    run = _Run(plans, scheme, size, augment, fabric, seed, folder, n_threads, on_event, validation)
    everyone = list(range(len(plans)))
    starts = _train_starts(run, drawn, loop.drawn_length) if drawn else []

    def fresh(j: int, *place: int) -> nn.Module:
        """A student's network before it has seen a label: random weights, or those learned on drawn faces."""
        module = plans[j].build(k, run.seed_of(*place))
        if starts:
            module.load_state_dict(starts[j])
        return module

    modules = [fresh(j, 0, j) for j in everyone]
    base = _labels_only(labelled)
    for j in everyone:
        run.train(
            f"round0_{plans[j].name}",
            j,
            modules[j],
            base,
            run.seed_of(0, j, 1),
            loop.first_length,
            {"round": 0},
        )
    selected: list[NDArray[np.int64]] = [np.zeros(0, np.int64) for _ in plans]
    records = [_scores(run, modules, j, 0) for j in everyone]
    on_event({"kind": "round", "round": 0, "records": records})
    judge: nn.Module | None = None
    yield Round(0, list(modules), judge, [s.copy() for s in selected], records)

    folds = (
        _train_folds(run, labelled, loop, fresh)
        if rule.needs_teacher and teacher.source == "out-of-fold" and loop.n_rounds
        else []
    )
    chosen = np.zeros((len(plans), len(unlabelled)), bool)
    for i in range(1, loop.n_rounds + 1):
        records = []
        for j in everyone:
            name = f"round{i}_{plans[j].name}"
            saved = fabric.broadcast(_read_choice(run.file(f"{name}.json")))
            if saved is None:
                if rule.needs_teacher:
                    judged = _judged(run, modules, labelled, folds, teacher, run.seed_of(i, j, 2))
                    judge, state = train_teacher(
                        teacher, judged, scheme=scheme, fabric=fabric, seed=run.seed_of(i, j, 3)
                    )
                    on_event({"kind": "teacher", "round": i, "student": plans[j].name, "loss": state.losses[-1]})
                    run.save("teacher", judge)
                who = [j] if rule.own_labels else everyone
                pseudo = run.predict([modules[w] for w in who], who, unlabelled, loop.n_views, judge)
                place = 0 if rule.own_labels else j
                error = None
                if truth is not None:
                    error = _mean_errors(pseudo.landmarks, truth)
                memory = chosen[[j]] if rule.own_labels else chosen
                pseudo = pseudo.seen_by(place, chosen=memory, true_error=error)
                taken = rule.select(pseudo, quota(i, loop.ratio, len(unlabelled)))
                saved = fabric.broadcast((_choice(pseudo, taken, rule), pseudo.landmarks[taken]))
                if fabric.is_global_zero:
                    _write_choice(run.file(f"{name}.json"), *saved)
            choice, landmarks = saved
            taken = np.asarray(choice["selected"], np.int64)
            chosen[j] = False
            chosen[j, taken] = True
            selected[j] = taken
            data = _training_set(labelled, [unlabelled[u] for u in taken], landmarks, loop)
            if loop.restart:
                modules[j] = fresh(j, i, j)
            about = {"round": i, "n_pseudo": len(taken)}
            run.train(name, j, modules[j], data, run.seed_of(i, j, 1), 1.0, about)
            records.append({**_scores(run, modules, j, i), **choice})
        on_event({"kind": "round", "round": i, "records": records})
        if judge is None and rule.needs_teacher:
            judge = teacher.build(scheme, 0)
            run.load("teacher", judge)
        yield Round(i, list(modules), judge, [s.copy() for s in selected], records)


def _mean_errors(found: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) mean distance over the landmarks whose truth is known, crop px; NaN where none is."""
    errors = np.linalg.norm(found - truth, axis=2)
    known = np.isfinite(errors)
    total, n = np.where(known, errors, 0).sum(1), known.sum(1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32)


def _labels_only(labelled: Sequence[CachedFace]) -> TrainingSet:
    landmarks = np.stack([f.landmarks for f in labelled])
    return TrainingSet(labelled, landmarks, np.ones(landmarks.shape[:2], np.float32))


def _training_set(
    labelled: Sequence[CachedFace], extra: Sequence[CachedFace], landmarks: NDArray[np.float32], loop: Loop
) -> TrainingSet:
    """L with the selected pseudo labels."""
    base = _labels_only(labelled)
    n, m = len(labelled), len(extra)
    weights = np.concatenate([base.weights, np.full((m, base.weights.shape[1]), loop.pseudo_weight, np.float32)])
    shares = None
    if loop.labelled_share > n / max(1, n + m):
        shares = np.concatenate(
            [np.full(n, loop.labelled_share / n), np.full(m, (1 - loop.labelled_share) / max(1, m))]
        )
    return TrainingSet([*labelled, *extra], np.concatenate([base.landmarks, landmarks]), weights, shares)


def _train_starts(run: _Run, drawn: Sequence[CachedFace], length: float) -> list[dict[str, Tensor]]:
    """The weights of each student after training on drawn faces, from which every later training starts."""
    found = []
    for j, plan in enumerate(run.plans):
        module = plan.build(run.scheme.n_landmarks, run.seed_of(0, j, 8))
        name = f"drawn_{plan.name}"
        run.train(name, j, module, _labels_only(drawn), run.seed_of(0, j, 9), length, {"round": 0, "drawn": True})
        found.append({key: value.clone() for key, value in module.state_dict().items()})
    return found


def _train_folds(
    run: _Run, labelled: Sequence[CachedFace], loop: Loop, fresh: Callable[..., nn.Module]
) -> list[tuple[list[nn.Module], list[CachedFace]]]:
    """Students trained without each fold, and the fold: to them its faces are as new as unlabelled ones."""
    order = np.random.default_rng([run.seed, 5]).permutation(len(labelled))
    found = []
    for f in range(loop.n_folds):
        out = set(order[f :: loop.n_folds].tolist())
        rest = [face for i, face in enumerate(labelled) if i not in out]
        modules = []
        for j, plan in enumerate(run.plans):
            module = fresh(j, 0, j, f, 6)
            about = {"round": 0, "fold": f}
            run.train(
                f"fold{f}_{plan.name}",
                j,
                module,
                _labels_only(rest),
                run.seed_of(0, j, f, 7),
                loop.fold_length,
                about,
            )
            modules.append(module)
        found.append((modules, [labelled[i] for i in sorted(out)]))
    return found


def _judged(
    run: _Run,
    modules: Sequence[nn.Module],
    labelled: Sequence[CachedFace],
    folds: Sequence[tuple[list[nn.Module], list[CachedFace]]],
    plan: TeacherPlan,
    seed: int,
) -> JudgedPredictions:
    codecs = [p.codec for p in run.plans]

    def judged(students: Sequence[nn.Module], faces: Sequence[CachedFace]) -> JudgedPredictions:
        return judge_predictions(
            students,
            codecs,
            faces,
            plan,
            scheme=run.scheme,
            size=run.size,
            augment=replace(run.augment, flip=TEACHER_FLIP),
            seed=seed,
            device=run.fabric.device,
        )

    if plan.source == "validation" and run.validation is not None:
        return judged(modules, run.validation.faces)
    if plan.source == "labelled":
        return judged(modules, labelled)
    return join_judged([judged(m, f) for m, f in folds])


def _scores(run: _Run, modules: Sequence[nn.Module], j: int, index: int) -> Event:
    """Validation NME of the student that was just trained and of all together."""
    record: Event = {"round": index, "student": run.plans[j].name}
    if run.validation is not None:
        record["val_nme"] = run.nme([modules[j]], [j])
        record["ensemble_val_nme"] = run.nme(modules, range(len(modules)))
    return record


def _choice(pseudo: PseudoLabels, taken: NDArray[np.int64], rule: SelectionRule) -> Event:
    """Who was selected, with what score, and how good the scores are where the truth is known."""
    measures = {
        "quality": pseudo.quality,
        "own_loss": -pseudo.own_losses[pseudo.student],
        "peak": pseudo.scores.mean(1),
        "spread": -pseudo.spread.mean(1),
    }
    found: Event = {"selection": rule.name, "n_selected": len(taken), "selected": [int(u) for u in taken]}
    found["quality"] = None if pseudo.quality is None else [round(float(q), 5) for q in pseudo.quality]
    if pseudo.true_error is not None and not np.isnan(pseudo.true_error).all():
        known = ~np.isnan(pseudo.true_error)
        error = pseudo.true_error
        found["true_error"] = [None if np.isnan(e) else round(float(e), 4) for e in error]
        found["true_error_all"] = float(error[known].mean())
        found["true_error_selected"] = float(np.nanmean(error[taken])) if len(taken) else None
        found["rank_correlation"] = {
            name: _rank_correlation(-np.asarray(v)[known], error[known])
            for name, v in measures.items()
            if v is not None
        }
    return found


def _rank_correlation(doubt: NDArray[np.floating], error: NDArray[np.floating]) -> float | None:
    """None where nothing is ranked: fewer than two faces, or equal values."""
    rank = spearman(doubt, error) if len(error) > 1 else float("nan")
    return None if np.isnan(rank) else round(rank, 4)


def _write_choice(path: Path | None, choice: Event, landmarks: NDArray[np.float32]) -> None:
    if path is None:
        return
    with atomic_path(path.with_suffix(".npy")) as temporary, temporary.open("wb") as stream:
        np.save(stream, landmarks)
    write_text(path, json.dumps(choice))


def _read_choice(path: Path | None) -> tuple[Event, NDArray[np.float32]] | None:
    if path is None or not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")), np.load(path.with_suffix(".npy"))
