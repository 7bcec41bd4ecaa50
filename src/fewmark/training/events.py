"""What a training tells of, and what it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewmark.data.crops import CachedFace

Event = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Validation:
    """Labelled faces that are held out.

    Attributes:
        faces: cached, with their true landmarks.
        lengths: (V,) px of the upright crops that errors are divided by.
    """

    faces: Sequence[CachedFace]
    lengths: NDArray[np.float64]
