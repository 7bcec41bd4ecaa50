"""What faces get when they are added: the vector by which the queue tells them apart, and what the last model says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fewmark.data.images import read_image
from fewmark.project.embedding import embed
from fewmark.project.labels import Face, Labels
from fewmark.project.predictions import Predictions

if TYPE_CHECKING:
    from fewmark.inference.detector import Detector

Locate = Callable[[int], Path]
"""Number of an image -> its file."""


def embed_new(
    labels: Labels, predictions: Predictions, locate: Locate, load_embedder: Callable[[], Detector | None]
) -> int:
    """Give faces that have none yet their vector; the number of them.

    Args:
        labels: The project's.
        predictions: Keeps the vectors.
        locate: Number of an image -> its file.
        load_embedder: See `fewmark.project.embedding.embed`; called where there is such a face.
    """
    known = set(predictions.embedded())
    by_image: dict[int, list[Face]] = {}
    for face in labels.faces():
        if face.id not in known and face.box is not None:
            by_image.setdefault(face.image, []).append(face)
    if not by_image:
        return 0
    embedder = load_embedder()
    for image, faces in by_image.items():
        boxes = [f.box for f in faces if f.box is not None]
        vectors = embed(read_image(locate(image)), boxes, embedder)
        predictions.set_embeddings((f.id, v) for f, v in zip(faces, vectors, strict=True))
    return sum(len(faces) for faces in by_image.values())


def predict_new(
    labels: Labels, predictions: Predictions, locate: Locate, run: int, load_model: Callable[[], Detector]
) -> int:
    """Let a model predict the faces that it has not seen; the number of them.

    Args:
        labels: The project's.
        predictions: Keeps what the model says.
        locate: Number of an image -> its file.
        run: The number of the model's training.
        load_model: Called where there is such a face.
    """
    known = set(predictions.predicted(run))
    faces = [f for f in labels.faces() if f.id not in known and f.box is not None]
    if faces:
        from fewmark.project.training import predict_faces

        predictions.set_predictions(run, predict_faces(load_model(), faces, locate).each)
    return len(faces)
