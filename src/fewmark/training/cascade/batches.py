"""Batches of a stage's training crops, a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewmark.core.errors import InputError
from fewmark.core.geometry import Similarity
from fewmark.data.augment import Augmentation
from fewmark.data.batches import cut_ahead


@dataclass(frozen=True, eq=False)
class CropBatch:
    """What one training step sees.

    Attributes:
        images: (B, ...) uint8, crops or patches.
        targets: (B, ...) float32, NaN where missing.
    """

    images: NDArray[np.uint8]
    targets: NDArray[np.float32]


CutCrop = Callable[[int, np.random.Generator], tuple[NDArray[np.uint8], NDArray[np.float32]]]
"""Which face, and where its augmentation is drawn from -> one row of a batch."""


@dataclass(frozen=True, eq=False)
class CropBatches:
    """Epochs of batches.

    Attributes:
        n_faces: every one of them is seen once an epoch; the last batch is filled from the start.
        cut: makes one row.
        batch_size: of all processes together.
        seed: of shuffling and augmentation.
        rank, world_size: this process takes its slice of every batch.
        n_threads: that cut ahead of the training step; they change nothing.
    """

    n_faces: int
    cut: CutCrop
    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    n_threads: int = 1

    def __post_init__(self) -> None:
        if self.n_faces < 1 or self.batch_size < 1 or self.batch_size % self.world_size:
            raise InputError(
                f"CropBatches: expected at least one face and a batch size that is a multiple of the {self.world_size} "
                f"processes, given {self.n_faces} and {self.batch_size}"
            )

    def __len__(self) -> int:
        return -(-self.n_faces // self.batch_size)

    def __call__(self, epoch: int) -> Iterator[CropBatch]:
        """The batches of an epoch, cut ahead by threads."""
        permutation = np.random.default_rng([self.seed, epoch, 0]).permutation(self.n_faces)
        order = np.resize(permutation, (len(self), self.batch_size))
        part = self.batch_size // self.world_size
        first = self.rank * part
        jobs = [(order[b, first : first + part], b * self.batch_size + first) for b in range(len(order))]

        def cut(job: tuple[NDArray[np.int64], int]) -> CropBatch:
            indices, place = job
            rows = [
                self.cut(int(i), np.random.default_rng([self.seed, epoch, 1, place + row]))
                for row, i in enumerate(indices)
            ]
            return CropBatch(np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows]))

        yield from cut_ahead(cut, jobs, self.n_threads)


def jitter(augmentation: Augmentation, size: int) -> Similarity:
    """An augmentation's scale, turn and shift about the middle of a crop of `size` px: jittered_from_crop."""
    middle = np.full(2, (size - 1) / 2)
    a = augmentation
    return Similarity.about(middle, middle + np.array(a.shift) * size, scale=a.scale, angle=a.angle)


def turn_and_flip(angle: float, *, flip: bool) -> Similarity:
    """A turn about the image's corner, then, where asked for, the flip x -> -x: moved_from_image, see `move_face`."""
    turned = Similarity.about(np.zeros(2), np.zeros(2), angle=angle)
    return Similarity.flip(1.0) @ turned if flip else turned
