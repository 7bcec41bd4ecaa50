"""Conversion to values that JSON can represent: no NaN, no infinity, no NumPy types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def json_value(value: Any) -> Any:
    """Convert nested data to JSON types; numbers that are not finite become None.

    >>> json_value({"nme": np.float32("nan"), "points": np.array([[1.0, 2.0]]), "n": (3, 4)})
    {'nme': None, 'points': [[1.0, 2.0]], 'n': [3, 4]}
    """
    if isinstance(value, Mapping):
        return {str(k): json_value(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return json_value(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
