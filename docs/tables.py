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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fewmark.core.files import write_text
from fewmark.evaluation.robustness_report import passes_text
from fewmark.landmarks.scheme import load_scheme, scheme_names
from fewmark.training.config import Config, StudentSettings, load_config, recipe_names

DOCS = Path(__file__).parent
BLOCK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MEANINGS = {
    "augment.scale": "the crop is scaled by 1 - scale to 1 + scale",
    "augment.colour": "strength of changes of brightness, contrast, gamma and channels; 0 = none",
    "students.NAME.architecture": "a network of `models/build.py:MODELS`",
    "students.NAME.arguments": "of its constructor, but for `n_maps`",
    "students.NAME.codec.stride": "crop px for one heatmap cell; must be the network's",
    "students.NAME.codec.background": "one more map, for what is no landmark",
    "students.NAME.codec.decoding": "how a map becomes a point",
    "students.NAME.codec.logits": "a map is a distribution over cells (softmax), not heights",
    "students.NAME.loss": "sum, mean: Eq. 2, for maps of heights; integral: L1 of the map's mean, for logits",
    "students.NAME.map_weight": "of the map's term in the integral loss",
    "students.NAME.optimizer": "sgd: momentum 0.9, the CPM's groups; rmsprop: alpha 0.99; adamw",
    "students.NAME.learning_rate": "at its highest",
    "students.NAME.weight_decay": "not on biases and norms for sgd and adamw",
    "students.NAME.n_epochs": "of one training",
    "students.NAME.batch_size": "of all processes together",
    "students.NAME.clip_norm": "of the gradient; 0 = none",
    "semi.rounds": "S of Algorithm 1",
    "semi.ratio": "r: round i takes a share r i of the unlabelled faces",
    "semi.views": "views of a face that its pseudo label is averaged over",
    "semi.selection": "who enters a round; none = labels alone, for as many epochs as the rounds would take",
    "teacher.source": "the faces on whose predictions it learns",
    "teacher.target": "heatmap: Eq. 4; landmark: the mean distance, px",
    "teacher.copies": "augmented copies of each face",
    "teacher.width": "channels of its first layer",
    "teacher.norm": "its norm layer",
    "teacher.steps": "of its training; 0: a distilled model has none",
    "teacher.batch_size": "of its training",
    "teacher.learning_rate": "of Adam, with a cosine",
}
"""What a field means, where `fewmark.training.config` carries no description of it or a very short one."""


def leaves(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting with its path; a student's under `students.NAME`."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        place = f"{path}{name}"
        if model is Config and name == "students":
            yield from leaves(StudentSettings, "students.NAME.")
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from leaves(inner, f"{place}.")
        else:
            yield place, field


def setting_names() -> list[str]:
    return [path for path, _ in leaves(Config)]


def settings_table() -> str:
    """All but the students' settings: defaults and recipes."""
    configs = {"default": Config(), **{name: load_config(name) for name in recipe_names()}}
    columns = {name: config.model_dump() for name, config in configs.items()}
    return _settings(columns, lambda path: not path.startswith("students."))


def students_table() -> str:
    """The students' settings: the default and every recipe's students."""
    columns = {"default": {"students": {"NAME": StudentSettings().model_dump()}}}
    for recipe in recipe_names():
        for name, student in load_config(recipe).students.items():
            columns[f"{recipe}: {name}"] = {"students": {"NAME": student.model_dump()}}
    return _settings(columns, lambda path: path.startswith("students."))


def schemes_table() -> str:
    """The packaged schemes."""
    lines = ["| name | K | mirror | normalisers, the default in bold | order |", "|---|---|---|---|---|"]
    for scheme in map(load_scheme, scheme_names()):
        names = [f"**{n}**" if n == scheme.default_normalizer else n for n in scheme.normalizer_names]
        mirror = "no" if scheme.mirror is None else "yes"
        order = "inferred" if scheme.inferred else "published"
        lines.append(f"| {scheme.name} | {scheme.n_landmarks} | {mirror} | {', '.join(names)} | {order} |")
    return "\n".join(lines)


def floors_table() -> str:
    """What experiments/codec_floor.py measures."""
    experiment = _experiment("codec_floor")
    return str(experiment.as_table(experiment.measure()))


def transfers_table() -> str:
    """What experiments/scheme_transfer.py wrote."""
    rows = json.loads((DOCS / "measured/scheme_transfer.json").read_text(encoding="utf-8"))
    return str(_experiment("scheme_transfer").as_table(rows))


def cascade_table() -> str:
    """What experiments/cascade_stages.py wrote of the runs of all seeds."""
    return str(_experiment("cascade_stages").as_table(_measured("cascade_seed*.json")))


def dense_cascade_table() -> str:
    """The same of the dense scheme."""
    return str(_experiment("cascade_stages").as_table(_measured("cascade_scut86.json")))


def share_table() -> str:
    """What experiments/cascade_share.py wrote."""
    return str(_experiment("cascade_share").as_table(_measured("cascade_share.json")[0]))


def peers_table() -> str:
    """What experiments/peers_landmarks.py wrote, and below it the cascade's stages of experiments/cascade_figures.py, once it has."""
    rows = [*_measured("peers.json")[0]]
    for figures in _measured("cascade_figures.json"):
        rows += [r for r in figures["fewmark"] if r["name"].startswith("cascade")]
    return str(_experiment("peers_landmarks").as_table(rows))


def peers_benchmark_table() -> str:
    """What benchmarks/peers.py wrote."""
    return str(_script("benchmarks", "peers").as_table(_measured("peers_benchmark.json")[0]))


def packaged_table() -> str:
    """What experiments/packaged_scores.py wrote."""
    return str(_experiment("packaged_scores").as_table(_measured("packaged_scores.json")[0]))


def profile_table() -> str:
    """What benchmarks/face_profile.py wrote."""
    return str(_script("benchmarks", "face_profile").as_table(_measured("face_profile.json")[0]))


def runtime_table() -> str:
    """What benchmarks/runtime.py wrote."""
    (result,) = _measured("runtime.json")
    lines = [
        "| crops in a call | flip | torch, ms a face | ONNX Runtime, ms a face | torch / ONNX |",
        "|---|---|---|---|---|",
    ]
    for r in result["faces"]:
        times = f"{r['torch_ms']:.1f} | {r['onnx_ms']:.1f} | {r['ratio']:.1f}"
        lines.append(f"| {r['batch']} | {'on' if r['flip'] else 'off'} | {times} |")
    lines += ["", "| a process | seconds | of the processor |", "|---|---|---|"]
    lines += [f"| {name} | {s['wall_s']:.2f} | {s['cpu_s']:.2f} |" for name, s in result["starts"].items()]
    megabytes, parity = result["export"]["n_bytes"] / 1e6, result["export"]["parity_px"]
    versions = ", ".join(f"{name} {v}" for name, v in result["versions"].items())
    lines += ["", f"A whole export has {megabytes:.2f} MB and is within {parity:.1g} px of torch. {versions}."]
    return "\n".join(lines)


def label_bias_table() -> str:
    """What experiments/label_bias.py wrote."""
    return str(_experiment("label_bias").as_table(_measured("label_bias.json")[0]))


def expected_errors_table() -> str:
    """What experiments/expected_errors.py wrote."""
    return str(_experiment("expected_errors").as_table(_measured("expected_errors.json")[0]))


def dense_transfers_table() -> str:
    """What experiments/dense_transfer.py wrote: errors."""
    return str(_experiment("dense_transfer").as_table(_measured("dense_transfer.json")[0]["rows"]))


def dense_boxes_table() -> str:
    """What experiments/dense_transfer.py wrote: boxes."""
    return str(_experiment("dense_transfer").boxes_table(_measured("dense_transfer.json")[0]["boxes"]))


def video_table() -> str:
    """What experiments/video_jitter.py wrote."""
    return str(_experiment("video_jitter").as_table(_measured("video_jitter.json")[0]))


def turned_table() -> str:
    """What experiments/rotated_images.py wrote."""
    return str(_experiment("rotated_images").as_table(_measured("rotated_images.json")[0]["rows"]))


def robustness_table() -> str:
    """What `fewmark robustness` wrote of every model."""
    results = _measured("robustness_*.json")
    head = [f"{r['model']}, {what}" for r in results for what in ("NME", "failures")]
    lines = [f"| | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    plain = [_robustness_cells(r["unperturbed"]) for r in results]
    lines.append(f"| unperturbed | {' | '.join(plain)} |")
    for curves in zip(*(r["curves"] for r in results), strict=True):
        kind, looks = curves[0]["kind"], passes_text(curves[0]["passes"])
        for levels in zip(*(c["levels"] for c in curves), strict=True):
            n = f" ({levels[0]['n_faces']} faces)" if kind in ("yaw", "roll") else ""
            looked = f", {looks}" if kind in ("shift", "scale", "rotation") else ""
            cells = [_robustness_cells(level) for level in levels]
            lines.append(f"| {kind} {levels[0]['label']}{looked}{n} | {' | '.join(cells)} |")
    for n in results[0]["tolerated_shift"]:
        cells = []
        for r in results:
            shift = r["tolerated_shift"][n]
            cells.append("none" if shift is None else f"{100 * shift:.1f} %")
        lines.append(f"| shift at which NME is 10 % higher, {passes_text(int(n))} | {' | | '.join(cells)} | |")
    return "\n".join(lines)


def _robustness_cells(level: Mapping[str, Any]) -> str:
    return f"{100 * level['nme']:.2f} % | {100 * level['failure_rate']:.1f} %"


def _measured(pattern: str) -> list[Any]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted((DOCS / "measured").glob(pattern))]


def _experiment(name: str) -> Any:
    return _script("experiments", name)


def _script(kind: str, name: str) -> Any:
    folder = str(DOCS.parent / kind)
    if folder not in sys.path:  # they import each other, as they do when they are run
        sys.path.insert(0, folder)
    return importlib.import_module(name)


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "students": students_table,
    "schemes": schemes_table,
    "codec-floor": floors_table,
    "scheme-transfer": transfers_table,
    "cascade": cascade_table,
    "cascade-scut86": dense_cascade_table,
    "cascade-share": share_table,
    "peers": peers_table,
    "peers-benchmark": peers_benchmark_table,
    "packaged": packaged_table,
    "face-profile": profile_table,
    "runtime": runtime_table,
    "video-jitter": video_table,
    "label-bias": label_bias_table,
    "expected-errors": expected_errors_table,
    "dense-transfer": dense_transfers_table,
    "dense-boxes": dense_boxes_table,
    "robustness": robustness_table,
    "rotated-images": turned_table,
}


def _settings(columns: Mapping[str, Mapping[str, Any]], wanted: Callable[[str], bool]) -> str:
    lines = [f"| setting | {' | '.join(columns)} | meaning |", f"|---|{'---|' * len(columns)}---|"]
    for path, field in leaves(Config):
        if wanted(path):
            values = [_value(_look_up(data, path)) for data in columns.values()]
            lines.append(f"| `{path}` | {' | '.join(values)} | {_meaning(path, field)} |")
    return "\n".join(lines)


def _look_up(data: Mapping[str, Any], path: str) -> Any:
    found: Any = data
    for part in path.split("."):
        found = found[part]
    return found


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_value(v)}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return " ".join(map(_value, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _meaning(path: str, field: FieldInfo) -> str:
    text = MEANINGS.get(path) or field.description
    assert text, f"{path}: say in MEANINGS what it means"
    choices = [str(c) for c in get_args(field.annotation) if isinstance(c, str)]
    return f"{text} ({', '.join(choices)})" if choices else text


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A page with its tables replaced."""
    return BLOCK.sub(lambda m: f"{m[1]}{tables[m[2]]}\n{m[3]}", text)


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def main() -> None:
    tables = {name: make() for name, make in TABLES.items()}
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if filled(text, tables) != text:
            write_text(page, filled(text, tables))


if __name__ == "__main__":
    main()
