"""fewmark against other installable landmark detectors on your own faces: accuracy, time and memory.

    python benchmarks/peers.py FOLDER --peers-python PEERS/bin/python --json peers.json

FOLDER is anything that fewmark reads: an annotations.csv, .pts, COCO or dlib files with 68 points (iBUG), or bare images. Labelled
faces give NME, AUC and failure rate; on bare images the boxes are the packaged face detector's, and only times are measured.

The peers need an environment of their own, since two packages that both contain cv2 break each other:

    python -m venv PEERS
    PEERS/bin/python -m pip install dlib-bin face_recognition_models==0.3.0 mediapipe==0.10.21 ai-edge-litert
    PEERS/bin/python -m pip install --no-deps GoldenFace==1.1

Measured is the way from an image in memory and the tight box of the face, which each contender widens as its authors crop, to the
landmarks; "own box" rows detect the face in the whole image instead, which is part of their time. Each contender is a
process of its own with its own threads, and all take turns: in a round, each of them processes every face once. "ms a face" is
the mean over the faces of the least of all rounds; faces/s is that of the contender's fastest way (single faces, batches, or
one instance per thread); peak MB is the memory of a process that reads single faces; added MB is peak MB less that of the bare
interpreter. A face that an "own box" row misses is a failure, counts 0 in AUC and is left out of NME.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peer_contenders import PEERS
from peer_faces import SCHEME, Faces, gather_faces, write_images
from peer_process import run_threads
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.core.text import count
from fewmark.inference.checkpoint.metadata import packaged_names, resolve_model
from fewmark.landmarks.metrics import THRESHOLD, score

NORMALIZER = "outer-eye-corners"

Numbers = dict[str, Any]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="faces or bare images")
    parser.add_argument("--list", type=Path, nargs="+", default=[], help="lists of the faces to measure on")
    parser.add_argument("--models", nargs="*", default=packaged_names(), help="names or files; default: all packaged")
    parser.add_argument(
        "--flip",
        nargs="+",
        choices=("model", "off"),
        default=["model", "off"],
        help="flip averaging: as the model asks for, or off; one row each",
    )
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--peers-python", default=sys.executable, help="Python interpreter with the peers' packages")
    parser.add_argument("--opencv-model", type=Path, help="LBF model of 68 points; default: GoldenFace's")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5, help="number of rounds")
    parser.add_argument("--limit", type=int, default=300, help="largest number of faces, evenly spaced; 0: all")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args(given)
    console, errors = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = 120
    try:
        result = measure(arguments, lambda text: errors.print(text, highlight=False))
        if arguments.json:
            write_text(arguments.json, json.dumps(result, indent=1) + "\n")
    except InputError as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(1) from error
    for text, table in rich_tables(result):
        console.print(text, table, sep="\n")
    for text in not_measured(result):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def measure(arguments: argparse.Namespace, report: Callable[[str], None]) -> Numbers:
    """Run all contenders and return the content of the JSON file; `report` is called with lines of progress."""
    check(arguments)
    faces = gather_faces(arguments.data, arguments.list, arguments.limit)
    rows = make_rows(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, faces)
        for threads in arguments.threads:
            run_threads(rows, threads, folder, arguments.repeats, report)
        for i, row in enumerate(rows):
            if (folder / f"landmarks-{i}.npy").is_file():
                row["accuracy"] = accuracy(np.load(folder / f"landmarks-{i}.npy"), faces)
    rows = [row for row in rows if not row.pop("left_out", False)]
    versions: dict[str, str] = {}
    for row in rows:
        versions |= row.pop("versions", {})
        row.pop("order")
    return {
        "data": arguments.data.resolve().name,
        "n_faces": len(faces.boxes),
        "n_labelled": int(np.isfinite(faces.landmarks).all(2).any(1).sum()),
        "lists": {name: len(rows) for name, rows in faces.lists.items()},
        "normalizer": NORMALIZER,
        "threshold": THRESHOLD,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "rows": rows,
    }


def check(arguments: argparse.Namespace) -> None:
    """Check the options before anything is measured.

    Raises:
        InputError: A number is too small, nothing is to be measured, or a model is missing or of another kind.
    """
    for option, values, least in (
        ("--threads", arguments.threads, 1),
        ("--repeats", [arguments.repeats], 1),
        ("--limit", [arguments.limit], 0),
    ):
        if min(values) < least:
            raise InputError(f"{option}: expected {least} or more, given {min(values)}")
    if not arguments.models and not arguments.peers:
        raise InputError("--models and --peers: expected at least one to measure, given none")
    for model in arguments.models:
        resolve_model(model)
    if arguments.opencv_model:
        given = "no file"
        if arguments.opencv_model.is_file():
            with open(arguments.opencv_model, "rb") as file:
                given = "" if b"n_landmarks: 68" in file.read(1000) else "another file"
        if given:
            raise InputError(
                f"{arguments.opencv_model}: --opencv-model: expected an LBF model of 68 points (.yaml, with n_landmarks: 68 "
                f"at its head), given {given}; leave the option out to use GoldenFace's"
            )


def make_rows(arguments: argparse.Namespace) -> list[Numbers]:
    """Rows of the contenders: the name, and in `order` the arguments of the process."""
    rows: list[Numbers] = []
    given = {"opencv_model": str(arguments.opencv_model.resolve())} if arguments.opencv_model else {}
    for peer in arguments.peers:
        rows += [
            {"name": name, "order": {"contender": name, "given": given, "python": arguments.peers_python}}
            for name in PEERS[peer]
        ]
    for model in arguments.models:
        for flip in arguments.flip:
            name = f"fewmark {model}" if flip == "model" else f"fewmark {model}, one view"
            order = {"contender": "fewmark", "given": {"model": str(model), "flip": flip}, "python": sys.executable}
            rows.append(
                {"name": name, "order": order | {"only_if_it_flips": flip == "off" and "model" in arguments.flip}}
            )
    return [row | {"order": {"only_if_it_flips": False} | row["order"], "times": {}} for row in rows]


def accuracy(found: NDArray[np.floating[Any]], faces: Faces) -> dict[str, Numbers]:
    """NME, AUC and failure rate (fractions) of each list that has labelled faces.

    Args:
        found: (N, K, 2) image px, NaN where nothing was found.
        faces: Faces with their labels; none is scored if K is not 68.
    """
    result: dict[str, Numbers] = {}
    for name, rows in faces.lists.items():
        labelled = [i for i in rows if np.isfinite(faces.landmarks[i]).any()]
        if not labelled or found.shape[1] != SCHEME.n_landmarks:
            continue
        data = score(found[labelled], faces.landmarks[labelled], SCHEME, normalizer=NORMALIZER).to_dict()
        result[name] = {k: data[k] for k in ("nme", "auc", "failure_rate", "n_faces", "n_undetected")}
    return result


def cells(result: Numbers) -> list[list[str]]:
    """The table as text: the header, and one row per contender; "-" for what was not measured."""
    lists, threads = list(result["lists"]), [str(t) for t in result["threads"]]
    counted = [count(int(t), "thread") for t in threads]
    table = [
        [
            "detector",
            *(f"NME, {name}" for name in lists),
            "AUC",
            "failures",
            *(f"ms a face, {c}" for c in counted),
            *(f"faces/s, {c}" for c in counted),
            "peak MB",
            "added MB",
            "model MB",
        ]
    ]
    for row in result["rows"]:
        scores, times = row.get("accuracy", {}), row["times"]
        last = scores.get(lists[-1], {})
        undetected = f" ({last['n_undetected']} not found)" if last.get("n_undetected") else ""
        memory = times.get(threads[0], {})
        added = memory["peak_mb"] - memory["bare_mb"] if "peak_mb" in memory else None
        table.append(
            [
                row["name"],
                *(_percent(scores.get(name, {}).get("nme")) for name in lists),
                _percent(last.get("auc"), 1),
                _percent(last.get("failure_rate"), 1) + undetected,
                *(_number(times.get(t, {}).get("ms"), 2) for t in threads),
                *(_number(times.get(t, {}).get("faces_per_s"), 0) for t in threads),
                _number(memory.get("peak_mb"), 0),
                _number(added, 0),
                _number(row.get("model_mb"), 1),
            ]
        )
    return table


def rich_tables(result: Numbers) -> list[tuple[str, Table]]:
    """Two tables for a terminal, with their titles: accuracy, if there are labels, then time and memory."""
    header, *rows = cells(result)
    cut = 3 + len(result["lists"])  # the detector, an NME for each list, AUC and failures
    parts = [(f"{result['data']}, {result['n_faces']} faces: time and memory", range(cut, len(header)))]
    if result["n_labelled"]:
        where = f"AUC and failures at {100 * result['threshold']:g} %"
        text = f"{result['data']}, {result['n_labelled']} labelled faces: NME by {result['normalizer']}, {where}"
        parts.insert(0, (text, range(1, cut)))
    tables = []
    for text, columns in parts:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1))
        table.add_column(header[0], no_wrap=True)
        for i in columns:
            table.add_column(header[i], justify="right")
        for row in rows:
            table.add_row(row[0], *(row[i] for i in columns))
        tables.append((text, table))
    return tables


def not_measured(result: Numbers) -> list[str]:
    """One line for every reason why rows are empty: what to install, or the last output of a process."""
    reasons: dict[str, list[str]] = {}
    for row in result["rows"]:
        if "missing" in row:
            reasons.setdefault(row["missing"], []).append(row["name"])
    return [f"not measured: {'; '.join(names)}: {reason}" for reason, names in reasons.items()]


def as_table(result: Numbers) -> str:
    """The table as Markdown."""
    header, *rows = cells(result)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
