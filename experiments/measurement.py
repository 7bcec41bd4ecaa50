"""Shared by the experiments: their arguments, the lists of ibug68, timing, percentages, Markdown tables, JSON files and figures."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fewmark.core.files import atomic_path, write_text
from fewmark.core.json import json_value
from fewmark.data.formats.io import read_faces
from fewmark.data.lists import select
from fewmark.data.samples import FaceSample
from fewmark.landmarks.scheme import load_scheme

TESTS = ("common", "challenging")
"""The test lists of ibug68; both together are "full"."""


def make_parser(docstring: str | None, data: str = "the ibug68 folder") -> argparse.ArgumentParser:
    """An experiment's command line, with the required option `--data`.

    Args:
        docstring: Of the experiment; its first line is the description.
        data: Help text of `--data`; "": no such option.
    """
    parser = argparse.ArgumentParser(description=(docstring or "").partition("\n")[0])
    if data:
        parser.add_argument("--data", type=Path, required=True, help=data)
    return parser


def read_train(data: Path) -> list[FaceSample]:
    """The training faces of the ibug68 folder."""
    return select(read_faces(data, scheme=load_scheme("ibug-68")), data / "train.txt")


def read_tests(data: Path) -> dict[str, list[FaceSample]]:
    """The test faces of the ibug68 folder, by list."""
    faces = read_faces(data, scheme=load_scheme("ibug-68"))
    return {name: select(faces, data / f"test_{name}.txt") for name in TESTS}


def use_one_thread() -> None:
    """Let torch and OpenCV compute on one thread."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def cpu_ms(run: Callable[[int], object], items: Sequence[int], repeats: int) -> float:
    """Processor time of a call in milliseconds: the mean over the items of the least of `repeats` calls.

    All items come in turn, so that other work on the machine does not hit every call for one of them.
    """
    times = np.zeros((repeats, len(items)))
    for row in times:
        for j, item in enumerate(items):
            began = time.process_time()
            run(item)
            row[j] = time.process_time() - began
    return float(1000 * times.min(0).mean())


def percent(fraction: float | None, digits: int = 2, unit: str = " %") -> str:
    """A fraction as a percentage; "-" for None and NaN.

    >>> percent(0.0712), percent(0.5, 0, ""), percent(None)
    ('7.12 %', '50', '-')
    """
    return "-" if fraction is None or np.isnan(fraction) else f"{100 * fraction:.{digits}f}{unit}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(markdown_table(["", "NME"], [["ibug-68", "3.20 %"]]))
    | | NME |
    |---|---|
    | ibug-68 | 3.20 % |
    """
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]])


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write a JSON file; numbers that are not finite become null."""
    write_text(path, json.dumps(json_value(value), indent=indent) + "\n")


def load_pyplot() -> Any:
    """matplotlib's pyplot, drawing without a display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def save_figure(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write a figure as PNG and close it."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")
    load_pyplot().close(figure)
