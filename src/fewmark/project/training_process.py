"""`python -m fewmark.project.training_process PROJECT`: a training in a process of its own, its events as JSON lines.

The last line has `kind` "ended" or "failed". SIGTERM stops it; the next training with `--resume` goes on.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from fewmark.core.errors import InputError
from fewmark.core.json import json_value
from fewmark.project.project import open_project
from fewmark.training.events import Event

PLAIN = (
    "kind",
    "name",
    "student",
    "round",
    "epoch",
    "n_epochs",
    "loss",
    "seconds",
    "val_nme",
    "text",
    "n_faces",
    "last",
)
"""What a line holds of an event."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--start")
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def tell(event: Event) -> None:
        print(json.dumps(json_value({k: v for k, v in event.items() if k in PLAIN})), flush=True)  # noqa: T201

    try:
        with open_project(given.folder) as project:
            result = project.train(given.recipe, given.set, start=given.start, resume=given.resume, on_event=tell)
    except InputError as error:
        tell({"kind": "failed", "text": str(error)})
        sys.exit(1)
    tell({"kind": "ended", "val_nme": None if result.scores is None else result.scores.nme})


if __name__ == "__main__":
    main()
