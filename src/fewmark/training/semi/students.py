"""Students: network, codec, loss and schedule as a plan; their training sets, and their training on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.batches import Batch, Batches, face_rows
from fewmark.data.crops import CachedFace
from fewmark.landmarks.scheme import LandmarkScheme
from fewmark.models.build import build_model
from fewmark.models.codec import HeatmapCodec
from fewmark.models.ensemble import to_tensor
from fewmark.models.losses import heatmap_loss, integral_loss
from fewmark.models.mobilenet_v2 import MobileNetV2
from fewmark.training.device_batches import DeviceBatches, DeviceCrops
from fewmark.training.events import Validation
from fewmark.training.fit import Epoch, cosine, make_adamw, milestones
from fewmark.training.runner import RunContext, Training, run_training
from fewmark.training.semi.pseudo_labels import PseudoLabels, mean_errors, write_pseudo_labels

N_VALIDATIONS = 5
"""Validations during a training, the one after its last epoch among them."""


@dataclass(frozen=True)
class StudentPlan:
    """A student: its network and its training.

    Attributes:
        name: Name in logs and in the model file.
        architecture: A network of `fewmark.models.build`.
        codec: Its heatmaps.
        arguments: Arguments of the network's constructor except n_maps.
        weights: Initial weights: "random", or "imagenet" for the encoder of mobilenet_v2.
        loss: "sum" or "mean" (Eq. 2 as the authors' CPM and hourglass scale it) or "integral" (L1 of the map's mean).
        optimizer: "sgd" (momentum 0.9, the authors' factors for biases and stages), "rmsprop" (alpha 0.99) or "adamw".
        learning_rate: Highest learning rate.
        weight_decay: Weight decay; none on biases and norms for sgd and adamw.
        n_epochs: Epochs per training.
        n_batches: Batches per epoch, or None: one pass over the training set.
        batch_size: Batch size over all processes.
        milestones: Epochs at which the rate is multiplied by `decay`; none for a cosine.
        decay: See `milestones`.
        clip_norm: Largest norm of the gradient; 0 disables clipping.
        map_weight: Weight of the map's term in the integral loss.

    Raises:
        InputError: The codec does not fit the loss, or the network has no such weights.
    """

    name: str
    architecture: str
    codec: HeatmapCodec
    arguments: Mapping[str, Any] = field(default_factory=dict)
    weights: Literal["random", "imagenet"] = "random"
    loss: Literal["sum", "mean", "integral"] = "integral"
    optimizer: Literal["sgd", "rmsprop", "adamw"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    n_epochs: int = 10
    n_batches: int | None = None
    batch_size: int = 16
    milestones: Sequence[int] = ()
    decay: float = 0.5
    clip_norm: float = 0.0
    map_weight: float = 1.0

    def __post_init__(self) -> None:
        if (self.loss == "integral") != self.codec.logits:
            raise InputError(
                f"student {self.name}: loss {self.loss!r} does not fit codec.logits={self.codec.logits}; "
                'expected "integral" with logits, "sum" or "mean" without'
            )
        if self.weights == "imagenet" and self.architecture != "mobilenet_v2":
            raise InputError(
                f'student {self.name}: weights: expected "random" for {self.architecture}, given "imagenet"; '
                "only mobilenet_v2 has ImageNet's"
            )

    def build(self, n_landmarks: int, seed: int) -> nn.Module:
        """The network with its initial weights, a function of the seed; channels last in memory.

        Raises:
            InputError: The constructor refuses the arguments, the codec has another stride than the network, or ImageNet's weights are
                not installed.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = build_model(self.architecture, n_maps=self.codec.n_maps(n_landmarks), **self.arguments)
        if module.stride != self.codec.stride:
            raise InputError(
                f"student {self.name}: codec.stride: expected the network's, {module.stride}, given {self.codec.stride}"
            )
        if isinstance(module, MobileNetV2) and self.weights == "imagenet":
            module.load_imagenet()
        return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def make_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over a network's parameters."""
        if self.optimizer == "rmsprop":
            return torch.optim.RMSprop(
                module.parameters(), lr=self.learning_rate, alpha=0.99, weight_decay=self.weight_decay
            )
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                _sgd_groups(module, self.learning_rate, self.weight_decay),
                lr=self.learning_rate,
                momentum=0.9,
                nesterov=True,
            )
        return make_adamw(module, self.learning_rate, self.weight_decay)

    def rate(self) -> Callable[[float], float]:
        """The learning rate's factor over progress in [0, 1]."""
        return milestones(self.milestones, self.n_epochs, self.decay) if self.milestones else cosine()

    def compute_loss(self, outputs: Sequence[Tensor], landmarks: Tensor, weights: Tensor, size: int) -> Tensor:
        """The training loss of a batch; landmarks (B, K, 2) crop px, weights (B, K). Source: TS3, Eq. 2."""
        if self.loss == "integral":
            return integral_loss(
                outputs,
                landmarks,
                self.codec,
                (size, size),
                map_weight=self.map_weight,
                landmark_weights=weights,
            )
        heatmaps, present = self.codec.encode(landmarks, (size, size))
        given = weights[..., None, None]
        if self.codec.background:
            given = torch.cat([given, given.amax(1, keepdim=True)], 1)
        return heatmap_loss(outputs, heatmaps, present * given, reduction=self.loss)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Faces with labels or pseudo labels.

    Attributes:
        faces: N cached faces.
        landmarks: (N, K, 2) px of the upright crops.
        weights: (N, K) weights in the loss.
        shares: (N,) relative frequencies of the faces in training, or None: equal ones.
    """

    faces: Sequence[CachedFace]
    landmarks: NDArray[np.float32]
    weights: NDArray[np.float32]
    shares: NDArray[np.float64] | None = None


def labels_only(labelled: Sequence[CachedFace]) -> TrainingSet:
    """L alone, every label with weight 1."""
    landmarks = np.stack([f.landmarks for f in labelled])
    return TrainingSet(labelled, landmarks, np.ones(landmarks.shape[:2], np.float32))


def with_pseudo_labels(
    labelled: Sequence[CachedFace],
    selected: Sequence[CachedFace],
    landmarks: NDArray[np.float32],
    weights: NDArray[np.float32],
    *,
    labelled_share: float = 0.0,
) -> TrainingSet:
    """L and the selected faces of U, the labels of L with weight 1.

    Args:
        labelled: N labelled faces.
        selected: M unlabelled faces.
        landmarks: (M, K, 2) their pseudo labels, px of the upright crops.
        weights: (M, K) their weights in the loss.
        labelled_share: See `labelled_shares`.

    Source: TS3, Algorithm 1, lines 11 and 16.
    """
    base = labels_only(labelled)
    return TrainingSet(
        [*labelled, *selected],
        np.concatenate([base.landmarks, landmarks]),
        np.concatenate([base.weights, weights]),
        labelled_shares(len(labelled), len(selected), labelled_share),
    )


def labelled_shares(n_labelled: int, n_pseudo: int, labelled_share: float) -> NDArray[np.float64] | None:
    """(N + M,) relative frequencies that give N labelled faces a least share among them and M pseudo-labelled ones.

    Args:
        n_labelled: N.
        n_pseudo: M.
        labelled_share: Least share of the labelled faces; 0 leaves their proportion as it is.

    Returns:
        None where their proportion is as large by itself, or there is no labelled face.
    """
    n, m = n_labelled, n_pseudo
    if not n or labelled_share <= n / max(1, n + m):
        return None
    return np.concatenate([np.full(n, labelled_share / n), np.full(m, (1 - labelled_share) / max(1, m))])


@dataclass(eq=False)
class StudentTrainer:
    """Trains the students of a run, each called by its index, and predicts by them.

    Attributes:
        plans: The students.
        scheme: Scheme of the landmarks.
        size: Side of the crops, px.
        augment: Ranges of the augmentation.
        context: What all trainings share.
        validation: Faces to measure the students on, or None.
        initial_weights: State dict from which each student begins; empty, or an empty dict for one student: random weights.
    """

    plans: Sequence[StudentPlan]
    scheme: LandmarkScheme
    size: int
    augment: AugmentRule
    context: RunContext
    validation: Validation | None = None
    initial_weights: Sequence[Mapping[str, Tensor]] = ()

    def new_student(self, student: int, seed: int) -> nn.Module:
        """A network before it has seen a label: with random weights, or with its initial ones."""
        module = self.plans[student].build(self.scheme.n_landmarks, seed)
        if self.initial_weights and self.initial_weights[student]:
            module.load_state_dict(self.initial_weights[student])
        return module

    def train_before(self, kind: Literal["synthetic", "converted"], faces: Sequence[CachedFace], length: float) -> None:
        """Train every student on faces that no person labelled; these weights are its initial ones from now on.

        Args:
            kind: "synthetic" for rendered faces, "converted" for faces with converted landmarks of another model.
            faces: The faces.
            length: Factor on each student's number of epochs.
        """
        trained = []
        for j, plan in enumerate(self.plans):
            module = self.new_student(j, self.context.derive_seed(f"{kind} weights", 0, j))
            seed = self.context.derive_seed(f"{kind} training", 0, j)
            labels = {"round": 0, kind: True}
            self.train(f"{kind}_{plan.name}", j, module, labels_only(faces), seed, labels, length=length)
            trained.append({key: value.clone() for key, value in module.state_dict().items()})
        self.initial_weights = trained

    def train(
        self,
        name: str,
        student: int,
        module: nn.Module,
        data: TrainingSet,
        seed: int,
        labels: Mapping[str, object],
        *,
        length: float = 1.0,
    ) -> None:
        """Train a student in place, or load its weights if this training has ended.

        Args:
            name: Name of the training in files and events.
            student: Index of the student.
            module: Its network.
            data: L, or L and pseudo labels.
            seed: Seed of shuffling, augmentation and dropout.
            labels: Further entries of the training's events, such as the round.
            length: Factor on the student's number of epochs.

        Source: TS3, Algorithm 1, lines 5, 11 and 16.
        """
        plan, fabric = self.plans[student], self.context.fabric
        batches = self.batches(plan, data, seed)

        def to_tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
            assert batch.weights is not None
            landmarks, weights = (torch.from_numpy(a).to(fabric.device) for a in (batch.targets, batch.weights))
            return to_tensor(batch.images, fabric.device), landmarks, weights

        def step(network: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
            images, landmarks, weights = batch
            return plan.compute_loss(network(images), landmarks, weights, self.size)

        training = Training(
            name,
            {"student": plan.name, **labels},
            step,
            batches,
            plan.make_optimizer,
            n_epochs=max(1, round(plan.n_epochs * length)),
            learning_rate=plan.rate(),
            seed=seed,
            clip_norm=plan.clip_norm,
            to_tensors=to_tensors,
            validate=lambda network, epoch: self.validate([network], [student], epoch),
        )
        run_training(self.context, training, module)

    def batches(
        self,
        plan: StudentPlan,
        data: TrainingSet,
        seed: int,
        *,
        batch_size: int | None = None,
        n_batches: int | None = None,
    ) -> Batches:
        """Batches of a training set, of the plan's size and number if none are given; where the students are on a GPU, made there."""
        fabric = self.context.fabric
        rows = face_rows(
            data.faces, self.size, self.scheme, self.augment, landmarks=data.landmarks, weights=data.weights
        )
        shared: dict[str, Any] = {
            "n_faces": len(data.faces),
            "make_row": rows,
            "batch_size": batch_size or plan.batch_size,
            "seed": seed,
            "shares": data.shares,
            "n_batches": n_batches or plan.n_batches,
            "rank": fabric.global_rank,
            "world_size": fabric.world_size,
        }
        if fabric.device.type == "cpu":
            return Batches(**shared)
        crops = DeviceCrops(data.faces, self.size, self.scheme, self.augment, fabric.device)
        return DeviceBatches(**shared, crops=crops, landmarks=data.landmarks, weights=data.weights)

    def predict(
        self,
        modules: Sequence[nn.Module],
        students: Sequence[int],
        faces: Sequence[CachedFace],
        n_views: int = 1,
        teacher: nn.Module | None = None,
    ) -> PseudoLabels:
        """Pseudo labels by some of the students, given as one network and one index each."""
        for module in modules:
            module.eval()
        return write_pseudo_labels(
            modules,
            [self.plans[j].codec for j in students],
            faces,
            size=self.size,
            mirror=self.scheme.mirror,
            n_views=n_views,
            seed=self.context.seed,
            teacher=teacher,
            device=self.context.fabric.device,
        )

    def nme(self, modules: Sequence[nn.Module], students: Sequence[int]) -> float | None:
        """Validation NME of some students together from one view, a fraction; None where nothing is held out."""
        if self.validation is None:
            return None
        truth = np.stack([f.landmarks for f in self.validation.faces])
        found = self.predict(modules, students, self.validation.faces).landmarks
        return float(np.nanmean(mean_errors(found, truth) / self.validation.lengths))

    def validate(self, modules: Sequence[nn.Module], students: Sequence[int], epoch: Epoch) -> float | None:
        """Validation NME of networks in training together, after some of the epochs; None after the others."""
        every = max(1, epoch.n_epochs // N_VALIDATIONS)
        if epoch.index + 1 < epoch.n_epochs and (epoch.index + 1) % every:
            return None
        training = [m.training for m in modules]
        nme = self.nme(modules, students)
        for module, was in zip(modules, training, strict=True):
            module.train(was)
        return nme


def _sgd_groups(module: nn.Module, rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """The authors' groups: biases at twice the rate, without decay; all after the trunk at four times.

    Source: Reproduction of the authors' published training configuration for CPM.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        factor = (2.0 if parameter.ndim == 1 else 1.0) * (1.0 if name.startswith("trunk") else 4.0)
        groups.setdefault((factor, 0.0 if parameter.ndim == 1 else weight_decay), []).append(parameter)
    return [{"params": p, "lr": rate * factor, "weight_decay": wd} for (factor, wd), p in groups.items()]
