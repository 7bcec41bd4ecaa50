"""Another structure than faces: 21 points of drawn hands, by the rounds of TS3 at 128 px with three students (TS3, section 3.4).

    python experiments/drawn_hands.py --out runs/hands --json docs/measured/drawn_hands.json

60 labelled, 240 unlabelled and 100 held-out hands, each in its box. The scheme is a file beside them; nothing in the package knows hands. The
mirror maps every landmark to itself: a flipped left hand is a right hand. The teacher has four layers, whose patches are as wide as the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measurement import make_parser, percent, write_json
from numpy.typing import NDArray

from fewmark import TrainingData, train
from fewmark.core.geometry import box_of_points
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import LandmarkScheme, load_scheme
from fewmark.training.config import load_config
from fewmark.training.events import Event
from fewmark.training.settings import Config

FINGERS = ("thumb", "index", "middle", "ring", "little")
JOINTS = ("base", "lower", "upper", "tip")
ROOTS = np.array([(0.38, -0.25), (0.33, -0.95), (0.1, -1.02), (-0.13, -0.98), (-0.34, -0.86)])
"""Where the fingers of a right hand begin, its palm towards the viewer; the wrist is the origin, the palm's length the unit, y down."""
LENGTHS = np.array([(0.42, 0.34, 0.28), (0.46, 0.28, 0.22), (0.5, 0.32, 0.23), (0.47, 0.29, 0.22), (0.36, 0.21, 0.2)])
SPREAD = np.radians([48, 12, 1, -10, -22])
"""How far each finger points from straight up, to the thumb's side."""
SCHEME = f"""\
name = "hand-21"
landmarks = {["wrist", *(f"{f}_{j}" for f in FINGERS for j in JOINTS)]}
mirror = {list(range(21))}
default_normalizer = "box-size"

[components]
{chr(10).join(f"{f} = {list(range(1 + 4 * i, 5 + 4 * i))}" for i, f in enumerate(FINGERS))}
""".replace("'", '"')
RECIPE = """
base = "laptop"

[students.unet]
n_batches = 50
[students.hourglass]
n_batches = 50
[students.small]
architecture = "compact"
arguments = { widths = [16, 24, 48, 96, 160], n_blocks = [1, 1, 2, 2], decoder = 48 }
map_weight = 3.0
n_batches = 50
n_epochs = 6

[synthetic]
faces = 0

[semi]
selection = "teacher"

[teacher]
layers = 4
"""


@dataclass(frozen=True, eq=False)
class Hand:
    """One drawn hand.

    Attributes:
        image: (size, size, 3) RGB.
        landmarks: (21, 2) image px.
    """

    image: NDArray[np.uint8]
    landmarks: NDArray[np.float32]


def pose_hand(rng: np.random.Generator) -> NDArray[np.float64]:
    """21 joints of a hand with random bones, spread, bends and rotation, left or right; palm lengths."""
    points = [np.zeros(2)]
    bend_all, spread = rng.uniform(0, 0.7), SPREAD * rng.uniform(0.5, 1.4) + rng.normal(0, 0.06, 5)
    for f in range(5):
        at, angle = ROOTS[f] * rng.normal(1, 0.03, 2), spread[f]
        bend = max(0.0, bend_all + rng.normal(0, 0.25))
        points.append(at)
        for joint in range(3):
            # a bent finger looks shorter from the front, and leans to the palm's middle
            length = LENGTHS[f, joint] * rng.normal(1, 0.04) * max(0.25, np.cos(bend * (0.4 + 0.5 * joint)))
            angle += 0.12 * bend * np.sign(-at[0]) * (f > 0) - 0.25 * bend * (f == 0)
            at = at + length * np.array([np.sin(angle), -np.cos(angle)])
            points.append(at)
    turn = rng.normal(0, 0.4)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    side = -1 if rng.random() < 0.5 else 1
    return np.asarray((np.array(points) * (side, 1)) @ rotation.T)


def draw_hand(rng: np.random.Generator, size: int = 192) -> Hand:
    """A hand on a cluttered background."""
    shape = pose_hand(rng)
    low, high = shape.min(0), shape.max(0)
    scale = size * rng.uniform(0.55, 0.8) / (high - low).max()
    p = (shape - (low + high) / 2) * scale + (size - 1) / 2 + rng.normal(0, 0.03, 2) * size
    unit = scale
    image = np.empty((size, size, 3), np.uint8)
    image[:] = rng.integers(0, 256, 3)
    for _ in range(int(rng.integers(0, 14))):
        centre, axes = rng.integers(0, size, 2), rng.integers(4, size // 3, 2)
        colour = rng.integers(0, 256, 3).tolist()
        cv2.ellipse(image, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 4)))
    skin = (
        np.array([232, 190, 160])
        * rng.uniform(0.3, 1.05)
        * np.array([1, rng.uniform(0.9, 1.05), rng.uniform(0.85, 1.05)])
    )

    def bone(a: NDArray[np.float64], b: NDArray[np.float64], width: float) -> None:
        ends = np.rint(np.array([a, b]) * 16).astype(int).tolist()
        for colour, share in ((skin * 0.55, 1.0), (skin * 0.9, 0.84), (skin * 1.08, 0.4)):
            thick = max(1, round(width * unit * share))
            cv2.line(image, ends[0], ends[1], np.clip(colour, 0, 255).tolist(), thick, cv2.LINE_AA, 4)

    arm = p[0] + (p[0] - p[9]) * 2
    bone(arm, p[0], 0.6)
    palm = np.rint(
        np.array([p[0] + (p[5] - p[17]) * 0.4, p[1], p[5], p[9], p[13], p[17], p[0] + (p[17] - p[5]) * 0.4]) * 16
    )
    cv2.fillPoly(image, [palm.astype(np.int32)], np.clip(skin * 0.9, 0, 255).tolist(), cv2.LINE_AA, 4)
    for f in range(5):
        for joint in range(3):
            bone(p[1 + 4 * f + joint], p[2 + 4 * f + joint], 0.22 - 0.02 * joint)
    image = np.clip(image * rng.uniform(0.6, 1.2) + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    return Hand(image, p.astype(np.float32))


def draw_data(folder: Path, counts: tuple[int, int, int], seed: int = 0) -> TrainingData:
    """Labelled, unlabelled and held-out hands as PNGs in a folder, and their scheme file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "hand-21.toml").write_text(SCHEME, encoding="utf-8")
    scheme: LandmarkScheme = load_scheme(folder / "hand-21.toml")
    samples = []
    for i in range(sum(counts)):
        hand = draw_hand(np.random.default_rng([seed, i]))
        path = folder / f"images/{i:04d}.png"
        cv2.imwrite(str(path), hand.image[..., ::-1])
        box = box_of_points(hand.landmarks)
        samples.append(FaceSample(path, box, hand.landmarks, name=path.name))
    first, last = counts[0], counts[0] + counts[1]
    return TrainingData(scheme, samples[:first], samples[first:last], samples[last:])


def read_recipe(folder: Path, settings: list[str]) -> Config:
    """The recipe, written beside the run."""
    path = folder / "hands.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return load_config(path, settings)


def main() -> None:
    parser = make_parser(__doc__, data="")
    parser.add_argument("--out", type=Path, required=True, help="folder of the hands and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for seed in arguments.seeds:
        data = draw_data(arguments.out / f"hands{seed}", (60, 240, 100), seed)
        for selection in ("none", "teacher"):
            config = read_recipe(arguments.out, [f"semi.selection={selection}", f"run.seed={seed}", *arguments.set])
            folder = arguments.out / f"seed{seed}_{selection}"

            def show(event: Event, folder: Path = folder) -> None:
                if event["kind"] == "round":
                    nmes = ", ".join(f"{r.student} {percent(r.val_nme)}" for r in event["records"])
                    print(f"{folder.name}, round {event['round']}: {nmes}", flush=True)

            result = train(config, data, folder, resume=(folder / "config.toml").is_file(), on_event=show)
            assert result.scores is not None
            results[folder.name] = {"nme": result.scores.nme, "normalizer": result.scores.normalizer}
            print(f"{folder.name}: NME {percent(result.scores.nme)} of the box's size", flush=True)
    if arguments.json:
        write_json(arguments.json, results)


if __name__ == "__main__":
    main()
