"""Write the tables of the docs that come from the code: settings, schemes, codec floors, measured transfers.

    python docs/tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; tests/docs/test_docs.py sees that none is out
of date.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fewmark.core.files import write_text
from fewmark.landmarks.scheme import load_scheme, scheme_names
from fewmark.training.config import describe_settings

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def setting_names() -> list[str]:
    return [s.name for s in describe_settings()]


def settings_table() -> str:
    """Every setting: its default, choices and description."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for s in describe_settings():
        unnamed = "," in s.type and not set(s.type.split(", ")) <= set(re.split(r"[\s,;:.()]+", s.description))
        choices = f" ({s.type})" if unnamed else ""
        lines.append(f"| `{s.name}` | {_value(s.default)} | {s.description}{choices} |")
    return "\n".join(lines)


def schemes_table() -> str:
    """The packaged schemes."""
    lines = ["| name | K | default normaliser | order |", "|---|---|---|---|"]
    for scheme in map(load_scheme, scheme_names()):
        order = "inferred" if scheme.inferred else "published"
        lines.append(f"| {scheme.name} | {scheme.n_landmarks} | {scheme.default_normalizer} | {order} |")
    return "\n".join(lines)


def floors_table() -> str:
    """What experiments/codec_floor.py measures."""
    experiment = _experiment("codec_floor")
    return str(experiment.as_table(experiment.measure()))


def transfers_table() -> str:
    """NME of what experiments/scheme_transfer.py measured from five landmarks to 68, by number of training pairs."""
    measured = [r for r in _measured("scheme_transfer.json")[0] if r["task"] == "mtfl-5 -> ibug-68"]
    errors = {(r["method"], r["n_pairs"]): _percent(r["all"]) for r in measured}
    return _pivot("method", errors, "{} pairs")


def cascade_table() -> str:
    """What experiments/cascade_stages.py wrote of the runs of all seeds."""
    return str(_experiment("cascade_stages").as_table(_measured("cascade_seed*.json")))


TRAINED_BY = {
    "supervised only": "labels alone",
    "supervised only, long": "labels alone, longer",
    "supervised only, mean-teacher": "labels alone, as many steps as the mean teacher",
    "spread, mean-teacher": "mean teacher",
    "supervised only, rounds": "labels alone, as many steps as the rounds",
    "spread, rounds": "two rounds, selected by spread",
}
"""What the experiments call a training -> what the docs call it."""


def labels_table(file: str = "labels.json") -> str:
    """What experiments/ts3_few_labels.py measured, in fewer columns and other words."""
    (measured,) = _measured(file)
    kept = [i for i, name in enumerate(measured["head"]) if name not in ("model", "validation", "AUC@0.08", "failures")]
    head, *rows = ([row[i] for i in kept] for row in [measured["head"], *measured["rows"]])
    return str(
        _experiment("measurement").markdown_table(head, [[r[0], TRAINED_BY.get(r[1], r[1]), *r[2:]] for r in rows])
    )


def other_tests_table() -> str:
    """What experiments/ts3_aflw.py and experiments/ts3_video.py measured."""
    head = ["test", "labels", "trained by", "seeds", "NME", "AUC@0.08", "detected", "to labels alone"]
    rows = []
    for name, file, column in (("AFLW", "ts3_aflw.json", "test"), ("videos", "ts3_video.json", "frames")):
        (measured,) = _measured(file)
        wanted = ["labels", "trained by", "seeds", column, "AUC@0.08", f"{column}, detected", "to labels alone"]
        where = [measured["head"].index(c) for c in wanted]
        for row in measured["rows"]:
            cells = [row[i] for i in where]
            rows.append([name, cells[0], TRAINED_BY.get(cells[1], cells[1]), *cells[2:]])
    return str(_experiment("measurement").markdown_table(head, rows))


def trunk_table() -> str:
    """NME on all test faces of what experiments/imagenet_trunk.py measured."""
    (measured,) = _measured("imagenet_trunk.json")
    network, trained_on, labels, full = (measured["head"].index(c) for c in ("network", "trained on", "labels", "full"))
    cells = {(r[network], f"{r[labels]} labels, {r[trained_on]}"): r[full] for r in measured["rows"]}
    columns = list(dict.fromkeys(column for _, column in cells))
    whole = {(row, column): cells.get((row, column), "-") for row, _ in cells for column in columns}
    return _pivot("network", whole, "{}").replace(", labels", " alone")


def annotator_table() -> str:
    """What experiments/annotator.py measured."""
    (measured,) = _measured("annotator.json")
    return str(_experiment("measurement").markdown_table(measured["head"], measured["rows"]))


def peers_table() -> str:
    """What experiments/peers_landmarks.py wrote."""
    rows = [r for r in _measured("peers.json")[0] if not r["name"].endswith(("or GT box", "tiny"))]
    return str(_experiment("peers_landmarks").as_table(rows))


def readme_table() -> str:
    """Three packaged models and the peers: dlib in the box that suits it of benchmarks/peers.py, the others of experiments/peers_landmarks.py."""
    peers = {r["name"]: r for r in _measured("peers.json")[0]}
    (dlib,) = (r for r in _measured("peers_benchmark.json")[0]["rows"] if r["name"] == "dlib")
    accuracy = {name.removeprefix("test_"): score for name, score in dlib["accuracy"].items()}
    own = peers["dlib68-own-hog-box"]["full"]
    own_name = f"dlib †, in its own boxes: {own['n_faces'] - own['n_undetected']} of {own['n_faces']} faces"
    rows = {
        **{
            f"**`{name}`**": peers[f"fewmark {name}"] for name in ("ibug-68-nano-int8", "ibug-68", "ibug-68-large-int8")
        },
        "dlib †": {**accuracy, "ms": dlib["times"]["1"]["ms"], "model_mb": dlib["model_mb"]},
        own_name: peers["dlib68-own-hog-box"],
        "MediaPipe mesh": peers["mediapipe-mesh"],
        "face-api": peers["face-api-68"],
        "PFLD †": peers["pfld68-cunjian"],
    }
    lines = ["| | ms a face | model | NME, common | challenging | failures |", "|---|---|---|---|---|---|"]
    for name, r in rows.items():
        nmes = " | ".join(_percent(r[part]["nme"]) for part in ("common", "challenging"))
        failures = f"{100 * r['full']['failure_rate']:.1f} %"
        lines.append(f"| {name} | {r['ms']:.1f} | {r['model_mb']:.1f} MB | {nmes} | {failures} |")
    return "\n".join(lines)


def peers_benchmark_table() -> str:
    """Time and memory of what benchmarks/peers.py wrote; the accuracy is that of the table above it."""
    wanted = ("detector", "ms a face, 1 thread", "faces/s, 2 threads", "peak MB", "model MB")
    rows = [
        [c.strip() for c in line.split("|")[1:-1]]
        for line in str(_script("benchmarks", "peers").as_table(_measured("peers_benchmark.json")[0])).splitlines()
    ]
    columns = [rows[0].index(name) for name in wanted]
    kept = [row for row in rows if "one view" not in row[0]]
    return "\n".join(f"| {' | '.join(row[i] for i in columns)} |" for row in kept)


def packaged_table() -> str:
    """What experiments/packaged_scores.py wrote."""
    return str(_experiment("packaged_scores").as_table(_measured("packaged_scores.json")[0]))


def profile_table() -> str:
    """Times of one face and of one image that benchmarks/face_profile.py measured."""
    rows = sorted(_measured("face_profile.json")[0], key=lambda r: (r["multiply_adds"], r["model"]))
    lines = [
        "| model | multiply-adds | face, ms | of peak | image, ms | face detector, ms |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        size, image = f"{r['multiply_adds'] / 1e6:.0f} M", f"{r['detect_ms']:.1f} | {r['face_detector_ms']:.1f}"
        lines.append(f"| `{r['model']}` | {size} | {r['whole_ms']:.2f} | {100 * r['of_peak']:.0f} % | {image} |")
    return "\n".join(lines)


def runtime_table() -> str:
    """Times of both runtimes that benchmarks/runtime.py measured."""
    (result,) = _measured("runtime.json")
    lines = ["| batch | flip | torch, ms per face | ONNX Runtime, ms per face |", "|---|---|---|---|"]
    for r in result["faces"]:
        lines.append(f"| {r['batch']} | {'on' if r['flip'] else 'off'} | {r['torch_ms']:.1f} | {r['onnx_ms']:.1f} |")
    start = {name: f"{s['wall_s']:.2f} s" for name, s in result["starts"].items()}
    onnx, torch = start["first landmarks by onnx"], start["first landmarks by torch"]
    lines += ["", f"A new process has its first landmarks after {onnx}, with torch after {torch}."]
    return "\n".join(lines)


def label_bias_table() -> str:
    """What experiments/label_bias.py wrote."""
    return str(_experiment("label_bias").as_table(_measured("label_bias.json")[0]))


def expected_errors_table() -> str:
    """What experiments/expected_errors.py wrote."""
    return str(_experiment("expected_errors").as_table(_measured("expected_errors.json")[0]))


def dense_transfers_table() -> str:
    """NME of what experiments/dense_transfer.py measured, by list of test faces."""
    measured = _measured("dense_transfer.json")[0]["rows"]
    errors = {(r["method"], r["list"]): _percent(r["all"]) for r in measured}
    errors |= {(r["method"], "contour, full"): _percent(r["contour"]) for r in measured if r["list"] == "full"}
    return _pivot("landmarks", errors, "{}")


def video_table() -> str:
    """What experiments/video_jitter.py wrote."""
    return str(_experiment("video_jitter").as_table(_measured("video_jitter.json")[0]))


def unlikely_faces_table() -> str:
    """What experiments/unlikely_faces.py wrote of the smallest and the default model."""
    rows = [r for r in _measured("unlikely_faces.json")[0] if "large" not in r["model"]]
    return str(_experiment("unlikely_faces").as_table(rows))


ROBUSTNESS_ROWS = (
    *(f"shift {v} %" for v in (10, 20, 30)),
    *(f"scale {v}" for v in (0.7, 1.5)),
    *(f"rotation +{v}°" for v in (30, 60, 90)),
    "size 24 px",
    "yaw 0",
    "yaw 30",
)
"""The levels in docs/results.md; the measured files have more."""


def robustness_table() -> str:
    """What `fewmark robustness` wrote of every model: NME by one pass and by two, side by side."""
    results = sorted(_measured("robustness_*.json"), key=lambda r: -r["unperturbed"]["nme"])
    head = [f"{r['model']}{then}" for r in results for then in ("", ", 2 passes")]
    lines = [f"| NME, % | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    cells = [f"{100 * r['unperturbed']['nme']:.2f} | " for r in results]
    lines.append(f"| unperturbed | {' | '.join(cells)} |")
    rows: dict[str, dict[tuple[str, int], str]] = {}
    for r in results:
        for curve in r["curves"]:
            for level in curve["levels"]:
                n = f" ({level['n_faces']} faces)" if curve["kind"] in ("yaw", "roll") else ""
                row = rows.setdefault(f"{curve['kind']} {level['label']}{n}", {})
                row[r["model"], curve["passes"]] = f"{100 * level['nme']:.2f}"
    for name, row in rows.items():
        if name.startswith(ROBUSTNESS_ROWS):
            found = [row.get((r["model"], n), "") for r in results for n in (1, 2)]
            lines.append(f"| {name} | {' | '.join(found)} |")
    shifts = [r["tolerated_shift"][n] for r in results for n in ("1", "2")]
    last = ["none" if s is None else f"{100 * s:.1f} %" for s in shifts]
    return "\n".join([*lines, f"| shift at which NME is 10 % higher | {' | '.join(last)} |"])


def _pivot(head: str, cells: Mapping[tuple[str, Any], str], column_name: str) -> str:
    """A table of cells by row and column, both in the order in which they first occur."""
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    lines = [f"| {head} | {' | '.join(column_name.format(c) for c in columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [f"| {row} | {' | '.join(cells[row, c] for c in columns)} |" for row in rows]
    return "\n".join(lines)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _measured(pattern: str) -> list[Any]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((DOCS / "measured").glob(pattern))]


def _experiment(name: str) -> Any:
    return _script("experiments", name)


def _script(kind: str, name: str) -> Any:
    folder = str(DOCS.parent / kind)
    if folder not in sys.path:  # they import each other, as they do when they are run
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def own_scheme_table() -> str:
    """The quickstart's fastest way, from docs/measured/own_scheme.json."""
    lines = [
        "| draw | mirror indices wrong, of which told | told in all | trained: NME, true boxes | detected boxes | time | transfer alone: NME | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in json.loads((DOCS / "measured/own_scheme.json").read_text(encoding="utf-8")):
        wrong = f"{len(r['wrong_mirror'])} of {r['n_landmarks']}, {len(r['wrong_and_told'])}"
        trained, detected, alone = (f"{100 * r[k]:.2f} %" for k in ("trained_nme", "trained_nme_detected", "nme"))
        times = [f"{r[k]:.0f} s" for k in ("trained_seconds", "seconds")]
        lines.append(
            f"| {r['seed']} | {wrong} | {r['n_told']} | {trained} | {detected} | {times[0]} | {alone} | {times[1]} |"
        )
    return "\n".join(lines)


RELIABILITY = (
    (
        "results over inputs; an image whose result cannot be written; names that are no UTF-8",
        "inference/test_writers.py",
    ),
    ("what label files state: landmark names, categories, ids, sizes, missing landmarks", "data/test_statements.py"),
    ("tables of spreadsheets, COCO, dlib, .pts: read, or refused in one line", "data/test_formats.py"),
    ("from a name to an image: backslashes, accents, moved folders", "data/test_image_names.py"),
    ("folders and globs: links, suffixes, what is left out", "data/test_walk.py"),
    ("results of `detect` read as labels", "data/test_results.py"),
    ("images: trailing data, cut files, modes, bytes, what is no image", "data/test_images.py"),
    ("bad input to detection and training", "inference/test_bad_input.py"),
    ("faces on their side and upside down", "inference/test_turned.py"),
    ("partly labelled faces keep their box", "landmarks/test_missing.py"),
    ("videos: rates, cut and damaged files, odd sizes", "video/test_video_files.py"),
    ("exports: batch sizes, runtimes, 8 bits", "inference/test_export.py"),
    ("runs and their resumption: what may change, what differs", "training/test_run.py"),
    ("trainings: killed 20 times, cut files, full disk, two in one folder, changed images", "faults/test_training.py"),
    ("models: flipped bits, cut, too new, pickles, outside data", "faults/test_models.py"),
    ("images of more pixels than memory, lines of pixels, pipes", "faults/test_images.py"),
    ("changed files of 14 kinds", "faults/test_readers.py"),
    ("what to install, by names that exist", "core/test_install.py"),
    ("`fewmark doctor`", "cli/test_doctor.py"),
    ("code and names of version 0.1", "core/test_moved.py"),
)
"""Kind of fault, and the file of its tests below tests/."""


def reliability_table() -> str:
    """Kinds of faults and the number of their test functions; a function with parameters counts once."""
    lines = ["| kind | tests | number |", "|---|---|---|"]
    for kind, file in RELIABILITY:
        text = (DOCS.parent / "tests" / file).read_text(encoding="utf-8")
        n_tests = len(re.findall(r"^def test_", text, re.MULTILINE))
        lines.append(f"| {kind} | `tests/{file}` | {n_tests} |")
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[], str]] = {
    "reliability": reliability_table,
    "own-scheme": own_scheme_table,
    "readme": readme_table,
    "settings": settings_table,
    "schemes": schemes_table,
    "codec-floor": floors_table,
    "labels": labels_table,
    "labels-imagenet": lambda: labels_table("labels_imagenet.json"),
    "other-tests": other_tests_table,
    "trunk": trunk_table,
    "annotator": annotator_table,
    "scheme-transfer": transfers_table,
    "cascade": cascade_table,
    "peers": peers_table,
    "peers-benchmark": peers_benchmark_table,
    "packaged": packaged_table,
    "face-profile": profile_table,
    "runtime": runtime_table,
    "video-jitter": video_table,
    "label-bias": label_bias_table,
    "expected-errors": expected_errors_table,
    "dense-transfer": dense_transfers_table,
    "robustness": robustness_table,
    "found-faces": unlikely_faces_table,
}


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return " ".join(map(_value, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A page with its tables replaced; blocks of other names stay."""
    return BLOCK.sub(lambda m: f"{m[1]}{tables[m[2]]}\n{m[3]}" if m[2] in tables else m[0], text)


def pages() -> list[Path]:
    return [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]


def main() -> None:
    tables = {name: make() for name, make in TABLES.items()}
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if filled(text, tables) != text:
            write_text(page, filled(text, tables))


if __name__ == "__main__":
    main()
