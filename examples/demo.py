"""fewmark in two minutes: synthetic faces, training by TS3, and a real photograph.

24 synthetic faces are labelled, 200 are not, 40 are held out. Two different students learn from the 24; then, in
rounds, also from those of their own pseudo labels for the 200 that a teacher rates best. The result is measured on
the 40. Finally the new model, which has never seen a real face, and the packaged 68-point model find the landmarks
in a photograph of Grace Hopper: one picture, side by side.

    python examples/demo.py [--out demo_out] [--recipe FILE] [--faces 24 200 40] [--model ibug-68]
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageDraw, ImageFont
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
CAPTION = 40  # height of the captions in the picture, px


def render(folder: Path, counts: list[int]) -> None:
    """Write images, annotations.csv and the three lists of faces."""
    render_dataset(folder, sum(counts), scheme=load_scheme("ibug-68"), seed=0)
    names = [f"images/{i:06d}.jpg" for i in range(sum(counts))]
    for part, n in zip(("labelled", "unlabelled", "validation"), counts, strict=True):
        (folder / f"{part}.txt").write_text("\n".join(names[:n]) + "\n", encoding="utf-8")
        names = names[n:]


def train(faces: Path, run: Path, recipe: Path) -> None:
    """Train with the display of `fewmark train`, and say what the unlabelled faces gained."""
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
    gain = 100 * (before - after) / before
    verdict = f"{gain:.0f} % less" if gain >= 1 else "no gain" if gain > -1 else f"{-gain:.0f} % more: they did harm"
    console.print(
        f"[bold]What was learned[/bold]: mean error on {len(data.validation)} held-out faces, NME by "
        f"{scheme.default_normalizer}:\n"
        f"  {percent(before):>7}  from {len(data.labelled)} labelled faces alone\n"
        f"  {percent(after):>7}  after {len(display.records) - 1} rounds with pseudo labels of {len(data.unlabelled)} "
        f"unlabelled faces ({verdict})\n"
        "The rounds also train longer. What labels alone reach in as many steps, the second command below tells."
    )


def photograph(models: dict[str, str], picture: Path) -> None:
    """Find the landmarks of a real face by two models, and draw them side by side; caption -> model."""
    image = read_image(get_sample_data("grace_hopper.jpg", asfileobj=False))
    halves = []
    for caption, model in models.items():
        detector = Detector.load(model)
        faces = detector.detect(image)
        console.print(f"{len(faces)} face in the photograph, {detector.scheme.n_landmarks} landmarks by {model}")
        half = np.pad(draw_landmarks(image, faces, detector.scheme), ((CAPTION, 0), (2, 2), (0, 0)))
        page = Image.fromarray(half)
        middle, font = (half.shape[1] / 2, CAPTION / 2), ImageFont.load_default(20)
        ImageDraw.Draw(page).text(middle, caption, fill="white", font=font, anchor="mm")
        halves.append(np.asarray(page))
    write_image(picture, np.concatenate(halves, axis=1))


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
    picture, model = out / "grace_hopper_landmarks.jpg", out / "run" / "detector.safetensors"
    captions = f"trained just now, on {arguments.faces[0]} labelled drawn faces", f"packaged: {arguments.model}"
    photograph(dict(zip(captions, (str(model), arguments.model), strict=True)), picture)
    console.print(f"done in {duration(time.monotonic() - began)}; look at {picture} and {out / 'run' / 'report.html'}")
    faces = out / "faces"
    console.print(f"""[bold]What to type next[/bold]
  fewmark detect ibug-68 YOUR_PHOTO.jpg --out found --overlay
  fewmark train {faces} --labelled {faces / "labelled.txt"} --val {faces / "validation.txt"} --scheme ibug-68 \\
      --recipe {arguments.recipe} --selection none --out {out / "labels-only"}
  fewmark scheme new --help   # your own landmarks: docs/quickstart.md""")


if __name__ == "__main__":
    main()
