"""The experiments import each other by their folder, as they do when they are run."""

from __future__ import annotations

import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

sys.path.insert(0, str(EXPERIMENTS))
