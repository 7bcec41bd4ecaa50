"""fewmark in a few minutes: synthetic faces, training by TS3, and a real photograph.

24 synthetic faces are labelled, 200 are not, 40 are held out. Two different students learn from the 24; then, in
rounds, also from those of their own pseudo labels for the 200 that a teacher rates best. The result is measured on
the 40. Finally the packaged 68-point model detects the landmarks in a photograph of Grace Hopper.

    python examples/demo.py [--out demo_out] [--recipe FILE] [--faces 24 200 40] [--model ibug-68]
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from matplotlib.cbook import get_sample_data
from rich.console import Console

from fewmark import TrainingData
from fewmark import train as run_training
from fewmark.cli.progress import TrainingDisplay, duration, rounds_table
from fewmark.core.text import percent
from fewmark.data.images import read_image, write_image
from fewmark.data.lists import read_training_lists
from fewmark.data.synthetic.faces import render_dataset
from fewmark.inference.detector import Detector
from fewmark.landmarks.scheme import load_scheme
from fewmark.training.config import load_config
from fewmark.training.work_plan import plan_training
from fewmark.visualization.draw import draw_landmarks

console = Console(highlight=False, soft_wrap=True)


def render(folder: Path, counts: list[int]) -> None:
    """Write images, annotations.csv and the three lists of faces."""
    render_dataset(folder, sum(counts), scheme=load_scheme("ibug-68"), seed=0)
    names = [f"images/{i:06d}.jpg" for i in range(sum(counts))]
    for part, n in zip(("labelled", "unlabelled", "validation"), counts, strict=True):
        (folder / f"{part}.txt").write_text("\n".join(names[:n]) + "\n", encoding="utf-8")
        names = names[n:]


def train(faces: Path, run: Path, recipe: Path) -> None:
    """Train with the display of `fewmark train`, and print what the unlabelled faces gained."""
    scheme = load_scheme("ibug-68")
    config = load_config(recipe)
    lists = [faces / f"{part}.txt" for part in ("labelled", "unlabelled", "validation")]
    parts = read_training_lists(faces, lists[0], [lists[1]], lists[2], scheme=scheme)
    data = TrainingData(scheme, parts.labelled, parts.unlabelled, parts.validation)
    plan = plan_training(config, scheme, len(data.labelled), len(data.unlabelled))
    with TrainingDisplay(console, plan) as display:
        run_training(config, data, run, on_event=display)
    console.print(rounds_table(display.records))
    before, after = (display.records[i][-1].ensemble_val_nme or float("nan") for i in (0, -1))
    console.print(
        f"[bold]NME by {scheme.default_normalizer}, {len(data.validation)} held-out faces[/bold]: "
        f"{percent(before)} from {len(data.labelled)} labelled faces alone, {percent(after)} after "
        f"{len(display.records) - 1} rounds with {len(data.unlabelled)} unlabelled ones and more training "
        f"({100 * (after - before) / before:+.0f} %)"
    )


def photograph(model: str, overlay: Path) -> None:
    """Detect the landmarks of a real face and draw them."""
    image = read_image(get_sample_data("grace_hopper.jpg", asfileobj=False))
    detector = Detector.load(model)
    faces = detector.detect(image)
    write_image(overlay, draw_landmarks(image, faces, detector.scheme))
    console.print(f"{len(faces)} face in the photograph, {detector.scheme.n_landmarks} landmarks by {model}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder for the results")
    parser.add_argument(
        "--recipe", type=Path, default=Path(__file__).with_name("demo.toml"), help="recipe with the settings"
    )
    parser.add_argument(
        "--faces", type=int, nargs=3, default=[24, 200, 40], help="numbers of labelled, unlabelled and held-out faces"
    )
    parser.add_argument("--model", default="ibug-68", help="model for the photograph: a packaged name or a file")
    arguments = parser.parse_args()
    began = time.monotonic()
    out: Path = arguments.out
    for part in ("faces", "run"):
        shutil.rmtree(out / part, ignore_errors=True)
    console.print(f"rendering {sum(arguments.faces)} faces")
    render(out / "faces", arguments.faces)
    train(out / "faces", out / "run", arguments.recipe)
    overlay = out / "grace_hopper_landmarks.jpg"
    photograph(arguments.model, overlay)
    console.print(f"done in {duration(time.monotonic() - began)}; look at {overlay} and {out / 'run' / 'report.html'}")


if __name__ == "__main__":
    main()
