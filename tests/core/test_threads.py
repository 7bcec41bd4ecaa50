"""Waiting threads give their cores away soon: by the command line, and where a model runs by torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewmark.core.threads import SPIN_COUNT

CODE = """
import os, sys
from fewmark import Detector
Detector.load(sys.argv[1], runtime="torch")
print(os.environ["GOMP_SPINCOUNT"])
"""


@pytest.mark.parametrize("own", [None, "77"])
def test_a_model_by_torch(own: str | None, tiny_model: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"} | (
        {"GOMP_SPINCOUNT": own} if own else {}
    )
    done = subprocess.run(
        [sys.executable, "-c", CODE, tiny_model],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == (own or SPIN_COUNT)
