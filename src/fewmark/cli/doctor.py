"""The command `doctor`: what is wrong with an installation, and what to type."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

import typer
from rich.markup import escape

from fewmark.cli.base import Json, out, print_json
from fewmark.core.errors import InputError
from fewmark.core.install import install_hint, required_packages
from fewmark.core.threads import n_processors
from fewmark.core.version import __version__

_SIGNS = {"ok": "[green]ok[/]  ", "note": "[cyan]note[/]", "wrong": "[red]wrong[/]"}
_PURPOSE = {
    "train": "train models, and run them on a GPU",
    "web": "the page of a project",
    "serve": "a detector over HTTP",
    "onnx": "export models",
    "video": "the true times of videos",
    "plot": "plots in reports",
    "heic": "images of iPhones",
    "formats": "Matlab files of benchmarks",
    "tools": "files of SLEAP and DeepLabCut",
}
"""Extra -> what it is for. Those for other people's detectors and for development are left out."""


@dataclass(frozen=True)
class Finding:
    """One result.

    Attributes:
        kind: "wrong" is to be mended, "note" is worth knowing.
        text: What was found.
        advice: What to type or do; "" for nothing.
    """

    kind: Literal["ok", "note", "wrong"]
    text: str
    advice: str = ""


def doctor(as_json: Json = False) -> None:
    """Check the installation: packages, models, processor, GPU. Exit code 1 where something is wrong."""
    findings = [f for check in CHECKS for f in check()]
    if as_json:
        print_json([asdict(f) for f in findings])
    else:
        for f in findings:
            text = f"{f.text}: {f.advice}" if f.advice else f.text
            out.print(f"{_SIGNS[f.kind]} {escape(text)}", highlight=False, soft_wrap=True)
    if any(f.kind == "wrong" for f in findings):
        raise typer.Exit(1)


def check_packages() -> Iterator[Finding]:
    """The packages that fewmark always needs."""
    yield Finding("ok", f"fewmark {__version__}, Python {sys.version.split()[0]}")
    missing = [name for name in required_packages() if _version(name) is None]
    if missing:
        yield Finding("wrong", f"missing: {', '.join(missing)}", install_hint("", *missing))
    for module, names in _providers(("cv2", "onnxruntime")).items():
        if len(names) > 1:
            keep = "opencv-python-headless" if module == "cv2" else "onnxruntime"
            advice = f"pip uninstall -y {' '.join(names)}; pip install {keep}"
            yield Finding("wrong", f"{' and '.join(names)} both install {module} and overwrite each other", advice)


def check_extras() -> Iterator[Finding]:
    """The optional packages."""
    for extra, purpose in _PURPOSE.items():
        missing = [name for name in required_packages(extra) if _version(name) is None]
        if missing:
            yield Finding("note", f"extra {extra} ({purpose}) lacks {', '.join(missing)}", install_hint(extra))


def check_models() -> Iterator[Finding]:
    """The packaged models, byte by byte."""
    from fewmark.inference.checkpoint.metadata import packaged_names, resolve_model
    from fewmark.inference.checkpoint.onnx_metadata import read_bytes
    from fewmark.inference.checkpoint.seal import check_seal

    names = packaged_names()
    if not names:
        yield Finding("wrong", "this installation has no packaged models", "pip install --force-reinstall fewmark")
    for name in names:
        path = resolve_model(name)
        try:
            check_seal(read_bytes(path), path)
        except InputError as error:
            yield Finding("wrong", str(error), "pip install --force-reinstall --no-deps fewmark")
            return
    yield Finding("ok", f"{len(names)} packaged models are whole: {', '.join(names)}")


def check_detection() -> Iterator[Finding]:
    """Whether a packaged model runs."""
    import numpy as np

    from fewmark.inference.detector import Detector

    try:
        Detector("ibug-68-nano", threads=1).detect(
            np.zeros((64, 64, 3), np.uint8), np.array([[10, 10, 50, 50]], np.float32)
        )
    except (InputError, ImportError, OSError, RuntimeError) as error:
        yield Finding("wrong", f"a packaged model does not run: {error}")
        return
    yield Finding("ok", "a packaged model runs")


def check_processor() -> Iterator[Finding]:
    """Cores and instructions."""
    n = n_processors()
    flags = Path("/proc/cpuinfo")
    if (
        flags.is_file()
        and "flags" in (text := flags.read_text(encoding="utf-8", errors="replace"))
        and "avx2" not in text
    ):
        yield Finding("note", f"{n} CPU cores without AVX2: detection is several times slower")
    else:
        yield Finding("ok", f"{n} CPU cores")


def check_gpu() -> Iterator[Finding]:
    """A GPU that torch cannot use."""
    if _version("torch") is None:
        return
    import torch

    there = _has_gpu()
    if torch.cuda.is_available():
        yield Finding("ok", f"torch {torch.__version__} uses {torch.cuda.get_device_name()}")
    elif there and torch.version.cuda is None:
        advice = "install a CUDA build, see pytorch.org/get-started"
        yield Finding("wrong", f"torch {torch.__version__} is built for CPUs, and there is a GPU", advice)
    elif there:
        advice = "update the driver, or install a torch that is built for it"
        yield Finding("wrong", f"torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use the GPU", advice)
    else:
        yield Finding("ok", f"torch {torch.__version__}, no GPU")


def check_folders() -> Iterator[Finding]:
    """Folders that are written to."""
    for folder in dict.fromkeys((gettempdir(), os.getcwd())):
        if not os.access(folder, os.W_OK):
            yield Finding("note", f"{folder} cannot be written to", "give --out a folder that can, or set TMPDIR")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_packages,
    check_models,
    check_detection,
    check_processor,
    check_gpu,
    check_folders,
    check_extras,
)


def _has_gpu() -> bool:
    """Whether the system shows a GPU of NVIDIA."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _providers(modules: tuple[str, ...]) -> dict[str, list[str]]:
    """Module -> the installed packages that hold it."""
    found: dict[str, list[str]] = {module: [] for module in modules}
    for distribution in distributions():
        tops = {f.parts[0] for f in distribution.files or () if len(f.parts) > 1}
        for module in modules:
            if module in tops:
                found[module].append(distribution.metadata["Name"])
    return {module: sorted(set(names)) for module, names in found.items()}
