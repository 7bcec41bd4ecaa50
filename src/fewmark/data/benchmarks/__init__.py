"""Readers of published benchmarks in their original layout: 300-W, Menpo, 300-VW, AFLW, COFW, WFLW, LaPa.

Imports `fewmark.core`, label formats and samples; SciPy and h5py only to read Matlab files.
"""

from fewmark.data.benchmarks.aflw import AFLW_COUNTS, read_aflw
from fewmark.data.benchmarks.cofw import COFW_COUNTS, read_cofw
from fewmark.data.benchmarks.vw300 import INNER_49, VIDEOS_300VW, read_300vw
from fewmark.data.benchmarks.w300 import MENPO_COUNTS, read_300w, read_menpo
from fewmark.data.benchmarks.wflw import LAPA_COUNTS, WFLW_ATTRIBUTES, WFLW_COUNTS, read_lapa, read_wflw

__all__ = [
    "AFLW_COUNTS",
    "COFW_COUNTS",
    "INNER_49",
    "LAPA_COUNTS",
    "MENPO_COUNTS",
    "VIDEOS_300VW",
    "WFLW_ATTRIBUTES",
    "WFLW_COUNTS",
    "read_300vw",
    "read_300w",
    "read_aflw",
    "read_cofw",
    "read_lapa",
    "read_menpo",
    "read_wflw",
]
