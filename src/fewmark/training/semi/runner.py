"""The trainings of one run: what they share, their seeds, and the files from which a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewmark.core.files import atomic_path
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.training.events import Event, Validation
from fewmark.training.fit import Epoch
from fewmark.training.semi.pseudo_labels import PseudoLabels, mean_errors, write_pseudo_labels
from fewmark.training.semi.students import StudentPlan, train_student
from fewmark.training.semi.training_set import TrainingSet, labels_only


@dataclass(eq=False)
class Trainings:
    """What stays the same over the trainings of a run.

    A training has a name. One that has ended is FOLDER/NAME.safetensors, the one under way NAME.state.

    Attributes:
        plans: the students; the methods call each by its index.
        size: crop px.
        folder: or None: nothing is kept.
        on_event: told of trainings and epochs.
        validation: measured after every training, or None.
        starts: the weights from which each student begins; none, or none of a student = random ones.
    """

    plans: Sequence[StudentPlan]
    scheme: LandmarkScheme
    size: int
    augment: AugmentRule
    fabric: Fabric
    seed: int
    folder: Path | None
    n_threads: int
    on_event: Callable[[Event], None]
    validation: Validation | None
    starts: list[dict[str, Tensor]] = field(default_factory=list)

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
        """Keep the weights of a training that has ended; its state is no longer needed."""
        path, state = self.file(f"{name}.safetensors"), self.file(f"{name}.state")
        if path is not None and state is not None and self.fabric.is_global_zero:
            with atomic_path(path) as temporary:
                save_file({k: v.contiguous() for k, v in module.state_dict().items()}, temporary)
            state.unlink(missing_ok=True)
        self.fabric.barrier()

    def derive_seed(self, *place: int) -> int:
        """The seed of one draw of the run, a function of the run's seed and of its place."""
        return int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])

    def new_student(self, student: int, *place: int) -> nn.Module:
        """A student's network before it has seen a label: random weights, those it is to start from, or those learned on synthetic faces."""
        module = self.plans[student].build(self.scheme.n_landmarks, self.derive_seed(*place))
        if self.starts and self.starts[student]:
            module.load_state_dict(self.starts[student])
        return module

    def train_starts(self, synthetic: Sequence[CachedFace], length: float) -> None:
        """Train every student on synthetic faces; `new_student` gives these weights from now on."""
        found = []
        for j, plan in enumerate(self.plans):
            module = self.new_student(j, 0, j, 8)
            about = {"round": 0, "synthetic": True}
            self.train(
                f"synthetic_{plan.name}", j, module, labels_only(synthetic), self.derive_seed(0, j, 9), length, about
            )
            found.append({key: value.clone() for key, value in module.state_dict().items()})
        self.starts = found

    def train(
        self,
        name: str,
        student: int,
        module: nn.Module,
        data: TrainingSet,
        seed: int,
        length: float,
        about: Event,
    ) -> None:
        """Train in place, or take the weights of the training that has ended already.

        Args:
            length: factor on the student's number of epochs.
            about: what the events of this training say beside name and student.
        """
        if self.load(name, module):
            return
        plan = self.plans[student]
        self.on_event({"kind": "training", "name": name, "student": plan.name, "n_faces": len(data.faces), **about})

        def emit(epoch: Epoch) -> None:
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
                event["val_nme"] = self.nme([module], [student])
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
            on_epoch=emit,
            n_threads=self.n_threads,
        )
        self.save(name, module)

    def predict(
        self,
        modules: Sequence[nn.Module],
        students: Sequence[int],
        faces: Sequence[CachedFace],
        n_views: int = 1,
        teacher: nn.Module | None = None,
    ) -> PseudoLabels:
        """Pseudo labels by some of the students; one network each, in order."""
        for module in modules:
            module.eval()
        return write_pseudo_labels(
            modules,
            [self.plans[j].codec for j in students],
            faces,
            size=self.size,
            mirror=self.scheme.mirror,
            n_views=n_views,
            seed=self.seed,
            teacher=teacher,
            device=self.fabric.device,
        )

    def nme(self, modules: Sequence[nn.Module], students: Sequence[int]) -> float:
        """Validation NME, a fraction, of one view; NaN where nothing is held out."""
        if self.validation is None:
            return float("nan")
        truth = np.stack([f.landmarks for f in self.validation.faces])
        found = self.predict(modules, students, self.validation.faces).landmarks
        return float(np.nanmean(mean_errors(found, truth) / self.validation.lengths))
