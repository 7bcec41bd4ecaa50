"""The published protocols by name: what each trains on, what it tests, and how it measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewmark.core.errors import InputError
from fewmark.data.benchmarks.aflw import read_aflw
from fewmark.data.benchmarks.cofw import read_cofw
from fewmark.data.benchmarks.vw300 import read_300vw
from fewmark.data.benchmarks.w300 import has_boxes, read_300w
from fewmark.data.benchmarks.wflw import WFLW_ATTRIBUTES, read_lapa, read_wflw
from fewmark.data.samples import FaceSample


@dataclass(frozen=True)
class Protocol:
    """A published benchmark.

    Attributes:
        scheme: Name of the scheme of its labels, whose default normaliser is the protocol's.
        read: Root folder, subset, whether counts must be the published ones -> labelled faces.
        tests: Subsets on which it reports.
        box: Boxes in which it measures: "column", those of the release, or "gt", tight about the landmarks.
    """

    scheme: str
    read: Callable[[Path, str, bool], list[FaceSample]]
    tests: Sequence[str]
    box: str = "gt"


def _read_300w(root: Path, subset: str, strict: bool) -> list[FaceSample]:
    return read_300w(root, subset, box="ground-truth" if has_boxes(root) else "landmarks", strict=strict)


PROTOCOLS = {
    "300w": Protocol("ibug-68", _read_300w, ("common", "challenging")),
    "aflw": Protocol("aflw-19", lambda r, s, strict: read_aflw(r, s, strict=strict), ("test", "frontal"), box="column"),
    "300vw": Protocol("ibug-49", lambda r, s, strict: read_300vw(r, s, strict=strict), ("test-a", "test-b", "test-c")),
    "wflw": Protocol("wflw-98", lambda r, s, strict: read_wflw(r, s, strict=strict), ("test", *WFLW_ATTRIBUTES)),
    "cofw": Protocol("cofw-29", lambda r, s, strict: read_cofw(r, s, strict=strict), ("test",)),
    "lapa": Protocol("lapa-106", lambda r, s, strict: read_lapa(r, s, strict=strict), ("test",)),
}
"""Name -> protocol. Each trains on its subset "train"."""


def find_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise InputError(f"--protocol {name}: expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def check_scheme(name: str, scheme: str) -> None:
    """Check that landmarks of a scheme are those of a protocol.

    Raises:
        InputError: They are of another scheme.
    """
    expected = find_protocol(name).scheme
    if scheme != expected:
        raise InputError(f"--protocol {name}: expected scheme {expected}, given {scheme}")
