"""Whether images and scheme are still those on which a run was started."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fewmark.core.errors import InputError
from fewmark.core.files import write_text
from fewmark.landmarks.scheme import scheme_to_toml
from fewmark.training.faces import TrainingData

KEPT = "images.json"


def write_digests(state: Path, data: TrainingData) -> None:
    """Keep what `check_unchanged` compares, in the folder of a run's state, if it is not kept yet."""
    if not (state / KEPT).is_file():
        write_text(state / KEPT, json.dumps(_digests(data)))


def check_unchanged(state: Path, data: TrainingData) -> None:
    """Check a run that goes on; one of an earlier version, which kept no digests, passes.

    Raises:
        InputError: The scheme or an image has changed.
    """
    path = state / KEPT
    if not path.is_file():
        return
    for (name, before), (_, now) in zip(json.loads(path.read_text(encoding="utf-8")), _digests(data), strict=False):
        if before != now:
            raise InputError(f"{name}: has changed since the run was started; restore it, or give another --out")


def _digests(data: TrainingData) -> list[tuple[str, str]]:
    """Name and digest of the scheme and of each image, in order; faces by their names and labels are in `TrainingData.hash`."""
    images = dict.fromkeys(s.image for part in (data.labelled, data.unlabelled, data.validation) for s in part)
    scheme = hashlib.blake2b(scheme_to_toml(data.scheme).encode(), digest_size=8).hexdigest()
    return [(f"scheme {data.scheme.name}", scheme), *((str(image), _digest(image)) for image in images)]


def _digest(image: Path) -> str:
    try:
        with image.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    except OSError as error:
        raise InputError(f"{image}: cannot be read ({error.strerror}); restore it, or leave it out") from error
