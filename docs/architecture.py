"""The rooms of the package as they are: counts, the picture and the tables of docs/architecture.md, all from the imports.

    python docs/architecture.py            # write the page's tables and docs/images/architecture.png
    python docs/architecture.py --check    # print the counts; exit 1 if a rule is broken or the page is out of date

The layers are those of the import contract in pyproject.toml, the imports those that grimp reads (import-linter's own
reader), function-level ones included and type-checking ones left out.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PACKAGE = ROOT / "src/fewmark"
PAGE, PICTURE = DOCS / "architecture.md", DOCS / "images/architecture.png"
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
MAX_ROOMS, MAX_LAYERS, MAX_LINES = 12, 7, 400


@dataclass(frozen=True)
class Step:
    """One stop of a journey.

    Attributes:
        place: FILE:FUNCTION in the package.
        does: What happens there.
    """

    place: str
    does: str


JOURNEYS: Mapping[str, Sequence[Step]] = {
    "An image to landmarks": (
        Step("inference/detector.py:Detector.detect", "checks the request; the steps below are its lines"),
        Step("data/images.py:read_image", "decodes the file to upright RGB"),
        Step("inference/face_detection/base.py:SlimeFaceDetector.__call__", "detects faces"),
        Step(
            "inference/face_detection/base.py:adapt_box", "maps a detected box to the kind of box that the model knows"
        ),
        Step(
            "inference/predictor.py:LandmarkPredictor.predict",
            "runs up to two passes, each around the points of the last",
        ),
        Step("data/crops.py:CropRule.crop_from_image", "maps the image to the crop"),
        Step("data/crops.py:cut_from_image", "cuts the crop out of the image"),
        Step("inference/predictor_onnx.py:OnnxPredictor.predict_crops", "runs the network: points and confidences"),
        Step("inference/answer.py:make_answer", "transfers to the requested scheme, adds the expected errors"),
    ),
    "A label file to a loss": (
        Step("data/lists.py:read_training_lists", "reads which faces are labelled, unlabelled and held out"),
        Step("data/formats/io.py:read_faces", "chooses the reader by the file's format"),
        Step("data/formats/csv.py:read_csv", "reads labels to `FaceSample`s"),
        Step("training/run.py:train", "checks settings and data; the steps below are its lines"),
        Step("training/faces.py:prepare_faces", "completes boxes, hides the labels of U"),
        Step("data/images.py:read_image", "decodes each image once"),
        Step("data/crops.py:cache_face", "keeps the face's window as a `CachedFace`"),
        Step("training/semi/rounds.py:run_rounds", "Algorithm 1"),
        Step("training/semi/students.py:StudentTrainer.train", "trains one student on one training set"),
        Step("training/runner.py:run_training", "trains, or loads what an earlier run trained"),
        Step("training/fit.py:fit", "the one training loop"),
        Step("data/batches.py:Batches.__call__", "shuffles and stacks the rows of a batch"),
        Step("data/augment.py:apply_augmentation", "augments crop and landmarks"),
        Step("models/losses.py:integral_loss", "compares the heatmaps with the landmarks"),
    ),
    "A pseudo label to the next round": (
        Step("training/semi/teacher.py:train_teacher", "learns to predict the error of predictions on L"),
        Step("training/semi/pseudo_labels.py:write_pseudo_labels", "predicts the landmarks of U and their quality"),
        Step("training/semi/selection.py:quota", "r * i * |U| of round i"),
        Step("training/semi/selection.py:select_pseudo_labels", "selects the best"),
        Step("training/semi/selection.py:write_selection", "stores the selection, for resuming"),
        Step("training/semi/students.py:with_pseudo_labels", "joins L and the selection to the next training set"),
        Step("training/runner.py:run_training", "retrains the student"),
    ),
}
"""Main stops of the three ways through the package, in the order in which a run first enters them; no way returns to a file it left."""


@dataclass(frozen=True)
class Architecture:
    """The package's rooms and imports.

    Attributes:
        layers: Rooms of the import contract, the highest layer first.
        imports: Module -> the modules that it imports.
        n_lines: Module -> lines of its file.
    """

    layers: Sequence[Sequence[str]]
    imports: Mapping[str, frozenset[str]]
    n_lines: Mapping[str, int]

    @classmethod
    def read(cls) -> Architecture:
        graph = grimp.build_graph("fewmark", exclude_type_checking_imports=True, cache_dir=None)
        imports = {m: frozenset(graph.find_modules_directly_imported_by(m)) for m in graph.modules}
        return cls(_contract_layers(), imports, {m: _n_lines(m) for m in graph.modules})

    @cached_property
    def rooms(self) -> list[str]:
        """Folders and modules at the top of the package, the highest layer first."""
        found = {_room(m) for m in self.imports} - {"", "__main__"}
        return [r for layer in self.layers for r in layer if r in found]

    @cached_property
    def missing(self) -> list[str]:
        """Rooms that no layer of the contract names."""
        return sorted({_room(m) for m in self.imports} - {"", "__main__"} - set(self.rooms))

    def layer(self, room: str) -> int:
        """1 for the lowest."""
        return next(len(self.layers) - i for i, layer in enumerate(self.layers) if room in layer)

    @cached_property
    def arrows(self) -> dict[tuple[str, str], int]:
        """(importer, imported) -> number of imports between two rooms."""
        found: dict[tuple[str, str], int] = {}
        for module, imported in self.imports.items():
            for target in imported:
                a, b = _room(module), _room(target)
                if a != b and a in self.rooms and b in self.rooms:
                    found[a, b] = found.get((a, b), 0) + 1
        return found

    @cached_property
    def up(self) -> list[tuple[str, str]]:
        return [(a, b) for a, b in self.arrows if self.layer(a) < self.layer(b)]

    @cached_property
    def sideways(self) -> list[tuple[str, str]]:
        return [(a, b) for a, b in self.arrows if self.layer(a) == self.layer(b)]

    @cached_property
    def cycles(self) -> list[list[str]]:
        """One circle of modules for each room that has any; a package counts as one with its `__init__`."""
        found = []
        for room in self.rooms:
            inside = {m: {t for t in ts if _room(t) == room} for m, ts in self.imports.items() if _room(m) == room}
            try:
                TopologicalSorter(inside).prepare()
            except CycleError as error:
                found.append(list(error.args[1]))
        return found

    def modules(self, room: str) -> list[str]:
        return sorted(m for m in self.imports if _room(m) == room)

    def targets(self, room: str) -> list[str]:
        """The rooms that it imports, in the order of the layers."""
        return [r for r in self.rooms if (room, r) in self.arrows]

    @cached_property
    def lengths(self) -> dict[str, int]:
        """Module -> lines, of the files that hold code: `__init__.py` files only list names."""
        return {m: n for m, n in self.n_lines.items() if _path(m).name != "__init__.py"}

    def faults(self) -> Iterator[str]:
        """What breaks a rule, a line each."""
        if len(self.rooms) > MAX_ROOMS:
            yield f"{len(self.rooms)} rooms, at most {MAX_ROOMS}"
        if len(self.layers) > MAX_LAYERS:
            yield f"{len(self.layers)} layers, at most {MAX_LAYERS}"
        yield from (f"{room}: named by no layer of the import contract" for room in self.missing)
        yield from (f"{a} -> {b}: an import that points up" for a, b in self.up)
        yield from (f"{a} -> {b}: an import within a layer" for a, b in self.sideways)
        yield from (f"circle of imports: {' -> '.join(c)}" for c in self.cycles)
        yield from (f"{m}: {n} lines, at most {MAX_LINES}" for m, n in self.n_lines.items() if n > MAX_LINES)

    def summary(self) -> str:
        """The counts, for people."""
        longest = max(sorted(self.lengths), key=lambda name: self.lengths[name])
        return "\n".join(
            (
                f"rooms                  {len(self.rooms)}: {', '.join(self.rooms)}",
                f"layers                 {len(self.layers)}: {' > '.join(' | '.join(layer) for layer in self.layers)}",
                f"arrows between rooms   {len(self.arrows)}",
                f"arrows up              {len(self.up)}",
                f"arrows sideways        {len(self.sideways)}",
                f"circles inside rooms   {len(self.cycles)}",
                f"files                  {len(self.lengths)}, besides {len(self.n_lines) - len(self.lengths)} __init__.py",
                f"lines of a file        median {statistics.median(self.lengths.values()):.0f}, "
                f"most {self.lengths[longest]} ({longest})",
            )
        )


def _contract_layers() -> list[list[str]]:
    """The layers of the whole package, the highest first; those in brackets are places that are kept free."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(c["layers"] for c in contracts if c.get("containers") == ["fewmark"])
    return [[re.sub(r"[()\s]", "", room) for room in layer.split("|")] for layer in layers]


def _room(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def _path(module: str) -> Path:
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _n_lines(module: str) -> int:
    return len(_path(module).read_text(encoding="utf-8").splitlines())


def paragraph(room: str) -> str:
    """The first paragraph of a room's `__init__.py`, on one line."""
    text = ast.get_docstring(ast.parse(_path(f"fewmark.{room}").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def rooms_table(house: Architecture) -> str:
    lines = ["| layer | room | what lives there | files | lines | imports |", "|---|---|---|---|---|---|"]
    for room in house.rooms:
        modules = house.modules(room)
        n_files = sum(m in house.lengths for m in modules)
        imported = ", ".join(f"`{r}`" for r in house.targets(room)) or "nothing"
        n_lines = sum(house.n_lines[m] for m in modules)
        lines.append(f"| {house.layer(room)} | `{room}` | {paragraph(room)} | {n_files} | {n_lines:,} | {imported} |")
    return "\n".join(lines)


def counts_table(house: Architecture) -> str:
    return f"```\n{house.summary()}\n```"


def journey_table(name: str) -> str:
    return "\n".join(f"{i}. `{s.place}` {s.does}." for i, s in enumerate(JOURNEYS[name], 1))


def draw(house: Architecture, file: Path) -> None:
    """The rooms by layers, with an arrow for every import between two that no other arrows imply."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    ink, accent, pale, band = "#1f2933", "#0b7285", "#b8c4ce", "#f4f7f9"
    figure, axis = plt.subplots(figsize=(10.5, 8.2), dpi=130)
    layers = [[r for r in layer if r in house.rooms] for layer in house.layers]
    layers = [layer for layer in layers if layer]
    width, height, step = 2.5, 0.62, 1.35
    places: dict[str, tuple[float, float]] = {}
    for i, layer in enumerate(layers):
        y = (len(layers) - 1 - i) * step
        axis.add_patch(
            FancyBboxPatch(
                (-5.1, y - 0.47), 10.2, 0.94, boxstyle="round,pad=0,rounding_size=0.12", fc=band, ec="none", zorder=0
            )
        )
        axis.text(
            -4.95, y, str(house.layer(layer[0])), color=pale, fontsize=15, va="center", fontweight="bold", zorder=1
        )
        for j, room in enumerate(layer):
            places[room] = ((j - (len(layer) - 1) / 2) * 3.1, y)
    reach = {r: house.targets(r) for r in house.rooms}
    for a, b in sorted(house.arrows):
        if any(b in _below(reach, middle) for middle in reach[a] if middle != b):
            continue
        (x0, y0), (x1, y1) = places[a], places[b]
        far = abs(y0 - y1) > step * 1.2
        bend = 0.0 if not far else (0.42 if x0 + x1 >= 0 else -0.42)
        axis.add_patch(
            FancyArrowPatch(
                (x0, y0 - height / 2),
                (x1, y1 + height / 2),
                arrowstyle="-|>",
                mutation_scale=9,
                connectionstyle=f"arc3,rad={bend}",
                color=accent,
                lw=1.6,
                zorder=2,
                shrinkA=0,
                shrinkB=1,
            )
        )
    for room, (x, y) in places.items():
        lines = sum(house.n_lines[m] for m in house.modules(room))
        axis.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.1",
                fc="white",
                ec=accent,
                lw=1.4,
                zorder=3,
            )
        )
        axis.text(x, y + 0.09, room, ha="center", va="center", color=ink, fontsize=12.5, fontweight="bold", zorder=4)
        n_files = sum(m in house.lengths for m in house.modules(room))
        axis.text(
            x,
            y - 0.17,
            f"{n_files} files, {lines:,} lines",
            ha="center",
            va="center",
            color="#52606d",
            fontsize=8.5,
            zorder=4,
        )
    axis.set_xlim(-5.2, 5.2)
    axis.set_ylim(-0.6, (len(layers) - 1) * step + 0.6)
    axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(file, metadata={"Software": None})
    plt.close(figure)


def _below(reach: Mapping[str, Sequence[str]], room: str) -> set[str]:
    """All rooms that a room imports, directly or not."""
    found: set[str] = set()
    todo = list(reach[room])
    while todo:
        r = todo.pop()
        if r not in found:
            found.add(r)
            todo += reach[r]
    return found


def page_with_tables(text: str, house: Architecture) -> str:
    tables = {"counts": counts_table(house), "rooms": rooms_table(house)}
    tables |= {name.lower().replace(" ", "-"): journey_table(name) for name in JOURNEYS}
    return BLOCK.sub(lambda m: f"{m[1]}{tables[m[2]]}\n{m[3]}", text)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is wrong")
    arguments = parser.parse_args()
    house = Architecture.read()
    print(house.summary())
    text = PAGE.read_text(encoding="utf-8")
    written = page_with_tables(text, house)
    faults = list(house.faults())
    if arguments.check and written != text:
        faults.append(f"{PAGE.name}: out of date; run python docs/architecture.py")
    if not arguments.check:
        PAGE.write_text(written, encoding="utf-8")
        draw(house, PICTURE)
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
